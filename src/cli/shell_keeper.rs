//! `gatescribe shell-keeper`: started by the gateway itself, never typed.

use std::ffi::OsString;
use std::process::ExitCode;

use super::fail;
use crate::upstream::shell::keeper::{self, Order};

/// Arguments of `gatescribe shell-keeper`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The gateway's process id
    #[arg(long)]
    gateway: i32,
    /// Standard input is a terminal
    #[arg(long)]
    tty: bool,
    /// The program, the name to run it under, and its arguments
    #[arg(last = true, required = true, num_args = 2..)]
    program: Vec<OsString>,
}

/// Keeps the shell. Comes back only when it could not be started.
pub fn run(args: Args) -> ExitCode {
    match keeper::run(&Order { gateway: args.gateway, tty: args.tty, program: args.program }) {
        Err(error) => fail(&error),
    }
}

//! `gatescribe shell-host`: started by the gateway itself for the built-in shell of `serve`, never typed.

use std::process::ExitCode;

use clap::ValueEnum;

use super::fail;
use crate::upstream::shell::{lending, lent, probe};

/// Arguments of `gatescribe shell-host`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What this process is
    #[arg(long)]
    role: Role,
    /// The users whom it may become
    #[arg(last = true)]
    users: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Starts keepers
    Helper,
    /// Keeps what one channel starts
    Keeper,
    /// Looks what a user could reach
    Probe,
}

/// Runs until the gateway, or the channel, is gone.
pub fn run(args: &Args) -> ExitCode {
    match args.role {
        Role::Helper => lending::run(&args.users).map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS),
        Role::Keeper => match lent::run(&args.users) {
            Err(error) => fail(&error),
        },
        Role::Probe => probe::run(),
    }
}

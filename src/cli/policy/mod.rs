//! `gatescribe policy`: what the policy says about somebody, and what other rules would have said in the past.

mod judge;
mod replay;
mod test;

use std::process::ExitCode;

pub(super) use self::judge::Judge;
pub(super) use self::replay::book;
use super::run_client;
use super::table::plain;

/// Arguments of `gatescribe policy`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe policy test --user alice@example.com --socket web-1 --action shell")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Would they get in, which rule decides, why not
    Test(Box<test::Args>),
    /// Which of the sessions in the log a configuration's rules would have refused
    Replay(replay::Args),
}

/// Runs the command that was typed.
pub fn run(args: Args) -> ExitCode {
    match args.command {
        Command::Test(args) => run_client(test::run(*args)),
        Command::Replay(args) => run_client(replay::run(args)),
    }
}

/// A table whose last column alone wraps. Cells are escaped before.
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = plain(header, |at| at + 1 == N);
    table.add_rows(rows);
    table.trim_fmt()
}

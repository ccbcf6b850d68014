//! The command line: one file per command. Nothing else knows the terminal.

mod config;
mod demo;
mod serve;
mod shell_keeper;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An identity-aware, recording access proxy
#[derive(Debug, Parser)]
#[command(name = "gatescribe", version, after_help = "Example: gatescribe demo", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The whole product on this machine, with nothing configured
    Demo(demo::Args),
    /// Run the gateway
    Serve(serve::Args),
    /// Check and show configurations
    Config(config::Args),
    /// Keep a built-in shell (started by the gateway itself)
    #[command(hide = true)]
    ShellKeeper(shell_keeper::Args),
}

/// Runs the command that was typed. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(&args),
        Command::Config(args) => config::run(args),
        Command::ShellKeeper(args) => shell_keeper::run(args),
    }
}

/// One clear line on standard error.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("gatescribe: {error}");
    ExitCode::FAILURE
}

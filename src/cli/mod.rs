//! The command line: one file per command. Nothing else knows the terminal.

mod against_live;
mod agent;
pub mod client;
mod config;
mod demo;
pub mod escape;
mod lock;
pub mod login;
pub mod logout;
mod policy;
pub mod profile;
mod serve;
pub mod sessions;
mod shell_host;
mod shell_keeper;
mod ssh;
mod ssh_config;
mod stage;
mod status;
mod table;
mod terminal_filter;
mod token;
mod unlock;
mod verify;

use std::io::{self, IsTerminal, Write};
use std::process::{ExitCode, Termination};

use clap::{Parser, Subcommand};
use jiff::Timestamp;
use jiff::tz::TimeZone;

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
    /// Sign in at a gateway with a browser
    Login(login::Args),
    /// Sign out
    Logout(logout::Args),
    /// Who is signed in, and until when
    Status(status::Args),
    /// Print a token for one socket, for a database password
    Token(token::Args),
    /// ssh to a socket, with everything set
    Ssh(ssh::Args),
    /// Print what makes plain ssh work
    SshConfig(ssh_config::Args),
    /// The session log: list, replay, end
    Sessions(sessions::Args),
    /// Ask the policy: would they get in, and what other rules would have refused
    Policy(policy::Args),
    /// Keep people, groups, networks or everybody out; list locks
    Lock(lock::Args),
    /// Take a lock off
    Unlock(unlock::Args),
    /// Check and show configurations
    Config(config::Args),
    /// Check recordings, without a gateway
    Verify(verify::Args),
    /// Keep a built-in shell (started by the gateway itself)
    #[command(hide = true)]
    ShellKeeper(shell_keeper::Args),
    /// Give others the built-in shell (started by the gateway itself)
    #[command(hide = true)]
    ShellHost(shell_host::Args),
}

/// Runs the command that was typed. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
pub fn run() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(args) => demo::run(args),
        Command::Serve(args) => serve::run(&args),
        Command::Login(args) => login::run(args),
        Command::Logout(args) => logout::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Ssh(args) => ssh::run(&args),
        Command::SshConfig(args) => ssh_config::run(&args),
        Command::Sessions(args) => sessions::run(args),
        Command::Policy(args) => policy::run(args),
        Command::Lock(args) => lock::run(&args),
        Command::Unlock(args) => unlock::run(&args),
        Command::Config(args) => config::run(args),
        Command::Verify(args) => verify::run(&args),
        Command::ShellKeeper(args) => shell_keeper::run(args),
        Command::ShellHost(args) => shell_host::run(&args),
    }
}

/// One clear line on standard error.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("gatescribe: {error}");
    ExitCode::FAILURE
}

/// What was typed does not make sense: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Runs a command that waits for the network, and says what went wrong in one line.
fn run_client<T: Termination>(command: impl Future<Output = anyhow::Result<T>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(done) => done.report(),
        // Whoever read the output has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) if error.is::<Usage>() => {
            fail(&error);
            ExitCode::from(2)
        }
        Err(error) => fail(&format_args!("{error:#}")),
    }
}

/// Prints to standard output. What comes from users or recordings is escaped before.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// A time as people here read it.
fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Whether to print colours: on a terminal, unless NO_COLOR (no-color.org) is set to anything.
fn has_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

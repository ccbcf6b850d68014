//! `gatescribe token`: a token for one socket, which is what goes into a database password.

use std::process::ExitCode;

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::client::{Client, Options};
use super::{print, run_client};

/// Arguments of `gatescribe token`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: gatescribe token --socket orders\n\nDatabase sockets, which take it as a password, come later."
)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// The socket that it is for
    #[arg(long, value_name = "NAME")]
    socket: String,
}

#[derive(Deserialize)]
struct Made {
    token: String,
}

/// Prints the token and nothing else. It counts from this address, for ten minutes to connect with.
pub fn run(args: &Args) -> ExitCode {
    run_client(async {
        let client = Client::open(&args.options)?;
        let wanted = json!({"socket": args.socket});
        let made: Made = client.send(Method::POST, "/api/v1/socket-tokens", Some(&wanted)).await?;
        print(&format!("{}\n", super::escape::line(&made.token)))
    })
}

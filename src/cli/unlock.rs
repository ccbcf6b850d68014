//! `gatescribe unlock`: takes a lock off.

use std::process::ExitCode;

use anyhow::bail;
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

use super::client::{Client, Options};
use super::lock::{List, Lock};
use super::{Usage, escape, print, run_client};

/// Arguments of `gatescribe unlock`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe unlock 019cb0e8-3d4e\n\n`gatescribe lock` lists the locks in force.")]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// The lock's id, or as much of its beginning as no other has
    id: String,
    /// The API's answer instead of words
    #[arg(long)]
    json: bool,
}

/// Takes it off.
pub fn run(args: &Args) -> ExitCode {
    run_client(unlock(args))
}

async fn unlock(args: &Args) -> anyhow::Result<()> {
    let typed = args.id.trim().to_ascii_lowercase();
    if typed.is_empty() || !typed.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
        return Err(Usage(format!("{} is no lock id; `gatescribe lock` lists them", escape::line(&args.id))).into());
    }
    let client = Client::open(&args.options)?;
    // A whole id needs no list, which not everybody who may unlock may see.
    let id = match typed.parse() {
        Ok(id) => id,
        Err(_) => find(&client.get_json::<List>("/api/v1/locks", &[]).await?.locks, &typed)?,
    };
    let answer: Value = client.send(Method::DELETE, &format!("/api/v1/lock/{id}"), None).await?;
    if args.json {
        return print(&format!("{}\n", escape::json(&answer)));
    }
    print(&format!("unlocked: {}\n", serde_json::from_value::<Lock>(answer)?.whom()))
}

fn find(locks: &[Lock], begun: &str) -> anyhow::Result<Uuid> {
    let mut found = locks.iter().map(|lock| lock.lock_id).filter(|id| id.to_string().starts_with(begun));
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => bail!("more than one lock begins with {begun}; give more of the id"),
        (None, _) => bail!("no lock in force begins with {begun}; `gatescribe lock` lists them"),
    }
}

//! The running ssh-agent, through the stock `ssh-add`. Without an agent there is nothing to do, and no error.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use jiff::SignedDuration;
use tokio::process::Command;
use tokio::time::timeout;

use super::escape;

/// Gives the key, and the certificate beside it, to the agent, which forgets them after this time.
pub(super) async fn add(key: &Path, lifetime: SignedDuration) -> anyhow::Result<()> {
    match is_running() {
        true => ssh_add(&["-q", "-t", &lifetime.as_secs().to_string()], key).await,
        false => Ok(()),
    }
}

/// Has the agent forget the key and its certificate. That it does not know them is no error.
pub(super) async fn remove(key: &Path) {
    if is_running() && key.exists() {
        let _unknown = ssh_add(&["-q", "-d"], key).await;
    }
}

fn is_running() -> bool {
    std::env::var_os("SSH_AUTH_SOCK").is_some_and(|path| !path.is_empty())
}

async fn ssh_add(arguments: &[&str], key: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("ssh-add");
    command.args(arguments).arg(key).stdin(Stdio::null()).env("SSH_ASKPASS_REQUIRE", "never").kill_on_drop(true);
    let done = timeout(LIMIT, command.output()).await.context("ssh-add does not end")?;
    let done = done.context("ssh-add does not start")?;
    match done.status.success() {
        true => Ok(()),
        false => bail!("{}", escape::line(String::from_utf8_lossy(&done.stderr).trim())),
    }
}

/// An agent may ask a person; nobody is asked for long.
const LIMIT: Duration = Duration::from_secs(10);

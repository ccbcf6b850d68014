//! `gatescribe logout`: ends the sign-in at the gateway, and removes what it wrote here. Which gateway it was, and the
//! authority pinned for it, stay: the next sign-in then meets the same one or says so.

use std::process::ExitCode;

use super::client::{http, pinned};
use super::login::revoke;
use super::profile::{Known, Profile, SIGN_IN_FILES, SSH_KEY, SignIn};
use super::{agent, local, print, run_client};

/// Arguments of `gatescribe logout`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe logout")]
pub struct Args {}

/// Signs out. Works without the gateway too; then the sign-in counts there until its own end.
pub fn run(_: &Args) -> ExitCode {
    run_client(logout())
}

async fn logout() -> anyhow::Result<()> {
    let profile = Profile::locate()?;
    if profile.known()?.is_none() {
        return print("Not signed in.\n");
    }
    let _lock = profile.lock(|| eprintln!("a sign-in on this machine is under way; waiting for it")).await?;
    let Some(known) = profile.known()? else { return print("Not signed in.\n") };
    if let Some(sign_in) = known.sign_in.as_ref().filter(|sign_in| sign_in.is_fresh())
        && let Err(why) = end(&profile, &known).await
    {
        let SignIn { sign_in_id, expires, .. } = sign_in;
        eprintln!("note: the gateway was not told: {why:#}");
        eprintln!("      there, sign-in {sign_in_id} counts until {}", local(*expires));
    }
    agent::remove(&profile.path(SSH_KEY)).await;
    let was = known.sign_in.is_some();
    profile.remember(&Known { sign_in: None, ..known })?;
    for name in SIGN_IN_FILES {
        profile.remove(name)?;
    }
    print(if was { "Signed out.\n" } else { "Not signed in.\n" })
}

async fn end(profile: &Profile, known: &Known) -> anyhow::Result<()> {
    let Some(token) = profile.token()? else { return Ok(()) };
    let base = known.url.parse()?;
    revoke(&http(&base, &pinned(profile, known)?)?, &base, &token).await
}

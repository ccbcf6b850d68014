//! `gatescribe status`: who is signed in, until when, and where the files are.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::client::{Client, Options, Refused};
use super::profile::{CA, GATEWAY, Known, Profile, SIGN_IN_FILES, SignIn};
use super::{escape, local, print, run_client, ssh_config};

/// Arguments of `gatescribe status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe status --json")]
pub struct Args {
    /// JSON instead of words
    #[arg(long)]
    json: bool,
}

/// Shows it. Exit code 1 when nobody is signed in, or the gateway does not take the sign-in any more.
pub fn run(args: &Args) -> ExitCode {
    run_client(status(args))
}

async fn status(args: &Args) -> anyhow::Result<ExitCode> {
    let profile = Profile::locate()?;
    let known = profile.known()?.unwrap_or_default();
    let sign_in = known.sign_in.as_ref().filter(|sign_in| sign_in.is_fresh());
    let accepted = match sign_in {
        Some(_) => ask().await,
        None => Accepted::No,
    };
    match args.json {
        true => print(&format!("{}\n", escape::json(&as_json(&profile, &known, &accepted))))?,
        false => print(&words(&profile, &known, sign_in, &accepted))?,
    }
    Ok(if matches!(accepted, Accepted::No) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the gateway says of the sign-in.
enum Accepted {
    Yes,
    No,
    Unknown(String),
}

async fn ask() -> Accepted {
    let asked = async { Client::open(&Options::default())?.get_json::<Value>("/api/v1/whoami", &[]).await };
    match asked.await {
        Ok(_) => Accepted::Yes,
        Err(error) if error.downcast_ref::<Refused>().is_some_and(|refused| refused.status.as_u16() == 401) => {
            Accepted::No
        }
        Err(error) => Accepted::Unknown(format!("{error:#}")),
    }
}

fn words(profile: &Profile, known: &Known, sign_in: Option<&SignIn>, accepted: &Accepted) -> String {
    let mut lines = Vec::new();
    if !known.url.is_empty() {
        let pinned = known.ca_sha256.as_ref().map(|print| format!(", authority pinned: SHA-256 {print}"));
        lines.push(format!("gateway    {}{}", known.url, pinned.unwrap_or_default()));
    }
    match (sign_in, &known.sign_in) {
        (Some(sign_in), _) => {
            let name = sign_in.name.as_ref().map(|name| format!(" ({})", escape::line(name))).unwrap_or_default();
            let (who, until) = (escape::line(&sign_in.email), local(sign_in.expires));
            lines.push(format!("signed in  {who}{name}, until {until}"));
            match accepted {
                Accepted::Yes => {}
                Accepted::No => lines.push("           but the gateway has ended it; run: gatescribe login".into()),
                Accepted::Unknown(why) => lines.push(format!("           the gateway was not asked: {why}")),
            }
            lines.push(format!("files      {}: {}", profile.path("").display(), files(profile).join(", ")));
            lines.push(format!("ssh        {}", ssh_config::command(profile, known)));
        }
        (None, Some(over)) => lines.push(format!(
            "signed in  no; that of {} ended at {}; run: gatescribe login",
            escape::line(&over.email),
            local(over.expires)
        )),
        (None, None) if known.url.is_empty() => {
            lines.push("signed in  no; run: gatescribe login --gateway https://…".into());
        }
        (None, None) => lines.push("signed in  no; run: gatescribe login".into()),
    }
    lines.join("\n") + "\n"
}

fn as_json(profile: &Profile, known: &Known, accepted: &Accepted) -> Value {
    let sign_in = known.sign_in.as_ref();
    json!({
        "gateway": (!known.url.is_empty()).then_some(&known.url),
        "ca_sha256": known.ca_sha256,
        "signed_in": sign_in.is_some_and(|sign_in| sign_in.expires > Timestamp::now()) && !matches!(accepted, Accepted::No),
        // Null: the gateway could not be asked.
        "accepted": match accepted { Accepted::Yes => Some(true), Accepted::No => Some(false), Accepted::Unknown(_) => None },
        "email": sign_in.map(|sign_in| &sign_in.email),
        "name": sign_in.and_then(|sign_in| sign_in.name.as_ref()),
        "sign_in_id": sign_in.map(|sign_in| sign_in.sign_in_id),
        "expires": sign_in.map(|sign_in| sign_in.expires),
        "directory": profile.path("").display().to_string(),
        "files": files(profile),
        "ssh": sign_in.map(|_| ssh_config::command(profile, known)),
    })
}

fn files(profile: &Profile) -> Vec<&'static str> {
    let all = [GATEWAY, CA].into_iter().chain(SIGN_IN_FILES);
    all.filter(|name| profile.path(name).exists()).collect()
}

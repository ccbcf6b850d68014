//! `gatescribe login`: a browser signs in at the gateway, and what it grants is written into the profile: a token, an
//! SSH certificate, an X.509 certificate. Keys are made here and stay here.
//!
//! One sign-in at a time on a machine: whoever comes second waits, and uses what the first one got.

mod browser;
mod device;
mod keys;
mod loopback;
mod oauth;
mod trust;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::timeout;

use self::keys::{Issued, Keys};
use self::oauth::Granted;
use self::trust::Met;
use super::client::{Client, Options, Refused, call, http, origin, pinned, read_json};
use super::profile::{self, Known, Profile, SSH_KEY, SignIn};
use super::{agent, escape, local, print, run_client, ssh_config};

/// Arguments of `gatescribe login`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe login --gateway https://access.example.com:8443\n\nThe files are in \
                         ~/.gatescribe, or where GATESCRIBE_HOME says. The password of client.p12 is: gatescribe")]
pub struct Args {
    /// The gateway [default: the one signed in to before]
    #[arg(long, value_name = "URL", env = "GATESCRIBE_GATEWAY", hide_env_values = true)]
    gateway: Option<String>,
    /// Trust this certificate authority (PEM) and pin it, without asking
    #[arg(long, value_name = "FILE", env = "GATESCRIBE_CA", hide_env_values = true)]
    ca: Option<PathBuf>,
    /// Sign in with a browser on another machine, where the gateway allows that to your groups
    #[arg(long)]
    device: bool,
    /// Only print the page's address
    #[arg(long)]
    no_browser: bool,
    /// Sign in anew, also while signed in; without a terminal, also as somebody else than before
    #[arg(long)]
    force: bool,
}

/// Signs in, unless somebody is signed in.
pub fn run(args: Args) -> ExitCode {
    run_client(login(args))
}

async fn login(args: Args) -> anyhow::Result<()> {
    let began = Timestamp::now();
    let profile = Profile::locate()?;
    let wait = || eprintln!("another sign-in on this machine is under way; waiting for it (Ctrl-C gives up)");
    let lock = profile.lock(wait).await?;
    let known = profile.known()?;
    let base = trust::gateway(args.gateway.as_deref(), known.as_ref())?;
    let before = known.clone();
    let known = known.filter(|known| known.url == origin(&base));
    let is_new = |sign_in: &SignIn| lock.waited && sign_in.created >= began;
    let usable = known.and_then(|known| Some((known.sign_in.clone()?, known)));
    if let Some((sign_in, known)) = usable.filter(|(sign_in, _)| sign_in.is_fresh() && (!args.force || is_new(sign_in)))
        && still_counts(&args).await?
    {
        return print(&format!("You are {}", told(&profile, &known, &sign_in)));
    }
    let met = trust::meet(&base, args.ca.as_deref(), &profile).await?;
    let granted = match args.device {
        true => device::sign_in(&met).await?,
        false => browser::sign_in(&met, !args.no_browser).await?,
    };
    // Read now: what is written next takes its place.
    let earlier = Earlier::of(&profile, before.as_ref(), &met);
    let kept = async {
        agreed(before.as_ref().and_then(|known| known.sign_in.as_ref()), &granted, args.force)?;
        keep(&profile, &met, &granted).await
    };
    let known = match kept.await {
        Ok(known) => known,
        Err(error) => {
            // Nobody holds it now; it need not count for the rest of the day. What failed first is what matters.
            let _ = revoke(&met.http, &met.base, &granted.access_token).await;
            return Err(error);
        }
    };
    earlier.end().await;
    let sign_in = known.sign_in.as_ref().context("the sign-in was not written")?;
    add_to_agent(&profile, sign_in).await;
    print(&format!("You are {}", told(&profile, &known, sign_in)))
}

/// Whether the gateway still takes the profile's token.
async fn still_counts(args: &Args) -> anyhow::Result<bool> {
    let options = Options { gateway: args.gateway.clone(), ca: args.ca.clone(), token_file: None };
    let Ok(client) = Client::open(&options) else { return Ok(false) };
    match client.get_json::<Value>("/api/v1/whoami", &[]).await {
        Ok(_) => Ok(true),
        Err(error) => match error.downcast::<Refused>() {
            Ok(refused) if refused.status.as_u16() == 401 => Ok(false),
            Ok(refused) => Err(refused.into()),
            Err(error) => Err(error),
        },
    }
}

/// Has a person agree that it is somebody else than before who signed in: that is how it looks when the browser, or the page
/// that it was led to, is another's, and what is typed from then on goes there in their name.
fn agreed(before: Option<&SignIn>, granted: &Granted, force: bool) -> anyhow::Result<()> {
    let Some(before) = before.filter(|before| !before.email.eq_ignore_ascii_case(&granted.email)) else {
        return Ok(());
    };
    let (was, is) = (escape::line(&before.email), escape::line(&granted.email));
    if !has_terminal() {
        ensure!(
            force,
            "{is} signed in, but {was} did before, and there is no terminal to ask at, so nothing was changed; if that \
             is right, run: gatescribe login --force"
        );
        return Ok(());
    }
    eprint!("\n{is} signed in, but {was} did before. Go on as {is}? [yes/no] ");
    if says_yes()? { Ok(()) } else { bail!("the new sign-in was ended, and nothing was changed") }
}

/// Whether there is a person to ask.
fn has_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn says_yes() -> io::Result<bool> {
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "yes" | "y"))
}

/// Makes keys, has them certified, and writes everything.
async fn keep(profile: &Profile, met: &Met, granted: &Granted) -> anyhow::Result<Known> {
    let keys = Keys::make(&granted.email)?;
    let wanted = json!({"ssh_public_key": keys.ssh_public_key()?, "x509_csr": keys.csr()?});
    let request = met.http.request(Method::POST, met.base.join("/api/v1/credentials")?);
    let request = request.bearer_auth(granted.access_token.expose_secret()).json(&wanted);
    let issued: Issued = read_json(&met.base, call(&met.base, request).await?).await?;
    let files = keys.files(&issued)?;

    // The old key's file is still there, by which the agent knows what to forget.
    agent::remove(&profile.path(SSH_KEY)).await;
    let mut known = Known { url: origin(&met.base), ca_sha256: met.pinned()?, ssh_port: met.ssh_port, sign_in: None };
    match met.authority() {
        Some(pem) => profile.write(profile::CA, pem)?,
        None => profile.remove(profile::CA)?,
    }
    profile.remember(&known)?;
    profile.write(profile::TOKEN, format!("{}\n", granted.access_token.expose_secret()).as_bytes())?;
    for (name, content) in &files {
        profile.write(name, content)?;
    }
    known.sign_in = Some(SignIn {
        email: granted.email.clone(),
        name: granted.name.clone(),
        sign_in_id: granted.sign_in_id,
        created: Timestamp::now(),
        expires: issued.expires,
    });
    profile.remember(&known)?;
    Ok(known)
}

/// The sign-in whose place a new one takes. It ends too: nobody holds it any more, or somebody does who should not.
enum Earlier {
    None,
    Held { base: Url, http: reqwest::Client, token: SecretString, expires: Timestamp },
    Lost(anyhow::Error),
}

impl Earlier {
    fn of(profile: &Profile, known: Option<&Known>, met: &Met) -> Self {
        let fresh = |known: &Known| Some(known.sign_in.as_ref().filter(|sign_in| sign_in.is_fresh())?.expires);
        let Some((known, expires)) = known.and_then(|known| Some((known, fresh(known)?))) else { return Self::None };
        let held = || -> anyhow::Result<Self> {
            let Some(token) = profile.token()? else { return Ok(Self::None) };
            let base = known.url.parse()?;
            let http = match known.url == origin(&met.base) {
                true => met.http.clone(),
                false => http(&base, &pinned(profile, known)?)?,
            };
            Ok(Self::Held { base, http, token, expires })
        };
        held().unwrap_or_else(Self::Lost)
    }

    /// The new one counts whether this works or not.
    async fn end(self) {
        let why = match self {
            Self::None => return,
            Self::Lost(why) => why,
            Self::Held { base, http, token, expires } => match timeout(END, revoke(&http, &base, &token)).await {
                Ok(Ok(())) => return,
                Ok(Err(why)) => why.context(format!("it counts until {}", local(expires))),
                Err(_elapsed) => anyhow::anyhow!("{} does not answer", origin(&base)),
            },
        };
        eprintln!("note: the earlier sign-in was not ended: {why:#}");
    }
}

/// Ends a sign-in at the gateway (RFC 7009).
pub(super) async fn revoke(http: &reqwest::Client, base: &Url, token: &SecretString) -> anyhow::Result<()> {
    let form = [("token", token.expose_secret()), ("client_id", oauth::CLIENT)];
    let request = oauth::form(http.post(base.join("/oauth/revoke")?), &form);
    call(base, request).await.map(drop)
}

/// The certificate also goes to a running agent, for as long as it counts.
async fn add_to_agent(profile: &Profile, sign_in: &SignIn) {
    let lifetime = sign_in.expires.duration_since(Timestamp::now());
    if let Err(why) = agent::add(&profile.path(SSH_KEY), lifetime.max(SignedDuration::from_secs(1))).await {
        eprintln!("note: the ssh-agent did not take the certificate: {why:#}");
    }
}

/// What a person wants to know once signed in.
fn told(profile: &Profile, known: &Known, sign_in: &SignIn) -> String {
    let (url, who, until) = (&known.url, escape::line(&sign_in.email), local(sign_in.expires));
    let ssh = ssh_config::command(profile, known);
    format!(
        "signed in to {url} as {who} until {until}.\n\n    {ssh}\n\n\
         The same, shorter: gatescribe ssh SOCKET\n\
         For plain ssh SOCKET: gatescribe ssh-config >> ~/.ssh/config\n"
    )
}

/// The longest that ending the earlier sign-in may take.
const END: Duration = Duration::from_secs(10);

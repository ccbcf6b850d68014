//! `gatescribe ssh-config`: what makes plain `ssh`, and all that uses it, work with the names of sockets; and the same as one
//! command line.
//!
//! A socket with a login of its own is asked for by a user name at the gateway. One that leaves the login to its user is a
//! host behind the gateway (`ProxyJump`), so that `ssh LOGIN@SOCKET` says both.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use reqwest::Url;
use serde::Deserialize;

use super::client::{Client, Options};
use super::profile::{KNOWN_HOSTS, Known, Profile, SSH_CERTIFICATE, SSH_KEY};
use super::ssh::Destination;
use super::{print, run_client};

/// Arguments of `gatescribe ssh-config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe ssh-config >> ~/.ssh/config; ssh web-1; scp notes.txt web-1:\n\n\
    A socket that leaves the login to you is a host like any: ssh deploy@web-2. With one login for good: \
    gatescribe ssh-config deploy@web-2 >> ~/.ssh/config; ssh web-2")]
pub struct Args {
    /// Only these [default: all that you may reach]
    #[arg(value_name = "[LOGIN@]SOCKET")]
    sockets: Vec<Destination>,
}

/// The authority that a sign-in left vouches for the gateway's host key, and nothing else does: by default `ssh` asks about
/// a strange key, and people say yes.
const ONLY_OURS: [(&str, &str); 2] = [("GlobalKnownHostsFile", "none"), ("StrictHostKeyChecking", "yes")];

/// The name by which `ssh` then knows the gateway.
pub(super) const ALIAS: &str = "gatescribe";

/// As whom the gateway is passed on the way to a host behind it. Not as who one is on this machine, which may be the name of a
/// socket; this can be none.
const PASSING: &str = "_";

/// A socket that the caller may reach, as the gateway tells it.
#[derive(Clone, Debug, Deserialize)]
struct Reachable {
    socket_name: String,
    session_type: String,
    /// Older gateways do not say.
    #[serde(default)]
    needs_login: bool,
}

/// Prints a block for `~/.ssh/config`. It stays right over later sign-ins, and where sockets are taken away; for new ones
/// it is printed again.
pub fn run(args: &Args) -> ExitCode {
    run_client(async {
        let profile = Profile::locate()?;
        let known = profile.known()?.context("you are not signed in; run: gatescribe login --gateway https://…")?;
        let reachable = match reachable().await {
            Ok(reachable) => Some(reachable),
            // The gateway's own name works without it.
            Err(why) => {
                eprintln!("note: the gateway did not tell which sockets you may reach: {why:#}");
                None
            }
        };
        print(&block(&profile, &known, &Hosts::choose(&args.sockets, reachable)?)?)
    })
}

/// The command line that reaches a socket.
pub(super) fn command(profile: &Profile, known: &Known) -> String {
    let (host, port) = place(known);
    let (key, hosts) = (shell(&profile.path(SSH_KEY)), shell(&profile.path(KNOWN_HOSTS)));
    let ours = ONLY_OURS.map(|(name, value)| format!("-o {name}={value}")).join(" ");
    format!("ssh -p {port} -i {key} -o UserKnownHostsFile={hosts} {ours} SOCKET@{host}")
}

/// Everything that `ssh` has to know of the gateway, as its configuration takes it.
pub(super) fn settings(profile: &Profile, known: &Known) -> anyhow::Result<Vec<(&'static str, String)>> {
    let (host, port) = place(known);
    let mut settings = vec![
        ("HostName", host),
        ("Port", port.to_string()),
        ("IdentityFile", quoted(&profile.path(SSH_KEY))?),
        ("CertificateFile", quoted(&profile.path(SSH_CERTIFICATE))?),
        ("IdentitiesOnly", "yes".to_owned()),
        ("UserKnownHostsFile", quoted(&profile.path(KNOWN_HOSTS))?),
    ];
    settings.extend(ONLY_OURS.map(|(name, value)| (name, value.to_owned())));
    // An agent goes nowhere by a setting for all hosts; `ssh -A` asks for it.
    settings.push(("ForwardAgent", "no".to_owned()));
    Ok(settings)
}

/// What becomes a host of its own.
#[derive(Debug, Default, PartialEq)]
struct Hosts {
    named: Vec<Destination>,
    /// Whose login is said each time.
    free: Vec<String>,
}

impl Hosts {
    /// Those that were asked for, or all. Without the gateway's word, whoever asks is believed.
    fn choose(wanted: &[Destination], reachable: Option<Vec<Reachable>>) -> anyhow::Result<Self> {
        // What comes from the gateway is written into a file that can name programs to run: names are names or nothing.
        let told = reachable.as_ref().map(|all| {
            let ssh = all.iter().filter(|socket| socket.session_type == "ssh");
            ssh.filter_map(|socket| Some((socket.socket_name.parse::<Destination>().ok()?, socket.needs_login)))
                .filter_map(|(name, needs_login)| name.login.is_none().then_some((name.socket, needs_login)))
                .collect::<BTreeMap<_, _>>()
        });
        let mut hosts = Self::default();
        for Destination { login, socket } in wanted {
            let needs_login = match &told {
                Some(told) => *told.get(socket).with_context(|| no_such(socket))?,
                None => login.is_some(),
            };
            match (needs_login, login) {
                (true, None) => hosts.free.push(socket.clone()),
                (false, Some(_)) => bail!("the login of {socket} is fixed; name it as {socket} alone"),
                _ => hosts.named.push(Destination { login: login.clone(), socket: socket.clone() }),
            }
        }
        if wanted.is_empty() {
            for (socket, needs_login) in told.unwrap_or_default() {
                match needs_login {
                    true => hosts.free.push(socket),
                    false => hosts.named.push(Destination { login: None, socket }),
                }
            }
        }
        Ok(hosts)
    }
}

fn no_such(socket: &str) -> String {
    format!("there is no socket {socket} for ssh, or you may not reach it")
}

async fn reachable() -> anyhow::Result<Vec<Reachable>> {
    #[derive(Deserialize)]
    struct List {
        sockets: Vec<Reachable>,
    }
    let list: List = Client::open(&Options::default())?.get_json("/api/v1/sockets", &[]).await?;
    Ok(list.sockets)
}

fn block(profile: &Profile, known: &Known, hosts: &Hosts) -> anyhow::Result<String> {
    let (host, _) = place(known);
    let mut text = format!("# Gatescribe at {}: ssh SOCKET, ssh [LOGIN@]SOCKET@{ALIAS}\n", known.url);
    let is_ours = |socket: &str| socket != ALIAS && socket != "localhost";
    let free: Vec<&str> = hosts.free.iter().map(String::as_str).filter(|socket| is_ours(socket)).collect();
    let domain = fs::read_to_string(profile.path(KNOWN_HOSTS)).ok().and_then(|hosts| domain(&hosts));
    match domain {
        Some(domain) if !free.is_empty() => text.push_str(&behind(profile, &free, &domain)?),
        Some(_) => {}
        None => free.iter().for_each(|socket| {
            let line = format!(
                "# {socket} wants a login: ssh LOGIN@{socket}@{ALIAS}, or gatescribe ssh-config LOGIN@{socket}\n"
            );
            text.push_str(&line);
        }),
    }
    let mut names = vec![ALIAS];
    // A block for localhost would get in the way of everything else there.
    if host != "localhost" && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()) {
        names.push(&host);
    }
    for to in hosts.named.iter().filter(|to| is_ours(&to.socket)) {
        text.push_str(&format!("Host {}\n    User {}\n", to.socket, to.user()));
        names.push(&to.socket);
    }
    text.push_str(&format!("Host {}\n", names.join(" ")));
    for (name, value) in settings(profile, known)? {
        text.push_str(&format!("    {name} {value}\n"));
    }
    Ok(text)
}

/// Hosts behind the gateway. Who one is goes with the way there, so no key is shown to them.
fn behind(profile: &Profile, sockets: &[&str], domain: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    for socket in sockets {
        // The name in the gateway's own domain, because its authority vouches for new sockets too by that.
        text.push_str(&format!("# ssh LOGIN@{socket}\nHost {socket}\n    HostName {socket}.{domain}\n"));
    }
    text.push_str(&format!("Host {}\n    ProxyJump {PASSING}@{ALIAS}\n", sockets.join(" ")));
    text.push_str(&format!("    UserKnownHostsFile {}\n", quoted(&profile.path(KNOWN_HOSTS))?));
    for (name, value) in ONLY_OURS.into_iter().chain([("ForwardAgent", "no")]) {
        text.push_str(&format!("    {name} {value}\n"));
    }
    Ok(text)
}

/// The gateway's domain, as its authority vouches for all hosts in it.
fn domain(known_hosts: &str) -> Option<String> {
    let of_authority = known_hosts.lines().filter_map(|line| line.strip_prefix("@cert-authority ")?.split(' ').next());
    let mut domains = of_authority.flat_map(|patterns| patterns.split(',')).filter_map(|name| name.strip_prefix("*."));
    let is_name = |name: &str| name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_of_a_host);
    domains.find(|name| is_name(name)).map(str::to_owned)
}

fn is_of_a_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '.' || c == '-'
}

/// Where SSH is. The host is that of the URL, which was parsed; nothing else of it comes from outside.
fn place(known: &Known) -> (String, u16) {
    let url: Option<Url> = known.url.parse().ok();
    let host = url.as_ref().and_then(Url::host_str).unwrap_or("localhost");
    (host.trim_matches(['[', ']']).to_owned(), known.ssh_port.unwrap_or(2222))
}

/// A path as OpenSSH's configuration takes it; `%` begins a token there.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().filter(|text| !text.chars().any(|c| c == '"' || c.is_control()));
    match text {
        Some(text) => Ok(format!("\"{}\"", text.replace('%', "%%"))),
        None => bail!("{path:?} cannot be written in ssh's configuration; choose another directory in GATESCRIBE_HOME"),
    }
}

/// A path as a shell takes it.
fn shell(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@".contains(c));
    if is_plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(url: &str, ssh_port: Option<u16>) -> Known {
        Known { url: url.into(), ssh_port, ..Known::default() }
    }

    #[test]
    fn ssh_goes_where_the_gateway_is() {
        let table = [
            (known("https://access.example.com:8443", Some(22)), ("access.example.com", 22)),
            (known("https://access.example.com", None), ("access.example.com", 2222)),
            (known("https://[2001:db8::1]:8443", Some(2222)), ("2001:db8::1", 2222)),
        ];
        for (known, (host, port)) in table {
            assert_eq!(place(&known), (host.to_owned(), port));
        }
    }

    fn to(typed: &str) -> Destination {
        typed.parse().unwrap()
    }

    fn told() -> Option<Vec<Reachable>> {
        let socket = |name: &str, session_type: &str, needs_login| Reachable {
            socket_name: name.into(),
            session_type: session_type.into(),
            needs_login,
        };
        Some(vec![
            socket("web", "ssh", false),
            socket("db", "ssh", true),
            socket("orders", "database", false),
            socket("x\n    ProxyCommand y", "ssh", false),
            socket("a@b", "ssh", false),
        ])
    }

    #[test]
    fn sockets_are_hosts_with_a_login_or_for_any() {
        let hosts = |named: &[&str], free: &[&str]| Hosts {
            named: named.iter().copied().map(to).collect(),
            free: free.iter().map(|name| (*name).to_owned()).collect(),
        };
        for (wanted, told, expected) in [
            (vec![], told(), Ok(hosts(&["web"], &["db"]))),
            (vec![to("me@db"), to("web")], told(), Ok(hosts(&["me@db", "web"], &[]))),
            (vec![to("db")], told(), Ok(hosts(&[], &["db"]))),
            (vec![to("me@web")], told(), Err("the login of web is fixed")),
            (vec![to("orders")], told(), Err("there is no socket orders")),
            (vec![to("none")], told(), Err("there is no socket none")),
            (vec![], None, Ok(hosts(&[], &[]))),
            (vec![to("me@db"), to("web")], None, Ok(hosts(&["me@db", "web"], &[]))),
        ] {
            match (Hosts::choose(&wanted, told), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(words)) => assert!(found.to_string().starts_with(words), "{found}"),
                (found, expected) => panic!("{found:?} where {expected:?} was expected"),
            }
        }
    }

    #[test]
    fn the_domain_is_what_the_authority_vouches_for() {
        for (known_hosts, expected) in [
            ("@cert-authority a,[a]:*,*.a.example.com,[*.a.example.com]:*,b K\n", Some("a.example.com")),
            ("a.example.com K\n@cert-authority *.localhost K", Some("localhost")),
            ("*.elsewhere.example.com K\n", None),
            ("@cert-authority a.example.com K\n", None),
            ("@cert-authority *.a\tb,*.-x,*.x%h,* K\n", None),
            ("", None),
        ] {
            assert_eq!(domain(known_hosts).as_deref(), expected, "{known_hosts}");
        }
    }

    #[test]
    fn who_is_passed_as_can_be_no_socket() {
        assert!(crate::config::label(PASSING).is_err());
    }

    #[test]
    fn paths_are_quoted_for_whom_they_are_for() {
        assert_eq!(quoted(Path::new("/a b/100%/k")).unwrap(), "\"/a b/100%%/k\"");
        assert!(quoted(Path::new("/a\"b")).is_err() && quoted(Path::new("/a\nb")).is_err());
        assert_eq!(shell(Path::new("/home/a/.gatescribe/k")), "/home/a/.gatescribe/k");
        assert_eq!(shell(Path::new("/it's/k")), "'/it'\\''s/k'");
    }
}

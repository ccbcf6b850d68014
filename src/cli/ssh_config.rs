//! `gatescribe ssh-config`: what makes plain `ssh` work, and the same as one command line.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use reqwest::Url;

use super::profile::{KNOWN_HOSTS, Known, Profile, SSH_CERTIFICATE, SSH_KEY};
use super::{print, run_client};

/// Arguments of `gatescribe ssh-config`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe ssh-config >> ~/.ssh/config; ssh shell@gatescribe")]
pub struct Args {}

/// The authority that a sign-in left vouches for the gateway's host key, and nothing else does: by default `ssh` asks about
/// a strange key, and people say yes.
const ONLY_OURS: [(&str, &str); 2] = [("GlobalKnownHostsFile", "none"), ("StrictHostKeyChecking", "yes")];

/// The name by which `ssh` then knows the gateway.
pub(super) const ALIAS: &str = "gatescribe";

/// Prints a block for `~/.ssh/config`. It stays right over later sign-ins.
pub fn run(_: &Args) -> ExitCode {
    run_client(async {
        let profile = Profile::locate()?;
        let known = profile.known()?.context("you are not signed in; run: gatescribe login --gateway https://…")?;
        print(&block(&profile, &known)?)
    })
}

/// The command line that reaches a socket.
pub(super) fn command(profile: &Profile, known: &Known) -> String {
    let (host, port) = place(known);
    let (key, hosts) = (shell(&profile.path(SSH_KEY)), shell(&profile.path(KNOWN_HOSTS)));
    let ours = ONLY_OURS.map(|(name, value)| format!("-o {name}={value}")).join(" ");
    format!("ssh -p {port} -i {key} -o UserKnownHostsFile={hosts} {ours} SOCKET@{host}")
}

fn block(profile: &Profile, known: &Known) -> anyhow::Result<String> {
    let (host, port) = place(known);
    // A block for localhost would get in the way of everything else there.
    let is_local = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let hosts = if is_local { ALIAS.to_owned() } else { format!("{ALIAS} {host}") };
    let (key, certificate) = (quoted(&profile.path(SSH_KEY))?, quoted(&profile.path(SSH_CERTIFICATE))?);
    let known_hosts = quoted(&profile.path(KNOWN_HOSTS))?;
    let ours = ONLY_OURS.map(|(name, value)| format!("    {name} {value}\n")).concat();
    Ok(format!(
        "# Gatescribe at {}: ssh SOCKET@{ALIAS}\nHost {hosts}\n    HostName {host}\n    Port {port}\n    \
         IdentityFile {key}\n    CertificateFile {certificate}\n    IdentitiesOnly yes\n    \
         UserKnownHostsFile {known_hosts}\n{ours}",
        known.url
    ))
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

    #[test]
    fn paths_are_quoted_for_whom_they_are_for() {
        assert_eq!(quoted(Path::new("/a b/100%/k")).unwrap(), "\"/a b/100%%/k\"");
        assert!(quoted(Path::new("/a\"b")).is_err() && quoted(Path::new("/a\nb")).is_err());
        assert_eq!(shell(Path::new("/home/a/.gatescribe/k")), "/home/a/.gatescribe/k");
        assert_eq!(shell(Path::new("/it's/k")), "'/it'\\''s/k'");
    }
}

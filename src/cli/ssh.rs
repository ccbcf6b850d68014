//! `gatescribe ssh`: the stock `ssh` with everything set. It takes this process's place, so that terminal, signals and exit
//! code are its own.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::str::FromStr;

use anyhow::{anyhow, bail};

use super::profile::{Profile, SSH_CERTIFICATE, SSH_KEY};
use super::{escape, fail, local, ssh_config};
use crate::config::label;

/// Arguments of `gatescribe ssh`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: gatescribe ssh web-1\n         gatescribe ssh deploy@web-2 -- -L 8080:localhost:80 uptime"
)]
pub struct Args {
    /// The socket, with a login where it wants one
    #[arg(value_name = "[LOGIN@]SOCKET")]
    to: Destination,
    /// What ssh is given beside: options, a command
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// A socket as a person names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// The login at the upstream, where the socket leaves it to its user.
    pub login: Option<String>,
    /// The socket's name.
    pub socket: String,
}

impl FromStr for Destination {
    type Err = String;

    /// Takes only what means nothing else to `ssh`, to its configuration, or to a shell that it starts.
    fn from_str(typed: &str) -> Result<Self, String> {
        let (login, socket) = match typed.rsplit_once('@') {
            Some((login, socket)) => (Some(login.to_owned()), socket),
            None => (None, typed),
        };
        if let Some(login) = &login
            && (login.is_empty() || login.starts_with('-') || !login.chars().all(is_of_a_login))
        {
            return Err("a login is of letters, digits and . _ + @ - (which is not the first)".into());
        }
        let socket = label(socket).map_err(|_| "a socket's name is of lower-case letters, digits and inner hyphens")?;
        Ok(Self { login, socket })
    }
}

impl Destination {
    /// The user name by which the gateway is asked for it.
    pub(super) fn user(&self) -> String {
        match &self.login {
            Some(login) => format!("{login}@{}", self.socket),
            None => self.socket.clone(),
        }
    }
}

fn is_of_a_login(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._+@-".contains(c)
}

/// Becomes `ssh`; comes back only if that fails.
pub fn run(args: &Args) -> ExitCode {
    match command(args) {
        Ok(mut ssh) => {
            let error = ssh.exec();
            fail(&match error.kind() {
                io::ErrorKind::NotFound => anyhow!("there is no ssh here; install the OpenSSH client"),
                _ => anyhow!("ssh does not start: {error}"),
            })
        }
        Err(error) => fail(&format_args!("{error:#}")),
    }
}

/// What the person's own configuration says stays in force, but for what is set here: `ssh` takes the first word.
fn command(args: &Args) -> anyhow::Result<Command> {
    let profile = Profile::locate()?;
    let Some(known) = profile.known()? else {
        bail!("you are not signed in; run: gatescribe login --gateway https://…");
    };
    match &known.sign_in {
        None => bail!("you are not signed in; run: gatescribe login"),
        Some(sign_in) if !sign_in.is_fresh() => {
            bail!("your sign-in ended at {}; run: gatescribe login", escape::line(&local(sign_in.expires)))
        }
        Some(_) => {}
    }
    if [SSH_KEY, SSH_CERTIFICATE].iter().any(|name| !profile.path(name).exists()) {
        bail!("the sign-in's key for ssh is gone; run: gatescribe login --force");
    }
    let mut ssh = Command::new("ssh");
    for (name, value) in ssh_config::settings(&profile, &known)? {
        ssh.arg("-o").arg(format!("{name}={value}"));
    }
    ssh.arg("-o").arg(format!("User={}", args.to.user())).arg(ssh_config::ALIAS).args(&args.args);
    Ok(ssh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_sockets_with_or_without_a_login() {
        for (typed, login, socket) in [
            ("web-1", None, "web-1"),
            ("deploy@web-1", Some("deploy"), "web-1"),
            ("a.b_c+d-e@web", Some("a.b_c+d-e"), "web"),
            ("alice@corp@web", Some("alice@corp"), "web"),
        ] {
            let read: Destination = typed.parse().unwrap();
            assert_eq!((read.login.as_deref(), read.socket.as_str()), (login, socket));
            assert_eq!(read.user(), typed);
        }
    }

    #[test]
    fn what_means_something_to_ssh_is_none() {
        for typed in [
            "",
            "@web",
            "-web",
            "-oProxyCommand=x",
            "-oProxyCommand=x@web",
            "Web",
            "web.example.com",
            "web/x",
            "web\nProxyCommand x",
            "a b@web",
            "a\"@web",
            "a\n@web",
            "%h@web",
            "${HOME}@web",
            "a;b@web",
            "a\\b@web",
            "grün@web",
            "web@",
        ] {
            assert!(typed.parse::<Destination>().is_err(), "{typed:?}");
        }
    }
}

//! Actions as people type them when they ask what a policy says.

use super::{Action, Destination};

/// This is no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an action is connect, shell, exec COMMAND, sftp read, sftp write, forward HOST:PORT, forward-opaque HOST:PORT, \
     forward-from HOST:PORT, agent or x11"
)]
pub struct NoAction;

impl Action {
    /// `shell`, `exec uptime`, `sftp read`, `forward 10.0.0.1:443`. Only to connect is there a login in it.
    pub fn asked(text: &str, login: Option<&str>) -> Result<Self, NoAction> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match (word, rest.trim()) {
            ("connect", "") => Ok(Self::Connect { login: login.map(str::to_owned) }),
            ("shell", "") => Ok(Self::SshShell),
            ("exec", command) if !command.is_empty() => Ok(Self::SshExec { command: command.as_bytes().to_vec() }),
            ("sftp", "read") => Ok(Self::SshFiles { write: false }),
            ("sftp", "write") => Ok(Self::SshFiles { write: true }),
            ("forward", to) => destination(to).map(|to| Self::SshForwardTo { to, opaque: false }),
            ("forward-opaque", to) => destination(to).map(|to| Self::SshForwardTo { to, opaque: true }),
            ("forward-from", at) => destination(at).map(|at| Self::SshForwardFrom { at, opaque: false }),
            ("agent", "") => Ok(Self::SshAgent),
            ("x11", "") => Ok(Self::SshX11),
            _ => Err(NoAction),
        }
    }
}

fn destination(text: &str) -> Result<Destination, NoAction> {
    Destination::parse(text).map_err(|_| NoAction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_an_action_or_an_error() {
        let tcp = |host: &str, port| Destination::Tcp { host: host.into(), port };
        let to = |host: &str, port| Action::SshForwardTo { to: tcp(host, port), opaque: false };
        let table = [
            ("connect", Action::Connect { login: Some("deploy".into()) }),
            (" shell ", Action::SshShell),
            ("exec  systemctl status 'a b'", Action::SshExec { command: b"systemctl status 'a b'".to_vec() }),
            ("sftp read", Action::SshFiles { write: false }),
            ("sftp  write", Action::SshFiles { write: true }),
            ("forward 10.0.0.1:443", to("10.0.0.1", 443)),
            ("forward [2001:db8::1]:443", to("2001:db8::1", 443)),
            ("forward-opaque db:22", Action::SshForwardTo { to: tcp("db", 22), opaque: true }),
            ("forward /run/a b", Action::SshForwardTo { to: Destination::Path("/run/a b".into()), opaque: false }),
            ("forward-from 0.0.0.0:0", Action::SshForwardFrom { at: tcp("0.0.0.0", 0), opaque: false }),
            ("agent", Action::SshAgent),
            ("x11", Action::SshX11),
        ];
        for (text, action) in table {
            assert_eq!(Action::asked(text, Some("deploy")), Ok(action), "{text}");
        }
        for text in ["", "exec", "exec ", "sftp", "sftp delete", "shell now", "forward", "forward a", "forward :1"] {
            assert_eq!(Action::asked(text, None), Err(NoAction), "{text}");
        }
    }
}

//! Actions as people type them when they ask what a policy says.

use super::Action;

/// This is no action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an action is connect, shell, exec COMMAND, sftp read, sftp write, forward HOST:PORT, forward-from HOST:PORT, \
     agent or x11"
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
            ("forward", to) => host_port(to).map(|(host, port)| Self::SshForwardTo { host, port }),
            ("forward-from", from) => host_port(from).map(|(host, port)| Self::SshForwardFrom { host, port }),
            ("agent", "") => Ok(Self::SshAgent),
            ("x11", "") => Ok(Self::SshX11),
            _ => Err(NoAction),
        }
    }
}

/// `10.0.0.1:443`, `db.example.com:5432`, `[2001:db8::1]:443`.
fn host_port(text: &str) -> Result<(String, u16), NoAction> {
    let (host, port) = text.rsplit_once(':').ok_or(NoAction)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match port.parse() {
        Ok(port) if !bare.is_empty() => Ok((bare.to_owned(), port)),
        _ => Err(NoAction),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_type_is_an_action_or_an_error() {
        let to = |host: &str, port| Action::SshForwardTo { host: host.into(), port };
        let table = [
            ("connect", Action::Connect { login: Some("deploy".into()) }),
            (" shell ", Action::SshShell),
            ("exec  systemctl status 'a b'", Action::SshExec { command: b"systemctl status 'a b'".to_vec() }),
            ("sftp read", Action::SshFiles { write: false }),
            ("sftp  write", Action::SshFiles { write: true }),
            ("forward 10.0.0.1:443", to("10.0.0.1", 443)),
            ("forward [2001:db8::1]:443", to("2001:db8::1", 443)),
            ("forward-from 0.0.0.0:0", Action::SshForwardFrom { host: "0.0.0.0".into(), port: 0 }),
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

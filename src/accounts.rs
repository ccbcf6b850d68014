//! Users of this host, as its own databases tell of them (passwd(5), getent(1)). Says who somebody is; becomes nobody.
//!
//! The file is asked first and `getent` second, so that users of a directory service are found too.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Where users of this host stand.
const PASSWD: &str = "/etc/passwd";

/// Where groups of this host stand.
const GROUP: &str = "/etc/group";

/// Where `getent` is.
const GETENT: [&str; 2] = ["/usr/bin/getent", "/bin/getent"];

/// How long a directory service may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Most bytes that are read of a database.
const MAX_READ: u64 = 16 << 20;

/// The longest name of a user (useradd(8) allows 32; directories more).
const MAX_NAME: usize = 256;

/// A user of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name.
    pub name: String,
    /// The user's id, never -1.
    pub uid: u32,
    /// The id of the primary group, never -1.
    pub gid: u32,
    /// The home directory, absolute.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

/// Why somebody is no user whom a shell could be given as.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AccountError {
    /// There is none of this name.
    #[error("this host has no user {0:?}")]
    Unknown(String),
    /// It is the administrator.
    #[error("{0:?} is root, who can read everything")]
    Root(String),
    /// It is in the administrator's group.
    #[error("the primary group of {0:?} is root's")]
    RootGroup(String),
    /// It is who runs this program.
    #[error("the gateway itself runs as {0:?}, who can read its keys")]
    Own(String),
}

impl Account {
    /// Finds a user by name. Blocking: asks a directory service for up to ten seconds where the file knows nobody.
    pub fn find(name: &str) -> Result<Self, AccountError> {
        let unknown = || AccountError::Unknown(name.to_owned());
        let is_name = !name.is_empty()
            && name.len() <= MAX_NAME
            && !name.starts_with('-')
            && !name.contains(|c: char| c == ':' || c == '/' || c.is_control());
        if !is_name {
            return Err(unknown());
        }
        let file = std::fs::File::open(PASSWD).and_then(text_of).unwrap_or_default();
        // `getent` takes digits for an id: only who is really called that is meant.
        let found = in_passwd(&file, name).or_else(|| in_passwd(&getent(&["passwd", name])?, name));
        found.ok_or_else(unknown)
    }

    /// Refuses root, root's group, and whoever has the id `own`.
    pub fn unprivileged(self, own: u32) -> Result<Self, AccountError> {
        match self {
            Self { uid: 0, name, .. } => Err(AccountError::Root(name)),
            Self { gid: 0, name, .. } => Err(AccountError::RootGroup(name)),
            Self { uid, name, .. } if uid == own => Err(AccountError::Own(name)),
            other => Ok(other),
        }
    }

    /// The ids of all groups that the user belongs to, the primary one first. Blocking, as [`Account::find`].
    pub fn groups(&self) -> Vec<u32> {
        let told = getent(&["initgroups", &self.name]).unwrap_or_default();
        // The name, then ids. The file is asked too, because not every host has a `getent` that knows this.
        let told = told.split_whitespace().skip(1).filter_map(|id| id.parse().ok());
        let file = std::fs::File::open(GROUP).and_then(text_of).unwrap_or_default();
        let mut groups = vec![self.gid];
        for id in told.chain(in_group(&file, &self.name)) {
            if !groups.contains(&id) {
                groups.push(id);
            }
        }
        groups
    }

    /// Whether the login shell only says that nobody may log in (nologin(8)).
    pub fn has_no_shell(&self) -> bool {
        self.shell.file_name().is_some_and(|name| name == "nologin" || name == "false")
    }
}

/// The first line of this user: name, password, uid, gid, comment, home, shell.
fn in_passwd(text: &str, name: &str) -> Option<Account> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    let id = |field: Option<&str>| field?.parse().ok().filter(|id| *id != u32::MAX);
    let (uid, gid) = (id(fields.next())?, id(fields.next())?);
    let home = fields.nth(1).map(Path::new).filter(|home| home.is_absolute()).unwrap_or(Path::new("/"));
    let shell = fields.next().filter(|shell| shell.starts_with('/')).unwrap_or("/bin/sh");
    Some(Account { name: name.to_owned(), uid, gid, home: home.to_owned(), shell: shell.into() })
}

/// The ids of the groups with this member: name, password, id, members (group(5)).
fn in_group<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = u32> + 'a {
    text.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let (id, members) = (fields.next()?.parse().ok()?, fields.next()?);
        members.split(',').any(|member| member.trim() == name).then_some(id)
    })
}

fn getent(arguments: &[&str]) -> Option<String> {
    let program = GETENT.iter().find(|path| Path::new(path).exists())?;
    let mut asked = Command::new(program);
    asked.args(arguments).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = asked.spawn().ok()?;
    let output = child.stdout.take()?;
    let (told, answer) = mpsc::sync_channel(1);
    std::thread::spawn(move || told.send(text_of(output)));
    let answer = answer.recv_timeout(ANSWER_WITHIN).ok().and_then(Result::ok);
    if answer.is_none() {
        let _ = child.kill();
    }
    let status = child.wait().ok()?;
    answer.filter(|_| status.success())
}

fn text_of(from: impl Read) -> io::Result<String> {
    let mut text = Vec::new();
    from.take(MAX_READ).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_passwd_is_a_user_or_nobody() {
        let user = |uid, gid, home: &str, shell: &str| {
            Some(Account { name: "u".into(), uid, gid, home: home.into(), shell: shell.into() })
        };
        for (text, expected) in [
            ("u:x:7:8:U, room 1:/home/u:/bin/bash\n", user(7, 8, "/home/u", "/bin/bash")),
            ("uu:x:1:1::/:/x\n\n#u\nu:x:7:8::/home/u:\nu:x:9:9::/:/x\n", user(7, 8, "/home/u", "/bin/sh")),
            ("u:x:7:8", user(7, 8, "/", "/bin/sh")),
            ("u:x:7:8::home:bash", user(7, 8, "/", "/bin/sh")),
            ("u:x:-1:8::/:/bin/sh", None),
            ("u:x:4294967295:8::/:/bin/sh", None),
            ("u:x:7:4294967295::/:/bin/sh", None),
            ("u:x:7", None),
            ("u", None),
            ("", None),
        ] {
            assert_eq!(in_passwd(text, "u"), expected, "{text:?}");
        }
    }

    #[test]
    fn the_groups_of_a_member_are_found() {
        let text = "a:x:1:u\nb:x:2:uu,v\nc:x:3:v, u\n\nd:x:u\ne:x:no:u\nu:x:4:\nf:x:5:u,v\n";
        assert_eq!(in_group(text, "u").collect::<Vec<_>>(), [1, 3, 5]);
    }

    #[test]
    fn users_of_this_host_are_found_by_their_names_only() {
        let root = Account::find("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(root.groups()[0], 0);
        let long = "u".repeat(MAX_NAME + 1);
        for name in ["", "0", "no-such-user-here", "-x", "root:x", "../root", "root\n", &long] {
            assert_eq!(Account::find(name), Err(AccountError::Unknown(name.to_owned())));
        }
    }

    #[test]
    fn who_could_read_the_gateways_keys_is_refused() {
        let user = |uid, gid| Account { name: "u".into(), uid, gid, home: "/".into(), shell: "/bin/sh".into() };
        let name = || "u".to_owned();
        assert_eq!(user(0, 7).unprivileged(9), Err(AccountError::Root(name())));
        assert_eq!(user(7, 0).unprivileged(9), Err(AccountError::RootGroup(name())));
        assert_eq!(user(9, 7).unprivileged(9), Err(AccountError::Own(name())));
        assert_eq!(user(7, 7).unprivileged(9), Ok(user(7, 7)));
    }

    #[test]
    fn a_shell_that_refuses_is_known() {
        let user = |shell: &str| Account { name: "u".into(), uid: 1, gid: 1, home: "/".into(), shell: shell.into() };
        assert!(user("/usr/sbin/nologin").has_no_shell() && user("/bin/false").has_no_shell());
        assert!(!user("/bin/sh").has_no_shell());
    }
}

//! What a rule allows over each protocol (`[policy.allow]`).
//!
//! An absent protocol is refused and an empty table allows all of it. In a table with keys, rights that are absent are
//! refused; narrowings that are absent do not narrow.

use super::{Action, Destination, DestinationPattern, ExecPattern, StatementClass, wildcard};
use crate::socket::Protocol;

/// What a rule allows, protocol by protocol.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rights {
    /// `[policy.allow.ssh]`
    pub ssh: Option<SshRights>,
    /// `[policy.allow.database]`
    pub database: Option<DatabaseRights>,
    /// `[[policy.allow.http]]`: any of them. Empty: nothing.
    pub http: Vec<HttpRights>,
    /// `[[policy.allow.kubernetes]]`: any of them. Empty: nothing.
    pub kubernetes: Vec<KubernetesRights>,
    /// `[policy.allow.tcp]`
    pub tcp: bool,
}

/// `[policy.allow.ssh]`
#[derive(Clone, Debug, PartialEq)]
pub enum SshRights {
    /// An empty table: all of it.
    All,
    /// A table with keys: what is absent is refused.
    Some(Box<SomeSsh>),
}

/// The keys of `[policy.allow.ssh]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SomeSsh {
    /// An interactive shell.
    pub shell: bool,
    /// Commands.
    pub exec: ExecRight,
    /// Files.
    pub sftp: FilesRight,
    /// Where `-L`, `-D` and `-W` may lead.
    pub forward_to: Vec<DestinationPattern>,
    /// Where `-R` may listen.
    pub forward_from: Vec<DestinationPattern>,
    /// Whether what a forward carries may be what the gateway cannot read.
    pub forward_opaque: bool,
    /// Agent forwarding.
    pub agent: bool,
    /// X11 forwarding.
    pub x11: bool,
    /// Logins at the upstream, where the socket does not fix one; `*` stands for any run of characters. Empty: none.
    pub logins: Vec<String>,
}

/// Which commands may be run.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ExecRight {
    /// None.
    #[default]
    None,
    /// Any.
    Any,
    /// Those that match one of the patterns.
    Patterns(Vec<ExecPattern>),
}

/// What may be done with files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FilesRight {
    /// Nothing.
    #[default]
    None,
    /// Read them.
    Read,
    /// Change them too.
    Write,
}

/// `[policy.allow.database]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DatabaseRights {
    /// Databases, with `*`. Empty: every one.
    pub databases: Vec<String>,
    /// Classes of statements. Empty: every one.
    pub statements: Vec<StatementClass>,
}

/// One `[[policy.allow.http]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpRights {
    /// Methods, upper case. Empty: every one.
    pub methods: Vec<String>,
    /// Paths, with `*`. Empty: every one.
    pub paths: Vec<String>,
}

/// One `[[policy.allow.kubernetes]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KubernetesRights {
    /// Namespaces, with `*`. Empty: every one, and what belongs to the cluster.
    pub namespaces: Vec<String>,
    /// Resources, with `*`. Empty: every one.
    pub resources: Vec<String>,
    /// Verbs. Empty: every one.
    pub verbs: Vec<String>,
}

/// How a rule allows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Plainly,
    /// A pattern allowed a command.
    ByPattern,
}

impl Rights {
    /// Whether anything at all is allowed over this protocol.
    pub fn reach(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Ssh => self.ssh.as_ref().is_some_and(|ssh| !ssh.is_nothing()),
        }
    }

    /// Whether a session with this login is allowed. `None`: the user named none.
    pub(super) fn allow_login(&self, login: Option<&str>) -> bool {
        match (&self.ssh, login) {
            (Some(SshRights::All), Some(_)) => true,
            (Some(SshRights::Some(some)), Some(login)) => any(&some.logins, login),
            (_, None) | (None, _) => false,
        }
    }

    pub(super) fn allow(&self, action: &Action) -> Option<How> {
        let allowed = match action {
            // The login is asked about apart from the action, in every session.
            Action::Connect { .. } => true,
            Action::SshExec { command } => return self.ssh.as_ref()?.allow_exec(command),
            Action::SshShell
            | Action::SshFiles { .. }
            | Action::SshForwardTo { .. }
            | Action::SshForwardFrom { .. }
            | Action::SshAgent
            | Action::SshX11 => self.ssh.as_ref()?.allow(action),
            Action::Database { database, class } => self.database.as_ref()?.allow(database, *class),
            Action::Http { method, path } => self.http.iter().any(|rights| rights.allow(method, path)),
            Action::Kubernetes { verb, resource, namespace } => {
                self.kubernetes.iter().any(|rights| rights.allow(verb, resource, namespace.as_deref()))
            }
            Action::Tcp => self.tcp,
        };
        allowed.then_some(How::Plainly)
    }
}

impl SshRights {
    fn is_nothing(&self) -> bool {
        match self {
            Self::All => false,
            Self::Some(some) => some.is_nothing(),
        }
    }

    fn allow_exec(&self, command: &[u8]) -> Option<How> {
        let Self::Some(some) = self else { return Some(How::Plainly) };
        match &some.exec {
            ExecRight::None => None,
            ExecRight::Any => Some(How::Plainly),
            ExecRight::Patterns(patterns) => {
                patterns.iter().any(|pattern| pattern.matches(command)).then_some(How::ByPattern)
            }
        }
    }

    fn allow(&self, action: &Action) -> bool {
        let Self::Some(some) = self else { return true };
        match action {
            Action::SshShell => some.shell,
            Action::SshFiles { write } => some.sftp >= if *write { FilesRight::Write } else { FilesRight::Read },
            Action::SshForwardTo { to, opaque } => some.forwards(&some.forward_to, to, *opaque),
            Action::SshForwardFrom { at, opaque } => some.forwards(&some.forward_from, at, *opaque),
            Action::SshAgent => some.agent,
            Action::SshX11 => some.x11,
            _ => false,
        }
    }
}

impl SomeSsh {
    /// Whether nothing can be done by it: logins and what a forward carries are no actions of their own.
    pub fn is_nothing(&self) -> bool {
        let Self { shell, exec, sftp, forward_to, forward_from, forward_opaque: _, agent, x11, logins: _ } = self;
        let forwards = !forward_to.is_empty() || !forward_from.is_empty();
        !(*shell || *exec != ExecRight::None || *sftp != FilesRight::None || forwards || *agent || *x11)
    }

    fn forwards(&self, allowed: &[DestinationPattern], place: &Destination, opaque: bool) -> bool {
        (!opaque || self.forward_opaque) && allowed.iter().any(|pattern| pattern.matches(place))
    }
}

impl DatabaseRights {
    fn allow(&self, database: &str, class: StatementClass) -> bool {
        (self.databases.is_empty() || any(&self.databases, database))
            && (self.statements.is_empty() || self.statements.contains(&class))
    }
}

impl HttpRights {
    fn allow(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|allowed| allowed == method))
            && (self.paths.is_empty() || any(&self.paths, path))
    }
}

impl KubernetesRights {
    fn allow(&self, verb: &str, resource: &str, namespace: Option<&str>) -> bool {
        (self.namespaces.is_empty() || namespace.is_some_and(|namespace| any(&self.namespaces, namespace)))
            && (self.resources.is_empty() || any(&self.resources, resource))
            && (self.verbs.is_empty() || self.verbs.iter().any(|allowed| allowed == verb))
    }
}

fn any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| wildcard::matches(pattern, name))
}

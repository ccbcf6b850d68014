//! Policies as checked data. `config` makes them; [`super::decide()`] reads them.

use super::{ExecPattern, wildcard};
use crate::identity::Identity;

/// All policies, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// One `[[policy]]`.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, unique, shown on rows and in denials.
    pub name: String,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// Which sockets it is about.
    pub sockets: SocketMatch,
    /// Whom it is about.
    pub who: Who,
    /// What it allows over SSH; `None`: nothing. Ignored for deny rules, which deny everything.
    pub ssh: Option<SshRights>,
}

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Allows what it lists.
    Allow,
    /// Denies everything on its sockets to whom it names, and wins.
    Deny,
}

/// Which sockets a rule is about: a name matches. A pattern may hold `*` for any run of characters.
#[derive(Clone, Debug, Default)]
pub struct SocketMatch {
    /// Names, with wildcards. Empty counts as absent: every socket.
    pub names: Vec<String>,
}

impl SocketMatch {
    /// Whether the socket of this name is meant.
    pub fn holds(&self, socket: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|pattern| wildcard::matches(pattern, socket))
    }
}

/// Whom a rule is about: any of these. All empty: everybody who is signed in.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// E-mail addresses, compared without case.
    pub emails: Vec<String>,
    /// Groups, compared exactly.
    pub groups: Vec<String>,
}

impl Who {
    /// Whether this person is meant.
    pub fn holds(&self, who: &Identity) -> bool {
        let email = |wanted: &String| wanted.to_lowercase() == who.email().to_lowercase();
        let everybody = self.emails.is_empty() && self.groups.is_empty();
        everybody || self.emails.iter().any(email) || self.groups.iter().any(|group| who.groups().contains(group))
    }
}

/// What a rule allows over SSH (`[policy.allow.ssh]`).
#[derive(Clone, Debug, PartialEq)]
pub enum SshRights {
    /// An empty table: all of it.
    All,
    /// A table with keys: what is absent is refused.
    Some {
        /// An interactive shell.
        shell: bool,
        /// Commands.
        exec: ExecRight,
        /// Logins at the upstream, where the socket does not fix one; `*` stands for any run of characters. Empty: none.
        logins: Vec<String>,
    },
}

/// Which commands may be run.
#[derive(Clone, Debug, PartialEq)]
pub enum ExecRight {
    /// None.
    None,
    /// Any.
    Any,
    /// Those that match one of the patterns.
    Patterns(Vec<ExecPattern>),
}

//! The decision: [`decide()`] once per connection, [`Permit::check`] for every action.

use super::rules::{Effect, ExecRight, Policies, Rule, SshRights};
use super::wildcard;
use crate::identity::Identity;
use crate::socket::{Protocol, Socket, UpstreamSpec};

/// What is known about a connection beside who and where to.
#[derive(Clone, Debug)]
pub struct Context {
    /// The client's address.
    pub client_ip: std::net::IpAddr,
}

/// One thing somebody wants to do in a session. Every protocol's actions are here, so that one function decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reach the upstream with this login (`None`: the socket fixes it).
    Connect {
        /// The login asked for.
        login: Option<String>,
    },
    /// Start an interactive shell.
    SshShell,
    /// Run a command.
    SshExec {
        /// The command line as sent.
        command: Vec<u8>,
    },
}

impl Action {
    /// The `type` of the event about it.
    pub fn event_kind(&self) -> &'static str {
        match self {
            Action::Connect { .. } => "decision",
            Action::SshShell => "ssh_shell",
            Action::SshExec { .. } => "ssh_exec",
        }
    }
}

/// Proof that a person may be on a socket now. Not `Clone`: the session owns it.
#[derive(Debug)]
pub struct Permit {
    socket: String,
    /// Whether the socket decides who the user is at the upstream; then a rule's logins do not matter.
    login_fixed: bool,
    /// The allow rules that hold for this person and socket, in the order of the file. Never empty.
    allowed: Vec<(String, SshRights)>,
}

/// Proof that one action is allowed now. Consumed by what does it.
#[derive(Debug)]
#[must_use]
pub struct Grant {
    action: Action,
    rule: String,
    patterned: bool,
}

/// Why not, in words fit to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct Denied {
    words: String,
    rule: Option<String>,
}

/// May `who` be on `to` now? `Err` says what was missing.
///
/// The context is part of the question because rules about networks and places come; no rule of today looks at it.
pub fn decide(policies: &Policies, who: &Identity, to: &Socket, _context: &Context) -> Result<Permit, Denied> {
    let about = || policies.rules.iter().filter(|rule| rule.is_about(who, &to.name));
    let email = || shown(who.email());
    if let Some(rule) = about().find(|rule| rule.effect == Effect::Deny) {
        return Err(Denied::by(&to.name, &rule.name, &format!("denies {}", email())));
    }
    let allows = || about().filter(|rule| rule.effect == Effect::Allow);
    let allowed: Vec<_> =
        allows().filter_map(|rule| Some((rule.name.clone(), rule.rights(to.protocol)?.clone()))).collect();
    if !allowed.is_empty() {
        return Ok(Permit { socket: to.name.clone(), login_fixed: to.fixes_login(), allowed });
    }
    Err(match allows().next() {
        Some(rule) => Denied::by(&to.name, &rule.name, &format!("allows nothing over {}", to.protocol.session_type())),
        None => Denied { words: format!("no policy lets {} on {}", email(), to.name), rule: None },
    })
}

impl Permit {
    /// The rule that opened the door: the first that holds.
    pub fn rule(&self) -> &str {
        self.allowed.first().map_or("", |(name, _)| name)
    }

    /// May this be done now, by one rule alone that also allows the session's login?
    ///
    /// `login` is the one the user chose, `None` where the socket fixes it; the socket decides which of the two counts.
    pub fn check(&self, login: Option<&str>, action: Action) -> Result<Grant, Denied> {
        let login = match &action {
            Action::Connect { login: asked } => asked.as_deref(),
            _ => login,
        };
        if self.login_fixed && login.is_some() {
            return Err(Denied {
                words: format!("{0} refused: the login there is fixed; connect as {0} alone", self.socket),
                rule: None,
            });
        }
        let mut nearest = None;
        for (rule, rights) in &self.allowed {
            if !self.login_fixed && !rights.allow_login(login) {
                continue;
            }
            if let Some(how) = rights.allow(&action) {
                return Ok(Grant { action, rule: rule.clone(), patterned: how == How::ByPattern });
            }
            nearest.get_or_insert(rule);
        }
        Err(match (nearest, login) {
            (Some(rule), _) => self.denied(rule, &format!("does not allow {}", words(&action))),
            (None, Some(login)) => self.denied(self.rule(), &format!("does not allow login \"{}\"", shown(login))),
            (None, None) => self.denied(self.rule(), "needs a login: use login@socket"),
        })
    }

    fn denied(&self, rule: &str, what: &str) -> Denied {
        Denied::by(&self.socket, rule, what)
    }
}

impl Grant {
    /// What was allowed.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// By which rule.
    pub fn rule(&self) -> &str {
        &self.rule
    }

    /// Whether a pattern allowed it: then it gets no terminal, and the environment only as [`Grant::keeps_env`] says.
    pub fn patterned(&self) -> bool {
        self.patterned
    }

    /// Whether the environment variable of this name may go along.
    pub fn keeps_env(&self, name: &str) -> bool {
        !self.patterned || matches!(name, "LANG" | "TERM") || name.starts_with("LC_")
    }
}

impl Denied {
    /// A denial for a reason that no rule knows.
    pub fn because(words: impl Into<String>) -> Self {
        Self { words: words.into(), rule: None }
    }

    /// The deny rule, or the nearest allow rule that did not hold.
    pub fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    fn by(socket: &str, rule: &str, what: &str) -> Self {
        Self { words: format!("{socket} refused: {rule} {what}"), rule: Some(rule.to_owned()) }
    }
}

impl Rule {
    fn is_about(&self, who: &Identity, socket: &str) -> bool {
        self.sockets.holds(socket) && self.who.holds(who)
    }

    /// What an allow rule allows over this protocol; `None` where that is nothing at all.
    fn rights(&self, protocol: Protocol) -> Option<&SshRights> {
        match protocol {
            Protocol::Ssh => self.ssh.as_ref().filter(|rights| !rights.is_nothing()),
        }
    }
}

impl Socket {
    /// Whether the user has no say in who he is at the upstream.
    pub fn fixes_login(&self) -> bool {
        match &self.upstream {
            UpstreamSpec::Ssh(upstream) => upstream.username.is_some(),
            UpstreamSpec::Shell { .. } => true,
        }
    }
}

/// How a rule allows something.
#[derive(PartialEq)]
enum How {
    Plainly,
    ByPattern,
}

impl SshRights {
    fn is_nothing(&self) -> bool {
        match self {
            Self::All => false,
            Self::Some { shell, exec, .. } => !shell && *exec == ExecRight::None,
        }
    }

    fn allow_login(&self, login: Option<&str>) -> bool {
        match (self, login) {
            (_, None) => false,
            (Self::All, Some(_)) => true,
            (Self::Some { logins, .. }, Some(login)) => logins.iter().any(|pattern| wildcard::matches(pattern, login)),
        }
    }

    fn allow(&self, action: &Action) -> Option<How> {
        match (self, action) {
            (Self::All, _) | (_, Action::Connect { .. }) => Some(How::Plainly),
            (Self::Some { shell, .. }, Action::SshShell) => shell.then_some(How::Plainly),
            (Self::Some { exec, .. }, Action::SshExec { command }) => match exec {
                ExecRight::None => None,
                ExecRight::Any => Some(How::Plainly),
                ExecRight::Patterns(patterns) => {
                    patterns.iter().any(|pattern| pattern.matches(command)).then_some(How::ByPattern)
                }
            },
        }
    }
}

fn words(action: &Action) -> String {
    match action {
        Action::Connect { .. } => "to connect".to_owned(),
        Action::SshShell => "shell".to_owned(),
        Action::SshExec { command } => format!("exec \"{}\"", shown(&String::from_utf8_lossy(command))),
    }
}

/// Somebody else's words made fit for a terminal: nothing that moves a cursor, and not too long.
fn shown(text: &str) -> String {
    const MOST: usize = 120;
    let mut short: String = text.chars().take(MOST).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;

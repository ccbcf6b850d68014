//! What a configuration's rules say of sessions in the book: of those that were, and of those that live. Locks are left
//! out, because they are no rules.

use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::Config;
use crate::geo::Place;
use crate::identity::Identity;
use crate::policy::{Action, Cause, Context, Locks, Policies, Question};
use crate::session::{self, Sockets};
use crate::socket::Socket;
use crate::store::PastSession;

/// Rules and sockets to ask.
pub struct Judge {
    policies: Policies,
    sockets: Sockets,
    locks: Locks,
}

/// A session that these rules do not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is said.
    pub reason: String,
    /// What stood in the way; `None`: there is no such socket.
    pub cause: Option<Cause>,
    /// What makes it the same as others.
    pub kind: Kind,
}

/// What refusals of one kind have in common, whatever was typed and whenever.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    cause: Option<Discriminant<Cause>>,
    /// The rule that denies, or that came nearest.
    pub rule: Option<String>,
    /// The type of the event about what was to be done.
    action: &'static str,
}

impl Judge {
    /// Those of this configuration.
    pub fn new(config: Config) -> Self {
        let sockets = Sockets::new(config.sockets.into_iter().map(Arc::new).collect());
        Self { policies: config.policies, sockets, locks: Locks::default() }
    }

    /// Its sockets.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// Whether it would have begun then, and done what was done in it.
    pub fn at_its_start(&self, past: &PastSession, done: &[Action]) -> Result<(), Refusal> {
        let context = Context::at_door(past.client_ip, country(past), past.start_time);
        self.judge(past, &past.identity, done, &context)
    }

    /// Whether it may go on now; `who` is its person as they last signed in.
    pub fn now(&self, live: &PastSession, who: &Identity, done: &[Action], now: Timestamp) -> Result<(), Refusal> {
        let door = Context::at_door(live.client_ip, country(live), now);
        let elapsed = Duration::try_from(now.duration_since(live.start_time)).unwrap_or_default();
        self.judge(live, who, done, &Context { started: live.start_time, elapsed, ..door })
    }

    /// May this be done on this socket?
    pub fn may(&self, who: &Identity, socket: &str, login: Option<&str>, action: &Action, at: &Context) -> bool {
        self.sockets.get(socket).is_some_and(|to| self.ask(who, to, login, action, at).is_ok())
    }

    /// Whether the door opens, whatever can be done behind it.
    pub fn opens(&self, who: &Identity, socket: &str, at: &Context) -> bool {
        let opens = |to: &Arc<Socket>| crate::policy::decide(&self.policies, &self.locks, who, to, at).is_ok();
        self.sockets.get(socket).is_some_and(opens)
    }

    fn judge(&self, past: &PastSession, who: &Identity, done: &[Action], context: &Context) -> Result<(), Refusal> {
        let Some(to) = self.sockets.get(&past.socket_name) else {
            let reason = format!("there is no socket called {} any more", past.socket_name);
            return Err(Refusal { reason, cause: None, kind: Kind { cause: None, rule: None, action: "decision" } });
        };
        let login = past.ssh_user.as_deref();
        let connect = Action::Connect { login: self.login(to, login) };
        [&connect].into_iter().chain(done).try_for_each(|action| self.ask(who, to, login, action, context))
    }

    fn ask(
        &self,
        who: &Identity,
        to: &Socket,
        login: Option<&str>,
        action: &Action,
        context: &Context,
    ) -> Result<(), Refusal> {
        let login = self.login(to, login);
        let Self { policies, locks, .. } = self;
        let question = Question { policies, locks, who, to, login: login.as_deref() };
        question.ask(action, context).map_err(|denied| Refusal {
            reason: denied.reason().to_owned(),
            cause: Some(denied.cause()),
            kind: Kind {
                cause: Some(discriminant(&denied.cause())),
                rule: denied.rule().map(str::to_owned),
                action: action.event_kind(),
            },
        })
    }

    /// A row has a login also where the socket fixed it; there nobody asked for one.
    fn login(&self, to: &Socket, login: Option<&str>) -> Option<String> {
        login.filter(|_| !to.fixes_login()).map(str::to_owned)
    }
}

fn country(past: &PastSession) -> crate::policy::Country {
    let place = Place { country_code: past.country_code.clone(), country: past.country.clone(), city: None };
    session::country(&place)
}

//! At the door: from somebody known to a session, or to the row of a denial.

use std::sync::Arc;

use russh::server::Auth;

use super::step_up::{Known, Raising};
use super::{Refusal, SignIn, Stage, no_more, printable};
use crate::identity::Identity;
use crate::identity::link::REVOKED;
use crate::policy::Denied;
use crate::proto::ssh::connection::{Connection, Inner};
use crate::session::{OpenError, Stranger, Visit};
use crate::socket::{Protocol, Socket};

/// Why nobody was let in.
pub(in crate::proto::ssh) enum Refused {
    /// In words for the user.
    Told(String),
    /// Only a better sign-in of this person is missing.
    StepUp { denied: Denied, identity: Box<Identity> },
}

/// Where somebody wants to: the login and the socket's name.
pub(in crate::proto::ssh) type Wanted = (Option<String>, String);

/// Opens a session of this connection for somebody known, or writes the row of a denial.
pub(in crate::proto::ssh) async fn enter(
    connection: &Connection,
    wanted: Wanted,
    known: Known,
    may_step_up: bool,
) -> Result<(), Refused> {
    let sessions = &connection.front.sessions;
    let Some(socket) = connection.socket(&wanted.1) else {
        return Err(Refused::Told(no_socket(connection, wanted, known).await));
    };
    let unfit = known.may_use(&socket).err();
    let visit = visit(connection, wanted.0, socket, known, may_step_up);
    if let Some(why) = unfit {
        let denied = Denied::way_in(&visit.socket.name, why.into());
        return Err(Refused::Told(match sessions.deny(visit, &denied).await {
            Ok(id) => format!("{denied} ({id})"),
            Err(error) => error.to_string(),
        }));
    }
    match sessions.open(visit).await {
        Ok((session, grant)) => {
            connection.opened(session, grant);
            Ok(())
        }
        Err(OpenError::Denied { denied, id }) => Err(Refused::Told(format!("{denied} ({id})"))),
        Err(OpenError::StepUp { denied, identity }) => Err(Refused::StepUp { denied, identity }),
        Err(error) => Err(Refused::Told(error.to_string())),
    }
}

/// Writes the row of somebody who asked for a socket that does not exist; the words for them.
pub(in crate::proto::ssh) async fn no_socket(connection: &Connection, (login, name): Wanted, known: Known) -> String {
    let name = printable(&name);
    let words = format!("there is no socket {name}");
    let stranger = Stranger {
        identity: known.identity,
        protocol: Protocol::Ssh,
        socket_name: name,
        login,
        client: connection.client,
        reached: connection.reached,
        events: known.events,
    };
    match connection.front.sessions.deny_unknown(stranger).await {
        Ok(id) => format!("{words} ({id})"),
        Err(error) => error.to_string(),
    }
}

fn visit(
    connection: &Connection,
    login: Option<String>,
    socket: Arc<Socket>,
    known: Known,
    may_step_up: bool,
) -> Visit {
    let Connection { client, reached, line, .. } = connection;
    Visit {
        identity: known.identity,
        sign_in: known.sign_in,
        since: known.since,
        socket,
        login,
        client: *client,
        reached: *reached,
        events: known.events,
        may_step_up,
        line: line.clone(),
    }
}

impl SignIn {
    /// An inner connection is its outer one's person: whatever the client tries, it needs to prove nothing more.
    pub(in crate::proto::ssh) async fn inherited(&mut self, user: &str) -> Auth {
        let Some(inner) = &self.connection.inner else { return Auth::reject() };
        if !matches!(self.stage, Stage::Start) {
            return no_more();
        }
        let lobby = inner.lobby.clone();
        // Who they are was proved a while ago.
        let entered = match lobby.still_known(&self.connection.front).await {
            Ok(()) => self.open(user, lobby.known.clone(), true).await,
            Err(words) => Err(Refusal::Told(words)),
        };
        match entered {
            Ok(()) => Auth::Accept,
            Err(refusal) => self.then_interactive(refusal),
        }
    }

    /// Opens the session; or, where no socket is named, the lobby.
    pub(super) async fn open(&mut self, user: &str, known: Known, may_step_up: bool) -> Result<(), Refusal> {
        let wanted = self.wanted(user);
        if self.names_none(user) {
            let revoked = || Refusal::Told(REVOKED.into());
            return self.connection.enter_lobby(known, wanted.1).ok_or_else(revoked);
        }
        let before = known.clone();
        match enter(&self.connection, wanted, known, may_step_up).await {
            Ok(()) => Ok(()),
            Err(Refused::Told(words)) => Err(Refusal::Told(words)),
            Err(Refused::StepUp { denied, identity }) => {
                user.clone_into(&mut self.shown.user);
                self.raising = Some(Raising { known: Known { identity: *identity, ..before }, denied });
                Err(Refusal::StepUp)
            }
        }
    }

    /// Whether the user name names no socket, as the local user's that `ssh gateway` sends. With an `@` it was meant as
    /// one.
    pub(super) fn names_none(&self, user: &str) -> bool {
        let Connection { fixed, inner, .. } = &*self.connection;
        fixed.is_none() && inner.is_none() && !user.contains('@') && self.socket(user).is_none()
    }

    /// The denial of whom a better sign-in was asked, which did not come because of `why`.
    pub(super) fn owed(&mut self, why: &str) -> Option<(Visit, Denied)> {
        let (known, denied) = self.raising.take()?.given_up(why);
        let user = self.shown.user.clone();
        let (login, name) = self.wanted(&user);
        let socket = self.socket(&name)?;
        Some((visit(&self.connection, login, socket, known, false), denied))
    }

    /// The login and the socket that the SSH user name means: `[login@]socket`; on a socket's own port all of it is the
    /// login.
    pub(super) fn wanted(&self, user: &str) -> Wanted {
        if let Some(Inner { socket: name, .. }) = &self.connection.inner {
            let fixed = self.socket(name).is_some_and(|socket| socket.fixes_login());
            return (inner_login(user, name).filter(|_| !fixed), name.clone());
        }
        match (&self.connection.fixed, user.rsplit_once('@')) {
            // A client always sends some user name there: where the socket fixes the login, it means nothing.
            (Some(socket), _) if socket.fixes_login() => (None, socket.name.clone()),
            (Some(socket), _) => (Some(user.to_owned()), socket.name.clone()),
            (None, Some((login, name))) => (Some(login.to_owned()).filter(|login| !login.is_empty()), name.to_owned()),
            (None, None) => (None, user.to_owned()),
        }
    }

    pub(super) fn socket(&self, name: &str) -> Option<Arc<Socket>> {
        self.connection.socket(name)
    }
}

/// The login that an inner user name means, where the host has named the socket: `login`, `login@socket`, or the socket's
/// name alone for none.
fn inner_login(user: &str, socket: &str) -> Option<String> {
    let login = match user.rsplit_once('@') {
        Some((login, name)) if name == socket => login,
        None if user == socket => "",
        _ => user,
    };
    Some(login.to_owned()).filter(|login| !login.is_empty())
}

impl Drop for SignIn {
    /// A client that cannot show a link, or that did not wait for its end, goes without another call from russh.
    fn drop(&mut self) {
        if let Some((visit, denied)) = self.owed("the client went away") {
            self.connection.front.sessions.deny_gone(visit, denied);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_user_name_is_a_login() {
        let table = [
            ("deploy", Some("deploy")),
            ("deploy@web", Some("deploy")),
            ("deploy@db", Some("deploy@db")),
            ("a@b@web", Some("a@b")),
            ("web", None),
            ("@web", None),
            ("", None),
        ];
        for (user, login) in table {
            assert_eq!(inner_login(user, "web").as_deref(), login, "{user}");
        }
    }
}

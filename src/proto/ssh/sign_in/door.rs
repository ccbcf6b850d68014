//! At the door: from somebody known to a session, or to the row of a denial.

use std::sync::Arc;

use super::step_up::{Known, Raising};
use super::{Refusal, SignIn, printable};
use crate::policy::Denied;
use crate::proto::ssh::connection::Connection;
use crate::session::{OpenError, Stranger, Visit};
use crate::socket::{Protocol, Socket};

impl SignIn {
    /// Opens the session.
    pub(super) async fn open(&mut self, user: &str, known: Known, may_step_up: bool) -> Result<(), Refusal> {
        let connection = self.connection.clone();
        let (login, name) = self.wanted(user);
        let sessions = &connection.front.sessions;
        let Some(socket) = self.socket(&name) else {
            let words = format!("there is no socket {}", printable(&name));
            let stranger = Stranger {
                identity: known.identity,
                protocol: Protocol::Ssh,
                socket_name: printable(&name),
                login,
                client: connection.client,
                reached: connection.reached,
                events: known.events,
            };
            return Err(Refusal::Told(match sessions.deny_unknown(stranger).await {
                Ok(id) => format!("{words} ({id})"),
                Err(error) => error.to_string(),
            }));
        };
        let (events, key, sign_in, since) = (known.events.clone(), known.key.clone(), known.sign_in, known.since);
        match sessions.open(self.visit(user, socket, known, may_step_up)).await {
            Ok((session, grant)) => {
                connection.opened(session, grant);
                Ok(())
            }
            Err(OpenError::Denied { denied, id }) => Err(Refusal::Told(format!("{denied} ({id})"))),
            Err(OpenError::StepUp { denied, identity }) => {
                user.clone_into(&mut self.shown.user);
                self.raising =
                    Some(Raising { known: Known { identity: *identity, events, key, sign_in, since }, denied });
                Err(Refusal::StepUp)
            }
            Err(error) => Err(Refusal::Told(error.to_string())),
        }
    }

    fn visit(&self, user: &str, socket: Arc<Socket>, known: Known, may_step_up: bool) -> Visit {
        let Connection { client, reached, line, .. } = &*self.connection;
        Visit {
            identity: known.identity,
            sign_in: known.sign_in,
            since: known.since,
            socket,
            login: self.wanted(user).0,
            client: *client,
            reached: *reached,
            events: known.events,
            may_step_up,
            line: line.clone(),
        }
    }

    /// The denial of whom a better sign-in was asked, which did not come because of `why`.
    pub(super) fn owed(&mut self, why: &str) -> Option<(Visit, Denied)> {
        let (known, denied) = self.raising.take()?.given_up(why);
        let user = self.shown.user.clone();
        let socket = self.socket(&self.wanted(&user).1)?;
        Some((self.visit(&user, socket, known, false), denied))
    }

    /// The login and the socket that the SSH user name means: `[login@]socket`; on a socket's own port all of it is the
    /// login.
    pub(super) fn wanted(&self, user: &str) -> (Option<String>, String) {
        match (&self.connection.fixed, user.rsplit_once('@')) {
            // A client always sends some user name there: where the socket fixes the login, it means nothing.
            (Some(socket), _) if socket.fixes_login() => (None, socket.name.clone()),
            (Some(socket), _) => (Some(user.to_owned()), socket.name.clone()),
            (None, Some((login, name))) => (Some(login.to_owned()).filter(|login| !login.is_empty()), name.to_owned()),
            (None, None) => (None, user.to_owned()),
        }
    }

    pub(super) fn socket(&self, name: &str) -> Option<Arc<Socket>> {
        let in_force = self.connection.front.rules.now();
        in_force.sockets.get(name).filter(|socket| socket.protocol == Protocol::Ssh).cloned()
    }
}

impl Drop for SignIn {
    /// A client that cannot show a link, or that did not wait for its end, goes without another call from russh.
    fn drop(&mut self) {
        if let Some((visit, denied)) = self.owed("the client went away") {
            self.connection.front.sessions.deny_gone(visit, denied);
        }
    }
}

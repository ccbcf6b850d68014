//! Where who somebody is is known and not enough: what is asked of a better sign-in, and what sign-ins have proved.

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::identity::Identity;
use crate::identity::link::Demand;
use crate::policy::{Denied, StepUp};
use crate::socket::Socket;
use crate::store::{Event, EventStatus};

/// Most bytes of a reason in the words around a link: with the link they stay within 900.
const MOST: usize = 360;

/// Why a way in is not taken.
pub(super) const NO_CERTIFICATE: &str = "this socket takes no certificate";
const NO_LINK: &str = "this socket takes no sign-in by link; get a certificate with `gatescribe login`";

/// Somebody who has shown who they are.
#[derive(Clone)]
pub(in crate::proto::ssh) struct Known {
    pub(in crate::proto::ssh) identity: Identity,
    /// What they have shown, for the row.
    pub(in crate::proto::ssh) events: Vec<Event>,
    /// The key that they proved by signature, if it may vouch for them again.
    pub(super) key: Option<String>,
    /// The sign-in that their certificate is of.
    pub(in crate::proto::ssh) sign_in: Option<Uuid>,
    /// When that certificate ends.
    pub(super) until: Option<Timestamp>,
    /// Since before what they showed was looked at: what is revoked from then on counts against them.
    pub(in crate::proto::ssh) since: Instant,
}

/// Somebody known, at a door where only a better sign-in is missing.
pub(super) struct Raising {
    pub(super) known: Known,
    pub(super) denied: Denied,
}

impl Known {
    /// By one way of signing in.
    pub(super) fn by(how: Value, identity: Identity, since: Instant) -> Self {
        Self { events: vec![proved(how, &identity)], identity, key: None, sign_in: None, until: None, since }
    }

    pub(super) fn with_key(self, key: String) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Whether the socket takes the way in which they signed in; else why not. A link for a better sign-in changes nothing
    /// about it.
    pub(in crate::proto::ssh) fn may_use(&self, socket: &Socket) -> Result<(), &'static str> {
        match self.sign_in {
            Some(_) if !socket.certificates => Err(NO_CERTIFICATE),
            None if !socket.links => Err(NO_LINK),
            _ => Ok(()),
        }
    }

    /// By a certificate of this sign-in.
    pub(super) fn in_sign_in(self, sign_in: Uuid, until: Timestamp) -> Self {
        Self { sign_in: Some(sign_in), until: Some(until), ..self }
    }
}

impl Raising {
    pub(super) fn demand(&self) -> Demand {
        Demand { step_up: self.step_up(), whose: self.known.identity.clone(), why: self.denied.reason().to_owned() }
    }

    /// The one instruction with the link.
    pub(super) fn words(&self, link: &str, minutes: u64) -> String {
        format!(
            "\ngatescribe: {}\n\nTo go on, sign in again as {} here:\n\n    {link}\n\n\
             The link holds for {minutes} minutes. Waiting for your browser, Ctrl-C to give up.\n",
            line(&self.denied.to_string(), MOST),
            line(self.known.identity.email(), 80),
        )
    }

    /// The same person with the better sign-in.
    pub(super) fn raised(self, identity: Identity) -> Known {
        let Known { mut events, key, sign_in, until, since, .. } = self.known;
        let StepUp { max_age, acr } = self.denied.step_up().cloned().unwrap_or_default();
        let wanted = json!({ "max_age": max_age.map(|age| age.as_secs()), "acr": acr });
        events.push(proved(json!({ "how": "step-up", "wanted": wanted }), &identity));
        Known { identity, events, key, sign_in, until, since }
    }

    /// Whom the row of the denial is about, and why the better sign-in did not come.
    pub(super) fn given_up(mut self, why: &str) -> (Known, Denied) {
        let about = json!({ "how": "step-up", "reason": why });
        self.known.events.push(Event::now("sign_in", EventStatus::Denied, about));
        (self.known, self.denied)
    }

    fn step_up(&self) -> StepUp {
        self.denied.step_up().cloned().unwrap_or_default()
    }
}

/// What a sign-in proved, by the provider's word.
fn proved(mut how: Value, identity: &Identity) -> Event {
    how["signed_in"] = json!(identity.signed_in());
    how["acr"] = json!(identity.acr());
    how["amr"] = json!(identity.amr());
    Event::now("sign_in", EventStatus::Success, how)
}

/// One line for a terminal: printable ASCII, at most so many bytes.
fn line(text: &str, most: usize) -> String {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(3)).map(printable).chain("...".chars()).collect(),
        false => text.chars().map(printable).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_one_line_of_ascii_with_an_end() {
        assert_eq!(line("r\u{e9}gle\n\u{1b}[0m", 80), "r?gle??[0m");
        let long = line(&"x".repeat(1000), MOST);
        assert_eq!((long.len(), long.ends_with("x...")), (MOST, true));
    }

    #[test]
    fn events_say_what_was_proved() {
        let who: Identity = serde_json::from_value(json!({
            "issuer": "https://idp.example.com", "subject": "1", "email": "alice@example.com", "groups": [],
            "signed_in": "2026-01-01T00:00:00Z", "expires": "2026-01-01T12:00:00Z", "acr": "gold", "amr": ["otp"],
        }))
        .unwrap();
        let event = proved(json!({ "how": "link" }), &who);
        let about = json!({ "how": "link", "acr": "gold", "amr": ["otp"], "signed_in": "2026-01-01T00:00:00Z" });
        assert_eq!((event.kind.as_ref(), event.metadata), ("sign_in", about));
    }
}

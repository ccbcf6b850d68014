//! From an SSH authentication (RFC 4252, RFC 4256) to a session: a certificate, a remembered key, or a link and six digits.
//!
//! A certificate that counts for nothing is not the end: keys and a link may follow, and the first words that can be
//! shown say what was wrong with it. A key that is proved by signature and not remembered is partial success: the link that follows then vouches for it.
//! A denial is one round with the reason and then no method left, because OpenSSH tries three times otherwise. Before
//! sign-in an unknown socket answers exactly as a known one, and as one that takes no links: each shows one.
//!
//! Where a rule lacks nothing but a newer or another sign-in, a link asks the same person for it and the connection goes
//! on (`step_up`). Until that is answered the denial is owed to the book: whoever goes away leaves its row.

pub(super) mod door;
mod standing;
mod step_up;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use russh::keys::ssh_key::{Certificate, HashAlg, PublicKey};
use russh::server::Auth;
use russh::{MethodKind, MethodSet};
use serde_json::json;
use tokio::time::{Instant, timeout};

pub(super) use self::standing::Standing;
pub(super) use self::step_up::Known;
use self::step_up::{NO_CERTIFICATE, Raising};
use super::connection::Connection;
use crate::error::{Fault, UserFacing};
use crate::identity::Identity;
use crate::identity::approval::Approval;
use crate::identity::link::{Answer, Asks, Demand, LinkState, REVOKED, Waiting};
use crate::identity::sign_ins::{Certified, SignInError};

/// Shown before any sign-in. russh can send it only then, so it is one line and always the same.
pub(super) const BANNER: &str = "gatescribe: sessions are recorded. For scripts: sign in once with `gatescribe login`, or from a terminal with a key; it is then remembered. A rule that asks for a newer sign-in needs a terminal.\r\n";

/// How long a round waits for the browser before the client is asked again, so that one that went away is noticed.
const ROUND: Duration = Duration::from_secs(1);

/// How much longer than its link a connection lives.
const AFTER_LINK: Duration = Duration::from_secs(60);

/// Keys that are looked at after the first. russh gives up at ten attempts, which would leave none for the link.
const MOST_KEYS: u8 = 5;

/// One connection's sign-in.
pub(super) struct SignIn {
    connection: Arc<Connection>,
    /// The fingerprint of the key that this connection proved by signature.
    proven: Option<String>,
    /// How many keys came after that one.
    more_keys: u8,
    /// Why the last certificate counts for nothing.
    refused: Option<String>,
    /// Whose key is remembered, where the socket takes no sign-in by link: a certificate may follow.
    unfit: Option<Known>,
    /// What the link was shown for. Only this may be opened, and only this key be remembered, once it is approved.
    shown: Shown,
    /// Of whom a better sign-in is asked. While this is here, no row tells of them.
    raising: Option<Raising>,
    stage: Stage,
}

#[derive(Default)]
struct Shown {
    user: String,
    key: Option<String>,
    /// That it was shown for no socket, and so for all of them.
    anywhere: bool,
}

enum Stage {
    /// Nothing was asked yet.
    Start,
    /// A link for a better sign-in is to be shown.
    Raising,
    /// The link was shown.
    Link(Waiting),
    /// The digits were asked for.
    Digits(Waiting),
    /// A reason is to be told in the next round.
    Telling(String),
    /// The reason was told: no more.
    Over,
}

/// Why nobody was let in.
enum Refusal {
    /// In words for the user.
    Told(String),
    /// A better sign-in is missing: [`SignIn::raising`] says which.
    StepUp,
}

impl SignIn {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        let (shown, stage) = (Shown::default(), Stage::Start);
        Self { connection, proven: None, more_keys: 0, refused: None, unfit: None, shown, raising: None, stage }
    }

    /// The client proved the key of a certificate by signature.
    pub(super) async fn certified(&mut self, user: &str, certificate: &Certificate) -> Auth {
        if self.connection.inner.is_some() {
            return self.inherited(user).await;
        }
        if !matches!(self.stage, Stage::Start) {
            return no_more();
        }
        let (from, since) = (self.connection.client.ip(), Instant::now());
        match self.connection.front.sign_ins.by_ssh_certificate(certificate, from).await {
            Ok(certified) => self.let_in(user, certified, since).await,
            Err(refused) => {
                let (serial, key_id) = (certificate.serial(), printable(certificate.key_id()));
                match refused.fault() {
                    Fault::Gateway => tracing::error!(error = %refused, "a certificate could not be checked"),
                    _ => tracing::info!(serial, key_id, reason = %refused, "a certificate was refused"),
                }
                self.refused = Some(refused.told());
                Auth::reject()
            }
        }
    }

    async fn let_in(&mut self, user: &str, certified: Certified, since: Instant) -> Auth {
        if self.socket(&self.wanted(user).1).is_some_and(|socket| !socket.certificates) {
            self.refused = Some(NO_CERTIFICATE.into());
            return Auth::reject();
        }
        if !certified.terminal {
            self.connection.forbid_terminals();
        }
        let how = json!({
            "how": "certificate",
            "key": certified.fingerprint,
            "serial": certified.serial.to_string(),
            "sign_in_id": certified.sign_in_id,
        });
        // The certificate vouches for the person, and a link for the time or kind of their sign-in: also where a link
        // alone would open nothing.
        let known = Known::by(how, certified.identity, since).in_sign_in(certified.sign_in_id, certified.expires);
        match self.open(user, known, true).await {
            Ok(()) => Auth::Accept,
            Err(refusal) => self.then_interactive(refusal),
        }
    }

    /// The client proved `key` by signature.
    pub(super) async fn key_proved(&mut self, user: &str, key: &PublicKey) -> Auth {
        if self.connection.inner.is_some() {
            return self.inherited(user).await;
        }
        if !matches!(self.stage, Stage::Start) || is_weak(key) {
            return no_more();
        }
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let since = Instant::now();
        // Looked up whatever the socket takes: a stranger must not tell by the time which that is.
        let Some(identity) = self.remembered(&fingerprint).await else { return self.not_enough(fingerprint) };
        let how = json!({ "how": "remembered key", "key": fingerprint });
        let known = Known::by(how, identity, since).with_key(fingerprint.clone());
        if self.socket(&self.wanted(user).1).is_some_and(|socket| !socket.links) {
            self.unfit = Some(known);
            return self.not_enough(fingerprint);
        }
        match self.open(user, known, true).await {
            Ok(()) => Auth::Accept,
            Err(refusal) => self.then_interactive(refusal),
        }
    }

    /// Words can be shown by keyboard-interactive alone.
    fn then_interactive(&mut self, refusal: Refusal) -> Auth {
        self.stage = match refusal {
            Refusal::Told(words) => Stage::Telling(words),
            Refusal::StepUp => Stage::Raising,
        };
        Auth::Reject { proceed_with_methods: only_interactive(), partial_success: true }
    }

    /// The first such key is what a link vouches for. More may follow: OpenSSH offers a certificate that it was not told
    /// to prefer after its plain key, and another key may be the one that is remembered. It starts over after a partial
    /// success, with the proved key last; when that one comes again, nothing else is left.
    fn not_enough(&mut self, fingerprint: String) -> Auth {
        let Some(proven) = &self.proven else {
            self.proven = Some(fingerprint);
            let methods = MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]);
            return Auth::Reject { proceed_with_methods: Some(methods), partial_success: true };
        };
        self.more_keys += 1;
        match *proven == fingerprint || self.more_keys >= MOST_KEYS {
            true => Auth::Reject { proceed_with_methods: only_interactive(), partial_success: false },
            false => Auth::reject(),
        }
    }

    /// Whom the key was remembered for.
    async fn remembered(&self, fingerprint: &str) -> Option<Identity> {
        let front = &self.connection.front;
        match front.store.remembered_key(fingerprint, jiff::Timestamp::now()).await {
            Ok(identity) => identity.filter(|identity| identity.issuer() == front.issuer),
            Err(error) => {
                tracing::error!(%error, "remembered keys cannot be read");
                None
            }
        }
    }

    /// A round of keyboard-interactive: `answers` is `None` in the first.
    pub(super) async fn asked(&mut self, user: &str, answers: Option<Vec<Bytes>>) -> Auth {
        if self.connection.inner.is_some() && matches!(self.stage, Stage::Start) {
            match self.inherited(user).await {
                Auth::Accept => return Auth::Accept,
                // What was refused is said in this same round.
                _ if !matches!(self.stage, Stage::Start) => {}
                refused => return refused,
            }
        }
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        if self.shown.user != user && matches!(stage, Stage::Raising | Stage::Link(_) | Stage::Digits(_)) {
            // A client may change its user name between requests (RFC 4252 section 5). What the page showed and
            // somebody approves is the other one: that link is void.
            return self.tell("the user name was changed during the sign-in; connect again").await;
        }
        match stage {
            Stage::Start => self.show_link(user).await,
            Stage::Raising => self.show_step_up(user).await,
            Stage::Link(waiting) => self.wait(user, waiting).await,
            Stage::Digits(waiting) => self.take_digits(user, waiting, answers.unwrap_or_default()).await,
            Stage::Telling(words) => self.tell(&words).await,
            Stage::Over => no_more(),
        }
    }

    async fn show_link(&mut self, user: &str) -> Auth {
        if let Some(known) = self.unfit.take() {
            return self.enter(user, known, true).await;
        }
        self.shown = Shown { user: user.to_owned(), key: self.proven.clone(), anywhere: self.names_none(user) };
        let refused = self.refused.take().map(|why| format!("\ngatescribe: your certificate was refused: {why}\n"));
        let refused = refused.unwrap_or_default();
        let name = printable(&self.wanted(user).1);
        let words = |link: &str, minutes: u64| {
            format!(
                "{refused}\nGatescribe: to open {name}, sign in here:\n\n    {link}\n\nThe link holds for {minutes} minutes. Waiting for your browser, Ctrl-C to give up.\n",
            )
        };
        match self.request(user, None) {
            Ok(waiting) => self.show(waiting, words),
            Err(refused) => self.tell(&refused).await,
        }
    }

    /// A link to a better sign-in of the same person. Its key is remembered anew, for as long as that sign-in lasts.
    async fn show_step_up(&mut self, user: &str) -> Auth {
        let Some(raising) = self.raising.take() else { return no_more() };
        self.shown = Shown { user: user.to_owned(), key: raising.known.key.clone(), anywhere: false };
        let requested = self.request(user, Some(raising.demand()));
        let shown = match requested {
            Ok(waiting) => Ok(self.show(waiting, |link, minutes| raising.words(link, minutes))),
            Err(refused) => Err(refused),
        };
        self.raising = Some(raising);
        match shown {
            Ok(shown) => shown,
            Err(refused) => self.tell(&refused).await,
        }
    }

    fn request(&self, user: &str, demand: Option<Demand>) -> Result<Waiting, String> {
        let (login, socket) = self.wanted(user);
        let (client, software) = (self.connection.client, self.connection.software.clone());
        let Shown { key, anywhere, .. } = &self.shown;
        let asks = Asks { socket, anywhere: *anywhere, login, client, software, proven_key: key.clone(), demand };
        self.connection.front.links.request(asks).map_err(|refused| refused.to_string())
    }

    fn show(&mut self, waiting: Waiting, words: impl FnOnce(&str, u64) -> String) -> Auth {
        let lifetime = self.connection.front.link_lifetime;
        self.connection.allow(lifetime + AFTER_LINK);
        let words = words(waiting.url(), lifetime.as_secs() / 60);
        self.stage = Stage::Link(waiting);
        round(words, &[])
    }

    async fn wait(&mut self, user: &str, mut waiting: Waiting) -> Auth {
        if waiting.state() == LinkState::Pending {
            let _ = timeout(ROUND, waiting.changed()).await;
        }
        match waiting.state() {
            LinkState::Pending => {
                self.stage = Stage::Link(waiting);
                round(String::new(), &[])
            }
            LinkState::AsksDigits => {
                self.stage = Stage::Digits(waiting);
                round(String::new(), &["Type the six digits that your browser shows: "])
            }
            LinkState::SignedIn(approval) => self.signed_in(user, *approval).await,
            LinkState::Refused(words) => self.tell(&words).await,
            LinkState::Expired => self.tell("the link has expired; connect again for a new one").await,
        }
    }

    async fn take_digits(&mut self, user: &str, mut waiting: Waiting, answers: Vec<Bytes>) -> Auth {
        let typed = answers.first().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        match waiting.answer(&typed) {
            Answer::Right(approval) => self.signed_in(user, approval).await,
            Answer::Wrong { left } => {
                self.stage = Stage::Digits(waiting);
                let tries = if left == 1 { "one try is left" } else { "try again" };
                round(format!("Those are not the digits; {tries}."), &["Type the six digits that your browser shows: "])
            }
            // Another terminal that proved the same key may have been quicker.
            Answer::Void => match waiting.state() {
                LinkState::SignedIn(approval) => self.signed_in(user, *approval).await,
                LinkState::Refused(words) => self.tell(&words).await,
                _ => self.tell("the link no longer holds; connect again for a new one").await,
            },
        }
    }

    async fn signed_in(&mut self, user: &str, approval: Approval) -> Auth {
        let since = Instant::now();
        if !self.connection.front.sign_ins.revoked_people().leave(&approval) {
            return self.tell(REVOKED).await;
        }
        if self.names_none(user) != self.shown.anywhere {
            // The sockets were replaced meanwhile: who agreed to one has not agreed to all of them.
            return self.tell("what you asked for was changed during the sign-in; connect again").await;
        }
        // The link lets nobody else approve it: this is the last place to be sure.
        if self.raising.as_ref().is_some_and(|raising| !raising.known.identity.is_same_person(approval.identity())) {
            return self.tell("somebody else signed in; connect again and sign in yourself").await;
        }
        if let Some(fingerprint) = &self.shown.key {
            match self.connection.front.sign_ins.remember_key(fingerprint, &approval).await {
                Ok(()) => {}
                Err(SignInError::Over) => return self.tell(REVOKED).await,
                Err(error) => tracing::error!(%error, "a key could not be remembered"),
            }
        }
        let identity = approval.into_identity();
        let (known, may_step_up) = match self.raising.take() {
            Some(raising) => (raising.raised(identity), false),
            None => {
                let how = json!({ "how": "link", "key": self.shown.key });
                (Known { key: self.shown.key.clone(), ..Known::by(how, identity, since) }, true)
            }
        };
        self.enter(user, known, may_step_up).await
    }

    /// Opens the session of somebody known, in a round that can show words and links.
    async fn enter(&mut self, user: &str, known: Known, may_step_up: bool) -> Auth {
        match self.open(user, known, may_step_up).await {
            Ok(()) => Auth::Accept,
            Err(Refusal::Told(words)) => match self.refused.take() {
                Some(why) => self.tell(&format!("{words}; your certificate was refused: {why}")).await,
                None => self.tell(&words).await,
            },
            Err(Refusal::StepUp) => self.show_step_up(user).await,
        }
    }

    /// The last words. A denial that is still owed to the book is written now, so that they can name it.
    async fn tell(&mut self, words: &str) -> Auth {
        tracing::info!(reason = words, "refused");
        self.stage = Stage::Over;
        let Some((visit, denied)) = self.owed(words) else { return round(format!("gatescribe: {words}"), &[]) };
        let id = match self.connection.front.sessions.deny(visit, &denied).await {
            Ok(id) => format!(" ({id})"),
            Err(error) => {
                tracing::error!(%error, "a denial could not be written");
                String::new()
            }
        };
        round(format!("gatescribe: {words}{id}"), &[])
    }
}

fn round(instructions: String, prompts: &[&'static str]) -> Auth {
    Auth::Partial {
        name: "".into(),
        instructions: instructions.into(),
        prompts: prompts.iter().map(|prompt| ((*prompt).into(), true)).collect::<Vec<_>>().into(),
    }
}

/// Nothing more to try: the keys were tried before, so the client gives up instead of asking again. An empty list would
/// make OpenSSH ask for a password.
fn no_more() -> Auth {
    let methods = MethodSet::from(&[MethodKind::PublicKey][..]);
    Auth::Reject { proceed_with_methods: Some(methods), partial_success: false }
}

/// RSA keys under 2048 bits vouch for nobody.
fn is_weak(key: &PublicKey) -> bool {
    key.key_data().rsa().is_some_and(|rsa| rsa.key_size() < 2048)
}

fn only_interactive() -> Option<MethodSet> {
    Some(MethodSet::from(&[MethodKind::KeyboardInteractive][..]))
}

/// What somebody typed, fit for a terminal: printable ASCII, at most 64 characters.
fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

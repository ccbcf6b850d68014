//! What the gateway remembers of browsers, in memory and bounded: who is signed in, and who is on the way to the
//! identity provider. A restart forgets it all; people then sign in again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::address::customer;
use crate::identity::Identity;
use crate::identity::approval::{Approval, RevokedPeople};
use crate::identity::oidc::Flow;
use crate::identity::random::{self, Hashed, NoRandomness};

/// `__Host-`: set by this host alone, over HTTPS alone (RFC 6265bis section 4.1.3.2).
const SESSION: &str = "__Host-gatescribe";
const FLOW: &str = "__Host-gatescribe-flow";
/// How long a person may take at the provider.
const FLOW_LIFETIME: Duration = Duration::from_secs(600);
const MAX_SESSIONS: usize = 10_000;
const MAX_SESSIONS_OF_ONE: usize = 16;
const MAX_FLOWS: usize = 10_000;
const MAX_FLOWS_FROM_ADDRESS: usize = 32;

pub(super) struct Browsers {
    tables: Mutex<Tables>,
    revoked: RevokedPeople,
}

#[derive(Default)]
struct Tables {
    sessions: HashMap<Hashed, Session>,
    /// By the hash of `state`.
    flows: HashMap<Hashed, OnTheWay>,
}

/// A signed-in browser.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) identity: Identity,
    /// The token that its forms must carry.
    pub(super) csrf: String,
    /// The link whose warning about different addresses it was shown.
    pub(super) warned: Option<Hashed>,
    /// What it was opened for.
    pub(super) errand: Errand,
    opened: Instant,
}

/// What a browser was sent to the provider for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Errand {
    /// The link for which the person signs in afresh after the warning about different addresses.
    pub(super) fresh_for: Option<Hashed>,
    /// The page that was not content with the sign-in before. Whom it sent off once it does not send off again: what
    /// the provider does not confirm the first time it does not confirm the second.
    pub(super) asked_by: Option<Hashed>,
}

/// A browser that was sent to the provider.
struct OnTheWay {
    browser: Hashed,
    /// Of its [`customer`].
    address: IpAddr,
    expires: Instant,
    flow: Flow,
    errand: Errand,
}

impl Session {
    /// The person, as they agree to something now.
    pub(super) fn approval(&self) -> Approval {
        Approval::new(self.identity.clone(), self.opened)
    }

    /// How long ago the browser came back from the provider.
    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }
}

impl Browsers {
    /// Nobody yet. Whoever is revoked is signed out.
    pub(super) fn new(revoked: RevokedPeople) -> Self {
        Self { tables: Mutex::default(), revoked }
    }

    /// The signed-in browser that sent these headers.
    pub(super) fn session(&self, headers: &HeaderMap) -> Option<Session> {
        let id = random::hashed(cookie(headers, SESSION)?);
        let mut tables = self.lock();
        let session = tables.sessions.get(&id)?;
        let revoked = self.revoked.since(session.identity.email(), session.opened);
        if revoked || session.identity.expires() <= Timestamp::now() {
            tables.sessions.remove(&id);
            return None;
        }
        tables.sessions.get(&id).cloned()
    }

    /// Opens a session in place of the browser's last one; the answer is its cookie.
    pub(super) fn open(
        &self,
        headers: &HeaderMap,
        identity: Identity,
        errand: Errand,
    ) -> Result<HeaderValue, NoRandomness> {
        let (id, csrf) = (random::code()?, random::code()?);
        let session = Session { identity, csrf, warned: None, errand, opened: Instant::now() };
        let mut tables = self.lock();
        if let Some(last) = cookie(headers, SESSION) {
            tables.sessions.remove(&random::hashed(last));
        }
        tables.make_room_for(&session.identity);
        tables.sessions.insert(random::hashed(&id), session);
        set_cookie(SESSION, &id, None)
    }

    /// Ends the browser's session; the answer takes its cookie away.
    pub(super) fn close(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if let Some(id) = cookie(headers, SESSION) {
            self.lock().sessions.remove(&random::hashed(id));
        }
        set_cookie(SESSION, "", Some(Duration::ZERO)).ok()
    }

    /// Remembers that this browser was warned about a link's address.
    pub(super) fn warn(&self, headers: &HeaderMap, link: Hashed) {
        let Some(id) = cookie(headers, SESSION).map(random::hashed) else { return };
        if let Some(session) = self.lock().sessions.get_mut(&id) {
            session.warned = Some(link);
        }
    }

    /// Keeps a flow for this browser alone; the answer is the cookie that it must bring back.
    pub(super) fn send_off(
        &self,
        headers: &HeaderMap,
        address: IpAddr,
        flow: Flow,
        errand: Errand,
    ) -> Result<HeaderValue, NoRandomness> {
        // One cookie for all tabs of a browser: each flow is found by its own state.
        let browser = match cookie(headers, FLOW) {
            Some(known) => known.to_owned(),
            None => random::code()?,
        };
        let state = random::hashed(flow.state());
        let address = customer(address);
        let (expires, hashed) = (Instant::now() + FLOW_LIFETIME, random::hashed(&browser));
        let mut tables = self.lock();
        tables.make_room_for_flow(address);
        tables.flows.insert(state, OnTheWay { browser: hashed, address, expires, flow, errand });
        set_cookie(FLOW, &browser, Some(FLOW_LIFETIME))
    }

    /// The flow with this state, if this very browser began it. Somebody else's attempt does not spend it.
    pub(super) fn welcome(&self, headers: &HeaderMap, state: &str) -> Option<(Flow, Errand)> {
        let browser = random::hashed(cookie(headers, FLOW)?);
        let state = random::hashed(state);
        let mut tables = self.lock();
        let found = tables.flows.get(&state)?;
        if found.browser != browser || found.expires <= Instant::now() {
            return None;
        }
        tables.flows.remove(&state).map(|on_the_way| (on_the_way.flow, on_the_way.errand))
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// One person's many sessions push out that person's own oldest, not others'.
    fn make_room_for(&mut self, who: &Identity) {
        let same = |session: &Session| {
            session.identity.subject() == who.subject() && session.identity.issuer() == who.issuer()
        };
        if self.sessions.values().filter(|session| same(session)).count() >= MAX_SESSIONS_OF_ONE {
            remove_first(&mut self.sessions, same, |session| session.opened);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            let now = Timestamp::now();
            self.sessions.retain(|_, session| session.identity.expires() > now);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            remove_first(&mut self.sessions, |_| true, |session| session.opened);
        }
    }

    /// Anybody can begin a flow, so a customer who begins many pushes out their own.
    fn make_room_for_flow(&mut self, address: IpAddr) {
        let now = Instant::now();
        self.flows.retain(|_, flow| flow.expires > now);
        let same = |flow: &OnTheWay| flow.address == address;
        if self.flows.values().filter(|flow| same(flow)).count() >= MAX_FLOWS_FROM_ADDRESS {
            remove_first(&mut self.flows, same, |flow| flow.expires);
        }
        if self.flows.len() >= MAX_FLOWS {
            remove_first(&mut self.flows, |_| true, |flow| flow.expires);
        }
    }
}

fn remove_first<V, K: Ord>(map: &mut HashMap<Hashed, V>, of: impl Fn(&V) -> bool, by: impl Fn(&V) -> K) {
    let first = map.iter().filter(|(_, value)| of(value)).min_by_key(|(_, value)| by(value)).map(|(id, _)| *id);
    if let Some(id) = first {
        map.remove(&id);
    }
}

/// A cookie of ours (RFC 6265 section 4.2); anything that we cannot have set is none.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = pairs.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(known, _)| *known == name)?;
    let ours = (20..=64).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric());
    ours.then_some(value)
}

/// `Lax`: the way back from the provider is a navigation from another site, and must carry both cookies.
fn set_cookie(name: &str, value: &str, max_age: Option<Duration>) -> Result<HeaderValue, NoRandomness> {
    let max_age = max_age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
    let cookie = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{max_age}");
    // Names and values are ASCII letters and digits, so this cannot fail; an answer without a cookie is the safe end.
    HeaderValue::try_from(cookie).map_err(|_| NoRandomness)
}

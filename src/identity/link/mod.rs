//! Signing in by a link: the terminal shows it, a signed-in browser approves it, and the terminal proves with six
//! digits that both are the same person's. Knows no HTTP, no SSH and no provider.
//!
//! What protects whom: the code is unguessable and dies with the connection that showed it; the digits stop somebody
//! who sends his own link to a colleague, for he never sees the colleague's browser; the comparison of addresses makes
//! that colleague look twice. A link in the table always has a living [`Waiting`], so the table is bounded by the
//! connections there are.

mod demand;
mod table;
#[cfg(test)]
mod tests;
mod waiting;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use reqwest::Url;
use tokio::time::Instant;

use self::table::Table;
use super::approval::Approval;
use super::{Identity, random};
use crate::error::{Fault, UserFacing};
use crate::pace::SignInPace;
use crate::policy::StepUp;

pub use self::demand::Demand;
pub use self::waiting::{Answer, LinkState, Waiting};

/// What a terminal is told whose link ends because another process answers browsers now.
const UPGRADED: &str = "the gateway was upgraded; connect again";
/// What a terminal is told whose link was approved by somebody who is revoked.
pub const REVOKED: &str = "this sign-in was revoked; connect again for a new link";

/// How links behave.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// The origin of every link; never taken from a request.
    pub public_url: Url,
    /// From the request to the last digit: five minutes.
    pub lifetime: Duration,
    /// What happens when browser and terminal are at different addresses.
    pub other_address: OtherAddress,
    /// Connections that may wait at once.
    pub max_waiting: usize,
    /// Connections that may wait at once from one address.
    pub max_per_address: usize,
    /// How often somebody may ask for one.
    pub pace: Arc<SignInPace>,
}

/// `[sign_in] other_address`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherAddress {
    /// A red page names both addresses and demands a fresh sign-in.
    #[default]
    Confirm,
    /// Refused.
    Deny,
}

/// Who asks for what from where, as the page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// The socket's name, as asked for.
    pub socket: String,
    /// That it is no socket's: what is approved then leads to every socket that the person may reach.
    pub anywhere: bool,
    /// The login at the socket, if one was named.
    pub login: Option<String>,
    /// The waiting connection's other end.
    pub client: SocketAddr,
    /// The client's own words about itself, as an SSH version string.
    pub software: String,
    /// The `SHA256:…` fingerprint of a key that was proved by signature on this connection.
    pub proven_key: Option<String>,
    /// What the sign-in must prove, where the person is known and that was not enough.
    pub demand: Option<Demand>,
}

/// A pending link, as the browser sees it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Every connection that waits on this link; more than one only where all proved the same key.
    pub asks: Vec<Asks>,
    /// What the sign-in must prove; the same for all of them.
    pub demand: Option<Demand>,
    /// When the first of them asked.
    pub since: Timestamp,
    /// What the browser's address means for this link.
    pub place: Place,
}

/// Where the browser is, compared with the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the same address.
    Same,
    /// At another one: a fresh sign-in is demanded.
    Other {
        /// Where the terminal is.
        terminal: IpAddr,
    },
    /// At another one, which the configuration forbids.
    Forbidden {
        /// Where the terminal is.
        terminal: IpAddr,
    },
}

/// The six digits that the browser shows and the terminal asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct Digits(String);

/// Why there is no link, or why it cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefused {
    /// Nobody ever made it, or it is long gone.
    #[error("unknown link")]
    Unknown,
    /// Its time is over.
    #[error("link expired")]
    Expired,
    /// It was approved before.
    #[error("link already used")]
    Used,
    /// It was denied in a browser.
    #[error("link denied")]
    Denied,
    /// The connection that showed it has gone.
    #[error("the waiting connection has gone")]
    GoneAway,
    /// Three times wrong digits.
    #[error("wrong digits too often")]
    WrongDigits,
    /// Browser and terminal are at different addresses, and nobody signed in afresh.
    #[error("browser at {browser}, terminal at {terminal}")]
    OtherAddress {
        /// Where the terminal is.
        terminal: IpAddr,
        /// Where the browser is.
        browser: IpAddr,
    },
    /// The same where the configuration forbids it.
    #[error("browser at {browser}, terminal at {terminal}, which is forbidden")]
    OtherAddressForbidden {
        /// Where the terminal is.
        terminal: IpAddr,
        /// Where the browser is.
        browser: IpAddr,
    },
    /// The person is known already, and somebody else wants to approve.
    #[error("this link is for {whose}")]
    OtherPerson {
        /// The e-mail address of the person whose link it is.
        whose: String,
    },
    /// The sign-in in the browser does not prove what the link must prove.
    #[error("the approving sign-in is not new enough or not of the right class")]
    NotEnough,
    /// The sign-in in the browser has ended.
    #[error("the approving sign-in has expired")]
    SignInExpired,
    /// Too many connections wait.
    #[error("too many connections wait for a sign-in")]
    TooMany,
    /// Too many connections wait from this address.
    #[error("too many connections from this address wait for a sign-in")]
    TooManyFromAddress,
    /// Too many were asked for from this address.
    #[error("too many sign-ins are asked for from this address; wait a minute")]
    TooFast,
    /// The process that showed it has been replaced by a newer one.
    #[error("{UPGRADED}")]
    Upgraded,
    /// No random bytes, so no code.
    #[error(transparent)]
    NoRandomness(#[from] random::NoRandomness),
}

/// Signs somebody in without a browser. Only `demo --approve-as` and tests have one.
pub trait Approver: Send + Sync + 'static {
    /// A verified identity, or words for the terminal. `step_up` is what the sign-in must prove.
    fn sign_in(&self, step_up: Option<&StepUp>) -> BoxFuture<'static, Result<Identity, String>>;
}

/// All links of the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Links(Arc<Shared>);

struct Shared {
    settings: LinkSettings,
    approver: Option<Arc<dyn Approver>>,
    // Held for lines, never across an await.
    table: Mutex<Table>,
}

impl Links {
    /// Links that people approve.
    pub fn new(settings: LinkSettings) -> Self {
        Self(Arc::new(Shared { settings, approver: None, table: Mutex::default() }))
    }

    /// Links that approve themselves, without digits. No configuration leads here: only `demo` and tests call it.
    pub fn approved_by(settings: LinkSettings, approver: Arc<dyn Approver>) -> Self {
        Self(Arc::new(Shared { settings, approver: Some(approver), table: Mutex::default() }))
    }

    /// A link for one connection. It joins one that is pending only if both proved the same key, from the same address,
    /// and nobody's sign-in must prove more than the other's.
    ///
    /// The text in `asks` is cut to 64 printable ASCII characters each. Must run inside a tokio runtime.
    pub fn request(&self, asks: Asks) -> Result<Waiting, LinkRefused> {
        let asks = asks.sanitised();
        self.0.settings.pace.wanted_from(asks.client.ip()).map_err(|_| LinkRefused::TooFast)?;
        let step_up = asks.demand.as_ref().map(|demand| demand.step_up.clone());
        let settings = &self.0.settings;
        let (code, id, ticket, changes, expires) = self.0.lock().request(asks, settings, Timestamp::now())?;
        if let Some(approver) = &self.0.approver {
            tokio::spawn(approve_alone(self.clone(), id, approver.sign_in(step_up.as_ref())));
        }
        Ok(Waiting::new(self.clone(), id, ticket, self.url(&code), changes, expires))
    }

    /// Who asks for what from where.
    pub fn look(&self, code: &str, browser: IpAddr) -> Result<Asked, LinkRefused> {
        self.0.lock().look(random::hashed(code), browser, self.0.settings.other_address)
    }

    /// Approves a pending link, once. `fresh`: the person signed in again, for this link, after the warning about the
    /// different addresses. The digits are for the browser alone.
    pub fn approve(
        &self,
        code: &str,
        approval: impl Into<Approval>,
        browser: IpAddr,
        fresh: bool,
    ) -> Result<Digits, LinkRefused> {
        let approval = approval.into();
        if approval.identity().expires() <= Timestamp::now() {
            return Err(LinkRefused::SignInExpired);
        }
        let digits = Digits(random::six_digits()?);
        let other = self.0.settings.other_address;
        self.0.lock().approve(random::hashed(code), approval, digits.clone(), (browser, fresh, other))?;
        Ok(digits)
    }

    /// Denies a pending link: every terminal that waits on it is told who did.
    pub fn deny(&self, code: &str, by: &Identity) -> Result<(), LinkRefused> {
        let words = format!("{} denied this sign-in in the browser", printable(by.email()));
        self.0.lock().refuse(random::hashed(code), words)
    }

    /// Ends the links that the people with this e-mail address approved and whose digits nobody typed yet.
    pub fn forget(&self, email: &str) {
        self.0.lock().forget(email);
    }

    /// Ends every link and makes no more: browsers reach another process from now on, which does not know them.
    pub fn close(&self) {
        self.0.lock().close();
    }

    fn url(&self, code: &str) -> String {
        let origin = self.0.settings.public_url.as_str().trim_end_matches('/');
        format!("{origin}/link/{code}")
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Digits {
    /// The six digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digits(..)")
    }
}

impl Asks {
    fn sanitised(self) -> Self {
        Self {
            socket: printable(&self.socket),
            anywhere: self.anywhere,
            login: self.login.as_deref().map(printable),
            software: printable(&self.software),
            proven_key: self.proven_key,
            demand: self.demand,
            client: self.client,
        }
    }
}

impl UserFacing for LinkRefused {
    fn told(&self) -> String {
        match self {
            Self::Unknown => "this link does not exist or is long gone, connect again to get a new one".into(),
            Self::Expired => "this link has expired, connect again to get a new one".into(),
            Self::Used => "this link was used already, connect again to get a new one".into(),
            Self::Denied => "this link was denied, connect again to get a new one".into(),
            Self::GoneAway => "the connection that showed this link has gone, connect again to get a new one".into(),
            Self::WrongDigits => "wrong digits were typed three times, connect again to get a new link".into(),
            Self::OtherAddress { terminal, browser } => format!(
                "this browser is at {browser}, the terminal that asks is at {terminal}: sign in again to confirm"
            ),
            Self::OtherAddressForbidden { terminal, browser } => format!(
                "this browser is at {browser}, the terminal that asks is at {terminal}: \
                 both must be at the same address here"
            ),
            Self::OtherPerson { whose } => format!("this link is for {whose}, sign in with that account"),
            Self::NotEnough => "this link asks for a newer or another sign-in, open it again to sign in".into(),
            Self::SignInExpired => "your sign-in has expired, sign in again".into(),
            Self::TooMany => "too many connections wait for a sign-in, try again in a few minutes".into(),
            Self::TooManyFromAddress => {
                "too many connections from your address wait for a sign-in, finish or close one".into()
            }
            Self::TooFast => "too many sign-ins are asked for from your address, wait a minute".into(),
            Self::Upgraded => UPGRADED.into(),
            Self::NoRandomness(_) => "the gateway cannot make a link now, tell an administrator".into(),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::NoRandomness(_) => Fault::Gateway,
            _ => Fault::Client,
        }
    }
}

/// Whether two addresses are the same place: equal, or both this machine.
pub fn same_place(a: IpAddr, b: IpAddr) -> bool {
    let (a, b) = (a.to_canonical(), b.to_canonical());
    a == b || (a.is_loopback() && b.is_loopback())
}

async fn approve_alone(links: Links, id: random::Hashed, sign_in: BoxFuture<'static, Result<Identity, String>>) {
    let since = Instant::now();
    let signed_in = sign_in.await;
    let mut table = links.0.lock();
    let done = match signed_in {
        Ok(identity) => table.sign_in(id, Approval::new(identity, since)),
        Err(words) => table.refuse(id, words),
    };
    // The connection may have gone meanwhile; then there is nothing to do.
    if let Err(why @ (LinkRefused::OtherPerson { .. } | LinkRefused::NotEnough)) = done {
        let _ = table.refuse(id, why.told());
    }
}

/// At most 64 printable ASCII characters; what else the client sent becomes `?`.
fn printable(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

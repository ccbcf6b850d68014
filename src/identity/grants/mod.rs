//! What the gateway grants to its own command line on the way to a sign-in: authorization codes (RFC 6749 section 4.1,
//! with PKCE, RFC 7636) and device codes (RFC 8628). In memory, bounded, gone with a restart. Knows no HTTP.
//!
//! There is one client, `gatescribe-cli`, which is public and has no secret: what protects a code is the verifier that
//! only the program has that asked for it, and the loopback address that it is sent to (RFC 8252).

mod codes;
mod devices;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use uuid::Uuid;

use self::codes::Codes;
use self::devices::Devices;
use super::Identity;
use super::approval::Approval;
use super::link::OtherAddress;
use super::random::{self, NoRandomness};

pub use self::devices::{Device, DeviceAsked, DeviceRefused, Polled};

/// The only client there is.
pub const CLIENT: &str = "gatescribe-cli";

/// How grants behave.
#[derive(Clone, Debug, Default)]
pub struct GrantSettings {
    /// The groups whose people may sign a device in (`[sign_in] device_groups`); empty: nobody may.
    pub device_groups: Vec<String>,
    /// What happens when the browser and the device are at different addresses.
    pub other_address: OtherAddress,
}

/// Where a code is sent: a loopback address, on any port (RFC 8252 section 7.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectUri {
    text: String,
    port: u16,
    v6: bool,
}

/// An S256 code challenge (RFC 7636 section 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge(String);

/// An authorization code is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeRefused {
    /// Unknown, expired, or for another redirect URI or verifier.
    Invalid,
    /// The program is at another address than the browser that agreed.
    OtherPlace {
        /// Where the browser was.
        browser: IpAddr,
        /// Where the program is.
        program: IpAddr,
    },
    /// It was used before: what came of it must be revoked (RFC 6749 section 4.1.2).
    Reused(Option<Uuid>),
}

/// All grants of the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Grants(Arc<Shared>);

struct Shared {
    settings: GrantSettings,
    // Held for lines, never across an await.
    codes: Mutex<Codes>,
    devices: Mutex<Devices>,
}

impl Grants {
    /// No grants yet.
    pub fn new(settings: GrantSettings) -> Self {
        Self(Arc::new(Shared { settings, codes: Mutex::default(), devices: Mutex::default() }))
    }

    /// A code for somebody who agreed in a browser at this address. Good once, for 60 seconds.
    pub fn issue_code(
        &self,
        redirect: RedirectUri,
        challenge: Challenge,
        approval: impl Into<Approval>,
        browser: IpAddr,
    ) -> Result<String, NoRandomness> {
        let code = random::code()?;
        lock(&self.0.codes).add(random::hashed(&code), redirect, challenge, approval.into(), browser.to_canonical());
        Ok(code)
    }

    /// Who agreed; `from` is where the program is. The code is spent, whatever comes of it: whoever brings a wrong verifier
    /// is not the program that asked.
    ///
    /// Browser and program are one machine, whatever `other_address` says: somebody who is sent another person's request
    /// and sends back where it leads would sign that person in, and it is all that stops it.
    pub fn redeem_code(
        &self,
        code: &str,
        redirect: &str,
        verifier: &str,
        from: IpAddr,
    ) -> Result<Approval, CodeRefused> {
        lock(&self.0.codes).redeem(random::hashed(code), redirect, verifier, from.to_canonical())
    }

    /// Remembers what came of a code, so that it can be revoked when the code is seen again. `false`: the code was
    /// seen again meanwhile.
    pub fn came_of_code(&self, code: &str, sign_in: Uuid) -> bool {
        lock(&self.0.codes).came_of(random::hashed(code), sign_in)
    }

    /// Whether anybody may sign a device in.
    pub fn devices_are_on(&self) -> bool {
        !self.0.settings.device_groups.is_empty()
    }

    /// A device at this address asks to be signed in.
    pub fn ask_for_device(&self, from: IpAddr, software: &str) -> Result<Device, DeviceRefused> {
        match self.devices_are_on() {
            true => lock(&self.0.devices).ask(from, software),
            false => Err(DeviceRefused::Off),
        }
    }

    /// How far a device's sign-in is; asked by the device. Signed in is told once.
    pub fn poll_device(&self, device_code: &str) -> Polled {
        lock(&self.0.devices).poll(random::hashed(device_code))
    }

    /// Who asks with this user code, as somebody signed in at `browser` sees it. Wrong codes are counted by person.
    pub fn look_at_device(
        &self,
        user_code: &str,
        identity: &Identity,
        browser: IpAddr,
    ) -> Result<DeviceAsked, DeviceRefused> {
        self.may_sign_devices_in(identity)?;
        lock(&self.0.devices).look(user_code, identity, browser, self.0.settings.other_address)
    }

    /// Signs the device in as who approves. `fresh`: signed in again after the warning about different addresses.
    pub fn approve_device(
        &self,
        user_code: &str,
        approval: impl Into<Approval>,
        browser: IpAddr,
        fresh: bool,
    ) -> Result<(), DeviceRefused> {
        let approval = approval.into();
        self.may_sign_devices_in(approval.identity())?;
        let other = self.0.settings.other_address;
        lock(&self.0.devices).approve(user_code, approval, browser, fresh, other)
    }

    /// Refuses the device.
    pub fn deny_device(&self, user_code: &str, identity: &Identity) -> Result<(), DeviceRefused> {
        self.may_sign_devices_in(identity)?;
        lock(&self.0.devices).deny(user_code, identity)
    }

    /// Takes back what the people with this e-mail address approved and nobody redeemed yet.
    pub fn forget(&self, email: &str) {
        lock(&self.0.codes).forget(email);
        lock(&self.0.devices).forget(email);
    }

    fn may_sign_devices_in(&self, identity: &Identity) -> Result<(), DeviceRefused> {
        let allowed = |group: &String| self.0.settings.device_groups.contains(group);
        match identity.groups().iter().any(allowed) {
            true => Ok(()),
            false => Err(DeviceRefused::Group),
        }
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grants").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl RedirectUri {
    /// `http://127.0.0.1:PORT/callback` or `http://[::1]:PORT/callback`, and nothing else: not `localhost`, which may
    /// lead elsewhere, no query, no fragment, no second spelling.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, v6) = match (text.strip_prefix("http://127.0.0.1:"), text.strip_prefix("http://[::1]:")) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return None,
        };
        let digits = rest.strip_suffix("/callback")?;
        let port = digits.parse().ok().filter(|port: &u16| *port != 0 && port.to_string() == digits)?;
        Some(Self { text: text.to_owned(), port, v6 })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The port on which the program waits.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address with these parameters in its query.
    pub fn with(&self, parameters: &[(&str, &str)]) -> Option<Url> {
        let mut url: Url = self.text.parse().ok()?;
        url.query_pairs_mut().extend_pairs(parameters);
        Some(url)
    }

    /// What a page's `form-action` must name so that its form may lead here. CSP has no way to write an IPv6 address.
    pub fn form_action(&self) -> String {
        match self.v6 {
            false => format!("http://127.0.0.1:{}", self.port),
            true => "http:".to_owned(),
        }
    }
}

impl Challenge {
    /// 32 bytes in base64url without padding.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == 32);
        bytes.map(|_| Self(text.to_owned()))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is what the verifier hashes to (RFC 7636 section 4.6).
    fn holds(&self, verifier: &str) -> bool {
        let unreserved = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        let well_formed = (43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved);
        let hashed = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        well_formed && random::same(&hashed, &self.0)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

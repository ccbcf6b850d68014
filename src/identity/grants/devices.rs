//! Device codes (RFC 8628). Synchronous; each method is one critical section of its caller.
//!
//! There is no `verification_uri_complete`: whoever approves has typed the code that stands on the device, so a link
//! that somebody sends signs nothing in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::rand;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::error::{Fault, UserFacing};
use crate::identity::Identity;
use crate::identity::approval::Approval;
use crate::identity::link::{LinkRefused, OtherAddress, Place, same_place};
use crate::identity::random::{self, Hashed, NoRandomness};

/// From the request to the approval.
const LIFETIME: Duration = Duration::from_secs(600);
/// How long the device waits between two questions, and how much longer each time that it does not.
const INTERVAL: Duration = Duration::from_secs(5);
const MOST: usize = 10_000;
const MOST_FROM_ADDRESS: usize = 32;
/// Wrong codes that a person may type within [`LIFETIME`].
const WRONG_CODES: u8 = 10;
const MOST_GUESSERS: usize = 10_000;

/// A device that waits.
#[derive(Clone, Debug)]
pub struct Device {
    /// The secret that it asks with.
    pub device_code: String,
    /// What the person types, as `ABCD-EFGH`.
    pub user_code: String,
    /// How long both hold.
    pub expires_in: Duration,
    /// How long to wait between two questions.
    pub interval: Duration,
}

/// A waiting device, as the browser sees it.
#[derive(Clone, Debug)]
pub struct DeviceAsked {
    /// The code, as the device shows it.
    pub user_code: String,
    /// Where the device is.
    pub from: IpAddr,
    /// What it says about itself.
    pub software: String,
    /// When it asked.
    pub since: Timestamp,
    /// Where the browser is, compared with it.
    pub place: Place,
}

/// How far a device's sign-in is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Nobody approved it yet.
    Pending,
    /// The same, and the device asks too often.
    SlowDown,
    /// Approved by this person. Told once.
    SignedIn(Box<Approval>),
    /// Somebody said no.
    Denied,
    /// Its time is over, or it never was.
    Expired,
}

/// Why there is no device to approve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRefused {
    /// No group may.
    #[error("devices are off")]
    Off,
    /// This person's groups may not.
    #[error("not a group for devices")]
    Group,
    /// No device shows this code.
    #[error("unknown code")]
    Unknown,
    /// Too many wrong codes.
    #[error("too many wrong codes")]
    TooManyTries,
    /// Different addresses.
    #[error(transparent)]
    Place(#[from] LinkRefused),
    /// The browser's sign-in has ended.
    #[error("the approving sign-in has expired")]
    SignInExpired,
    /// Too many devices wait.
    #[error("too many devices wait")]
    TooMany,
    /// No random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

#[derive(Default)]
pub(super) struct Devices {
    /// By the hash of the device code.
    waiting: HashMap<Hashed, Waiting>,
    guesses: HashMap<Hashed, Guesses>,
}

struct Waiting {
    /// Without the dash.
    user_code: String,
    from: IpAddr,
    software: String,
    since: Timestamp,
    expires: Instant,
    interval: Duration,
    /// Not before this the device may ask again.
    next: Instant,
    state: State,
}

enum State {
    Pending,
    Approved(Box<Approval>),
    Denied,
}

struct Guesses {
    wrong: u8,
    until: Instant,
}

impl Devices {
    pub(super) fn ask(&mut self, from: IpAddr, software: &str) -> Result<Device, DeviceRefused> {
        let now = Instant::now();
        self.waiting.retain(|_, waiting| waiting.expires > now);
        let from = from.to_canonical();
        let of_address = self.waiting.values().filter(|waiting| same_place(waiting.from, from)).count();
        if self.waiting.len() >= MOST || of_address >= MOST_FROM_ADDRESS {
            return Err(DeviceRefused::TooMany);
        }
        let (device_code, user_code) = (random::code()?, self.free_user_code()?);
        let waiting = Waiting {
            user_code: user_code.clone(),
            from,
            software: software
                .chars()
                .take(100)
                .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
                .collect(),
            since: Timestamp::now(),
            expires: now + LIFETIME,
            interval: INTERVAL,
            next: now,
            state: State::Pending,
        };
        self.waiting.insert(random::hashed(&device_code), waiting);
        Ok(Device { device_code, user_code: shown(&user_code), expires_in: LIFETIME, interval: INTERVAL })
    }

    pub(super) fn poll(&mut self, id: Hashed) -> Polled {
        let now = Instant::now();
        let Some(waiting) = self.waiting.get_mut(&id).filter(|waiting| waiting.expires > now) else {
            return Polled::Expired;
        };
        let too_soon = now < waiting.next;
        if too_soon {
            waiting.interval += INTERVAL;
        }
        waiting.next = now + waiting.interval;
        match &waiting.state {
            _ if too_soon => Polled::SlowDown,
            State::Pending => Polled::Pending,
            State::Denied => {
                self.waiting.remove(&id);
                Polled::Denied
            }
            State::Approved(_) => match self.waiting.remove(&id).map(|waiting| waiting.state) {
                Some(State::Approved(approval)) => Polled::SignedIn(approval),
                _ => Polled::Expired,
            },
        }
    }

    pub(super) fn look(
        &mut self,
        typed: &str,
        identity: &Identity,
        browser: IpAddr,
        other: OtherAddress,
    ) -> Result<DeviceAsked, DeviceRefused> {
        let waiting = self.pending(typed, identity)?;
        Ok(DeviceAsked {
            user_code: shown(&waiting.user_code),
            from: waiting.from,
            software: waiting.software.clone(),
            since: waiting.since,
            place: waiting.place(browser, other),
        })
    }

    pub(super) fn approve(
        &mut self,
        typed: &str,
        approval: Approval,
        browser: IpAddr,
        fresh: bool,
        other: OtherAddress,
    ) -> Result<(), DeviceRefused> {
        if approval.identity().expires() <= Timestamp::now() {
            return Err(DeviceRefused::SignInExpired);
        }
        let waiting = self.pending(typed, approval.identity())?;
        match waiting.place(browser, other) {
            Place::Other { terminal } if !fresh => Err(LinkRefused::OtherAddress { terminal, browser }.into()),
            Place::Forbidden { terminal } => Err(LinkRefused::OtherAddressForbidden { terminal, browser }.into()),
            Place::Same | Place::Other { .. } => {
                waiting.state = State::Approved(Box::new(approval));
                Ok(())
            }
        }
    }

    pub(super) fn deny(&mut self, typed: &str, identity: &Identity) -> Result<(), DeviceRefused> {
        self.pending(typed, identity)?.state = State::Denied;
        Ok(())
    }

    /// No device is signed in that these people approved.
    pub(super) fn forget(&mut self, email: &str) {
        for waiting in self.waiting.values_mut() {
            if matches!(&waiting.state, State::Approved(approval) if approval.is_of(email)) {
                waiting.state = State::Denied;
            }
        }
    }

    /// The device with this code. A person who types many wrong ones is not looked up any more for a while.
    fn pending(&mut self, typed: &str, by: &Identity) -> Result<&mut Waiting, DeviceRefused> {
        let now = Instant::now();
        let person = random::hashed(&format!("{} {}", by.issuer(), by.subject()));
        self.guesses.retain(|_, guesses| guesses.until > now);
        let full = self.guesses.len() >= MOST_GUESSERS;
        match self.guesses.get(&person) {
            Some(guesses) if guesses.wrong >= WRONG_CODES => return Err(DeviceRefused::TooManyTries),
            None if full => return Err(DeviceRefused::TooManyTries),
            _ => {}
        }
        let typed = normal(typed);
        let is_it = |waiting: &&mut Waiting| {
            matches!(waiting.state, State::Pending) && waiting.expires > now && random::same(&waiting.user_code, &typed)
        };
        match self.waiting.values_mut().find(is_it) {
            Some(waiting) => Ok(waiting),
            None => {
                let guesses = self.guesses.entry(person).or_insert(Guesses { wrong: 0, until: now + LIFETIME });
                guesses.wrong += 1;
                Err(DeviceRefused::Unknown)
            }
        }
    }

    fn free_user_code(&self) -> Result<String, NoRandomness> {
        loop {
            let code = user_code()?;
            if !self.waiting.values().any(|waiting| waiting.user_code == code) {
                return Ok(code);
            }
        }
    }
}

impl Waiting {
    fn place(&self, browser: IpAddr, other: OtherAddress) -> Place {
        let terminal = self.from;
        match other {
            _ if same_place(terminal, browser) => Place::Same,
            OtherAddress::Confirm => Place::Other { terminal },
            OtherAddress::Deny => Place::Forbidden { terminal },
        }
    }
}

impl UserFacing for DeviceRefused {
    fn told(&self) -> String {
        match self {
            Self::Off => {
                "devices cannot be signed in at this gateway, use `gatescribe login` without `--device`".into()
            }
            Self::Group => "your groups may not sign devices in, use `gatescribe login` without `--device`".into(),
            Self::Unknown => {
                "no device waits with this code, look at the code again, or run the command again for a new one".into()
            }
            Self::TooManyTries => "too many wrong codes, try again in ten minutes".into(),
            Self::Place(why) => why.told(),
            Self::SignInExpired => "your sign-in has expired, sign in again".into(),
            Self::TooMany => "too many devices wait for a sign-in, try again in a few minutes".into(),
            Self::NoRandomness(_) => "the gateway cannot do this now, tell an administrator".into(),
        }
    }

    fn fault(&self) -> Fault {
        match self {
            Self::NoRandomness(_) => Fault::Gateway,
            _ => Fault::Client,
        }
    }
}

/// Eight of twenty consonants, which spell no words: 34 bits (RFC 8628 section 6.1).
fn user_code() -> Result<String, NoRandomness> {
    let mut code = String::with_capacity(USER_CODE);
    while code.len() < USER_CODE {
        let mut byte = [0; 1];
        rand::fill(&mut byte).map_err(|_| NoRandomness)?;
        // 240 is the largest multiple of 20 in a byte: what is above would favour the first letters.
        let [byte] = byte;
        if byte < 240
            && let Some(letter) = LETTERS.get(usize::from(byte % 20))
        {
            code.push(char::from(*letter));
        }
    }
    Ok(code)
}

/// As it is shown: in two halves.
fn shown(code: &str) -> String {
    let (first, second) = code.split_at_checked(USER_CODE / 2).unwrap_or((code, ""));
    format!("{first}-{second}")
}

/// What somebody typed, without letter case and what stands between.
fn normal(typed: &str) -> String {
    typed.chars().take(64).filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_uppercase()).collect()
}

const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
const USER_CODE: usize = 8;

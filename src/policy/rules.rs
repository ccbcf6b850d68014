//! Rules as checked data. `config` makes them; [`super::decide()`] reads them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Rights, When, wildcard};
use crate::socket::Socket;

/// One `[[policy]]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, unique, shown on rows and in denials.
    pub name: String,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// Which sockets it is about.
    pub sockets: SocketMatch,
    /// Whom it is about.
    pub who: Who,
    /// Where they must be.
    pub place: PlaceMatch,
    /// When it holds.
    pub when: When,
    /// What the sign-in must be like.
    pub require: Require,
    /// How long a session lasts by it.
    pub limits: Limits,
    /// What it allows. Ignored for deny rules, which deny everything.
    pub rights: Rights,
}

impl Rule {
    /// About everybody and every socket, at all times and places; one that allows allows nothing yet.
    pub fn new(name: impl Into<String>, effect: Effect) -> Self {
        Self {
            name: name.into(),
            effect,
            sockets: SocketMatch::default(),
            who: Who::default(),
            place: PlaceMatch::default(),
            when: When::default(),
            require: Require::default(),
            limits: Limits::default(),
            rights: Rights::default(),
        }
    }
}

/// Allow or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Allows what it lists.
    Allow,
    /// Denies everything on its sockets to whom it names, and wins.
    Deny,
}

/// Which sockets a rule is about: a name matches, or all tags do. Both empty: every socket.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SocketMatch {
    /// Names; `*` stands for any run of characters.
    pub names: Vec<String>,
    /// Tags that the socket must have, all of them. Empty counts as absent.
    pub tags: BTreeMap<String, String>,
}

/// Whom a rule is about: any of these. All empty: everybody who is signed in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Who {
    /// E-mail addresses, lower case, compared without case.
    pub emails: Vec<String>,
    /// What stands behind the `@` of e-mail addresses, lower case, compared without case.
    pub domains: Vec<String>,
    /// Groups, compared exactly.
    pub groups: Vec<String>,
    /// Names of service accounts, compared exactly.
    pub service_accounts: Vec<String>,
    /// Claims of the sign-in, each with the values of which it must have one.
    pub claims: BTreeMap<String, Vec<String>>,
}

/// Where somebody must be: all of these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlaceMatch {
    /// In one of these networks. Empty: anywhere.
    pub networks: Vec<IpNet>,
    /// In one of these countries (ISO 3166-1 alpha-2, upper case). Empty: anywhere.
    pub countries: Vec<String>,
    /// In none of these countries.
    pub not_countries: Vec<String>,
}

/// What a sign-in must be like.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Require {
    /// Not longer ago than this.
    pub max_sign_in_age: Option<Duration>,
    /// Of one of these classes (`acr`, OpenID Connect Core section 2). Empty: of any.
    pub acr: Vec<String>,
    /// By one of these methods (`amr`, RFC 8176). Empty: by any.
    pub amr: Vec<String>,
}

/// How long a session lasts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    /// From its beginning.
    pub max_session: Option<Duration>,
    /// Without anything happening.
    pub idle_timeout: Option<Duration>,
    /// How much longer what is under way may take once the session's time is over.
    pub finish_grace: Option<Duration>,
}

/// In which country somebody is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Country {
    /// This one (ISO 3166-1 alpha-2, upper case).
    Known(String),
    /// In none: a private network.
    Private,
    /// Nobody can tell.
    #[default]
    Unknown,
}

impl SocketMatch {
    /// Whether this socket is meant.
    pub fn holds(&self, socket: &Socket) -> bool {
        self.is_every() || self.names_hold(&socket.name) || self.tags_hold(&socket.tags)
    }

    /// Whether every socket is meant.
    pub fn is_every(&self) -> bool {
        self.names.is_empty() && self.tags.is_empty()
    }

    fn names_hold(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| wildcard::matches(pattern, name))
    }

    fn tags_hold(&self, tags: &BTreeMap<String, String>) -> bool {
        !self.tags.is_empty() && self.tags.iter().all(|(name, value)| tags.get(name) == Some(value))
    }
}

impl Who {
    /// Whether everybody who is signed in is meant.
    pub fn is_everybody(&self) -> bool {
        let Self { emails, domains, groups, service_accounts, claims } = self;
        [emails, domains, groups, service_accounts].into_iter().all(Vec::is_empty) && claims.is_empty()
    }
}

impl PlaceMatch {
    /// Whether somebody at this address is meant. Of a country that nobody knows, only what is certain either way is said:
    /// it is in no list, so `countries` does not hold, and a rule that allows may not take it for any other, so
    /// `not_countries` holds for a rule that denies alone.
    pub fn holds(&self, address: IpAddr, country: &Country, effect: Effect) -> bool {
        self.holds_network(address) && self.holds_country(country, effect)
    }

    pub(super) fn holds_network(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.is_empty() || self.networks.iter().any(|network| network.contains(&address))
    }

    fn holds_country(&self, country: &Country, effect: Effect) -> bool {
        let (within, outside) = match country {
            Country::Known(code) => (self.countries.contains(code), !self.not_countries.contains(code)),
            Country::Private => (false, true),
            Country::Unknown => (false, effect == Effect::Deny),
        };
        (self.countries.is_empty() || within) && (self.not_countries.is_empty() || outside)
    }
}

impl Require {
    /// Whether any sign-in will do.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

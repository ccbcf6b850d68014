//! Locks: who or what is kept out for now, whatever the rules say. Administrators set them; they survive restarts.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::identity::Identity;

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Its id.
    pub lock_id: Uuid,
    /// Whom or what it keeps out.
    pub target: LockTarget,
    /// Why, in words that are shown to whom it keeps out.
    pub reason: String,
    /// Who set it, as it is shown.
    pub by: String,
    /// Since when.
    pub created: Timestamp,
    /// Until when; `None`: until it is taken off.
    pub until: Option<Timestamp>,
}

/// Whom or what a lock keeps out: what fits everything that is named. Nothing named: everybody, everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockTarget {
    /// A person by e-mail address, compared without case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// A socket by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// A client's address or network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpNet>,
}

/// All locks in force.
#[derive(Clone, Debug, Default)]
pub struct Locks(Arc<[Lock]>);

impl Locks {
    /// These.
    pub fn new(locks: Vec<Lock>) -> Self {
        Self(locks.into())
    }

    /// The first that keeps this person at this address off this socket now.
    pub fn on(&self, who: &Identity, socket: &str, address: IpAddr, now: Timestamp) -> Option<&Lock> {
        self.0.iter().find(|lock| lock.is_in_force(now) && lock.target.holds(who, socket, address))
    }

    /// When those end that are about this visit, whether they have or not.
    pub(super) fn ends(&self, who: &Identity, socket: &str, address: IpAddr) -> impl Iterator<Item = Timestamp> {
        let about = self.0.iter().filter(move |lock| lock.target.holds(who, socket, address));
        about.filter_map(|lock| lock.until)
    }
}

impl Lock {
    /// Whether it has not run out.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl LockTarget {
    /// Whether this visit is meant.
    pub fn holds(&self, who: &Identity, socket: &str, address: IpAddr) -> bool {
        let Self { user, group, socket: named, address: network } = self;
        user.as_ref().is_none_or(|user| user.to_lowercase() == who.email().to_lowercase())
            && group.as_ref().is_none_or(|group| who.groups().contains(group))
            && named.as_ref().is_none_or(|named| named == socket)
            && network.is_none_or(|network| network.contains(&address.to_canonical()))
    }
}

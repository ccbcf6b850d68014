//! The table of links and every step a link can take. Synchronous; each method is one critical section of its caller.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::waiting::{Answer, LinkState};
use super::{
    Asked, Asks, Demand, Digits, LinkRefused, LinkSettings, OtherAddress, Place, REVOKED, UPGRADED, same_place,
};
use crate::identity::approval::Approval;
use crate::identity::random::{self, Hashed};

/// Wrong digits before a link is void.
const TRIES: u8 = 3;
/// How many ended links are remembered, so that the page can say how they ended.
const REMEMBERED: usize = 1024;
/// Connections on one link.
const MAX_JOINED: usize = 64;

#[derive(Default)]
pub(super) struct Table {
    links: HashMap<Hashed, Link>,
    ended: VecDeque<(Hashed, LinkRefused)>,
    tickets: u64,
    closed: bool,
}

/// Which of a link's connections.
pub(super) type Ticket = u64;

/// The code, its hash, the connection's ticket, the link's changes, and when it ends.
type Requested = (Arc<str>, Hashed, Ticket, watch::Receiver<LinkState>, Instant);

struct Link {
    code: Arc<str>,
    waiting: Vec<(Ticket, Asks)>,
    since: Timestamp,
    expires: Instant,
    approved: Option<Approved>,
    state: watch::Sender<LinkState>,
}

struct Approved {
    approval: Approval,
    digits: Digits,
    tries_left: u8,
}

impl Table {
    pub(super) fn request(
        &mut self,
        asks: Asks,
        settings: &LinkSettings,
        now: Timestamp,
    ) -> Result<Requested, LinkRefused> {
        self.check_room(asks.client.ip(), settings)?;
        self.tickets += 1;
        let ticket = self.tickets;
        let joined = self.links.iter_mut().find(|(_, link)| link.may_join(&asks));
        if let Some((id, link)) = joined {
            link.waiting.push((ticket, asks));
            return Ok((link.code.clone(), *id, ticket, link.state.subscribe(), link.expires));
        }
        let code: Arc<str> = random::code()?.into();
        let id = random::hashed(&code);
        let (state, changes) = watch::channel(LinkState::Pending);
        let expires = Instant::now() + settings.lifetime;
        let waiting = vec![(ticket, asks)];
        self.links.insert(id, Link { code: code.clone(), waiting, since: now, expires, approved: None, state });
        Ok((code, id, ticket, changes, expires))
    }

    pub(super) fn look(&mut self, id: Hashed, browser: IpAddr, other: OtherAddress) -> Result<Asked, LinkRefused> {
        let link = self.pending(id)?;
        let asks: Vec<Asks> = link.waiting.iter().map(|(_, asks)| asks.clone()).collect();
        Ok(Asked { asks, demand: link.demand().cloned(), since: link.since, place: link.place(browser, other) })
    }

    pub(super) fn approve(
        &mut self,
        id: Hashed,
        approval: Approval,
        digits: Digits,
        (browser, fresh, other): (IpAddr, bool, OtherAddress),
    ) -> Result<(), LinkRefused> {
        let link = self.pending(id)?;
        match link.place(browser, other) {
            Place::Other { terminal } if !fresh => return Err(LinkRefused::OtherAddress { terminal, browser }),
            Place::Forbidden { terminal } => return Err(LinkRefused::OtherAddressForbidden { terminal, browser }),
            Place::Same | Place::Other { .. } => {}
        }
        link.check(&approval)?;
        link.approved = Some(Approved { approval, digits, tries_left: TRIES });
        link.state.send_replace(LinkState::AsksDigits);
        Ok(())
    }

    /// The digits as typed in one of the terminals that wait.
    pub(super) fn answer(&mut self, id: Hashed, typed: &str) -> Answer {
        let Ok(link) = self.living(id) else { return Answer::Void };
        let Some(approved) = &mut link.approved else { return Answer::Void };
        let typed: String = typed.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        if random::same(approved.digits.as_str(), &typed) {
            let approval = approved.approval.clone();
            self.end(id, LinkState::SignedIn(Box::new(approval.clone())), LinkRefused::Used);
            return Answer::Right(approval);
        }
        // Counted for the link, not for the connection: joining must not give more tries.
        approved.tries_left = approved.tries_left.saturating_sub(1);
        match approved.tries_left {
            0 => {
                let words = "wrong digits three times, connect again to get a new link";
                self.end(id, LinkState::Refused(words.into()), LinkRefused::WrongDigits);
                Answer::Void
            }
            left => Answer::Wrong { left },
        }
    }

    /// Signs a link's connections in without digits.
    pub(super) fn sign_in(&mut self, id: Hashed, approval: Approval) -> Result<(), LinkRefused> {
        self.pending(id)?.check(&approval)?;
        self.end(id, LinkState::SignedIn(Box::new(approval)), LinkRefused::Used);
        Ok(())
    }

    pub(super) fn refuse(&mut self, id: Hashed, words: String) -> Result<(), LinkRefused> {
        self.pending(id)?;
        self.end(id, LinkState::Refused(words), LinkRefused::Denied);
        Ok(())
    }

    /// A connection has gone; with its last one goes the link.
    pub(super) fn leave(&mut self, id: Hashed, ticket: Ticket) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.waiting.retain(|(other, _)| *other != ticket);
        if link.waiting.is_empty() {
            let expired = link.expires <= Instant::now();
            self.end(id, LinkState::Expired, if expired { LinkRefused::Expired } else { LinkRefused::GoneAway });
        }
    }

    /// Ends the links that these people approved and whose digits nobody typed yet.
    pub(super) fn forget(&mut self, email: &str) {
        let of_them = |link: &Link| link.approved.as_ref().is_some_and(|approved| approved.approval.is_of(email));
        let ids: Vec<_> = self.links.iter().filter(|(_, link)| of_them(link)).map(|(id, _)| *id).collect();
        for id in ids {
            self.end(id, LinkState::Refused(REVOKED.into()), LinkRefused::Denied);
        }
    }

    /// Ends every link, and makes no more: another process answers browsers from now on.
    pub(super) fn close(&mut self) {
        self.closed = true;
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.end(id, LinkState::Refused(UPGRADED.into()), LinkRefused::Upgraded);
        }
    }

    fn check_room(&self, from: IpAddr, settings: &LinkSettings) -> Result<(), LinkRefused> {
        if self.closed {
            return Err(LinkRefused::Upgraded);
        }
        let all = || self.links.values().flat_map(|link| &link.waiting);
        if all().count() >= settings.max_waiting {
            return Err(LinkRefused::TooMany);
        }
        if all().filter(|(_, asks)| same_place(asks.client.ip(), from)).count() >= settings.max_per_address {
            return Err(LinkRefused::TooManyFromAddress);
        }
        Ok(())
    }

    fn pending(&mut self, id: Hashed) -> Result<&mut Link, LinkRefused> {
        match self.living(id)? {
            link if link.approved.is_some() => Err(LinkRefused::Used),
            link => Ok(link),
        }
    }

    fn living(&mut self, id: Hashed) -> Result<&mut Link, LinkRefused> {
        match self.links.get_mut(&id) {
            Some(link) if link.expires <= Instant::now() => Err(LinkRefused::Expired),
            Some(link) => Ok(link),
            None => {
                let ended = self.ended.iter().rev().find(|(other, _)| *other == id);
                Err(ended.map_or(LinkRefused::Unknown, |(_, why)| why.clone()))
            }
        }
    }

    fn end(&mut self, id: Hashed, state: LinkState, why: LinkRefused) {
        let Some(link) = self.links.remove(&id) else { return };
        link.state.send_replace(state);
        if self.ended.len() >= REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back((id, why));
    }
}

impl Link {
    /// Only before it is approved: whoever approves it has seen everybody who gets in by it, or at least their key.
    fn may_join(&self, asks: &Asks) -> bool {
        let Some((_, first)) = self.waiting.first() else { return false };
        self.approved.is_none()
            && self.expires > Instant::now()
            && self.waiting.len() < MAX_JOINED
            && asks.proven_key.is_some()
            && asks.proven_key == first.proven_key
            && same_place(asks.client.ip(), first.client.ip())
            && match (&asks.demand, &first.demand) {
                (None, None) => true,
                (Some(one), Some(other)) => one.is_same(other),
                _ => false,
            }
    }

    /// All of a link's connections demand the same: `may_join`.
    fn demand(&self) -> Option<&Demand> {
        self.waiting.first().and_then(|(_, asks)| asks.demand.as_ref())
    }

    fn check(&self, approval: &Approval) -> Result<(), LinkRefused> {
        self.demand().map_or(Ok(()), |demand| demand.check(approval.identity(), Timestamp::now()))
    }

    fn place(&self, browser: IpAddr, other: OtherAddress) -> Place {
        // All of a link's connections are at one place: `may_join`.
        let terminal = self.waiting.first().map(|(_, asks)| asks.client.ip().to_canonical());
        match (terminal, other) {
            (Some(terminal), _) if same_place(terminal, browser) => Place::Same,
            (Some(terminal), OtherAddress::Confirm) => Place::Other { terminal },
            (Some(terminal), OtherAddress::Deny) => Place::Forbidden { terminal },
            (None, _) => Place::Same,
        }
    }
}

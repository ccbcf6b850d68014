//! All rules, and how those about one person on one socket are found without looking at the others.
//!
//! Whom a rule is about is looked up by name, and which sockets by a bit for each rule. So the cost of a decision grows
//! with the rules that are about it; of the others each costs a bit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Rule;
use crate::identity::Identity;
use crate::socket::Socket;

/// All policies, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    rules: Vec<Arc<Rule>>,
    by_group: Named,
    by_email: Named,
    by_domain: Named,
    by_account: Named,
    /// By claim, then by the claim's value.
    by_claim: HashMap<String, Named>,
    everybody: Set,
    by_socket: HashMap<String, OnSocket>,
}

/// The rules that name something.
type Named = HashMap<String, Vec<usize>>;

/// The rules about one socket, as it was when they were found.
#[derive(Clone, Debug)]
struct OnSocket {
    tags: BTreeMap<String, String>,
    rules: Set,
}

/// Some of the rules, by their places in the file.
#[derive(Clone, Debug, Default)]
struct Set(Vec<u64>);

impl Policies {
    /// These rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        let mut all = Self { rules: rules.into_iter().map(Arc::new).collect(), ..Self::default() };
        all.everybody = Set::none_of(all.rules.len());
        for (index, rule) in all.rules.iter().enumerate() {
            let who = &rule.who;
            if who.is_everybody() {
                all.everybody.add(index);
            }
            let lists = [
                (&who.groups, &mut all.by_group),
                (&who.emails, &mut all.by_email),
                (&who.domains, &mut all.by_domain),
                (&who.service_accounts, &mut all.by_account),
            ];
            for (names, found_by) in lists {
                note(found_by, names, index);
            }
            for (claim, values) in &who.claims {
                note(all.by_claim.entry(claim.clone()).or_default(), values, index);
            }
        }
        all
    }

    /// The same rules, found quickly for these sockets. For any other, each rule about a person is looked at.
    #[must_use]
    pub fn with_sockets<'s>(mut self, sockets: impl IntoIterator<Item = &'s Socket>) -> Self {
        self.by_socket = sockets.into_iter().map(|socket| (socket.name.clone(), self.on_socket(socket))).collect();
        self
    }

    fn on_socket(&self, socket: &Socket) -> OnSocket {
        let mut rules = Set::none_of(self.rules.len());
        let about = self.rules.iter().enumerate().filter(|(_, rule)| rule.sockets.holds(socket));
        about.for_each(|(index, _)| rules.add(index));
        OnSocket { tags: socket.tags.clone(), rules }
    }

    /// Every rule, in the order of the file.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rules about this person on this socket, in the order of the file.
    pub(super) fn about<'a>(&'a self, who: &Identity, to: &'a Socket) -> impl Iterator<Item = &'a Arc<Rule>> {
        let mut found = self.about_person(who);
        // A session may hold a socket that was replaced since.
        let known = self.by_socket.get(&to.name).filter(|on| on.tags == to.tags);
        if let Some(on) = known {
            found.keep(&on.rules);
        }
        let rules = found.into_places().filter_map(|index| self.rules.get(index));
        rules.filter(move |rule| known.is_some() || rule.sockets.holds(to))
    }

    fn about_person(&self, who: &Identity) -> Set {
        let mut found = self.everybody.clone();
        let email = who.email().to_lowercase();
        let domain = email.rsplit_once('@').map_or("", |(_, domain)| domain);
        let named = who.groups().iter().filter_map(|group| self.by_group.get(group));
        let named = named.chain(self.by_email.get(&email)).chain(self.by_domain.get(domain));
        let named = named.chain(who.service_account().and_then(|account| self.by_account.get(account)));
        named.flatten().for_each(|index| found.add(*index));
        for (claim, by_value) in &self.by_claim {
            let named = who.claim(claim).filter_map(|value| by_value.get(&*value));
            named.flatten().for_each(|index| found.add(*index));
        }
        found
    }
}

fn note(found_by: &mut Named, names: &[String], index: usize) {
    for name in names {
        found_by.entry(name.clone()).or_default().push(index);
    }
}

impl Set {
    /// Room for so many places, none of which is in it.
    fn none_of(places: usize) -> Self {
        Self(vec![0; places.div_ceil(64)])
    }

    fn add(&mut self, place: usize) {
        if let Some(word) = self.0.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    fn keep(&mut self, others: &Self) {
        for (word, other) in self.0.iter_mut().zip(&others.0) {
            *word &= other;
        }
    }

    /// The places that are in it, in order.
    fn into_places(self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(at, word)| {
            let rest = std::iter::successors(Some(word), |word| Some(word & word.wrapping_sub(1)));
            rest.take_while(|word| *word != 0).map(move |word| at * 64 + word.trailing_zeros() as usize)
        })
    }
}

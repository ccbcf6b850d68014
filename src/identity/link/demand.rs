//! What a link's sign-in must prove where the person is known already, and what they have shown was not enough.

use jiff::{SignedDuration, Timestamp};

use super::LinkRefused;
use crate::identity::Identity;
use crate::policy::StepUp;

/// A better sign-in of one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// What it must be like. With nothing in it, a new one: who asks knows what was missing, and asks again after it.
    pub step_up: StepUp,
    /// Whose it must be.
    pub whose: Identity,
    /// Why, in words for the page.
    pub why: String,
}

impl Demand {
    /// Whether this sign-in is the person's and proves it now.
    pub fn check(&self, who: &Identity, now: Timestamp) -> Result<(), LinkRefused> {
        if !self.whose.is_same_person(who) {
            return Err(LinkRefused::OtherPerson { whose: self.whose.email().to_owned() });
        }
        let StepUp { max_age, acr } = &self.step_up;
        let age = now.duration_since(who.signed_in()).max(SignedDuration::ZERO).unsigned_abs();
        let new_enough = max_age.is_none_or(|most| age < most);
        let right_class = acr.is_empty() || who.acr().is_some_and(|told| acr.iter().any(|wanted| wanted == told));
        if new_enough && right_class { Ok(()) } else { Err(LinkRefused::NotEnough) }
    }

    /// Whether both ask the same of the same person.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.step_up == other.step_up && self.whose.is_same_person(&other.whose)
    }
}

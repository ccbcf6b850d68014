//! `[[policy]]` as typed to [`Policies`]: `parts` (who, where, when, ...), `rights` (what), and `doubts`, which warns of
//! rules that cannot do what they seem to. Knows nothing of how a decision is made.

mod doubts;
mod parts;
mod rights;

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::check::Checker;
use super::raw;
use crate::policy::{Effect, Policies, Rule};
use crate::socket::Socket;

/// What else is configured, as far as rules have to do with it.
pub struct Around<'a> {
    /// Every socket that is good.
    pub sockets: &'a [Socket],
    /// How long a sign-in counts; `None` where that was wrong.
    pub sign_in_lasts: Option<Duration>,
    /// The claim that lists groups; `None` where that was wrong.
    pub groups_claim: Option<&'a str>,
    /// Whether the country of an address can be told.
    pub knows_countries: bool,
}

/// A rule, and the table that it stands in.
type Placed<'t> = (&'t Spanned<raw::Policy>, Rule);

/// Every rule that is good; what is wrong with the others was told.
pub fn policies(raw: &[Spanned<raw::Policy>], around: &Around<'_>, check: &mut Checker<'_, '_>) -> Policies {
    let mut names = HashSet::new();
    let mut rules: Vec<Placed<'_>> = Vec::new();
    for policy in raw {
        if let Some(name) = &policy.get_ref().name
            && !names.insert(name.get_ref())
        {
            let words = format!("there is another policy called {:?}", name.get_ref());
            check.report.error(&name.span(), words, "give every policy its own name");
        }
        rules.extend(check.policy(policy).map(|rule| (policy, rule)));
    }
    // Where something is wrong, a rule or socket may be missing here, and a warning would mislead.
    if !check.report.is_bad() {
        check.doubt(&rules, around);
    }
    Policies::new(rules.into_iter().map(|(_, rule)| rule).collect()).with_sockets(around.sockets)
}

impl Checker<'_, '_> {
    fn policy(&mut self, table: &Spanned<raw::Policy>) -> Option<Rule> {
        let raw = table.get_ref();
        let name = self.need(&raw.name, table, "policy", "name", "\"engineers-prod\"");
        let name = name.and_then(|typed| self.filled(typed));
        let effect = self.need(&raw.effect, table, "policy", "effect", "\"allow\", or \"deny\", which wins");
        let effect =
            effect.and_then(|typed| self.choice(typed, &[("allow", Effect::Allow), ("deny", Effect::Deny)], &[]));
        let sockets = raw.sockets.as_ref().map(|sockets| self.which(sockets.get_ref())).unwrap_or_default();
        let who = raw.who.as_ref().map(|who| self.who(who.get_ref())).unwrap_or_default();
        let place = raw.place.as_ref().map(|place| self.place(place.get_ref())).unwrap_or_default();
        let when = raw.when.as_ref().map_or(Some(Default::default()), |when| self.when(when));
        let require = raw.require.as_ref().map_or(Some(Default::default()), |require| self.require(require.get_ref()));
        let limits = self.session_limits(raw);
        let rights = raw.allow.as_ref().map_or(Some(Default::default()), |allow| self.rights(allow.get_ref()));
        if effect == Some(Effect::Deny) {
            self.only_denies(raw);
        }
        Some(Rule {
            name: name?,
            effect: effect?,
            sockets,
            who,
            place,
            when: when?,
            require: require?,
            limits: limits?,
            rights: rights?,
        })
    }

    /// Tells of everything in a rule that denies which only makes sense where something is allowed.
    fn only_denies(&mut self, raw: &raw::Policy) {
        if let Some(allow) = &raw.allow {
            let words = "a rule that denies cannot allow something: it denies everything on its sockets";
            self.report.error(&allow.span(), words, "leave [policy.allow] out, or write effect = \"allow\"");
        }
        let text = |key: &raw::Text| key.as_ref().map(Spanned::span);
        let keys: [(&str, Option<Range<usize>>); 4] = [
            ("require", raw.require.as_ref().map(Spanned::span)),
            ("max_session", text(&raw.max_session)),
            ("idle_timeout", text(&raw.idle_timeout)),
            ("finish_grace", text(&raw.finish_grace)),
        ];
        for (key, at) in keys {
            if let Some(at) = at {
                let words = format!("`{key}` means nothing in a rule that denies: it lets no session in");
                self.report.error(&at, words, "leave it out, or write effect = \"allow\"");
            }
        }
    }
}

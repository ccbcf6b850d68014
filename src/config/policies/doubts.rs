//! Warnings of rules that can never hold, or not as they look. Only what is certain is said.

use std::ops::Range;

use jiff::Timestamp;
use toml::Spanned;

use super::{Around, Placed};
use crate::config::check::Checker;
use crate::config::raw::{self, Exec, Typed};
use crate::policy::{Effect, ExecRight, FilesRight, PlaceMatch, Rule, SocketMatch, SomeSsh, SshRights, When, Who};
use crate::socket::Socket;

impl Checker<'_, '_> {
    pub(super) fn doubt(&mut self, rules: &[Placed<'_>], around: &Around<'_>) {
        let now = Timestamp::now();
        let unconditional = |rule: &Rule| rule.place == PlaceMatch::default() && rule.when == When::default();
        let denies =
            rules.iter().map(|(_, rule)| rule).filter(|rule| rule.effect == Effect::Deny && unconditional(rule));
        let denies: Vec<&Rule> = denies.collect();
        for (table, rule) in rules {
            let raw = table.get_ref();
            let at = raw.name.as_ref().map_or(table.span(), Spanned::span);
            self.doubt_sockets(raw, rule, &at, around.sockets);
            self.doubt_who(raw, rule, &at, around);
            self.doubt_place(raw, rule, &at, around);
            self.doubt_when(raw, rule, &at, now);
            if rule.effect == Effect::Allow {
                self.doubt_limits(raw, rule, around);
                self.doubt_rights(raw, rule, &at);
                self.doubt_reach(raw, rule, &at, around.sockets);
                if let Some(deny) = denies.iter().find(|deny| shadows(deny, rule, around.sockets)) {
                    let words =
                        format!("{} never allows anything: {} denies the same people there", rule.name, deny.name);
                    self.report.warn(&at, words);
                }
            }
        }
        self.doubt_closed(rules, around.sockets);
    }

    fn doubt_sockets(&mut self, raw: &raw::Policy, rule: &Rule, at: &Range<usize>, sockets: &[Socket]) {
        let Some(typed) = raw.sockets.as_ref().map(Spanned::get_ref) else { return };
        for typed in typed.names.iter().flat_map(|names| names.get_ref()) {
            let one = SocketMatch { names: vec![typed.get_ref().clone()], ..SocketMatch::default() };
            if !sockets.iter().any(|socket| one.holds(socket)) {
                let what = if typed.get_ref().contains('*') { "matches" } else { "is the name of" };
                self.report.warn(&typed.span(), format!("{:?} {what} no socket", typed.get_ref()));
            }
        }
        let mut each_is_there = true;
        for (tag, value) in typed.tags.iter().flat_map(|tags| tags.get_ref()) {
            if !sockets.iter().any(|socket| socket.tags.get(tag) == Some(value.get_ref())) {
                each_is_there = false;
                self.report.warn(&value.span(), format!("no socket has the tag {tag} = {:?}", value.get_ref()));
            }
        }
        let all = SocketMatch { tags: rule.sockets.tags.clone(), ..SocketMatch::default() };
        if each_is_there && !sockets.iter().any(|socket| all.holds(socket)) && !all.is_every() {
            self.report.warn(at, format!("no socket has all of the tags of {}", rule.name));
        }
        if rule.sockets.is_every() {
            let words = format!("`sockets` of {} names none, which counts as absent: it means every socket", rule.name);
            self.report.warn(at, words);
        }
    }

    fn doubt_who(&mut self, raw: &raw::Policy, rule: &Rule, at: &Range<usize>, around: &Around<'_>) {
        let Some(typed) = raw.who.as_ref().map(Spanned::get_ref) else { return };
        if rule.who.is_everybody() {
            let name = &rule.name;
            let words =
                format!("`who` of {name} names nobody, which counts as absent: it means everybody who is signed in");
            self.report.warn(at, words);
        }
        // What has a key of its own is not kept among the claims, so nobody's would fit.
        for (claim, values) in typed.claims.iter().flat_map(|claims| claims.get_ref()) {
            let own = match claim.as_str() {
                "email" => "`emails`",
                "acr" | "amr" => "`require`",
                claim if around.groups_claim == Some(claim) => "`groups`",
                _ => continue,
            };
            self.report
                .warn(&values.span(), format!("nobody fits the claim {claim:?}: it has a place of its own, {own}"));
        }
    }

    fn doubt_place(&mut self, raw: &raw::Policy, rule: &Rule, at: &Range<usize>, around: &Around<'_>) {
        let (name, place) = (&rule.name, &rule.place);
        let Some(table) = &raw.place else { return };
        if *place == PlaceMatch::default() {
            let words = format!("`where` of {name} names nothing, which counts as absent: it means everywhere");
            self.report.warn(at, words);
        }
        for typed in table.get_ref().countries.iter().flat_map(|list| list.get_ref()) {
            if place.not_countries.iter().any(|code| code.eq_ignore_ascii_case(typed.get_ref())) {
                let words = format!("{:?} is in `not_countries` too, which wins", typed.get_ref());
                self.report.warn(&typed.span(), words);
            }
        }
        let (within, outside) = (!place.countries.is_empty(), !place.not_countries.is_empty());
        if !(within || outside) || around.knows_countries {
            return;
        }
        let outcome = match (within, rule.effect) {
            (true, _) => "never holds",
            (false, Effect::Allow) => "never allows anything",
            (false, Effect::Deny) => "denies everybody",
        };
        let words = format!("{name} {outcome}: without a database in [geo] nobody's country is known");
        self.report.warn(&table.span(), words);
    }

    fn doubt_when(&mut self, raw: &raw::Policy, rule: &Rule, at: &Range<usize>, now: Timestamp) {
        let Some(typed) = raw.when.as_ref().map(Spanned::get_ref) else { return };
        if rule.when.has_ended(now) {
            let at = typed.before.as_ref().map_or(at.clone(), Spanned::span);
            self.report.warn(&at, format!("{} has ended: it never holds again", rule.name));
        }
        let days = typed.days.as_ref().is_some_and(|days| !days.get_ref().is_empty());
        if let Some(zone) = typed.timezone.as_ref().filter(|_| !days && typed.hours.is_none()) {
            let words = format!("`timezone` of {} does nothing without `days` or `hours`", rule.name);
            self.report.warn(&zone.span(), words);
        }
    }

    fn doubt_limits(&mut self, raw: &raw::Policy, rule: &Rule, around: &Around<'_>) {
        let age = raw.require.as_ref().and_then(|require| require.get_ref().max_sign_in_age.as_ref());
        if let (Some(most), Some(lasts), Some(typed)) = (rule.require.max_sign_in_age, around.sign_in_lasts, age)
            && most >= lasts
        {
            let words = "this never matters: sign-ins end no later than that by [oidc] session_lifetime";
            self.report.warn(&typed.span(), words);
        }
        if let (Some(most), Some(idle), Some(typed)) =
            (rule.limits.max_session, rule.limits.idle_timeout, &raw.idle_timeout)
            && idle >= most
        {
            self.report.warn(&typed.span(), "this never matters: `max_session` ends sessions no later than that");
        }
    }

    fn doubt_rights(&mut self, raw: &raw::Policy, rule: &Rule, at: &Range<usize>) {
        let name = &rule.name;
        match &rule.rights.ssh {
            None if rule.rights == Default::default() => {
                self.report.warn(at, format!("{name} allows nothing: it has no [policy.allow.ssh]"));
            }
            Some(SshRights::Some(some)) if some.is_nothing() => {
                self.report.warn(at, format!("{name} allows nothing over ssh: all there is in it is refused"));
            }
            Some(SshRights::Some(some)) if some.shell => {
                let typed = raw.allow.as_ref().and_then(|allow| allow.get_ref().ssh.as_ref());
                let advisory = typed.map(|typed| advisory(typed.get_ref(), some)).unwrap_or_default();
                if !advisory.is_empty() {
                    let words = format!("`shell = true` in {name} makes {advisory} advisory: a shell runs anything");
                    self.report.warn(at, words);
                }
            }
            _ => {}
        }
    }

    /// Warns of rights that meet no socket.
    fn doubt_reach(&mut self, raw: &raw::Policy, rule: &Rule, at: &Range<usize>, sockets: &[Socket]) {
        let Some(allow) = raw.allow.as_ref().map(Spanned::get_ref) else { return };
        let unspoken = [
            ("[policy.allow.database]", allow.database.as_ref().map(Spanned::span)),
            ("[[policy.allow.http]]", allow.http.first().map(Spanned::span)),
            ("[[policy.allow.kubernetes]]", allow.kubernetes.first().map(Spanned::span)),
            ("[policy.allow.tcp]", allow.tcp.as_ref().map(Spanned::span)),
        ];
        // There is no other protocol yet than SSH, which therefore every socket speaks.
        for (table, span) in unspoken {
            if let Some(span) = span {
                self.report
                    .warn(&span, format!("{table} of {} does nothing: there is no socket of that type", rule.name));
            }
        }
        let mut reach = sockets.iter().filter(|socket| rule.sockets.holds(socket));
        if let Some(SshRights::Some(some)) = &rule.rights.ssh
            && some.logins.is_empty()
            && let Some(socket) = reach.find(|socket| !socket.fixes_login())
        {
            let name = &rule.name;
            let words =
                format!("{name} has no `logins`, and {} has no `username`: nobody gets in there by it", socket.name);
            self.report.warn(at, words);
        }
    }

    fn doubt_closed(&mut self, rules: &[Placed<'_>], sockets: &[Socket]) {
        for socket in sockets {
            let opens = |rule: &Rule| {
                rule.effect == Effect::Allow && rule.rights.reach(socket.protocol) && rule.sockets.holds(socket)
            };
            if !rules.iter().any(|(_, rule)| opens(rule)) {
                self.report.warn(&(0..0), format!("no policy lets anybody on {}", socket.name));
            }
        }
    }
}

/// What somebody wrote to narrow down what a shell can do anyway.
fn advisory(typed: &raw::AllowSsh, some: &SomeSsh) -> String {
    let exec = matches!(some.exec, ExecRight::Patterns(_))
        || matches!(typed.exec.as_ref().map(Spanned::get_ref), Some(Exec::Any(false)));
    let keys = [
        ("`exec`", exec),
        ("`sftp`", typed.sftp.is_some() && some.sftp != FilesRight::Write),
        ("`forward_to`", is_narrow(&typed.forward_to)),
        ("`forward_from`", is_narrow(&typed.forward_from)),
    ];
    let named: Vec<_> = keys.into_iter().filter(|(_, narrows)| *narrows).map(|(key, _)| key).collect();
    match named.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, before)) => format!("{} and {last}", before.join(", ")),
        None => String::new(),
    }
}

fn is_narrow(hosts: &Typed<Vec<Spanned<String>>>) -> bool {
    hosts.as_ref().is_some_and(|hosts| !hosts.get_ref().iter().any(|host| host.get_ref() == "*:*"))
}

/// Whether `deny`, which holds always and everywhere, keeps out everybody whom `allow` lets in, wherever it does.
fn shadows(deny: &Rule, allow: &Rule, sockets: &[Socket]) -> bool {
    let mut reach = sockets.iter().filter(|socket| allow.sockets.holds(socket)).peekable();
    names_all(&deny.who, &allow.who) && reach.peek().is_some() && reach.all(|socket| deny.sockets.holds(socket))
}

/// Whether `many` names at least everybody whom `few` does.
fn names_all(many: &Who, few: &Who) -> bool {
    let within = |few: &[String], many: &[String]| few.iter().all(|one| many.contains(one));
    let behind =
        |email: &String| email.rsplit_once('@').is_some_and(|(_, domain)| many.domains.iter().any(|d| d == domain));
    let claimed =
        |(name, values): (&String, &Vec<String>)| many.claims.get(name).is_some_and(|more| within(values, more));
    many.is_everybody()
        || !few.is_everybody()
            && few.emails.iter().all(|email| many.emails.contains(email) || behind(email))
            && within(&few.domains, &many.domains)
            && within(&few.groups, &many.groups)
            && within(&few.service_accounts, &many.service_accounts)
            && few.claims.iter().all(claimed)
}

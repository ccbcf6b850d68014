//! A rule's parts beside its rights: which sockets, who, where, when, what sign-in, how long.

use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use toml::Spanned;

use crate::config::check::Checker;
use crate::config::raw::{self, List, OneOrMore, Text, Time};
use crate::config::schema;
use crate::geo;
use crate::policy::{Days, Hours, Limits, PlaceMatch, Require, SocketMatch, When, Who, weekday};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

impl Checker<'_, '_> {
    pub(super) fn which(&mut self, raw: &raw::PolicySockets) -> SocketMatch {
        let tags = raw.tags.iter().flat_map(|tags| tags.get_ref());
        let tags = tags.map(|(name, value)| (name.clone(), value.get_ref().clone())).collect();
        SocketMatch { names: self.list(&raw.names), tags }
    }

    pub(super) fn who(&mut self, raw: &raw::PolicyWho) -> Who {
        for email in raw.emails.iter().flat_map(|list| list.get_ref()) {
            let plain = email.get_ref().matches('@').count() == 1 && !email.get_ref().contains(['*', ' ']);
            if !plain && !email.get_ref().is_empty() {
                let words = "this is no e-mail address";
                self.report.error(
                    &email.span(),
                    words,
                    "write whole addresses; for all of a domain there is `domains`",
                );
            }
        }
        for domain in raw.domains.iter().flat_map(|list| list.get_ref()) {
            if domain.get_ref().contains(['@', '*', ' ']) || domain.get_ref().starts_with('.') {
                let words = "this is no domain of e-mail addresses";
                self.report.error(&domain.span(), words, "write what stands behind the `@`, such as \"example.com\"");
            }
        }
        let lower = |texts: Vec<String>| texts.into_iter().map(|text| text.to_lowercase()).collect();
        let claims = raw.claims.iter().flat_map(|claims| claims.get_ref());
        // A list that is empty counts as absent, here too.
        let claims = claims.map(|(name, values)| (name.clone(), self.one_or_more(values)));
        Who {
            claims: claims.filter(|(_, values)| !values.is_empty()).collect(),
            emails: lower(self.list(&raw.emails)),
            domains: lower(self.list(&raw.domains)),
            groups: self.list(&raw.groups),
            service_accounts: self.list(&raw.service_accounts),
        }
    }

    fn one_or_more(&mut self, typed: &Spanned<OneOrMore>) -> Vec<String> {
        match typed.get_ref() {
            OneOrMore::One(text) => self.filled(&Spanned::new(typed.span(), text.clone())).into_iter().collect(),
            OneOrMore::More(list) => list.iter().filter_map(|text| self.filled(text)).collect(),
        }
    }

    pub(super) fn place(&mut self, raw: &raw::PolicyWhere) -> PlaceMatch {
        for typed in raw.networks.iter().flat_map(|list| list.get_ref()) {
            // Addresses are compared as what they stand for, so that such a network would hold nobody.
            let mapped = |net: IpNet| matches!(net, IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some());
            if typed.get_ref().parse().is_ok_and(mapped) {
                let words = "this is an IPv4 network written as an IPv6 one";
                self.report.error(&typed.span(), words, "write it as IPv4, such as \"10.0.0.0/8\"");
            }
        }
        PlaceMatch {
            networks: self.networks(&raw.networks),
            countries: self.countries(&raw.countries),
            not_countries: self.countries(&raw.not_countries),
        }
    }

    fn countries(&mut self, list: &List) -> Vec<String> {
        for typed in list.iter().flat_map(|list| list.get_ref()) {
            let text = typed.get_ref();
            if text.len() != 2 || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                let help = "write two letters, such as \"NL\" (ISO 3166-1 alpha-2)";
                self.report.error(&typed.span(), "this is no country's code", help);
            } else if !geo::is_country(&text.to_ascii_uppercase()) {
                self.report.warn(&typed.span(), format!("no country has the code {text:?}"));
            }
        }
        self.list(list).into_iter().map(|code| code.to_ascii_uppercase()).collect()
    }

    pub(super) fn when(&mut self, table: &Spanned<raw::PolicyWhen>) -> Option<When> {
        let raw = table.get_ref();
        let days: Vec<_> = raw.days.iter().flat_map(|list| list.get_ref()).map(|day| self.weekday(day)).collect();
        let days = days.into_iter().collect::<Option<Vec<_>>>().map(|days| Days::of(days).unwrap_or(Days::ALL));
        let help = "write \"HH:MM-HH:MM\", such as \"09:00-18:00\", or \"22:00-06:00\" over midnight";
        let hours = raw.hours.as_ref().map(|typed| self.report.value(typed, Hours::parse(typed.get_ref()), help));
        let zone = raw.timezone.as_ref().map_or(Some(TimeZone::UTC), |typed| self.timezone(typed));
        let after = raw.after.as_ref().map(|typed| self.time(typed));
        let before = raw.before.as_ref().map(|typed| self.time(typed));
        if let (Some(Some(after)), Some(Some(before)), Some(at)) = (after, before, &raw.before)
            && before <= after
        {
            self.report.error(&at.span(), "`before` is not later than `after`: this never holds", "exchange them");
        }
        let hours = hours.map_or(Some(None), |hours| hours.map(Some))?;
        let after = after.map_or(Some(None), |after| after.map(Some))?;
        let before = before.map_or(Some(None), |before| before.map(Some))?;
        Some(When::new(days?, hours, zone?, after, before))
    }

    fn weekday(&mut self, typed: &Spanned<String>) -> Option<jiff::civil::Weekday> {
        let short = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
        let word = typed.get_ref().to_lowercase();
        let day = weekday(&word);
        if day.is_none() {
            let meant = short.into_iter().find(|day| word.starts_with(day)).or(schema::meant(&word, short));
            let help = meant.map_or(format!("write {}", short.join(", ")), |day| format!("did you mean \"{day}\"?"));
            self.report.error(&typed.span(), "this is no day of the week", help);
        }
        day
    }

    fn timezone(&mut self, typed: &Spanned<String>) -> Option<TimeZone> {
        let name = self.filled(typed)?;
        let zone = TimeZone::get(&name).map_err(|_| "this host's time zone database has no such time zone");
        self.report.value(typed, zone, "write its name, such as \"Europe/Amsterdam\"; the package is called tzdata")
    }

    fn time(&mut self, typed: &Spanned<Time>) -> Option<Timestamp> {
        let time = typed.get_ref().0.parse::<Timestamp>().map_err(|_| "this is no time with its offset from UTC");
        self.report.value(typed, time, "write \"2026-01-01T00:00:00Z\", or \"2026-01-01T00:00:00+01:00\" (RFC 3339)")
    }

    pub(super) fn require(&mut self, raw: &raw::PolicyRequire) -> Option<Require> {
        for (key, typed) in [("approval", &raw.approval), ("watcher", &raw.watcher)] {
            if let Some(typed) = typed.as_ref().filter(|typed| *typed.get_ref()) {
                self.report.error(&typed.span(), format!("`{key}` is not built yet"), "leave it out");
            }
        }
        let max_sign_in_age = self.span_of_time(&raw.max_sign_in_age, DAY * 365, "between 1s and 365d");
        let (acr, amr) = (self.list(&raw.acr), self.list(&raw.amr));
        Some(Require { max_sign_in_age: max_sign_in_age?, acr, amr })
    }

    pub(super) fn session_limits(&mut self, raw: &raw::Policy) -> Option<Limits> {
        let max_session = self.span_of_time(&raw.max_session, DAY * 365, "between 1s and 365d");
        let idle_timeout = self.span_of_time(&raw.idle_timeout, DAY * 365, "between 1s and 365d");
        let finish_grace = self.span_of_time(&raw.finish_grace, DAY, "between 1s and 1d");
        Some(Limits { max_session: max_session?, idle_timeout: idle_timeout?, finish_grace: finish_grace? })
    }

    /// The outer `None`: it was wrong; the inner one: it was left out.
    fn span_of_time(&mut self, key: &Text, most: Duration, words: &str) -> Option<Option<Duration>> {
        let span = key.as_ref().map(|typed| self.duration(typed, SECOND..=most, words));
        span.map_or(Some(None), |span| span.map(Some))
    }
}

//! What is said of a rule that does not hold. It goes to the person who is refused: it names what they lack.

use std::time::Duration;

use super::decide::Context;
use super::rules::{Country, PlaceMatch, Require};
use super::{Lock, when};
use crate::identity::Identity;

pub(super) const SIGN_IN_OVER: &str = "your sign-in has expired; connect again to sign in";

/// `locked until 2026-01-01 09:00 UTC by admin@example.com: reason`.
pub(super) fn locked(lock: &Lock) -> String {
    let until = lock.until.map(|until| format!(" until {}", when::to_the_minute(until))).unwrap_or_default();
    format!("locked{until} by {}: {}", lock.by, lock.reason)
}

pub(super) fn place(wanted: &PlaceMatch, context: &Context) -> String {
    let address = context.client_ip.to_canonical();
    if !wanted.holds_network(address) {
        let networks: Vec<String> = wanted.networks.iter().map(ToString::to_string).collect();
        return format!("allows {}, you are at {address}", list(&networks));
    }
    let here = match &context.country {
        Country::Known(code) => format!("{address} is in {code}"),
        Country::Private => format!("{address} is in a private network"),
        Country::Unknown => format!("where {address} is, is not known"),
    };
    match wanted.countries.is_empty() {
        false => format!("allows {}, {here}", list(&wanted.countries)),
        true => format!("allows everywhere but {}, {here}", list(&wanted.not_countries)),
    }
}

pub(super) fn kind(wanted: &Require, who: &Identity) -> String {
    let mut needs = Vec::new();
    if !wanted.acr.is_empty() {
        needs.push(format!("acr {} (yours: {})", wanted.acr.join(" or "), who.acr().unwrap_or("none")));
    }
    if !wanted.amr.is_empty() {
        let used = if who.amr().is_empty() { "none told".into() } else { who.amr().join(", ") };
        needs.push(format!("amr {} (yours: {used})", wanted.amr.join(" or ")));
    }
    format!("needs a sign-in with {}", needs.join(" and "))
}

pub(super) fn age(wanted: &Require) -> String {
    format!("needs a sign-in not older than {}", duration(wanted.max_sign_in_age.unwrap_or_default()))
}

pub(super) fn too_old(age: Duration) -> String {
    format!(", yours is {} old; sign in again", duration(age))
}

/// `1h 30m`, in the two largest units that are not zero.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")].into_iter().scan(seconds, |rest, (size, unit)| {
        let whole = *rest / size;
        *rest %= size;
        Some((whole, unit))
    });
    let parts: Vec<String> = parts
        .skip_while(|(n, _)| *n == 0)
        .take(2)
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect();
    if parts.is_empty() { "0s".into() } else { parts.join(" ") }
}

fn list(names: &[String]) -> String {
    const MOST: usize = 4;
    match names.len() {
        0..=MOST => names.join(", "),
        more => format!("{} and {} more", names[..MOST].join(", "), more - MOST),
    }
}

//! How often somebody may do something: so many times a minute, all at once or spread out. Knows nothing of what is done.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::address::customer;

/// Who is counted apart at a time. Beyond that, those who were seen last longest ago begin anew.
const MOST: usize = 50_000;

/// Counts, for everybody apart (RFC 2698 has the idea: a bucket of tokens that fills up at a steady rate).
#[derive(Debug)]
pub struct Pace<K> {
    per_minute: u32,
    seen: Mutex<HashMap<K, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Hash + Eq + Clone> Pace<K> {
    /// So many times a minute.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, seen: Mutex::default() }
    }

    /// Once more, now. `Err` says how long they have to wait for it.
    pub fn once(&self, who: K) -> Result<(), Duration> {
        let (now, most) = (Instant::now(), f64::from(self.per_minute));
        let rate = most / 60.0;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST && !seen.contains_key(&who) {
            make_room(&mut seen, now);
        }
        let bucket = seen.entry(who).or_insert(Bucket { left: most, at: now });
        let filled = bucket.left + now.saturating_duration_since(bucket.at).as_secs_f64() * rate;
        *bucket = Bucket { left: filled.min(most), at: now };
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / rate));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

/// How often somebody may try to sign in: by address, and by person.
#[derive(Debug)]
pub struct SignInPace {
    addresses: Pace<IpAddr>,
    people: Pace<(String, String)>,
}

impl SignInPace {
    /// So many times a minute each.
    pub fn new(per_minute: u32) -> Self {
        Self { addresses: Pace::new(per_minute), people: Pace::new(per_minute) }
    }

    /// Somebody at this address wants to sign in.
    pub fn wanted_from(&self, address: IpAddr) -> Result<(), Duration> {
        self.addresses.once(customer(address))
    }

    /// This person (issuer and subject) signs in.
    pub fn made_by(&self, issuer: &str, subject: &str) -> Result<(), Duration> {
        self.people.once((issuer.to_owned(), subject.to_owned()))
    }
}

/// How often somebody who is known and inside may ask for something to be opened: by address, and by person. As often as at
/// the door, and counted apart from it.
#[derive(Debug)]
pub struct InsidePace {
    addresses: Pace<IpAddr>,
    people: Pace<(String, String)>,
}

impl InsidePace {
    /// So many times a minute each.
    pub fn new(per_minute: u32) -> Self {
        Self { addresses: Pace::new(per_minute), people: Pace::new(per_minute) }
    }

    /// Once more, now, by this person (issuer and subject) at this address. `Err` says how long they have to wait for it.
    pub fn once(&self, address: IpAddr, issuer: &str, subject: &str) -> Result<(), Duration> {
        self.people.once((issuer.to_owned(), subject.to_owned()))?;
        self.addresses.once(customer(address))
    }
}

/// Whoever was not seen for a minute has a full bucket, as if never seen. If that is nobody, the older half goes.
fn make_room<K: Hash + Eq + Clone>(seen: &mut HashMap<K, Bucket>, now: Instant) {
    seen.retain(|_, bucket| now.saturating_duration_since(bucket.at) < Duration::from_secs(60));
    if seen.len() >= MOST {
        let mut times: Vec<Instant> = seen.values().map(|bucket| bucket.at).collect();
        let (_, middle, _) = times.select_nth_unstable(MOST / 2);
        let middle = *middle;
        seen.retain(|_, bucket| bucket.at > middle);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_often_and_then_at_a_steady_rate() {
        let pace = Pace::new(60);
        let burst = (0..100).filter(|_| pace.once("a").is_ok()).count();
        assert_eq!(burst, 60);
        let wait = pace.once("a").unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert!(pace.once("b").is_ok(), "others are counted apart");
        advance(Duration::from_secs(10)).await;
        assert_eq!((0..100).filter(|_| pace.once("a").is_ok()).count(), 10);
        advance(Duration::from_secs(3600)).await;
        assert_eq!((0..100).filter(|_| pace.once("a").is_ok()).count(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn inside_a_person_and_an_address_have_their_share_each() {
        let pace = InsidePace::new(2);
        let at = |last: u8| IpAddr::from([192, 0, 2, last]);
        let ask = |last, subject| pace.once(at(last), "https://idp.example.com", subject).is_ok();
        assert_eq!([ask(1, "alice"), ask(2, "alice"), ask(3, "alice")], [true, true, false], "wherever they are");
        assert_eq!([ask(1, "bob"), ask(1, "carol")], [true, false], "whoever is there");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_strangers_takes_a_bounded_place() {
        let pace = Pace::new(10);
        for n in 0..MOST * 3 {
            assert!(pace.once(n).is_ok());
            assert!(pace.seen.lock().unwrap().len() <= MOST);
            if n % 1000 == 0 {
                advance(Duration::from_millis(10)).await;
            }
        }
    }
}

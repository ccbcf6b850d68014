//! Where an address is: country and city, from database files that the configuration names. Knows nothing of sessions.
//!
//! A file that changes is read again; while the new one cannot be used the old one stays. Without any database nothing
//! is said about any address. Databases are believed as far as names go, and no further: what they say is for people
//! and for filters.

mod countries;
mod database;
#[cfg(test)]
pub(crate) mod testing;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use self::database::{Database, Found};

pub use self::database::GeoError;

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What stands for the country of addresses that are nobody's in the world.
pub const PRIVATE_NETWORK: &str = "Private network";

/// Where an address is, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// ISO 3166-1 alpha-2, upper case.
    pub country_code: Option<String>,
    /// The country's English name, or [`PRIVATE_NETWORK`].
    pub country: Option<String>,
    /// The city's name.
    pub city: Option<String>,
}

/// All databases. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Geo(Arc<[Arc<Source>]>);

#[derive(Debug)]
struct Source {
    path: PathBuf,
    database: ArcSwap<Database>,
}

/// Whether a country has this code (ISO 3166-1 alpha-2, upper case).
pub fn is_country(code: &str) -> bool {
    code.len() == 2 && countries::name(code).is_some()
}

impl Geo {
    /// Reads these files, all of them into memory. What is asked first is what counts: name city databases before
    /// country databases.
    pub fn open(paths: &[PathBuf]) -> Result<Self, GeoError> {
        let source = |path: &PathBuf| {
            let database = ArcSwap::from_pointee(Database::read(path)?);
            Ok(Arc::new(Source { path: path.clone(), database }))
        };
        paths.iter().map(source).collect::<Result<_, GeoError>>().map(Self)
    }

    /// One of several; what is earlier in the list is asked first.
    pub fn all(parts: Vec<Self>) -> Self {
        Self(parts.iter().flat_map(|part| part.0.iter().cloned()).collect())
    }

    /// Where this address is. Takes microseconds.
    pub fn locate(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        if self.0.is_empty() {
            return Place::default();
        }
        if is_private(address) {
            return Place { country: Some(PRIVATE_NETWORK.into()), ..Place::default() };
        }
        let mut found = Found::default();
        for source in self.0.iter() {
            found = found.or(source.database.load().find(address));
        }
        let name = || found.code.as_deref().and_then(countries::name).map(str::to_owned);
        Place { country: found.country.clone().or_else(name), country_code: found.code, city: found.city }
    }

    /// Reads files again that have changed, for as long as the gateway runs.
    pub async fn keep_fresh(&self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        let mut refused = vec![None; self.0.len()];
        loop {
            tick.tick().await;
            for (source, refused) in self.0.iter().zip(&mut refused) {
                let (path, last) = (source.path.clone(), *refused);
                let known = source.database.load().stamp();
                // Reading takes as long as the disk does.
                let read = tokio::task::spawn_blocking(move || reread(&path, known, last)).await;
                match read {
                    Ok(Reread::New(database)) => {
                        tracing::info!(file = %source.path.display(), "took a new geography database");
                        source.database.store(Arc::new(*database));
                        *refused = None;
                    }
                    Ok(Reread::Bad(stamp, error)) => {
                        tracing::warn!(%error, "the geography database cannot be used; the old one stays");
                        *refused = Some(stamp);
                    }
                    Ok(Reread::Same) | Err(_) => {}
                }
            }
        }
    }
}

enum Reread {
    Same,
    New(Box<Database>),
    Bad(database::Stamp, GeoError),
}

/// Reads a file unless it is the one that is known, or the one that was refused last.
fn reread(path: &Path, known: database::Stamp, refused: Option<database::Stamp>) -> Reread {
    let stamp = database::Stamp::of(path);
    if stamp == known || Some(stamp) == refused {
        return Reread::Same;
    }
    match Database::read(path) {
        Ok(database) => Reread::New(Box::new(database)),
        Err(error) => Reread::Bad(stamp, error),
    }
}

impl Place {
    /// In words for a page: "Utrecht, The Netherlands". `None` if nothing is known.
    pub fn words(&self) -> Option<String> {
        let country = self.country.as_ref().or(self.country_code.as_ref());
        let parts: Vec<&str> = self.city.iter().chain(country).map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// Addresses that mean another place in every network: loopback, private (RFC 1918, RFC 4193), link-local (RFC 3927,
/// RFC 4291), and behind a carrier's translator (RFC 6598).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_ranges_end_where_they_end() {
        let private = [
            "127.0.0.1",
            "10.255.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.168.0.1",
            "169.254.9.9",
            "100.64.0.0",
            "100.127.255.255",
            "::1",
            "fd00::1",
            "fc00::",
            "fe80::1",
            "::ffff:10.0.0.1",
        ];
        let public = [
            "126.255.255.255",
            "11.0.0.0",
            "172.32.0.0",
            "172.15.255.255",
            "192.169.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "2001:db8::1",
            "fec0::1",
            "8.8.8.8",
        ];
        let is_private = |text: &&str| super::is_private(text.parse::<IpAddr>().unwrap().to_canonical());
        assert!(private.iter().all(is_private));
        assert!(!public.iter().any(is_private));
    }

    #[test]
    fn places_have_words() {
        let place = |city: Option<&str>, country: Option<&str>, code: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            Place { country_code: own(code), country: own(country), city: own(city) }.words()
        };
        assert_eq!(place(Some("Utrecht"), Some("The Netherlands"), Some("NL")).unwrap(), "Utrecht, The Netherlands");
        assert_eq!(place(None, None, Some("NL")).unwrap(), "NL");
        assert_eq!(place(None, None, None), None);
        assert_eq!(Geo::default().locate([10, 0, 0, 1].into()), Place::default(), "no database, no words");
    }
}

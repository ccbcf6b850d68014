//! What the provider publishes: its endpoints and keys, fetched when needed and kept fresh.
//!
//! The gateway starts while the provider is down, so everything here is fetched late, by one task at a time and with a
//! back-off. Keys are fetched again when a token names an unknown one: at most once a minute, or anybody with a forged
//! token could make the gateway flood the provider.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use openidconnect::core::{CoreJsonWebKeySet, CoreProviderMetadata};
use openidconnect::{IssuerUrl, JsonWebKeySet};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::OidcError;
use super::http::{Http, allowed};

/// Between two fetches of the keys that bad tokens cause.
const KEYS_COOLDOWN: Duration = Duration::from_secs(60);
/// Between two fetches of everything.
const REFRESH: Duration = Duration::from_secs(60 * 60);
/// The longest pause between attempts while the provider is down.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(60);

pub(super) struct Provider {
    issuer: IssuerUrl,
    pub(super) http: Http,
    published: ArcSwapOption<CoreProviderMetadata>,
    // Held across a fetch on purpose: whoever waits here wants the same answer.
    fetching: Mutex<Fetching>,
}

#[derive(Default)]
struct Fetching {
    failures: u32,
    not_before: Option<Instant>,
    keys_asked: Option<Instant>,
}

impl Provider {
    pub(super) fn new(issuer: &str) -> Result<Self, OidcError> {
        let wrong = |why: String| OidcError::Settings(why);
        let url: reqwest::Url = issuer.parse().map_err(|e| wrong(format!("issuer {issuer:?}: {e}")))?;
        if !allowed(&url) {
            return Err(wrong(format!("issuer {issuer:?} must be https (plain http only on this machine)")));
        }
        Ok(Self {
            issuer: IssuerUrl::new(issuer.to_owned()).map_err(|e| wrong(e.to_string()))?,
            http: Http::new(&url).map_err(|e| wrong(e.to_string()))?,
            published: ArcSwapOption::empty(),
            fetching: Mutex::default(),
        })
    }

    /// Whether the provider has ever answered.
    pub(super) fn is_known(&self) -> bool {
        self.published.load().is_some()
    }

    /// What the provider publishes; fetched now if it never was, unless an attempt failed a moment ago.
    pub(super) async fn published(&self) -> Result<Arc<CoreProviderMetadata>, OidcError> {
        if let Some(known) = self.published.load_full() {
            return Ok(known);
        }
        let mut fetching = self.fetching.lock().await;
        if let Some(known) = self.published.load_full() {
            return Ok(known);
        }
        if fetching.not_before.is_some_and(|at| Instant::now() < at) {
            return Err(OidcError::Unreachable("waiting before the next attempt".into()));
        }
        self.discover(&mut fetching).await
    }

    /// The keys once more after `seen` could not verify a token. `None`: nothing newer, or asked less than a minute ago.
    pub(super) async fn newer_keys(&self, seen: &Arc<CoreProviderMetadata>) -> Option<Arc<CoreProviderMetadata>> {
        let mut fetching = self.fetching.lock().await;
        let known = self.published.load_full()?;
        if !Arc::ptr_eq(&known, seen) {
            return Some(known);
        }
        if fetching.keys_asked.is_some_and(|at| at.elapsed() < KEYS_COOLDOWN) {
            return None;
        }
        fetching.keys_asked = Some(Instant::now());
        let keys: CoreJsonWebKeySet = match JsonWebKeySet::fetch_async(known.jwks_uri(), &self.http).await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::warn!(error = %told(&error), "the identity provider's keys could not be fetched");
                return None;
            }
        };
        let newer = Arc::new(CoreProviderMetadata::clone(&known).set_jwks(keys));
        self.published.store(Some(newer.clone()));
        Some(newer)
    }

    /// Fetches everything until it is there, then every hour. Runs for ever; dropping it stops it at any await.
    pub(super) async fn keep_fresh(&self) {
        loop {
            let mut fetching = self.fetching.lock().await;
            let due = fetching.not_before.filter(|at| *at > Instant::now());
            if due.is_none()
                && let Err(error) = self.discover(&mut fetching).await
            {
                tracing::warn!(%error, failures = fetching.failures, "the identity provider cannot be reached");
            }
            let next = due.or(fetching.not_before).unwrap_or_else(|| Instant::now() + REFRESH);
            drop(fetching);
            tokio::time::sleep_until(next).await;
        }
    }

    async fn discover(&self, fetching: &mut Fetching) -> Result<Arc<CoreProviderMetadata>, OidcError> {
        match self.fetch_all().await {
            Ok(published) => {
                let published = Arc::new(published);
                self.published.store(Some(published.clone()));
                *fetching = Fetching { keys_asked: fetching.keys_asked, ..Fetching::default() };
                Ok(published)
            }
            Err(error) => {
                let pause = Duration::from_secs(1 << fetching.failures.min(6)).min(LONGEST_BACK_OFF);
                fetching.failures = fetching.failures.saturating_add(1);
                fetching.not_before = Some(Instant::now() + pause);
                Err(error)
            }
        }
    }

    async fn fetch_all(&self) -> Result<CoreProviderMetadata, OidcError> {
        let published = CoreProviderMetadata::discover_async(self.issuer.clone(), &self.http)
            .await
            .map_err(|error| OidcError::Unreachable(told(&error)))?;
        let endpoints = [
            Some(published.authorization_endpoint().url()),
            published.token_endpoint().map(|endpoint| endpoint.url()),
            published.userinfo_endpoint().map(|endpoint| endpoint.url()),
        ];
        if let Some(url) = endpoints.into_iter().flatten().find(|url| !allowed(url)) {
            return Err(OidcError::Unreachable(format!("its endpoint {url} is not https")));
        }
        Ok(published)
    }
}

#[cfg(test)]
impl Provider {
    pub(super) fn known(&self) -> Option<Arc<CoreProviderMetadata>> {
        self.published.load_full()
    }

    pub(super) fn failures(&self) -> u32 {
        self.fetching.try_lock().map_or(0, |fetching| fetching.failures)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.fetching.try_lock().is_ok()
    }
}

/// An error with its causes, for the log.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    words
}

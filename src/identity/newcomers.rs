//! Who must be told of every sign-in at the provider. Knows neither pages nor sessions.
//!
//! A new sign-in of a person changes what their live sessions rest on: it may let them last longer, or take away what a
//! group gave. Whoever finishes a sign-in tells it here before anybody hears of its success.

use futures_util::future::BoxFuture;

use super::Identity;

/// Told of every verified identity.
pub trait Newcomers: Send + Sync {
    /// This person has just signed in. Returns once what follows from it is done: the browser waits for it.
    fn signed_in<'a>(&'a self, who: &'a Identity) -> BoxFuture<'a, Result<(), NotTold>>;
}

/// A sign-in could not be told, so it counts for nothing. The words are fit to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotTold(pub String);

/// Nobody is told.
impl Newcomers for () {
    fn signed_in<'a>(&'a self, _: &'a Identity) -> BoxFuture<'a, Result<(), NotTold>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

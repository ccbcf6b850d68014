//! What follows from a new sign-in of a person: the book remembers it, and their live sessions go on by it, or end.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::api::pages::Renewals;
use crate::identity::Identity;
use crate::identity::newcomers::{Newcomers, NotTold};
use crate::identity::oidc::Wanted;
use crate::identity::people::People;
use crate::session::Sessions;
use crate::store::Store;

/// Whoever is told of a sign-in.
pub(super) struct Newcomer {
    pub(super) store: Store,
    pub(super) people: People,
    pub(super) sessions: Sessions,
}

/// What live sessions want of a new sign-in.
pub(super) struct Wants(pub(super) Sessions);

impl Newcomers for Newcomer {
    fn signed_in<'a>(&'a self, who: &'a Identity) -> BoxFuture<'a, Result<(), NotTold>> {
        async move {
            // The book first: other processes read it there.
            self.store.person_seen(who).await.map_err(|error| NotTold(error.to_string()))?;
            self.people.note(who.clone());
            self.sessions.signed_in(who);
            Ok(())
        }
        .boxed()
    }
}

impl Renewals for Wants {
    fn wanted(&self, session: Uuid, who: Option<&Identity>) -> Option<Wanted> {
        // One that another process holds, or nobody, is answered like one that wants nothing: any new sign-in is told to all.
        let step_up = self.0.wants(session, who).unwrap_or_default();
        Some(Wanted { fresh: true, max_age: step_up.max_age, acr: step_up.acr })
    }
}

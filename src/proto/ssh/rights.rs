//! What a channel lives by: rights that were asked about when it began, and that must last until it ends.

use crate::policy::Denied;
use crate::session::Underway;

/// One right, or two of which neither alone is enough.
pub(super) struct Rights {
    own: Underway,
    beside: Option<Underway>,
}

impl Rights {
    /// `beside` must last as long as `own`.
    pub(super) fn both(own: Underway, beside: Option<Underway>) -> Self {
        Self { own, beside }
    }

    /// Waits until one of them is taken away; says why. Cancel safe.
    pub(super) async fn until_refused(&self) -> Denied {
        let beside = async {
            match &self.beside {
                Some(beside) => beside.until_refused().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            denied = self.own.until_refused() => denied,
            denied = beside => denied,
        }
    }
}

impl From<Underway> for Rights {
    fn from(own: Underway) -> Self {
        Self { own, beside: None }
    }
}

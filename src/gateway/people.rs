//! Writes down whom the provider vouched for where no browser was: `demo --approve-as`.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::identity::Identity;
use crate::identity::link::Approver;
use crate::store::Store;

/// Signs in as another does, and has the book remember who it was, as the pages do.
pub(super) struct Remembering {
    pub(super) approver: Arc<dyn Approver>,
    pub(super) store: Store,
}

impl Approver for Remembering {
    fn sign_in(&self) -> BoxFuture<'static, Result<Identity, String>> {
        let (signed_in, store) = (self.approver.sign_in(), self.store.clone());
        async move {
            let identity = signed_in.await?;
            store.person_seen(&identity).await.map_err(|error| error.to_string())?;
            Ok(identity)
        }
        .boxed()
    }
}

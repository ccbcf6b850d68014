//! Kill lines: how anything that carries bytes is cut off from outside.
//!
//! A [`KillLine`] is a level, not an edge: once cut it stays cut, and whoever looks later sees it. Lines form a tree,
//! because one connection may carry several sessions: cutting a parent cuts all below it, cutting a child nothing else.

use tokio_util::sync::CancellationToken;

/// One node of the tree of things that can be cut.
#[derive(Clone, Debug, Default)]
pub struct KillLine(CancellationToken);

impl KillLine {
    /// A new root, such as for one accepted connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// A line that is cut with this one, and may be cut alone.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Cuts this line and all below it. Idempotent.
    pub fn cut(&self) {
        self.0.cancel();
    }

    /// Whether it has been cut.
    pub fn is_cut(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it is cut. Cancel safe.
    pub async fn until_cut(&self) {
        self.0.cancelled().await;
    }

    pub(super) fn token(&self) -> CancellationToken {
        self.0.clone()
    }
}

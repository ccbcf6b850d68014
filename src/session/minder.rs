//! Asks again: one task for each live session, which waits for whatever could change the answer.
//!
//! It waits and does not poll: for other rules, locks and sockets, for a new sign-in, and for the time at which a window
//! closes, a sign-in grows too old, or nothing has happened for too long.

use std::future::pending;
use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::live::{Live, Trigger};
use super::{End, Rules};

/// Asks until the session ends.
pub(super) async fn mind(live: Arc<Live>, rules: Rules) {
    let mut watch = Watch { live: live.clone(), in_order: false };
    let (mut changes, mut bell) = (rules.changes(), live.bell.subscribe());
    loop {
        bell.mark_unchanged();
        let in_force = changes.borrow_and_update().clone();
        let trigger = if live.has_heard(&in_force) { Trigger::Time } else { Trigger::Rules };
        live.ask_again(&in_force, trigger);
        // Decided for everybody first: looking ahead takes longer.
        tokio::task::yield_now().await;
        live.look_ahead(&in_force);
        let look = live.next_look();
        tokio::select! {
            biased;
            () = live.ending.cancelled() => return watch.in_order = true,
            changed = changes.changed() => if changed.is_err() { return },
            rung = bell.changed() => if rung.is_err() { return },
            () = until(look) => {}
        }
    }
}

/// A session that nobody asks about any more must not live on.
struct Watch {
    live: Arc<Live>,
    in_order: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.in_order {
            self.live.end(End::Shutdown);
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

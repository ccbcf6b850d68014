//! What the service manager is told (sd_notify(3)): readiness, reloads, stops, a line of status, the watchdog. Nothing
//! where there is none.

use std::time::Duration;

use sd_notify::NotifyState;

/// This process serves: after a start, and after an upgrade, which makes it the main one. `NotifyAccess=all` lets it say
/// so itself.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready, NotifyState::Status(status)]);
}

/// It is at work on something that a crash left open, before it serves: the start may take longer than was thought.
pub(super) fn recovering() {
    tell(&[NotifyState::ExtendTimeoutUsec(ONE_RECORDING_USEC), NotifyState::Status("closing what a crash left open")]);
}

/// An upgrade has begun; `ready` ends it, whoever says it.
pub fn upgrading() {
    let mut state = vec![NotifyState::Reloading, NotifyState::Status("an upgrade is under way")];
    state.extend(NotifyState::monotonic_usec_now());
    tell(&state);
}

/// The upgrade came to nothing: all is as it was.
pub fn not_upgraded() {
    tell(&[NotifyState::Ready, NotifyState::Status("the upgrade failed; serving as before")]);
}

/// It stops.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping: waiting for sessions to end")]);
}

/// What it does, in words.
pub(super) fn status(words: &str) {
    tell(&[NotifyState::Status(words)]);
}

/// Tells the watchdog that the runtime turns, if the service manager asked for it; for as long as it does.
pub(super) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut tick = tokio::time::interval((limit / 3).max(Duration::from_millis(10)));
    loop {
        tick.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// For one recording to be read and sealed, in microseconds: five minutes.
const ONE_RECORDING_USEC: u32 = 300_000_000;

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

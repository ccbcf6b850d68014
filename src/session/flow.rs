//! Flow: how much one SSH channel holds in one direction, and how long its connection's loop waits for room.
//!
//! Why this exists: russh 0.65 gives a sender its window back on receipt, before anybody took the bytes, and its one
//! loop per connection reads all channels. Whoever blocks that loop until a slow consumer has room also keeps the
//! loop from seeing the `WINDOW_ADJUST` that would make room (`head -c 200M /dev/zero | ssh … cat` then hangs), and
//! stalls every other channel. Whoever never blocks it buffers without bound. So the loop waits, but only for a slice
//! of time that grows with what is held: nothing while a consumer keeps up, milliseconds for one that lags, seconds
//! for one that has stopped. Window updates always get through, and memory stays bounded by the slices and, in the end,
//! by a hard limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// Up to here, for one channel, the loop does not wait at all.
const SOFT_LIMIT: isize = 1 << 20;

/// Beyond this, for one channel, the connection ends: about half an hour of a consumer that takes nothing and a peer
/// that never pauses.
const HARD_LIMIT: isize = 64 << 20;

/// How many channels' worth a whole connection may hold: its limits are this many times those of one channel.
const CHANNELS_WORTH: isize = 8;

/// What a queued message costs beside its bytes.
const OVERHEAD: isize = 256;

/// What all channels of one connection hold in one direction.
#[derive(Debug, Default)]
pub struct Held(AtomicIsize);

/// The held bytes of one channel in one direction.
///
/// Signed: russh gives a message to the channel first and tells the loop's handler afterwards, so a quick consumer may
/// count it out before it is counted in.
#[derive(Debug)]
pub struct Flow {
    held: watch::Sender<isize>,
    connection: Arc<Held>,
}

/// More than the hard limit is held: the consumer takes nothing.
#[derive(Debug, thiserror::Error)]
#[error("the other side has not taken its data for too long")]
pub struct Stalled;

impl Flow {
    /// A channel that holds nothing yet, of a connection that holds `connection`.
    pub fn new(connection: &Arc<Held>) -> Self {
        Self { held: watch::Sender::default(), connection: connection.clone() }
    }

    /// Counts a message in and waits, for a bounded time, while too much is held. Called by the connection's loop.
    pub async fn arrived(&self, bytes: usize) -> Result<(), Stalled> {
        let pressure = self.count(bytes)?;
        if self.lags() {
            let mut room = self.held.subscribe();
            let _ = timeout(slice(pressure), room.wait_for(|held| *held <= SOFT_LIMIT)).await;
        } else if pressure > SOFT_LIMIT {
            // Others of this connection lag.
            sleep(slice(pressure)).await;
        }
        Ok(())
    }

    /// Counts a message in and does not wait: for messages that make room themselves.
    pub fn count(&self, bytes: usize) -> Result<isize, Stalled> {
        let size = cost(bytes);
        let mut held = 0;
        // Only the loop waits, and it is here: nobody needs to be woken.
        self.held.send_if_modified(|now| {
            *now += size;
            held = *now;
            false
        });
        let all = self.connection.0.fetch_add(size, Ordering::AcqRel) + size;
        let pressure = held.max(all / CHANNELS_WORTH);
        if pressure > HARD_LIMIT { Err(Stalled) } else { Ok(pressure) }
    }

    /// Counts a message out. Called by the consumer once the other side has taken it.
    pub fn taken(&self, bytes: usize) {
        let size = cost(bytes);
        self.held.send_if_modified(|held| {
            let before = *held;
            *held -= size;
            before > SOFT_LIMIT && *held <= SOFT_LIMIT
        });
        self.connection.0.fetch_sub(size, Ordering::AcqRel);
    }

    /// Whether the consumer lags, so that a smaller window should be offered.
    pub fn lags(&self) -> bool {
        *self.held.borrow() > SOFT_LIMIT
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        // What a channel never took goes with it.
        self.connection.0.fetch_sub(*self.held.borrow(), Ordering::AcqRel);
    }
}

/// What a message counts for. No message is longer than an SSH packet.
fn cost(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(HARD_LIMIT) + OVERHEAD
}

/// How long the loop waits for room with `held` bytes held. At 32 KiB a message: 4 MiB more within a second, 12 MiB
/// more within a minute, then 32 KiB a second.
fn slice(held: isize) -> Duration {
    match held {
        ..0x50_0000 => Duration::from_millis(5),
        0x50_0000..0x110_0000 => Duration::from_millis(100),
        _ => Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 32768;

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_keeps_up_is_never_waited_for() {
        let flow = Flow::new(&Arc::default());
        let start = tokio::time::Instant::now();
        for _ in 0..10_000 {
            flow.arrived(MESSAGE).await.unwrap();
            flow.taken(MESSAGE);
            // The consumer may be first.
            flow.taken(MESSAGE);
            flow.arrived(MESSAGE).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(flow.connection.0.load(Ordering::Acquire), 0);
        assert_eq!(*flow.held.borrow(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_consumer_slows_the_loop_and_bounds_what_is_held() {
        let flow = Flow::new(&Arc::default());
        let start = tokio::time::Instant::now();
        let mut after_a_minute = None;
        let end = loop {
            if flow.arrived(MESSAGE).await.is_err() {
                break start.elapsed();
            }
            if start.elapsed() > Duration::from_secs(60) {
                after_a_minute.get_or_insert(*flow.held.borrow());
            }
        };
        assert!(after_a_minute.unwrap() < 20 << 20, "{after_a_minute:?}");
        assert!(end > Duration::from_secs(20 * 60), "{end:?}");
        assert!(*flow.held.borrow() <= HARD_LIMIT + cost(MESSAGE));
    }

    #[tokio::test(start_paused = true)]
    async fn many_channels_together_are_bounded_too() {
        let connection = Arc::<Held>::default();
        let flows: Vec<Flow> = (0..1000).map(|_| Flow::new(&connection)).collect();
        let start = tokio::time::Instant::now();
        // No channel for itself holds enough to be waited for.
        for flow in flows.iter().cycle().take(20 * flows.len()) {
            if flow.arrived(MESSAGE).await.is_err() {
                break;
            }
        }
        assert!(start.elapsed() > Duration::from_secs(60), "{:?}", start.elapsed());
        assert!(connection.0.load(Ordering::Acquire) <= HARD_LIMIT * CHANNELS_WORTH + cost(MESSAGE) * CHANNELS_WORTH);
        drop(flows);
        assert_eq!(connection.0.load(Ordering::Acquire), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn room_wakes_the_loop_before_its_slice_ends() {
        let flow = Arc::new(Flow::new(&Arc::default()));
        while !flow.lags() {
            flow.held.send_modify(|held| *held += cost(MESSAGE));
        }
        let consumer = flow.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            for _ in 0..4 {
                consumer.taken(MESSAGE);
            }
        });
        let start = tokio::time::Instant::now();
        flow.arrived(MESSAGE).await.unwrap();
        assert!(start.elapsed() < Duration::from_millis(3), "{:?}", start.elapsed());
    }
}

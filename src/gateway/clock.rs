//! Hears of it when somebody sets the clock: every time that was worked out before is wrong then.
//!
//! Rules hold by the clock on the wall, and timers count seconds. A timer of the kernel on that clock is cancelled when it
//! is set (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`); so this waits and does not poll. A thread of its own waits: it
//! has nothing to give back when the process ends.

use std::io;

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::sync::watch;

/// Longer than any gateway runs, in seconds.
const FAR_AWAY: i64 = 100 * 365 * 86_400;

/// Calls `set` every time that the clock is set, for as long as the gateway runs.
pub(super) async fn keep_watching(mut set: impl FnMut()) {
    let (sets, mut heard) = watch::channel(0u64);
    let thread = std::thread::Builder::new().name("clock".into()).spawn(move || {
        loop {
            match wait_until_set() {
                Ok(()) => tracing::warn!("the clock was set: what depends on it is looked at again"),
                Err(error) => return tracing::error!(%error, "it cannot be told when the clock is set"),
            }
            sets.send_modify(|sets| *sets += 1);
        }
    });
    if let Err(error) = thread {
        tracing::error!(%error, "nobody can wait for the clock to be set");
    }
    while heard.changed().await.is_ok() {
        set();
    }
}

fn wait_until_set() -> io::Result<()> {
    let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)?;
    let never = Timespec { tv_sec: jiff::Timestamp::now().as_second() + FAR_AWAY, tv_nsec: 0 };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
    timerfd_settime(&timer, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &once)?;
    loop {
        match rustix::io::read(&timer, &mut [0u8; 8]) {
            Ok(_) | Err(Errno::CANCELED) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

//! Gives memory back to the system once connections have ended.
//!
//! glibc keeps what was freed: after a thousand sessions nearly all of it, because something small and living lies behind
//! it. `malloc_trim` gives back every free page (glibc 2.8 and newer). Other C libraries do without.

use std::time::Duration;

use crate::accept::Doors;

/// How often it is looked at: long enough that its cost, some milliseconds, is nothing.
const EVERY: Duration = Duration::from_secs(15);

/// Looks after it until it is dropped.
pub(super) async fn keep_giving_back(doors: &Doors) {
    let (mut ended, mut again) = (0, false);
    loop {
        tokio::time::sleep(EVERY).await;
        let now = doors.ended();
        let more = now != ended;
        // Once more after the last one: what it left may take a moment to go.
        if more || again {
            // On no thread that serves anybody; who allocates meanwhile waits for it.
            let _ = tokio::task::spawn_blocking(give_back).await;
        }
        (ended, again) = (now, more);
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "there is no safe way to ask glibc; the benchmark `q11` shows what it is good for")]
fn give_back() {
    // SAFETY: it takes a number and no pointer, and glibc's allocator may be called from any thread (malloc_trim(3): MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn give_back() {}

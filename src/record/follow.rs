//! Follows a live recording at its end: what it holds so far, then what comes.
//!
//! A follower reads spool and container like any other reader, so it costs the session nothing but a bump of a `watch`
//! while somebody follows. A recording of another process (an upgrade's old one) bumps nothing here and is polled.

use std::sync::Weak;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::Recordings;
use super::error::ReadError;
use super::observation::{Observation, What};
use super::reader::{Reader, Verdict};

/// How often a recording is looked at that another process makes.
const POLL: Duration = Duration::from_millis(100);
/// How often a recording of this process is looked at although nothing was told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A reader that waits at the end of a live recording.
pub struct Follower {
    reader: Reader,
    /// `None` when no writer of this process has it.
    grown: Option<watch::Receiver<()>>,
}

/// What a look at a recording ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// There is more already.
    More,
    /// That is all for now.
    AtEnd,
    /// That is all for good.
    Over(Verdict),
}

impl Recordings {
    /// Opens a recording to be followed, from its beginning.
    pub async fn follow(&self, session: Uuid, recording: Uuid, started: Timestamp) -> Result<Follower, ReadError> {
        // Subscribed before the first look, so that nothing falls in between.
        let writer = self.shared.live().get(&recording).and_then(Weak::upgrade);
        let grown = writer.map(|writer| writer.grown.subscribe());
        let reader = self.open_reader(session, recording, started).await?;
        Ok(Follower { reader, grown })
    }
}

impl Follower {
    /// Moves what there is into `out`, until that is about `most` bytes. Blocks.
    pub fn look(&mut self, most: usize, out: &mut Vec<Observation>) -> Result<Look, ReadError> {
        let mut taken = 0;
        while taken < most {
            let mut next = self.reader.next();
            if next.is_none() {
                let verdict = self.reader.verdict();
                if verdict == Verdict::Live {
                    return Ok(Look::AtEnd);
                }
                // What came between the two looks.
                next = self.reader.next();
                if next.is_none() {
                    return Ok(Look::Over(verdict));
                }
            }
            let Some(observation) = next.transpose()? else { continue };
            taken += OVERHEAD + size(&observation.what);
            out.push(observation);
        }
        Ok(Look::More)
    }

    /// Waits until a look may find more. Cancel safe.
    pub async fn until_grown(&mut self) {
        match &mut self.grown {
            Some(grown) => {
                if let Ok(Err(_writer_gone)) = timeout(LOOK_AGAIN, grown.changed()).await {
                    self.grown = None;
                }
            }
            None => sleep(POLL).await,
        }
    }
}

/// What an observation counts beside its bytes.
const OVERHEAD: usize = 64;

fn size(what: &What) -> usize {
    match what {
        What::Bytes { data, .. } => data.len(),
        _ => 0,
    }
}

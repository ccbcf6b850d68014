//! The gateway's hold of one keeper: its own child in `demo`, or the helper's, which is held by a line.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::process::Child;

use super::helper;
use super::keeper::{ENDED, signal_below, tree};
use super::signal_called;
use super::wire::{self, Answer, Frames, Order};

/// How long a keeper has to end everything: more than its own deadline.
const END_DEADLINE: Duration = Duration::from_secs(3);

/// A keeper. Dropping it has it end all that it keeps.
pub(super) enum Kept {
    /// Ended with SIGTERM.
    Own(Own),
    /// Ended by order, and by the end of its line.
    Lent(Lent),
}

pub(super) struct Own {
    child: Child,
    pid: Option<Pid>,
}

pub(super) struct Lent {
    line: Arc<UnixStream>,
    frames: Frames,
    ended: Option<Ended>,
}

#[derive(Clone, Copy)]
struct Ended {
    status: ExitStatus,
    clean: bool,
}

/// What tells a keeper from the sending half.
pub(super) enum Teller {
    Own(Option<Pid>),
    Lent(Arc<UnixStream>),
    /// It was told to end.
    Silent,
}

impl Kept {
    pub(super) fn own(child: Child) -> Self {
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Self::Own(Own { child, pid })
    }

    pub(super) fn lent(kept: helper::Kept) -> Self {
        Self::Lent(Lent { line: Arc::new(kept.line), frames: kept.frames, ended: None })
    }

    pub(super) fn teller(&self) -> Teller {
        match self {
            Kept::Own(own) => Teller::Own(own.pid),
            Kept::Lent(lent) => Teller::Lent(lent.line.clone()),
        }
    }

    /// Waits until everything has ended: how what was started did, where that is known. Cancel safe.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        match self {
            Kept::Own(own) => own.child.wait().await,
            Kept::Lent(lent) => Ok(lent.ended().await.status),
        }
    }

    /// Tells the keeper to end everything and waits for it. Whether it is known that nothing is left.
    pub(super) async fn end(mut self) -> bool {
        self.tell_to_end();
        let ended = async {
            match &mut self {
                Kept::Own(own) => own.child.wait().await.is_ok_and(|status| status.code() == Some(ENDED)),
                Kept::Lent(lent) => lent.ended().await.clean,
            }
        };
        if let Ok(clean) = tokio::time::timeout(END_DEADLINE, ended).await {
            return clean;
        }
        // It does not answer: what can be found is ended for it.
        if let Kept::Own(Own { pid: Some(pid), .. }) = self {
            for below in tree(pid) {
                let _ = kill_process(below.pid, Signal::KILL);
            }
            let _ = kill_process(pid, Signal::KILL);
        }
        false
    }

    fn tell_to_end(&mut self) {
        match self {
            Kept::Own(Own { pid: Some(pid), child }) => {
                if let Ok(None) = child.try_wait() {
                    end_own(*pid);
                }
            }
            Kept::Own(_) => {}
            Kept::Lent(lent) => tell(&lent.line, &Order::End),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.tell_to_end();
    }
}

impl Lent {
    async fn ended(&mut self) -> Ended {
        if let Some(ended) = self.ended {
            return ended;
        }
        let ended = loop {
            match wire::answer(&self.line, &mut self.frames).await {
                // Ended by order: as a keeper of our own would exit.
                Ok(Answer::Ended { status: None, clean }) => {
                    break Ended { status: ExitStatus::from_raw(ENDED << 8), clean };
                }
                Ok(Answer::Ended { status: Some(status), clean }) => {
                    break Ended { status: ExitStatus::from_raw(status), clean };
                }
                Ok(_) => {}
                // It died. The helper ends what it kept, but nobody says so.
                Err(_) => break Ended { status: ExitStatus::from_raw(Signal::KILL.as_raw()), clean: false },
            }
        };
        self.ended = Some(ended);
        ended
    }
}

impl Teller {
    /// Sends a signal (RFC 4254 section 6.10), by name, to `group` or else to what was started.
    pub(super) fn signal(&self, name: &str, group: Option<Pid>) {
        let Some(signal) = signal_called(name) else { return };
        match self {
            Teller::Own(Some(keeper)) => signal_below(*keeper, group, signal),
            Teller::Lent(line) => {
                let group = group.map(|group| group.as_raw_nonzero().get());
                tell(line, &Order::Signal { name: name.to_owned(), group });
            }
            Teller::Own(None) | Teller::Silent => {}
        }
    }

    /// Has everything ended, without waiting for it.
    pub(super) fn end(&mut self) {
        match std::mem::replace(self, Teller::Silent) {
            Teller::Own(Some(keeper)) => end_own(keeper),
            Teller::Lent(line) => tell(&line, &Order::End),
            Teller::Own(None) | Teller::Silent => {}
        }
    }
}

fn end_own(keeper: Pid) {
    let _ = kill_process(keeper, Signal::TERM);
    // A stopped keeper would not hear it.
    let _ = kill_process(keeper, Signal::CONT);
}

/// A keeper reads at once and orders are short: one that finds no room has a keeper that will never read it.
fn tell(line: &UnixStream, order: &Order) {
    if let Ok(frame) = wire::framed(order) {
        let _ = line.try_write(&frame);
    }
}

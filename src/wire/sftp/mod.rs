//! SFTP version 3 (draft-ietf-secsh-filexfer-02) as OpenSSH speaks it: which files pass, and a gate for what may not.
//!
//! Every request is understood before it goes on, so that what is refused never reaches the server; contents of WRITE and
//! DATA stream through. Nothing is re-encoded but the version in INIT. A handle means something only between the server's
//! HANDLE and the client's CLOSE: a request with any other is refused here, whatever it asks, because a client that
//! guesses a handle ahead of the answer would otherwise read or write bytes that no file's count and sum includes.

mod answers;
mod change;
mod digest;
mod facts;
mod files;
mod frames;
mod gate;
mod outstanding;
mod packet;
mod reply;
mod request;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use self::facts::{Telling, Totals};
use self::files::{File, Kind, Table};
use self::frames::Frames;
use self::outstanding::Outstanding;
use super::{Fact, Keep, Outcome, Reading, Step, Stop};

/// Follows an SFTP channel. It tells one `ssh_file` fact for each file, directory and change, and `ssh_files` at the end.
pub struct Files {
    phase: Phase,
    input: Frames,
    output: Frames,
    /// The WRITE whose payload is passing, or is being refused.
    upload: Option<gate::Upload>,
    /// What the server's packet under way belongs to.
    download: Option<answers::Download>,
    outstanding: Outstanding,
    table: Table,
    telling: Telling,
    totals: Totals,
    /// Whether it was told that a handle which nobody was given was written to.
    told_unknown: bool,
    /// Set once it cannot go on: what follows is not understood.
    stopped: Option<Stop>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has been said.
    New,
    /// The client has said INIT.
    Asked,
    /// The server has said VERSION.
    Open,
}

impl Files {
    /// Follows a channel from its first byte.
    pub fn new(keep: Keep) -> Self {
        Self {
            phase: Phase::New,
            input: Frames::default(),
            output: Frames::default(),
            upload: None,
            download: None,
            outstanding: Outstanding::default(),
            table: Table::default(),
            telling: Telling { keep, working_directory: None },
            totals: Totals::default(),
            told_unknown: false,
            stopped: None,
        }
    }

    /// Contents of a file, on their way.
    fn pass_contents(&self, contents: Bytes) -> Step {
        match self.telling.keep {
            Keep::Metadata => Step::PassUnkept(contents),
            Keep::Contents => Step::Pass(contents),
        }
    }

    fn tell(&mut self, fact: Fact, steps: &mut Vec<Step>) {
        match fact.outcome {
            Outcome::Done => {}
            Outcome::Denied => self.totals.denied += 1,
            Outcome::Failed => self.totals.failed += 1,
        }
        steps.push(Step::Tell(fact));
    }

    fn tell_file(&mut self, file: &File, steps: &mut Vec<Step>) {
        self.tell(self.telling.file(file), steps);
    }

    fn opened(&mut self, kind: Kind) {
        self.totals.files_read += u64::from(kind.reads());
        self.totals.files_written += u64::from(kind.writes());
    }
}

impl Reading for Files {
    fn input(&mut self, mut data: Bytes, may_write: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        if let Some(stop) = &self.stopped {
            return Err(stop.clone());
        }
        let read = self.read_input(&mut data, may_write, steps);
        self.stopped = read.clone().err();
        read
    }

    fn output(&mut self, mut data: Bytes, _: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        if let Some(stop) = &self.stopped {
            return Err(stop.clone());
        }
        let read = self.read_output(&mut data, steps);
        self.stopped = read.clone().err();
        read
    }

    fn is_between(&self) -> bool {
        self.output.left() == 0
    }

    fn finish(&mut self, steps: &mut Vec<Step>) {
        for change in self.outstanding.unanswered_changes() {
            self.totals.incomplete += 1;
            self.tell(self.telling.change(&change, None), steps);
        }
        for file in self.table.drain() {
            self.totals.incomplete += 1;
            self.tell_file(&file, steps);
        }
        steps.push(Step::Tell(facts::summary(&self.totals)));
    }
}

//! The protocol that `scp` spoke before OpenSSH 9.0, and still does with `-O`: one side sends records and contents, the
//! other answers each with a byte (OpenSSH's scp.c, `source()` and `sink()`).
//!
//! A refused record has no contents behind it. So who sends contents before the answer may have the other side read
//! them as records: a download is stopped for that, an upload when the answer turns out to be a refusal, and until the
//! answer all of it is written down.

mod record;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use aws_lc_rs::digest;
use bytes::Bytes;
use serde_json::{Value, json};

use super::told::{self, Keep, Totals};
use super::transfer::Scp;
use super::{Outcome, Reading, Step, Stop};
use sink::Answers;
use source::Source;

/// Follows one `scp -t` or `scp -f`.
pub struct Files {
    upload: bool,
    keep: Keep,
    source: Source,
    answers: Answers,
    /// What the sink has not answered yet.
    awaited: VecDeque<Awaited>,
    /// How many bytes the source has sent.
    sent: u64,
    file: Option<File>,
    place: Place,
    totals: Totals,
    /// One side gave up; what still comes is not read.
    over: bool,
}

/// Something that the sink answers.
struct Awaited {
    what: What,
    /// Where it ended in what the source sent.
    end: u64,
}

enum What {
    /// The sink is there.
    Ready,
    /// Times, or the end of a directory.
    Nothing,
    File,
    Contents(File),
    Directory {
        path: Vec<u8>,
        mode: String,
    },
}

/// A file on its way.
struct File {
    path: Vec<u8>,
    name: Vec<u8>,
    mode: String,
    size: u64,
    bytes: u64,
    digest: digest::Context,
    /// Whether all of it was written down.
    kept: bool,
    /// What the source said when it could not read all of it.
    complaint: Option<String>,
}

/// Where the next record stands.
struct Place {
    /// What the command named, and whether that is known to be a directory.
    base: Vec<u8>,
    is_directory: bool,
    /// The directories that are open, as one path, and how long it was before each.
    path: Vec<u8>,
    lengths: Vec<usize>,
}

impl Files {
    /// For a command that [`super::transfer::recognise`] found.
    pub fn new(command: &Scp, keep: Keep) -> Self {
        let ready = Awaited { what: What::Ready, end: 0 };
        Self {
            upload: command.upload,
            keep,
            source: Source::default(),
            answers: Answers::default(),
            awaited: VecDeque::from([ready]),
            sent: 0,
            file: None,
            place: Place::new(command),
            totals: Totals::default(),
            over: false,
        }
    }

    fn operation(&self) -> &'static str {
        if self.upload { "write" } else { "read" }
    }

    /// Tells how one file ended. `refusal` is what the sink said.
    fn tell(&mut self, file: File, whole: bool, refusal: Option<String>, steps: &mut Vec<Step>) {
        let complete = whole && refusal.is_none() && file.complaint.is_none() && file.bytes == file.size;
        let sha256 = complete.then(|| told::hex(file.digest.finish().as_ref()));
        let mut about = told::object(json!({
            "operation": self.operation(),
            "mode": file.mode,
            "size": file.size,
            "bytes": file.bytes,
            "sha256": sha256,
            "contents_kept": file.kept,
            "complete": complete,
        }));
        told::put_path(&mut about, "path", &file.path);
        told::put_path(&mut about, "name", &file.name);
        if let Some(words) = refusal.or(file.complaint) {
            about.insert("message".to_owned(), Value::String(words));
        }
        self.totals.count_file(self.upload, file.bytes);
        self.totals.failed += u64::from(whole && !complete);
        self.totals.incomplete += u64::from(!whole);
        steps.push(Step::Tell(told::file(if complete { Outcome::Done } else { Outcome::Failed }, about)));
    }

    /// Something that failed as a whole: no file of it moved.
    fn tell_failure(&mut self, words: &[u8], steps: &mut Vec<Step>) {
        let mut about = told::object(json!({ "operation": self.operation(), "message": told::words(words) }));
        told::put_path(&mut about, "path", &self.place.base);
        self.totals.failed += 1;
        steps.push(Step::Tell(told::file(Outcome::Failed, about)));
    }
}

impl Reading for Files {
    fn input(&mut self, data: Bytes, may_write: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        match self.upload {
            true if !may_write => Err(Stop { words: "changing files is not allowed any more" }),
            true => self.read_source(data, steps),
            false => self.read_answers(data, steps),
        }
    }

    fn output(&mut self, data: Bytes, _: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        match self.upload {
            true => self.read_answers(data, steps),
            false => self.read_source(data, steps),
        }
    }

    fn is_between(&self) -> bool {
        if self.upload { self.answers.is_between() } else { self.source.is_between() }
    }

    fn finish(&mut self, steps: &mut Vec<Step>) {
        let unanswered = std::mem::take(&mut self.awaited).into_iter().filter_map(|awaited| match awaited.what {
            What::Contents(file) => Some(file),
            _ => None,
        });
        let unfinished: Vec<_> = unanswered.chain(self.file.take()).collect();
        for file in unfinished {
            self.tell(file, false, None, steps);
        }
        steps.push(Step::Tell(told::files(self.totals.about())));
    }
}

impl Place {
    fn new(command: &Scp) -> Self {
        let has_globs = |path: &[u8]| path.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
        let (base, is_directory) = match (command.upload, command.paths.as_slice()) {
            (true, [target]) => {
                let last = target.rsplit('/').next().unwrap_or_default();
                (target.clone().into_bytes(), command.directory || matches!(last, "" | "." | ".." | "~"))
            }
            // Names come without their directories, and of several sources nobody says which.
            (false, [source]) if !has_globs(told::parent(source.as_bytes())) => {
                (told::parent(source.as_bytes()).to_vec(), true)
            }
            _ => (Vec::new(), true),
        };
        Self { base, is_directory, path: Vec::new(), lengths: Vec::new() }
    }

    /// The path of a name here. A target that is not known to be a directory may be the file itself or the directory
    /// that it comes into: then the path is the target's, and the name stands beside it.
    fn of(&self, name: &[u8]) -> Result<Vec<u8>, Stop> {
        let path = match (self.lengths.is_empty(), self.is_directory) {
            (true, true) => told::join(&self.base, name),
            (true, false) => self.base.clone(),
            (false, _) => told::join(&self.path, name),
        };
        if path.len() > MAX_PATH { Err(TOO_DEEP) } else { Ok(path) }
    }

    fn enter(&mut self, path: Vec<u8>) {
        self.lengths.push(self.path.len());
        self.path = path;
    }

    /// Leaves the last directory. `None`: there was none.
    fn leave(&mut self) -> Option<()> {
        let length = self.lengths.pop()?;
        self.path.truncate(length);
        Some(())
    }
}

/// Longer paths are not followed.
const MAX_PATH: usize = 32 * 1024;

const TOO_DEEP: Stop = Stop { words: "a path of scp is too long" };

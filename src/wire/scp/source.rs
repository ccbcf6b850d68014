//! The side that sends: records and contents.

use aws_lc_rs::digest;
use bytes::Bytes;

use super::record::{MALFORMED, Record};
use super::sink::START_UP_FILES;
use super::{Awaited, File, Files, Keep, What};
use crate::wire::told;
use crate::wire::{Step, Stop};

/// Where the source is.
#[derive(Default)]
pub(super) struct Source {
    at: At,
    /// What there is of a line. Held back, because its name is judged before anybody sees it.
    line: Vec<u8>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum At {
    /// At a record.
    #[default]
    Record,
    /// In a file, with this much left.
    Contents(u64),
    /// At the byte behind a file that tells whether all of it could be read.
    Status,
}

impl Source {
    pub(super) fn is_between(&self) -> bool {
        self.at == At::Record && self.line.is_empty()
    }
}

impl Files {
    pub(super) fn read_source(&mut self, mut data: Bytes, steps: &mut Vec<Step>) -> Result<(), Stop> {
        while !data.is_empty() {
            match (self.over, self.awaited.front()) {
                // A server that has given up reads nothing; what was on its way is only written down.
                (true, _) if self.upload => {
                    let held = std::mem::take(&mut self.source.line);
                    steps.extend(
                        [Bytes::from(held), data].into_iter().filter(|piece| !piece.is_empty()).map(Step::Pass),
                    );
                    return Ok(());
                }
                (true, _) => return Err(MALFORMED),
                (false, None) => {}
                (false, Some(_)) if self.upload => {}
                (false, Some(Awaited { what: What::Ready, .. })) => return Err(START_UP_FILES),
                (false, Some(_)) => return Err(DID_NOT_WAIT),
            }
            match self.source.at {
                At::Contents(left) => self.contents(left, &mut data, steps),
                At::Status if data.first() == Some(&0) && self.source.line.is_empty() => {
                    self.pass(data.split_to(1), steps);
                    self.contents_end(None)?;
                }
                At::Record | At::Status => self.line(&mut data, steps)?,
            }
        }
        Ok(())
    }

    fn contents(&mut self, left: u64, data: &mut Bytes, steps: &mut Vec<Step>) {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        let piece = data.split_to(count);
        let accepted = !matches!(self.awaited.back(), Some(Awaited { what: What::File, .. }));
        if let Some(file) = &mut self.file {
            file.bytes += piece.len() as u64;
            file.digest.update(&piece);
        }
        self.sent += piece.len() as u64;
        let left = left - piece.len() as u64;
        self.source.at = if left == 0 { At::Status } else { At::Contents(left) };
        steps.push(match self.keep == Keep::Contents || !accepted {
            true => Step::Pass(piece),
            false => Step::PassUnkept(piece),
        });
    }

    /// Takes a line, or holds back what there is of it.
    fn line(&mut self, data: &mut Bytes, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let end = data.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let piece = data.split_to(end.unwrap_or(data.len()));
        if self.source.line.len() + piece.len() > MAX_LINE {
            return Err(MALFORMED);
        }
        let is_whole = self.source.line.is_empty() && end.is_some();
        if !is_whole {
            self.source.line.extend_from_slice(&piece);
        }
        if end.is_none() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.source.line);
        let line = if is_whole { piece } else { Bytes::from(held) };
        let end = self.sent + line.len() as u64;
        let record = Record::parse(line.strip_suffix(b"\n").unwrap_or(&line))?;
        match self.source.at {
            At::Record => {
                let next = self.prepare(&record)?;
                self.pass(line.clone(), steps);
                self.record(record, next, end, steps)
            }
            _ => {
                let (Record::Warning(words) | Record::Fatal(words)) = record else { return Err(MALFORMED) };
                self.over |= matches!(record, Record::Fatal(_));
                let words = told::words(words);
                self.pass(line.clone(), steps);
                self.contents_end(Some(words))
            }
        }
    }

    /// Judges a record before anybody sees it; gives the path that it is about.
    fn prepare(&mut self, record: &Record<'_>) -> Result<Vec<u8>, Stop> {
        match record {
            Record::File { name, .. } | Record::Directory { name, .. } => self.place.of(name),
            Record::End => self.place.leave().map(|()| Vec::new()).ok_or(MALFORMED),
            _ => Ok(Vec::new()),
        }
    }

    fn record(&mut self, record: Record<'_>, path: Vec<u8>, end: u64, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let what = match record {
            Record::File { mode, size, name } => {
                self.source.at = if size == 0 { At::Status } else { At::Contents(size) };
                self.file = Some(File {
                    path,
                    name: name.to_vec(),
                    mode: mode.to_owned(),
                    size,
                    bytes: 0,
                    digest: digest::Context::new(&digest::SHA256),
                    kept: self.keep == Keep::Contents,
                    complaint: None,
                });
                What::File
            }
            Record::Directory { mode, .. } => {
                self.place.enter(path.clone());
                What::Directory { path, mode: mode.to_owned() }
            }
            Record::End | Record::Times => What::Nothing,
            // These two are not answered.
            Record::Warning(words) => {
                self.tell_failure(words, steps);
                return Ok(());
            }
            Record::Fatal(words) => {
                self.tell_failure(words, steps);
                self.over = true;
                return Ok(());
            }
        };
        self.expect(what, end)
    }

    fn contents_end(&mut self, complaint: Option<String>) -> Result<(), Stop> {
        self.source.at = At::Record;
        let Some(mut file) = self.file.take() else { return Err(MALFORMED) };
        file.complaint = complaint;
        self.expect(What::Contents(file), self.sent)
    }

    fn expect(&mut self, what: What, end: u64) -> Result<(), Stop> {
        if self.awaited.len() >= MAX_AWAITED {
            return Err(Stop { words: "scp was sent too much without waiting for an answer" });
        }
        self.awaited.push_back(Awaited { what, end });
        Ok(())
    }

    fn pass(&mut self, bytes: Bytes, steps: &mut Vec<Step>) {
        self.sent += bytes.len() as u64;
        steps.push(Step::Pass(bytes));
    }

    /// The file that was refused has no contents.
    pub(super) fn forget_file(&mut self) -> Option<File> {
        self.source.at = At::Record;
        self.file.take()
    }
}

/// A path can have 4 KiB.
const MAX_LINE: usize = 8 * 1024;

/// Clients that do not wait send this many records ahead, at most.
const MAX_AWAITED: usize = 4096;

const DID_NOT_WAIT: Stop = Stop { words: "the upstream's scp did not wait for an answer; it was stopped" };

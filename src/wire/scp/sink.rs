//! The side that receives: one answer for each record, and for each file's contents.

use bytes::Bytes;
use serde_json::json;

use super::{Awaited, Files, What};
use crate::wire::told;
use crate::wire::{Outcome, Step, Stop};

/// Where the sink is in an answer.
#[derive(Default)]
pub(super) struct Answers {
    /// A refusal that has begun, and what it says so far.
    refusal: Option<(u8, Vec<u8>)>,
}

impl Answers {
    pub(super) fn is_between(&self) -> bool {
        self.refusal.is_none()
    }
}

impl Files {
    pub(super) fn read_answers(&mut self, data: Bytes, steps: &mut Vec<Step>) -> Result<(), Stop> {
        steps.push(Step::Pass(data.clone()));
        for byte in data {
            if self.over {
                return Ok(());
            }
            match (&mut self.answers.refusal, byte) {
                (None, 0) => self.accepted(steps)?,
                (None, 1 | 2) => self.answers.refusal = Some((byte, Vec::new())),
                (None, _) if self.upload && matches!(self.awaited.front(), Some(Awaited { what: What::Ready, .. })) => {
                    return Err(START_UP_FILES);
                }
                // OpenSSH's source takes any other byte for the first of a refusal that is final.
                (None, _) => self.answers.refusal = Some((2, vec![byte])),
                (Some((code, words)), b'\n') => {
                    let (code, words) = (*code, std::mem::take(words));
                    self.answers.refusal = None;
                    self.refused(code == 2, &words, steps)?;
                }
                (Some((_, words)), byte) if words.len() < told::MAX_WORDS => words.push(byte),
                (Some(_), _) => {}
            }
        }
        Ok(())
    }

    fn accepted(&mut self, steps: &mut Vec<Step>) -> Result<(), Stop> {
        match self.awaited.pop_front().ok_or(UNASKED)?.what {
            What::Ready | What::Nothing | What::File => {}
            What::Contents(file) => self.tell(file, true, None, steps),
            What::Directory { path, mode } => self.tell_directory(&path, &mode, None, steps),
        }
        Ok(())
    }

    fn refused(&mut self, is_final: bool, words: &[u8], steps: &mut Vec<Step>) -> Result<(), Stop> {
        self.over |= is_final;
        let Some(awaited) = self.awaited.pop_front() else {
            self.tell_failure(words, steps);
            return Ok(());
        };
        let is_last = self.sent == awaited.end;
        match awaited.what {
            What::Contents(file) => {
                self.tell(file, true, Some(told::words(words)), steps);
                return Ok(());
            }
            What::File => {
                if let Some(file) = self.forget_file() {
                    self.tell(file, true, Some(told::words(words)), steps);
                }
            }
            What::Directory { path, mode } => {
                self.tell_directory(&path, &mode, Some(words), steps);
                self.place.leave();
            }
            What::Ready => {
                self.tell_failure(words, steps);
                self.over = true;
            }
            What::Nothing => self.tell_failure(words, steps),
        }
        // What came after it was read as something else than we did.
        if is_last || is_final { Ok(()) } else { Err(SENT_AHEAD) }
    }

    /// A directory that is there already is no error: nobody says which.
    fn tell_directory(&mut self, path: &[u8], mode: &str, refusal: Option<&[u8]>, steps: &mut Vec<Step>) {
        if !self.upload {
            return;
        }
        let mut about = told::object(json!({ "operation": "mkdir", "mode": mode }));
        told::put_path(&mut about, "path", path);
        let outcome = match refusal {
            None => Outcome::Done,
            Some(words) => {
                about.insert("message".to_owned(), told::words(words).into());
                Outcome::Failed
            }
        };
        match refusal {
            None => self.totals.changes += 1,
            Some(_) => self.totals.failed += 1,
        }
        steps.push(Step::Tell(told::file(outcome, about)));
    }
}

pub(super) const START_UP_FILES: Stop = Stop { words: "the server's start-up files print text; scp cannot work" };

const UNASKED: Stop = Stop { words: "scp was answered more often than it asked" };

const SENT_AHEAD: Stop =
    Stop { words: "a file was refused while its contents were on their way, so what was copied is not known" };

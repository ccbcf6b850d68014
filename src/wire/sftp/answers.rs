//! The server's side: each answer is matched with what was asked, passed, and told.

use bytes::Bytes;

use super::change::Details;
use super::digest::Way;
use super::files::File;
use super::frames::Piece;
use super::outstanding::Asked;
use super::packet::{Name, Status, code};
use super::reply::{self, BAD_REPLY, Reply};
use super::{Files, Phase};
use crate::wire::{Step, Stop};

const NEVER_ASKED: Stop = Stop { words: "the server answered an sftp request that was not sent" };
const UNFIT: Stop = Stop { words: "the server's answer does not fit the sftp request" };

/// The packet under way, of which only the head was needed.
pub(super) enum Download {
    /// Contents of a file.
    Contents(u32),
    /// Names in a directory.
    Names(u32),
}

impl Files {
    pub(super) fn read_output(&mut self, data: &mut Bytes, steps: &mut Vec<Step>) -> Result<(), Stop> {
        loop {
            let piece = match self.phase {
                Phase::Open => {
                    let outstanding = &self.outstanding;
                    self.output.next(data, |seen| reply::head(seen, |id| outstanding.is_working_directory(id)))?
                }
                Phase::New | Phase::Asked => self.output.next(data, reply::first_head)?,
            };
            match piece {
                None => return Ok(()),
                Some(Piece::Head(head)) if self.phase == Phase::Open => self.reply(head, steps)?,
                Some(Piece::Head(head)) => self.version(head, steps)?,
                Some(Piece::Body(contents)) => self.download_contents(contents, steps),
            }
            if self.output.left() == 0 {
                self.end_download(steps);
            }
        }
    }

    fn version(&mut self, packet: Bytes, steps: &mut Vec<Step>) -> Result<(), Stop> {
        if self.phase == Phase::New {
            return Err(NEVER_ASKED);
        }
        reply::version(&packet)?;
        self.phase = Phase::Open;
        steps.push(Step::Pass(packet));
        Ok(())
    }

    fn reply(&mut self, head: Bytes, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let (id, reply) = reply::parse(&head).ok_or(BAD_REPLY)?;
        let asked = self.outstanding.answered(id).ok_or(NEVER_ASKED)?;
        // What was asked is told behind the bytes that say so.
        let place = steps.len();
        self.answered(asked, reply, steps)?;
        steps.insert(place, Step::Pass(head));
        Ok(())
    }

    fn answered(&mut self, asked: Asked, reply: Reply<'_>, steps: &mut Vec<Step>) -> Result<(), Stop> {
        match (asked, reply) {
            (Asked::Read { file, offset }, Reply::Data) => {
                if let Some(file) = self.table.get_mut(file) {
                    file.digest.start(Way::Down, offset);
                }
                self.download = Some(Download::Contents(file));
            }
            (Asked::Read { file, offset }, Reply::Status(status)) => {
                self.table.not_read(file, offset, status);
                self.settle(file, steps);
            }
            (Asked::Write { file, length }, Reply::Status(status)) => {
                if status.code == code::OK {
                    self.totals.bytes_written += u64::from(length);
                }
                self.table.written(file, length, status);
                self.settle(file, steps);
            }
            (Asked::Open { file }, Reply::Handle(handle)) => {
                let kind = self.table.opened(file, handle)?.map(|file| file.kind);
                kind.into_iter().for_each(|kind| self.opened(kind));
            }
            (Asked::Open { file }, Reply::Status(status)) => {
                let file = self.table.not_opened(file, status);
                self.tell_settled(file, steps);
            }
            (Asked::Close { file }, Reply::Status(status)) => {
                let file = self.table.closed(file, status);
                self.tell_settled(file, steps);
            }
            (Asked::ReadDirectory { file }, Reply::Names { count, .. }) => {
                if let Some(directory) = self.table.get_mut(file) {
                    directory.entries += u64::from(count);
                }
                self.download = Some(Download::Names(file));
            }
            (Asked::ReadDirectory { file }, Reply::Status(status)) => {
                self.table.not_listed(file, status);
                self.settle(file, steps);
            }
            (Asked::WorkingDirectory, Reply::Names { first, .. }) => {
                let absolute = first.filter(|path| path.starts_with(b"/")).map(Name::new);
                self.telling.working_directory = absolute.or(self.telling.working_directory.take());
            }
            (Asked::WorkingDirectory | Asked::Lookup, Reply::Status(_)) => {}
            (Asked::Lookup, Reply::Names { .. } | Reply::Attributes | Reply::Extended) => {}
            (Asked::Change(change), Reply::Status(status)) => {
                self.totals.changes += u64::from(status.code == code::OK);
                self.tell(self.telling.change(&change, Some(&status)), steps);
            }
            // An extension may answer in its own way, which says that it was done; but not with a handle or with contents.
            (Asked::Change(change), Reply::Extended | Reply::Names { .. } | Reply::Attributes)
                if change.details == Details::Extension =>
            {
                self.totals.changes += 1;
                let done = Status { code: code::OK, message: String::new() };
                self.tell(self.telling.change(&change, Some(&done)), steps);
            }
            _ => return Err(UNFIT),
        }
        Ok(())
    }

    fn download_contents(&mut self, contents: Bytes, steps: &mut Vec<Step>) {
        let Some(Download::Contents(file)) = self.download else {
            steps.push(Step::Pass(contents));
            return;
        };
        self.totals.bytes_read += contents.len() as u64;
        if let Some(file) = self.table.get_mut(file) {
            file.bytes_read += contents.len() as u64;
            file.digest.add(&contents);
        }
        steps.push(self.pass_contents(contents));
    }

    fn end_download(&mut self, steps: &mut Vec<Step>) {
        if let Some(Download::Contents(file) | Download::Names(file)) = self.download.take() {
            self.settle(file, steps);
        }
    }

    fn settle(&mut self, file: u32, steps: &mut Vec<Step>) {
        let file = self.table.answered(file);
        self.tell_settled(file, steps);
    }

    fn tell_settled(&mut self, file: Option<File>, steps: &mut Vec<Step>) {
        if let Some(file) = file {
            self.tell_file(&file, steps);
        }
    }
}

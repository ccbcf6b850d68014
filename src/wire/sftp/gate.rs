//! The client's side: each request is read, judged, and passed or answered here. What may not be written is what
//! `sftp-server -R` refuses, and whatever nobody here knows.

use bytes::Bytes;

use super::change::{Change, Details};
use super::digest::Way;
use super::files::{File, Kind};
use super::frames::Piece;
use super::outstanding::Asked;
use super::packet::{Name, VERSION, code, flag, status};
use super::request::{self, BAD_REQUEST, Request};
use super::{Files, Keep, Phase};
use crate::wire::{Fact, Step, Stop};

/// The WRITE whose payload is under way.
pub(super) enum Upload {
    /// To this file.
    Passed(u32),
    /// Answered once all of it was swallowed.
    Refused { id: u32, refusal: Refusal },
}

/// Why a request is not passed, and what is told of it.
pub(super) struct Refusal {
    code: u32,
    message: &'static str,
    /// `None` when it is not worth a line of its own.
    fact: Option<Fact>,
}

/// Said to the client, and told as the reason.
mod because {
    pub(super) const POLICY: &str = "not allowed by policy";
    pub(super) const HANDLE: &str = "this handle was never given, or is closed";
    pub(super) const EXTENSION: &str =
        "an extension that is not known may change files, which is not allowed by policy";
    pub(super) const UNKNOWN: &str = "not a request of sftp version 3";
    pub(super) const TOO_MANY: &str = "too many files are open";
}

impl Files {
    pub(super) fn read_input(&mut self, data: &mut Bytes, may_write: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        while let Some(piece) = self.input.next(data, request::head)? {
            match piece {
                Piece::Head(head) if self.phase == Phase::New => self.init(head, steps)?,
                Piece::Head(head) => self.request(head, may_write, steps)?,
                Piece::Body(contents) => self.upload_contents(contents, steps),
            }
            if self.input.left() == 0 {
                self.end_upload(steps);
            }
        }
        Ok(())
    }

    /// INIT goes on with the only version that is understood here. That is the one place where bytes are changed: a server
    /// that was asked for more would answer with more, and version 4 has other packets under the same types.
    fn init(&mut self, packet: Bytes, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let version = request::init(&packet).ok_or(BAD_REQUEST)?;
        self.phase = Phase::Asked;
        if version <= VERSION {
            steps.push(Step::Pass(packet));
            return Ok(());
        }
        steps.push(Step::Pass(packet.slice(..5)));
        steps.push(Step::Pass(Bytes::copy_from_slice(&VERSION.to_be_bytes())));
        // What a client offers to a later version.
        if packet.len() > 9 {
            steps.push(Step::Pass(packet.slice(9..)));
        }
        Ok(())
    }

    fn request(&mut self, head: Bytes, may_write: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        let (id, request) = request::parse(&head).ok_or(BAD_REQUEST)?;
        self.outstanding.check(id)?;
        let is_write = matches!(request, Request::Write { .. });
        match self.judge(request, may_write) {
            Ok(asked) => {
                if let Asked::Write { file, .. } = asked {
                    self.upload = Some(Upload::Passed(file));
                }
                self.outstanding.insert(id, asked);
                steps.push(Step::Pass(head));
            }
            Err(refusal) => {
                steps.push(Step::Refuse(head));
                match is_write {
                    true => self.upload = Some(Upload::Refused { id, refusal }),
                    false => self.refuse(id, refusal, steps),
                }
            }
        }
        Ok(())
    }

    fn judge(&mut self, request: Request<'_>, may_write: bool) -> Result<Asked, Refusal> {
        match request {
            Request::Open { path, flags, mode } => {
                // `-R` looks at the flags that it knows; here any but READ counts as one that writes.
                let allowed = may_write || flags & !flag::READ == 0;
                self.open(path, Kind::File { flags, mode }, allowed)
            }
            Request::OpenDirectory { path } => self.open(path, Kind::Directory, true),
            Request::Close { handle } => match self.table.close(handle) {
                Some(file) => Ok(Asked::Close { file }),
                None => Err(unknown_handle()),
            },
            Request::Read { handle, offset } => Ok(Asked::Read { file: self.use_file(handle)?, offset }),
            Request::ReadDirectory { handle } => Ok(Asked::ReadDirectory { file: self.use_file(handle)? }),
            Request::Write { handle, offset, length } => self.write(handle, offset, length, may_write),
            Request::Lookup => Ok(self.lookup(Asked::Lookup)),
            Request::WorkingDirectory => Ok(self.lookup(Asked::WorkingDirectory)),
            Request::LookupByHandle { handle } => {
                self.table.find(handle).ok_or_else(unknown_handle)?;
                Ok(self.lookup(Asked::Lookup))
            }
            Request::Sync { handle } => {
                self.changed_path("fsync", handle, may_write)?;
                Ok(self.lookup(Asked::Lookup))
            }
            Request::SetByHandle { handle, attributes } => {
                let path = self.changed_path("set", handle, may_write)?;
                let details = Details::Set { attributes, follow: true };
                self.change(Change { operation: "set", path, to: None, details }, may_write)
            }
            Request::Copy { from, offset, length, to, to_offset } => {
                let path = self.changed_path("copy", from, may_write)?;
                let target = self.changed_path("copy", to, may_write)?;
                self.contents_come_otherwise(to);
                let details = Details::Copy { offset, length, to_offset };
                self.change(Change { operation: "copy", path, to: Some(target), details }, may_write)
            }
            Request::Change(change) => self.change(change, may_write),
            Request::Extension { name } => {
                let path = Name::new(name);
                let change = Change { operation: "extension", path, to: None, details: Details::Extension };
                match may_write {
                    true => self.change(change, true),
                    false => {
                        let fact = self.telling.denied_change(&change, because::EXTENSION);
                        Err(Refusal { code: code::UNSUPPORTED, message: because::EXTENSION, fact: Some(fact) })
                    }
                }
            }
            // Types of later versions make links and take locks. A server that takes them though it agreed on version 3
            // would do what nobody here can read.
            Request::Unknown => {
                let fact = Some(self.telling.denied_use("unknown", None, because::UNKNOWN));
                Err(Refusal { code: code::UNSUPPORTED, message: because::UNKNOWN, fact })
            }
        }
    }

    fn open(&mut self, path: &[u8], kind: Kind, allowed: bool) -> Result<Asked, Refusal> {
        let (code, message) = match allowed {
            false => (code::PERMISSION_DENIED, because::POLICY),
            true if self.table.is_full() => (code::FAILURE, because::TOO_MANY),
            true => return Ok(Asked::Open { file: self.table.insert(File::new(path, kind)) }),
        };
        Err(Refusal { code, message, fact: Some(self.telling.denied_opening(path, kind, message)) })
    }

    fn use_file(&mut self, handle: &[u8]) -> Result<u32, Refusal> {
        let file = self.table.find(handle).ok_or_else(unknown_handle)?;
        self.table.asked(file);
        Ok(file)
    }

    fn lookup(&mut self, asked: Asked) -> Asked {
        self.totals.lookups += 1;
        asked
    }

    fn change(&self, change: Change, may_write: bool) -> Result<Asked, Refusal> {
        match may_write {
            true => Ok(Asked::Change(Box::new(change))),
            false => Err(denied(Some(self.telling.denied_change(&change, because::POLICY)))),
        }
    }

    /// A WRITE, of which there can be very many: that they are refused is told once for each file.
    fn write(&mut self, handle: &[u8], offset: u64, length: u32, may_write: bool) -> Result<Asked, Refusal> {
        let file = self.table.find(handle).and_then(|key| Some((key, self.table.get_mut(key)?)));
        let Some((key, file)) = file else { return Err(self.unknown_changed("write", may_write)) };
        if !may_write {
            let is_first = !std::mem::replace(&mut file.was_denied, true);
            let path = is_first.then(|| file.path.clone());
            return Err(denied(path.map(|path| self.telling.denied_use("write", Some(&path), because::POLICY))));
        }
        file.digest.start(Way::Up, offset);
        self.table.asked(key);
        Ok(Asked::Write { file: key, length })
    }

    /// The path behind the handle of a request that changes something.
    fn changed_path(&mut self, operation: &str, handle: &[u8], may_write: bool) -> Result<Name, Refusal> {
        let path = self.table.find(handle).and_then(|key| self.table.get(key)).map(|file| file.path.clone());
        match path {
            Some(path) if may_write => Ok(path),
            Some(path) => Err(denied(Some(self.telling.denied_use(operation, Some(&path), because::POLICY)))),
            None => Err(self.unknown_changed(operation, may_write)),
        }
    }

    /// A change through a handle that nobody has: no client does that by mistake, so the first is told.
    fn unknown_changed(&mut self, operation: &str, may_write: bool) -> Refusal {
        let is_first = !std::mem::replace(&mut self.told_unknown, true);
        let fact = is_first.then(|| self.telling.denied_use(operation, None, because::HANDLE));
        if may_write { Refusal { fact, ..unknown_handle() } } else { denied(fact) }
    }

    /// The server puts contents into this file that do not pass here.
    fn contents_come_otherwise(&mut self, handle: &[u8]) {
        if let Some(file) = self.table.find(handle).and_then(|key| self.table.get_mut(key)) {
            file.digest = super::digest::Digest::Broken;
        }
    }

    fn upload_contents(&mut self, contents: Bytes, steps: &mut Vec<Step>) {
        match self.upload {
            Some(Upload::Passed(file)) => {
                if let Some(file) = self.table.get_mut(file) {
                    file.digest.add(&contents);
                }
                steps.push(self.pass_contents(contents));
            }
            _ => steps.push(match self.telling.keep {
                Keep::Metadata => Step::RefuseUnkept(contents.len() as u64),
                Keep::Contents => Step::Refuse(contents),
            }),
        }
    }

    fn end_upload(&mut self, steps: &mut Vec<Step>) {
        if let Some(Upload::Refused { id, refusal }) = self.upload.take() {
            self.refuse(id, refusal, steps);
        }
    }

    fn refuse(&mut self, id: u32, refusal: Refusal, steps: &mut Vec<Step>) {
        steps.push(Step::Answer(status(id, refusal.code, refusal.message)));
        match refusal.fact {
            Some(fact) => self.tell(fact, steps),
            None if refusal.code == code::PERMISSION_DENIED => self.totals.denied += 1,
            None => self.totals.failed += 1,
        }
    }
}

/// As the server itself would answer.
fn unknown_handle() -> Refusal {
    Refusal { code: code::FAILURE, message: because::HANDLE, fact: None }
}

fn denied(fact: Option<Fact>) -> Refusal {
    Refusal { code: code::PERMISSION_DENIED, message: because::POLICY, fact }
}

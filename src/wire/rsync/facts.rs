//! What is told of a transfer.

use serde_json::{Map, Value, json};

use super::frames::Told;
use super::opening::Side;
use super::sender::{Event, Sent};
use super::{Files, Stage};
use crate::wire::told::{self, Keep};
use crate::wire::{Outcome, Step};

impl Files {
    pub(super) fn event(&mut self, event: Event, facts: &mut Vec<Step>) {
        match event {
            Event::Nothing => {}
            Event::Sent(sent) => facts.push(self.sent(sent, true)),
            // On the client's own disk it is no business of ours.
            Event::Made { .. } if self.options.sender => {}
            Event::Made { entry, linked } => {
                let (operation, to) = match (entry.is_directory(), &entry.link, linked) {
                    (true, ..) => ("mkdir", None),
                    (_, Some(link), None) if entry.is_link() => ("symlink", Some(link.clone())),
                    (_, _, Some(linked)) => ("link", Some(linked)),
                    _ => return,
                };
                let mut about = told::object(json!({ "operation": operation, "mode": mode(entry.mode) }));
                self.put_place(&mut about, &entry.name);
                if let Some(to) = to {
                    told::put_path(&mut about, "to", &to);
                }
                self.totals.changes += 1;
                facts.push(Step::Tell(told::file(Outcome::Done, about)));
            }
        }
    }

    /// What the upstream says beside the stream.
    pub(super) fn message(&mut self, side: Side, told: Told, facts: &mut Vec<Step>) {
        if side == Side::Client {
            return;
        }
        let (outcome, about) = match told {
            Told::Error(words) => {
                self.errors = self.errors.saturating_add(1);
                self.totals.failed += 1;
                if self.errors > MAX_ERRORS {
                    return;
                }
                let words = told::words(words.trim_ascii());
                (Outcome::Failed, told::object(json!({ "operation": self.operation(), "message": words })))
            }
            Told::Removed(name) => {
                self.totals.changes += 1;
                let mut about = told::object(json!({ "operation": "remove" }));
                let name = name.strip_suffix(b"\0").unwrap_or(&name);
                told::put_path(&mut about, "path", &told::join(&self.target(), name));
                (Outcome::Done, about)
            }
        };
        facts.push(Step::Tell(told::file(outcome, about)));
    }

    pub(super) fn operation(&self) -> &'static str {
        if self.options.sender { "read" } else { "write" }
    }

    fn sent(&mut self, sent: Sent, complete: bool) -> Step {
        let is_compressed = self.agreed.is_some_and(|agreed| agreed.compressed);
        let mut about = told::object(json!({
            "operation": self.operation(),
            "mode": mode(sent.entry.mode),
            "size": sent.entry.size,
            "transferred": (!is_compressed).then_some(sent.literal),
            "compressed": is_compressed.then_some(sent.literal),
            "contents_kept": self.keep == Keep::Contents,
            "complete": complete,
        }));
        self.put_place(&mut about, &sent.entry.name);
        self.totals.count_file(!self.options.sender, sent.literal);
        self.totals.incomplete += u64::from(!complete);
        Step::Tell(told::file(if complete { Outcome::Done } else { Outcome::Failed }, about))
    }

    /// Tells of a file that was on its way.
    pub(super) fn tell_unfinished(&mut self, facts: &mut Vec<Step>) {
        let unfinished = [&mut self.client, &mut self.server].into_iter().find_map(|lane| match &mut lane.stage {
            Stage::Sender(sender) => sender.unfinished(),
            _ => None,
        });
        if let Some(sent) = unfinished {
            let step = self.sent(sent, false);
            facts.push(step);
        }
    }

    /// The path of a name in a list. A target that is not known to be a directory may be the file itself: then the path
    /// is the target's, and the name stands beside it.
    fn put_place(&self, about: &mut Map<String, Value>, name: &[u8]) {
        let target = self.target();
        let path = match name == b"." && !target.is_empty() || self.is_single() {
            true => target,
            false => told::join(&target, name),
        };
        told::put_path(about, "path", &path);
        told::put_path(about, "name", name);
    }

    fn is_single(&self) -> bool {
        let Stage::Sender(sender) = &self.client.stage else { return false };
        let target = self.options.paths.last().map_or("", String::as_str);
        let last = target.rsplit('/').next().unwrap_or_default();
        !matches!(last, "" | "." | ".." | "~") && !sender.has_several
    }

    /// What names are below: the target of an upload; of a download the one source, if there is only one.
    fn target(&self) -> Vec<u8> {
        let paths = &self.options.paths;
        match (self.options.sender, paths.as_slice()) {
            (false, paths) => paths.last().map_or(Vec::new(), |path| path.clone().into_bytes()),
            (true, _) if self.options.relative && !self.options.files_from => Vec::new(),
            (true, [source]) => {
                let bytes = source.as_bytes();
                let is_inside = self.options.files_from || source.ends_with('/') || source.ends_with("/.");
                let base = if is_inside || source == "." { bytes } else { told::parent(bytes) };
                let has_globs = base.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
                if has_globs { Vec::new() } else { base.to_vec() }
            }
            (true, _) => Vec::new(),
        }
    }
}

pub(super) fn mode(mode: u32) -> String {
    format!("{:04o}", mode & 0o7777)
}

/// More are only counted.
const MAX_ERRORS: u32 = 100;

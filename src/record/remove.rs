//! The end of a recording's life: its files are removed, and directories that became empty with it. What may go is
//! decided by others (retention); what is recorded into never goes from here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Recordings, container_path, spool, spool_path};

/// How long after its day a day's directory is left alone, empty or not: a recording that begins just then is about to
/// be put into it.
const DAY_OVER: SignedDuration = SignedDuration::from_hours(25);

/// A recording's file that may have no row in the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The session it stands under.
    pub session: Uuid,
    /// Its recording's id.
    pub recording: Uuid,
    path: PathBuf,
}

impl Recordings {
    /// Removes a recording's files; what is not there is as good as removed. Returns the bytes that this freed.
    ///
    /// A recording that is being recorded, by whatever process, is refused (`ResourceBusy`). Blocking.
    pub fn remove(&self, session: Uuid, recording: Uuid, started: Timestamp) -> io::Result<u64> {
        let settings = &self.shared.settings;
        let spooled = spool_path(&settings.spool, recording);
        if spool::in_use(&spooled) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is being recorded"));
        }
        let path = container_path(&settings.dir, started, session, recording);
        // A spool that waits for its key, or was put aside as evidence, holds parts of the recording.
        let freed = remove_file(&spooled)? + remove_file(&path.with_extension(spool::EXTENSION))? + remove_file(&path)?;
        remove_empty(&path);
        Ok(freed)
    }

    /// Recordings' files of days that were over at `before`, at most `limit` of them after `after`, in order. Whether
    /// they have rows is for the caller to find out. Blocking.
    pub fn files_before(&self, before: Timestamp, after: Option<&Orphan>, limit: usize) -> io::Result<Vec<Orphan>> {
        let dir = &self.shared.settings.dir;
        let last = before.strftime("%Y-%m-%d").to_string();
        let after = after.map(|orphan| orphan.path.as_path());
        // Only what could still come is looked into: whole directories that lie before `after` are passed by.
        let passed = |path: &Path| after.is_some_and(|after| path <= after && !after.starts_with(path));
        let mut found = Vec::new();
        for day in sorted(dir)?.into_iter().filter(|day| is_day(day) && name(day) < last.as_str() && !passed(day)) {
            for session in sorted(&day)?.into_iter().filter(|session| !passed(session)) {
                let Ok(id) = Uuid::try_parse(name(&session)) else { continue };
                for file in
                    sorted(&session)?.into_iter().filter(|file| after.is_none_or(|after| file.as_path() > after))
                {
                    if found.len() == limit {
                        return Ok(found);
                    }
                    let is_ours = file.extension().is_some_and(|end| end == "gsr" || end == spool::EXTENSION);
                    let recording = file.file_stem().and_then(|stem| Uuid::try_parse(stem.to_str()?).ok());
                    if let Some(recording) = recording.filter(|_| is_ours) {
                        found.push(Orphan { session: id, recording, path: file });
                    }
                }
            }
        }
        Ok(found)
    }

    /// Removes a file without a row; returns the bytes that this freed. Blocking.
    pub fn remove_orphan(&self, orphan: &Orphan) -> io::Result<u64> {
        if spool::in_use(&spool_path(&self.shared.settings.spool, orphan.recording)) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is being recorded"));
        }
        let freed = remove_file(&orphan.path)?;
        remove_empty(&orphan.path);
        Ok(freed)
    }
}

/// Removes a file's directory and its day's, where they are empty.
fn remove_empty(file: &Path) {
    let mut above = file.ancestors().skip(1);
    // A directory that is not empty is not removed, and that is no error.
    let emptied = above.next().is_some_and(|session| fs::remove_dir(session).is_ok());
    if let Some(day) = above.next().filter(|day| emptied && is_over(day)) {
        let _ = fs::remove_dir(day);
    }
}

fn is_over(day: &Path) -> bool {
    let now = Timestamp::now();
    let today = now.checked_sub(DAY_OVER).unwrap_or(now).strftime("%Y-%m-%d").to_string();
    is_day(day) && name(day) < today.as_str()
}

fn remove_file(path: &Path) -> io::Result<u64> {
    let removed = fs::symlink_metadata(path).and_then(|meta| fs::remove_file(path).map(|()| meta.len()));
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        removed => removed,
    }
}

fn sorted(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        // Removed meanwhile, or nothing that was made here.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort_unstable();
    Ok(paths)
}

fn is_day(path: &Path) -> bool {
    name(path).parse::<jiff::civil::Date>().is_ok_and(|day| day.to_string() == name(path))
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

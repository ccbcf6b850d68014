//! Files that are there whole or not at all. Knows nothing of what is in them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes a file, or replaces it, whole or not at all, durably, and never readable by more than `mode` says. Blocking.
///
/// One writer at a time: what a crash in the middle of this left beside it (`.partial`) is removed.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let partial = path.with_extension("partial");
    match std::fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_there_whole_with_its_mode_whatever_was_left_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(path.with_extension("partial"), "hal").unwrap();
        for (content, mode) in [("whole", 0o600), ("another", 0o640)] {
            write_atomically(&path, content.as_bytes(), mode).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_stays_when_it_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "before").unwrap();
        std::fs::create_dir_all(path.with_extension("partial").join("in the way")).unwrap();
        assert!(write_atomically(&path, b"after", 0o600).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
    }
}

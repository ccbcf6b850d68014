//! What somebody could do with a path, as owners, modes and access lists say: read what is there, or change it, which is
//! also to put another thing in its place. Every directory and every link on the way there counts.
//!
//! Judges by identity alone and tries nothing. So it counts all groups that somebody has on the host, of which the
//! built-in shell gives only one: who is in another gets at it by `su` or cron.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::getxattr;
use rustix::io::Errno;

/// Rights as in a mode's last digit (chmod(1)).
const READ: u32 = 4;
const WRITE: u32 = 2;
const SEARCH: u32 = 1;

/// Only who owns something may remove it from such a directory (inode(7)).
const STICKY: u32 = 0o1000;

/// Set-user-ID and set-group-ID (inode(7)).
const SET_ID: u32 = 0o6000;

/// Most links on one way, as the kernel has it (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The longest access list that is read, in bytes: far more than file systems keep.
const MOST_ACL: usize = 16 * 1024;

/// What the kernel adds to the name of a running program whose file was removed (proc(5)).
const DELETED: &str = " (deleted)";

/// Somebody, by ids.
pub(super) struct Who {
    pub(super) uid: u32,
    /// Every group of the user's.
    pub(super) groups: Vec<u32>,
}

/// How they could change what is at this absolute path, or what is meant by it; if at all.
pub(super) fn changed(path: &Path, who: &Who) -> io::Result<Option<String>> {
    let way = Way::to(path)?;
    for pair in way.steps.windows(2) {
        let [directory, entry] = pair else { continue };
        let in_it = entry.path.parent() == Some(&directory.path);
        if in_it && who.may_replace(directory, entry.about.as_ref()) {
            return Ok(Some(format!("by rights in the directory {}", directory.path.display())));
        }
    }
    Ok(way.last().filter(|last| who.rights(last) & WRITE != 0).map(|_| "by writing to it".to_owned()))
}

/// How they could read what is at this absolute path, if at all. For a directory the right to search it is enough.
pub(super) fn read(path: &Path, who: &Who) -> io::Result<Option<&'static str>> {
    let way = Way::to(path)?;
    let closed = |step: &Step| step.is_directory() && who.rights(step) & SEARCH == 0;
    let Some((last, before)) = way.steps.split_last() else { return Ok(None) };
    let Some(about) = last.about.as_ref().filter(|_| !before.iter().any(closed)) else { return Ok(None) };
    let wanted = if about.is_dir() { READ | SEARCH } else { READ };
    Ok(match about {
        _ if about.uid() == who.uid => Some("as its owner"),
        _ if who.by_group(last) & wanted != 0 => Some("by its group or its access list"),
        _ if who.rights(last) & wanted != 0 => Some("as everybody"),
        _ => None,
    })
}

/// What is wrong with the running program's own file: it gives rights to whoever runs it, or somebody could change it.
pub(super) fn program(who: &Who) -> io::Result<Option<String>> {
    const RUNNING: &str = "/proc/self/exe";
    let about = std::fs::metadata(RUNNING)?;
    let file = std::env::current_exe()?;
    // What is there by now is what the next upgrade starts.
    let file = file.to_str().and_then(|name| name.strip_suffix(DELETED)).map_or(file.clone(), PathBuf::from);
    let shown = file.display();
    if about.mode() & SET_ID != 0 {
        return Ok(Some(format!("{shown} is set-user-ID or set-group-ID: `chmod ug-s` it")));
    }
    if has_attribute(Path::new(RUNNING), "security.capability")? {
        let words = "has file capabilities, which everybody who runs it gets: `setcap -r` it, and have the service give \
                     them (AmbientCapabilities)";
        return Ok(Some(format!("{shown} {words}")));
    }
    // Another name of the same file may be the one that was removed.
    let running = Step { path: RUNNING.into(), about: Some(about), acl: acl(Path::new(RUNNING))? };
    let how = match who.rights(&running) & WRITE != 0 {
        true => Some("by writing to it".to_owned()),
        false => changed(&file, who)?,
    };
    Ok(how.map(|how| format!("the gateway's program {shown} could be changed {how}: take the right away")))
}

/// A path as the kernel walks it (path_resolution(7)).
struct Way {
    /// From the root on, directory after directory, with the links between them; the last one may not be there.
    steps: Vec<Step>,
}

struct Step {
    path: PathBuf,
    about: Option<Metadata>,
    acl: Option<Vec<Entry>>,
}

impl Way {
    fn to(path: &Path) -> io::Result<Self> {
        if !path.is_absolute() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
        }
        let mut at = PathBuf::from("/");
        let mut way = Self { steps: vec![Step::at(&at)?] };
        let (mut rest, mut links) = (parts(path), 0);
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                at.pop();
                way.steps.push(Step::at(&at)?);
                continue;
            }
            let next = at.join(&name);
            let step = Step::at(&next)?;
            let link = step.about.as_ref().is_some_and(Metadata::is_symlink);
            let there = step.about.is_some();
            way.steps.push(step);
            if link {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = std::fs::read_link(&next)?;
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                // The walk goes on from here, not from the link.
                way.steps.push(Step::at(&at)?);
                parts(&target).into_iter().rev().for_each(|name| rest.push_front(name));
            } else if there {
                at = next;
            } else {
                break;
            }
        }
        Ok(way)
    }

    /// What the path means.
    fn last(&self) -> Option<&Step> {
        self.steps.last()
    }
}

impl Step {
    fn at(path: &Path) -> io::Result<Self> {
        let about = match std::fs::symlink_metadata(path) {
            Ok(about) => Some(about),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        // A link has no list of its own.
        let listed = about.as_ref().is_some_and(|about| !about.is_symlink());
        Ok(Self { path: path.to_owned(), about, acl: if listed { acl(path)? } else { None } })
    }

    fn is_directory(&self) -> bool {
        self.about.as_ref().is_some_and(Metadata::is_dir)
    }
}

impl Who {
    /// Whether they could put another thing where `entry` is, or is not. What they own they may give themselves the
    /// right to.
    fn may_replace(&self, directory: &Step, entry: Option<&Metadata>) -> bool {
        let Some(about) = directory.about.as_ref().filter(|about| about.is_dir()) else { return false };
        let kept =
            about.mode() & STICKY != 0 && about.uid() != self.uid && entry.is_some_and(|entry| entry.uid() != self.uid);
        self.rights(directory) & WRITE != 0 && !kept
    }

    /// All that they may do with it, by whatever makes it so.
    fn rights(&self, step: &Step) -> u32 {
        let Some(about) = step.about.as_ref().filter(|about| !about.is_symlink()) else { return 0 };
        let own = if about.uid() == self.uid { READ | WRITE | SEARCH } else { 0 };
        own | self.by_group(step) | (about.mode() & 0o7)
    }

    /// What they may do by a group or by name.
    fn by_group(&self, step: &Step) -> u32 {
        let Some(about) = &step.about else { return 0 };
        let group = |id: u32| self.groups.contains(&id);
        // With a list, the mode's middle digit is its mask and not what the file's group may (acl(5)).
        let mask = about.mode() >> 3 & 0o7;
        let granted = match &step.acl {
            None if group(about.gid()) => READ | WRITE | SEARCH,
            None => 0,
            Some(entries) => entries
                .iter()
                .filter(|entry| match entry.whose {
                    Whose::User(id) => id == self.uid,
                    Whose::OwningGroup => group(about.gid()),
                    Whose::Group(id) => group(id),
                })
                .fold(0, |all, entry| all | entry.rights),
        };
        granted & mask
    }
}

/// One of an access list's that the mask is for.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    whose: Whose,
    rights: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Whose {
    User(u32),
    OwningGroup,
    Group(u32),
}

/// The access list of what is there, if it has one (acl(5)).
fn acl(path: &Path) -> io::Result<Option<Vec<Entry>>> {
    let mut bytes = vec![0; MOST_ACL];
    match getxattr(path, "system.posix_acl_access", bytes.as_mut_slice()) {
        Ok(length) => Ok(Some(entries(bytes.get(..length).unwrap_or_default()))),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn has_attribute(path: &Path, name: &str) -> io::Result<bool> {
    match getxattr(path, name, [0; 64].as_mut_slice()) {
        Ok(_) | Err(Errno::RANGE) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// As the kernel gives it (linux/posix_acl_xattr.h): a version, then tag, rights and id of each, little-endian.
fn entries(list: &[u8]) -> Vec<Entry> {
    let entry = |bytes: &[u8; 8]| {
        let [tag, _, rights, _, id @ ..] = *bytes;
        let id = u32::from_le_bytes(id);
        let whose = match tag {
            0x02 => Whose::User(id),
            0x04 => Whose::OwningGroup,
            0x08 => Whose::Group(id),
            // The owner, the mask and everybody else are in the mode.
            _ => return None,
        };
        Some(Entry { whose, rights: rights.into() })
    };
    let (entries, _) = list.get(4..).unwrap_or_default().as_chunks();
    entries.iter().filter_map(entry).collect()
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let named = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A directory with `a/b` in it, which nobody else may change, and who made it.
    fn place() -> (tempfile::TempDir, PathBuf, Who) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/b"), "").unwrap();
        for path in [&root, &root.join("a"), &root.join("a/b")] {
            chmod(path, 0o755);
        }
        let about = fs::metadata(&root).unwrap();
        let (uid, groups) = (about.uid(), vec![about.gid()]);
        (dir, root, Who { uid, groups })
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn other(who: &Who) -> Who {
        Who { uid: who.uid + 7, groups: vec![who.groups[0] + 7] }
    }

    #[test]
    fn whoever_may_write_anywhere_on_the_way_changes_what_is_there() {
        let (_dir, root, owner) = place();
        let file = root.join("a/b");
        let (stranger, member) = (other(&owner), Who { uid: owner.uid + 7, ..place().2 });
        let how = |who: &Who| changed(&file, who).unwrap();
        assert_eq!((how(&stranger), how(&member)), (None, None));
        assert!(how(&owner).is_some());
        for (path, mode, by_stranger, by_member) in [
            ("a/b", 0o757, true, true),
            ("a/b", 0o775, false, true),
            ("a", 0o757, true, true),
            ("a", 0o775, false, true),
            // Who may not remove what others have in it.
            ("a", 0o1777, false, false),
            ("", 0o757, true, true),
            ("", 0o1777, false, false),
        ] {
            let path = root.join(path);
            chmod(&path, mode);
            assert_eq!(
                (how(&stranger).is_some(), how(&member).is_some()),
                (by_stranger, by_member),
                "{path:?} {mode:o}"
            );
            if by_stranger && path != file {
                assert!(how(&stranger).unwrap().contains(path.to_str().unwrap().trim_end_matches('/')));
            }
            chmod(&path, 0o755);
        }
        // What is not there yet could be made.
        let missing = root.join("a/none/deeper");
        assert_eq!(changed(&missing, &stranger).unwrap(), None);
        chmod(&root.join("a"), 0o1777);
        assert!(changed(&missing, &stranger).unwrap().is_some());
    }

    #[test]
    fn a_link_counts_as_the_ways_to_it_and_behind_it() {
        let (_dir, root, owner) = place();
        let stranger = other(&owner);
        fs::create_dir(root.join("open")).unwrap();
        chmod(&root.join("open"), 0o755);
        symlink("../open/../a/b", root.join("open/relative")).unwrap();
        symlink(root.join("a"), root.join("absolute")).unwrap();
        let ways = ["open/relative", "absolute/b", "absolute/../a/b"].map(|way| root.join(way));
        let how = |way: &Path| changed(way, &stranger).unwrap();
        assert!(ways.iter().all(|way| how(way).is_none()));
        chmod(&root.join("open"), 0o777);
        assert_eq!(ways.each_ref().map(|way| how(way).is_some()), [true, false, false]);
        // The directory above another cannot be changed from there.
        assert_eq!(how(&root.join("open/../a/b")), None);
        chmod(&root.join("open"), 0o755);
        chmod(&root.join("a/b"), 0o666);
        assert!(ways.iter().all(|way| how(way).is_some()));
        symlink("circle", root.join("circle")).unwrap();
        assert!(changed(&root.join("circle"), &stranger).is_err());
        assert!(changed(Path::new("a"), &stranger).is_err());
    }

    #[test]
    fn to_read_needs_a_way_and_a_right() {
        let (_dir, root, owner) = place();
        let (stranger, member) = (other(&owner), Who { uid: owner.uid + 7, groups: owner.groups.clone() });
        let file = root.join("a/b");
        for (directory, mode, expected) in [
            (0o755, 0o600, [Some("as its owner"), None, None]),
            (0o755, 0o000, [Some("as its owner"), None, None]),
            (0o755, 0o640, [Some("as its owner"), Some("by its group or its access list"), None]),
            (0o755, 0o604, [Some("as its owner"), Some("as everybody"), Some("as everybody")]),
            (0o700, 0o644, [Some("as its owner"), None, None]),
            (0o710, 0o644, [Some("as its owner"), Some("by its group or its access list"), None]),
        ] {
            chmod(&root.join("a"), directory);
            chmod(&file, mode);
            let found = [&owner, &member, &stranger].map(|who| read(&file, who).unwrap());
            assert_eq!(found, expected, "{directory:o} {mode:o}");
        }
        chmod(&root.join("a"), 0o701);
        assert_eq!(read(&root.join("a"), &stranger).unwrap(), Some("as everybody"));
        assert_eq!(read(&root.join("a/none"), &stranger).unwrap(), None);
    }

    /// Of tag, rights and id.
    fn list(of: &[(u16, u16, u32)]) -> Vec<u8> {
        let entry = |(tag, rights, id): &(u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        [2u32.to_le_bytes().to_vec(), of.iter().flat_map(entry).collect()].concat()
    }

    #[test]
    fn an_access_list_gives_what_its_mask_leaves() {
        let who = Who { uid: 50_001, groups: vec![50_002, 50_003] };
        let none = u32::MAX;
        let with = |more: &[(u16, u16, u32)], mask: u16| {
            let owner = [(0x01, 7, none)];
            let rest = [(0x04, 0, none), (0x10, mask, none), (0x20, 0, none)];
            let mut all = [&owner[..], more, &rest].concat();
            all.sort();
            list(&all)
        };
        for (more, mask, expected) in [
            ((0x02, 6, 50_001), 7, WRITE),
            ((0x02, 6, 50_001), 5, 0),
            ((0x02, 7, 50_009), 7, 0),
            ((0x08, 2, 50_003), 7, WRITE),
            ((0x08, 7, 50_001), 7, 0),
        ] {
            let (_dir, root, _) = place();
            let file = root.join("a/b");
            chmod(&file, 0o700);
            let list = with(&[more], mask);
            let set = rustix::fs::setxattr(&file, "system.posix_acl_access", &list, rustix::fs::XattrFlags::empty());
            // Not every file system has them.
            if set == Err(Errno::OPNOTSUPP) {
                return;
            }
            set.unwrap();
            assert_eq!(who.rights(&Step::at(&file).unwrap()) & WRITE, expected, "{more:?} {mask}");
            assert_eq!(changed(&file, &who).unwrap().is_some(), expected != 0);
        }
        for broken in [&b""[..], b"\x02", b"\x02\0\0\0\x02\0\x07\0\0\0\0"] {
            assert_eq!(entries(broken), []);
        }
    }

    #[test]
    fn a_program_that_gives_rights_away_is_known() {
        let (_dir, root, _) = place();
        let file = root.join("a/b");
        assert!(!has_attribute(&file, "security.capability").unwrap());
        // VFS_CAP_REVISION_2, CAP_NET_BIND_SERVICE (linux/capability.h).
        let capability = [&0x0200_0001u32.to_le_bytes()[..], &(1u32 << 10).to_le_bytes(), &[0; 12]].concat();
        let set = rustix::fs::setxattr(&file, "security.capability", &capability, rustix::fs::XattrFlags::empty());
        // Only who has CAP_SETFCAP may.
        if set.is_ok() {
            assert!(has_attribute(&file, "security.capability").unwrap());
        }
        let about = fs::metadata(std::env::current_exe().unwrap()).unwrap();
        let words = program(&Who { uid: about.uid(), groups: vec![] }).unwrap().unwrap();
        assert!(words.contains("could be changed"), "{words}");
    }
}

//! The side that sends (sender.c): rules, lists, and for each file what it is, then its contents. Who reads this side
//! needs nothing of the other: indices that were asked for are repeated here.

use std::collections::{HashMap, VecDeque};

use super::Options;
use super::cursor::{Cursor, DONE, Indices, Result, Trouble};
use super::list::{Before, Entry, Listing, Next, owner_name};
use super::opening::Agreed;
use super::order::order;

/// Where the sender is.
#[derive(Debug)]
pub(super) struct Sender {
    agreed: Agreed,
    at: At,
    indices: Indices,
    before: Before,
    listing: Listing,
    /// Lists that are not done with, sorted.
    lists: VecDeque<Listing>,
    /// Directories whose lists are still to come, by their number, and the next number.
    directories: HashMap<i32, Entry>,
    next_directory: i32,
    /// How many entries, and how long their names are, in lists that are not done with.
    held: (usize, usize),
    /// How many files were listed in all.
    pub(super) listed: u64,
    /// Whether the first list had more than one file: then the target is a directory.
    pub(super) has_several: bool,
    phase: u32,
    file: Option<Sent>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Rules,
    List,
    /// Names of users, or of groups.
    Owners(Owners),
    ListError,
    Item,
    Sums,
    Token,
    /// Contents, with this much left.
    Contents(u64),
    FileSum,
    /// All files are through.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Owners {
    Users,
    Groups,
}

/// A file that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) entry: Entry,
    /// How much of it came over the wire, compressed or not.
    pub(super) literal: u64,
}

/// What one step came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Nothing,
    /// A file is through.
    Sent(Sent),
    /// Something that has no contents was made or changed: a directory, a link.
    Made {
        entry: Entry,
        /// What it is a hard link to.
        linked: Option<Vec<u8>>,
    },
}

impl Sender {
    /// `rules` tells whether the filter rules come first.
    pub(super) fn new(agreed: Agreed, rules: bool) -> Self {
        let start = i32::from(agreed.form.incremental);
        Self {
            agreed,
            at: if rules { At::Rules } else { At::List },
            indices: Indices::default(),
            before: Before::default(),
            listing: Listing { start, ..Listing::default() },
            lists: VecDeque::new(),
            directories: HashMap::new(),
            next_directory: 0,
            held: (0, 0),
            listed: 0,
            has_several: false,
            phase: 0,
            file: None,
        }
    }

    /// How many bytes of contents come next.
    pub(super) fn contents(&self) -> u64 {
        if let At::Contents(left) = self.at { left } else { 0 }
    }

    /// Whether everything that comes is of no interest.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Counts contents.
    pub(super) fn carried(&mut self, count: u64) {
        if let At::Contents(left) = self.at {
            self.at = if left > count { At::Contents(left - count) } else { At::Token };
        }
        if let Some(file) = &mut self.file {
            file.literal += count;
        }
    }

    /// The file that is on its way.
    pub(super) fn unfinished(&mut self) -> Option<Sent> {
        self.file.take()
    }

    /// Reads one thing. Changes nothing where more is needed.
    pub(super) fn step(&mut self, cursor: &mut Cursor<'_>, options: &Options) -> Result<Event> {
        match self.at {
            At::Rules => {
                let length = cursor.int()?;
                cursor.counted(length, MAX_RULE)?;
                if length == 0 {
                    self.at = At::List;
                }
            }
            At::List => self.list(cursor, options)?,
            At::Owners(owners) => {
                if !owner_name(cursor, self.agreed.form)? {
                    self.after_owners(Some(owners), options);
                }
            }
            At::ListError => {
                cursor.int()?;
                self.at = At::Item;
            }
            At::Item => return self.item(cursor, options),
            At::Sums => {
                cursor.take(16)?;
                self.at = At::Token;
            }
            At::Token => self.token(cursor)?,
            At::FileSum => {
                cursor.take(self.agreed.sum_length)?;
                self.at = At::Item;
                return Ok(self.file.take().map_or(Event::Nothing, Event::Sent));
            }
            At::Contents(_) | At::Over => return Err(Trouble::Unclear("rsync is not where it should be")),
        }
        Ok(Event::Nothing)
    }

    fn list(&mut self, cursor: &mut Cursor<'_>, options: &Options) -> Result<()> {
        match self.listing.next(cursor, self.agreed.form, options, &mut self.before)? {
            Next::Entry(entry) => {
                self.listed += 1;
                self.hold(&entry)?;
                self.listing.entries.push(entry);
            }
            Next::End => self.end_list(options)?,
        }
        Ok(())
    }

    fn end_list(&mut self, options: &Options) -> Result<()> {
        let used = i32::try_from(self.listing.entries.len()).unwrap_or(i32::MAX);
        let next = self.listing.start.checked_add(used).and_then(|end| end.checked_add(1));
        let next = next.ok_or(Trouble::Unclear("too many names are listed"))?;
        let mut list = std::mem::replace(&mut self.listing, Listing { start: next, ..Listing::default() });
        // Where names are converted, each side sorts them in its own way, and nobody does for indices.
        if !options.converts_names {
            list.entries.sort_by(order(self.agreed.form.protocol));
        }
        self.has_several |= list.entries.len() > 1 || list.entries.first().is_some_and(Entry::is_directory);
        if self.agreed.form.incremental {
            for directory in list.entries.iter().filter(|entry| entry.is_directory()) {
                self.hold(directory)?;
                self.directories.insert(self.next_directory, directory.clone());
                self.next_directory = self.next_directory.saturating_add(1);
            }
            self.at = At::Item;
        } else {
            self.after_owners(None, options);
        }
        self.lists.push_back(list);
        Ok(())
    }

    fn hold(&mut self, entry: &Entry) -> Result<()> {
        self.held = (self.held.0 + 1, self.held.1 + entry.length());
        match self.held.0 > MAX_ENTRIES || self.held.1 > MAX_NAMES {
            true => Err(Trouble::Unclear("too many names are listed at once")),
            false => Ok(()),
        }
    }

    fn let_go(&mut self, entries: &[Entry]) {
        let names: usize = entries.iter().map(Entry::length).sum();
        self.held = (self.held.0.saturating_sub(entries.len()), self.held.1.saturating_sub(names));
    }

    fn after_owners(&mut self, done: Option<Owners>, options: &Options) {
        let named = !options.numeric_ids;
        self.at = match done {
            None if (options.uid || options.acls) && named => At::Owners(Owners::Users),
            None | Some(Owners::Users) if (options.gid || options.acls) && named => At::Owners(Owners::Groups),
            _ if self.agreed.form.protocol < 30 => At::ListError,
            _ => At::Item,
        };
    }

    /// An index, and what is done with that file (`read_ndx_and_attrs()`).
    fn item(&mut self, cursor: &mut Cursor<'_>, options: &Options) -> Result<Event> {
        let protocol = self.agreed.form.protocol;
        let mut indices = self.indices;
        let index = indices.read(cursor, protocol)?;
        if index < 0 {
            self.mark(index, cursor)?;
            self.indices = indices;
            return Ok(Event::Nothing);
        }
        let flags = if protocol >= 29 { cursor.short()? } else { TRANSFER };
        let is_keepalive = protocol < 30 && flags == IS_NEW && self.entry(index).is_none();
        if flags & BASIS != 0 {
            cursor.byte()?;
        }
        let other = if flags & OTHER_NAME != 0 { Some(cursor.vstring()?.to_vec()) } else { None };
        let is_optional = self.agreed.xattrs_left_out && flags & (OTHER_NAME | LOCAL) == OTHER_NAME | LOCAL;
        if options.xattrs && flags & XATTRS != 0 && !options.dry_run && !is_optional {
            attribute_values(cursor)?;
        }
        self.indices = indices;
        if is_keepalive {
            return Ok(Event::Nothing);
        }
        let entry = self.entry(index).cloned();
        if flags & TRANSFER != 0 && !options.dry_run {
            let entry = entry.ok_or(Trouble::Unclear("a file is sent that was not listed"))?;
            self.file = Some(Sent { entry, literal: 0 });
            self.at = At::Sums;
            return Ok(Event::Nothing);
        }
        let linked = other.filter(|name| !name.is_empty());
        Ok(match entry {
            Some(entry) if !options.dry_run && (flags & IS_NEW != 0 || linked.is_some()) => {
                Event::Made { entry, linked }
            }
            _ => Event::Nothing,
        })
    }

    /// What is no file: the end of a phase, another list.
    fn mark(&mut self, index: i32, cursor: &mut Cursor<'_>) -> Result<()> {
        match index {
            DONE => {
                if self.agreed.form.incremental && !self.lists.is_empty() {
                    self.forget_list();
                    if !self.lists.is_empty() {
                        return Ok(());
                    }
                }
                self.phase += 1;
                if self.phase > if self.agreed.form.protocol >= 29 { 2 } else { 1 } {
                    self.at = At::Over;
                }
            }
            END_OF_LISTS => {}
            DELETED => {
                for _ in 0..5 {
                    cursor.varint()?;
                }
            }
            ..=FIRST_LIST if self.agreed.form.incremental => {
                self.at = At::List;
                let parent = self.directories.remove(&(FIRST_LIST - index));
                self.listing.parent = parent.inspect(|parent| self.let_go(std::slice::from_ref(parent)));
            }
            _ => return Err(Trouble::Unclear("a file's index is out of range")),
        }
        Ok(())
    }

    fn forget_list(&mut self) {
        if let Some(list) = self.lists.pop_front() {
            self.let_go(&list.entries);
        }
    }

    /// The index before a list's first is that of the directory that it is about.
    fn entry(&self, index: i32) -> Option<&Entry> {
        let at = self.lists.partition_point(|list| list.start <= index.saturating_add(1)).checked_sub(1)?;
        let list = self.lists.get(at)?;
        match index.checked_sub(list.start)? {
            -1 => list.parent.as_ref(),
            place => list.entries.get(usize::try_from(place).ok()?),
        }
    }

    /// Contents come in pieces (token.c), between references to what the other side has.
    fn token(&mut self, cursor: &mut Cursor<'_>) -> Result<()> {
        self.at = if self.agreed.compressed {
            match cursor.byte()? {
                0 => At::FileSum,
                0x20 => cursor.take(4).map(|_| At::Token)?,
                0x21 => cursor.take(6).map(|_| At::Token)?,
                high @ 0x40..0x80 => match u64::from(high & 0x3f) << 8 | u64::from(cursor.byte()?) {
                    0 => At::Token,
                    count => At::Contents(count),
                },
                0x80..0xc0 => At::Token,
                0xc0.. => cursor.take(2).map(|_| At::Token)?,
                _ => return Err(Trouble::Unclear("compressed contents are not what they should be")),
            }
        } else {
            match cursor.int()? {
                0 => At::FileSum,
                ..0 => At::Token,
                count @ 1..=MAX_PIECE => At::Contents(u64::from(count.unsigned_abs())),
                _ => return Err(Trouble::Unclear("contents come in too large a piece")),
            }
        };
        Ok(())
    }
}

/// The values that were asked for (`send_xattr_request()`).
fn attribute_values(cursor: &mut Cursor<'_>) -> Result<()> {
    while cursor.varint()? != 0 {
        let length = cursor.varint()?;
        cursor.counted(length, usize::MAX)?;
    }
    Ok(())
}

/// `MAX_BLOCK_SIZE` of old; pieces have 32 KiB.
const MAX_PIECE: i32 = 1 << 29;

/// `BIGPATHBUFLEN`
const MAX_RULE: usize = 8 * 1024;

/// More is not kept in memory.
const MAX_ENTRIES: usize = 200_000;
const MAX_NAMES: usize = 64 << 20;

const END_OF_LISTS: i32 = -2;
const DELETED: i32 = -3;
const FIRST_LIST: i32 = -101;

const XATTRS: u16 = 1 << 8;
const BASIS: u16 = 1 << 11;
const OTHER_NAME: u16 = 1 << 12;
const IS_NEW: u16 = 1 << 13;
const LOCAL: u16 = 1 << 14;
const TRANSFER: u16 = 1 << 15;

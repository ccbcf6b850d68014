//! A request that changes something by its path, as it is remembered until the server has answered.

use super::packet::{Attributes, Name};

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The fact's `operation`.
    pub(super) operation: &'static str,
    /// What is changed or made. Of an extension that nobody knows, its name.
    pub(super) path: Name,
    /// The other path, where there is one: the new one, or what a symbolic link leads to.
    pub(super) to: Option<Name>,
    pub(super) details: Details,
}

/// What is special about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Details {
    None,
    /// Whether it replaces what stands there.
    Rename {
        posix: bool,
    },
    /// With these permissions.
    Mode(Option<u32>),
    /// Of a link's target, or of the link itself.
    Set {
        attributes: Attributes,
        follow: bool,
    },
    /// Done by the server, so that no contents pass here. A length of 0: to the end.
    Copy {
        offset: u64,
        length: u64,
        to_offset: u64,
    },
    /// Nobody here knows what it does.
    Extension,
}

impl Change {
    /// Roughly how much memory it takes.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.path.bytes.len() + self.to.as_ref().map_or(0, |to| to.bytes.len())
    }
}

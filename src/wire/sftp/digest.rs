//! The SHA-256 of a file's contents as they pass, which exists only when they pass once, in order, from the beginning, and
//! in one direction. It is of what passed: how much that was stands beside it, and only the server knows the file.

use aws_lc_rs::digest::{Context, SHA256};

use super::packet::flag;

/// Which way contents go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the client.
    Down,
    /// To the server.
    Up,
}

/// What is known so far.
#[derive(Default)]
pub(super) enum Digest {
    /// Nothing has passed.
    #[default]
    Unused,
    /// All up to `next` has passed in order.
    Running { way: Way, next: u64, context: Box<Context> },
    /// Not in order, both ways, or not all of it arrived.
    Broken,
}

impl Digest {
    /// Of a file just opened. A truncated one is empty, so that nothing need pass to know it; one that is appended to has a
    /// beginning that nobody here sees.
    pub(super) fn opened(flags: u32) -> Self {
        match flags {
            _ if flags & flag::APPEND != 0 => Self::Broken,
            _ if flags & flag::WRITE != 0 && flags & flag::TRUNCATE != 0 => Self::running(Way::Up),
            _ => Self::Unused,
        }
    }

    /// Contents follow that belong at `offset`.
    pub(super) fn start(&mut self, to: Way, offset: u64) {
        match self {
            Self::Unused if offset == 0 => *self = Self::running(to),
            Self::Running { way, next, .. } if *way == to && *next == offset => {}
            _ => *self = Self::Broken,
        }
    }

    /// Contents pass, of those that were announced last.
    pub(super) fn add(&mut self, contents: &[u8]) {
        if let Self::Running { next, context, .. } = self {
            context.update(contents);
            *next += contents.len() as u64;
        }
    }

    /// The sum in hexadecimal, when it is of exactly what the other side got.
    pub(super) fn hex(&self, read: u64, written: u64) -> Option<String> {
        let Self::Running { way, next, context } = self else { return None };
        let arrived = if *way == Way::Down { read } else { written };
        let sum = (arrived == *next).then(|| context.as_ref().clone().finish())?;
        Some(sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn running(way: Way) -> Self {
        Self::Running { way, next: 0, context: Box::new(Context::new(&SHA256)) }
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unused => f.write_str("Unused"),
            Self::Running { way, next, .. } => write!(f, "Running({way:?}, {next})"),
            Self::Broken => f.write_str("Broken"),
        }
    }
}

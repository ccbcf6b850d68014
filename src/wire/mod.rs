//! Wire formats: what the bytes of a channel mean. Bytes in, values out; no I/O, no clock, no policy of its own.
//!
//! A [`Reading`] follows one channel in both directions. It never re-encodes: what it passes on are slices of what came
//! in. It holds back only what it must understand first, and every length has a cap.

pub mod agent;
pub mod disguise;
pub mod hello;
pub mod mosh;
pub mod sftp;
pub mod sql;

use bytes::Bytes;

#[cfg(test)]
mod real_tests;
pub mod rsync;
pub mod scp;
mod told;
pub mod transfer;
pub mod words;

pub use told::Keep;

/// Follows what one channel carries.
pub trait Reading: Send {
    /// Reads what the client sent; appends what is to be done with it, in order. `may` tells whether the larger of two
    /// rights holds now: to change files and not only to read them, to carry what cannot be read.
    fn input(&mut self, data: Bytes, may: bool, steps: &mut Vec<Step>) -> Result<(), Stop>;

    /// Reads what the upstream said; appends what is to be done with it, in order. `may` as above.
    fn output(&mut self, data: Bytes, may: bool, steps: &mut Vec<Step>) -> Result<(), Stop>;

    /// Whether an [`Step::Answer`] may be put into what goes to the client now: between two messages, not within one.
    fn is_between(&self) -> bool;

    /// The terminal has this size, from the beginning or from now on. 0 is unknown.
    fn resize(&mut self, _cols: u32, _rows: u32, _steps: &mut Vec<Step>) {}

    /// The channel has ended: what was not finished is told, and a summary.
    fn finish(&mut self, steps: &mut Vec<Step>);
}

/// What is to be done with bytes, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write it down, then forward it.
    Pass(Bytes),
    /// Contents that are not kept: write down how much, then forward it.
    PassUnkept(Bytes),
    /// Write it down, and forward nothing: it was refused.
    Refuse(Bytes),
    /// Contents that are not kept, of something that was refused: write down how much, and forward nothing.
    RefuseUnkept(u64),
    /// At the end: write down what this side had sent and nobody was given.
    Left(Side, Bytes),
    /// Say this to the client, as soon as [`Reading::is_between`].
    Answer(Bytes),
    /// Write down what happened.
    Tell(Fact),
}

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The upstream.
    Upstream,
}

/// Nothing is known of what it carries: it is counted, and passes.
#[derive(Clone, Copy, Debug)]
pub struct Unread;

impl Reading for Unread {
    fn input(&mut self, data: Bytes, _may: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        steps.push(Step::Pass(data));
        Ok(())
    }

    fn output(&mut self, data: Bytes, _may: bool, steps: &mut Vec<Step>) -> Result<(), Stop> {
        steps.push(Step::Pass(data));
        Ok(())
    }

    fn is_between(&self) -> bool {
        false
    }

    fn finish(&mut self, _steps: &mut Vec<Step>) {}
}

/// The `type` of the event that sums up what was done with files.
pub const SUMMARY: &str = "ssh_files";

/// Something that is worth a line in the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The event's `type`.
    pub kind: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// The event's `metadata`: an object.
    pub about: serde_json::Value,
}

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// The gateway refused it.
    Denied,
    /// The upstream refused it, or failed.
    Failed,
}

/// The channel cannot go on: what came is not what was agreed on, or is not allowed here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct Stop {
    /// For the client and the log; nothing of what was sent stands in it.
    pub words: &'static str,
}

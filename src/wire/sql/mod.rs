//! What database protocols have in common: a conversation about statements, followed in both directions.
//!
//! Like a [`Reading`](super::Reading), a [`Conversation`] passes slices of what came in. Beyond that it knows which answer
//! belongs to which statement, and can put an answer of the gateway's own at its place among the server's.

use std::time::Duration;

use bytes::Bytes;

use super::{Step, Stop};

/// The `type` of the line for a statement that goes to the server.
pub const STATEMENT: &str = "statement";

/// The `type` of the line for what a statement came to. Its `n` is that of the statement.
pub const STATEMENT_END: &str = "statement_end";

/// The `type` of the line that sums up a session.
pub const SUMMARY: &str = "statements";

/// Longest text of a statement that stands in a line, in bytes; what is cut says so.
pub const MAX_TEXT: usize = 1 << 20;

/// Longest value of one parameter that stands in a line, in bytes; what is cut says so.
pub const MAX_VALUE: usize = 64 * 1024;

/// Follows one connection to a database.
pub trait Conversation: Send {
    /// Reads what the client sent; appends what is to be done with it, in order. `now` is the time since the session
    /// began. A [`Step::Answer`] among the steps stands behind everything that the server was asked before.
    fn input(&mut self, data: Bytes, now: Duration, judge: &mut Judge<'_>, steps: &mut Vec<Step>) -> Result<(), Stop>;

    /// Reads what the server said; appends what is to be done with it, in order. A [`Step::Answer`] stands where it has
    /// to be said, between the server's answers.
    fn output(&mut self, data: Bytes, now: Duration, steps: &mut Vec<Step>) -> Result<(), Stop>;

    /// Whether something of the gateway's own may be said to the client now: between two messages, not within one.
    fn is_between(&self) -> bool;

    /// Whether the server owes no answer.
    fn is_idle(&self) -> bool;

    /// The session has ended: what was not finished is told, and a summary.
    fn finish(&mut self, now: Duration, steps: &mut Vec<Step>);
}

/// Decides about statements, before they go to the server.
pub type Judge<'a> = dyn FnMut(&Asked<'_>) -> Result<(), Refusal> + 'a;

/// What a client wants to have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// A string with one statement or more, whole.
    Statements {
        /// As the server gets it.
        text: &'a [u8],
        /// The database that it goes to.
        database: &'a str,
    },
    /// Something that is no statement: `function call`, `replication`, `shutdown`, in the protocol's own words.
    Command {
        /// Its name.
        name: &'static str,
        /// The database that it goes to.
        database: &'a str,
    },
}

/// A statement is refused. The words are for the client: they name the rule, and nothing inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub words: String,
}

//! The book: session rows, events, recordings, tokens and remembered keys. SQLite for now.
//!
//! Nothing outside `store/sqlite*` knows the database. Every write waits for its turn at the one thread that owns the
//! connection; the queue is bounded, so a slow disk slows callers and never grows memory.

mod error;
pub mod row;
mod sqlite;
#[cfg(test)]
pub(crate) mod testing;

pub use error::StoreError;
pub use row::{
    AuthResult, Event, EventStatus, Filter, NewSession, NewToken, Ordered, Outcome, Page, RecordingRow, RecordingState,
    Role, SessionRow, TokenRow,
};
pub use sqlite::Store;

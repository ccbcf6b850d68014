//! The book: session rows, events, recordings, tokens, locks and remembered keys. SQLite for now.
//!
//! Nothing outside `store/sqlite*` knows the database. Every write waits for its turn at the one thread that owns the
//! connection; the queue is bounded, so a slow disk slows callers and never grows memory.

mod change;
mod error;
mod past;
pub mod row;
mod sign_in;
mod sqlite;
#[cfg(test)]
pub(crate) mod testing;
mod token;
mod visit;

pub use change::Change;
pub use error::StoreError;
pub use past::{PastCursor, PastSession};
pub use row::{
    AuditEntry, AuthResult, Event, EventStatus, ExpiredSession, Feed, Filter, NewSession, Ordered, Outcome, Owner,
    Page, RecordingRow, RecordingState, SessionRow,
};
pub use sign_in::{
    CertificateKind, CertificateRow, NewCertificate, NewSocketToken, RevokedPerson, SignInRow, SignInsOf,
    SocketTokenRow,
};
pub use sqlite::{KillOrder, Store};
pub use token::{BrowserSignIn, IN_BROWSER, NewToken, Scope, TokenRow, ValidToken};
pub use visit::LastVisit;

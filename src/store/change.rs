//! What the processes of one gateway tell each other through the book.

use uuid::Uuid;

/// Something that was written and that other processes must act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A lock was added or removed.
    Lock,
    /// A newer sign-in of this person is in the book.
    Person {
        /// The provider.
        issuer: String,
        /// Its id for the person.
        subject: String,
    },
    /// This sign-in was revoked.
    SignInRevoked(Uuid),
    /// All of the people with this e-mail address was revoked.
    PersonRevoked(String),
    /// Something that this version does not know.
    Unknown,
}

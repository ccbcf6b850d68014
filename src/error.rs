//! What may be shown to a user, and whose fault it was.
//!
//! Modules keep their own `thiserror` enums. Only a type that implements [`UserFacing`] may reach a terminal, a page or
//! an API answer; `anyhow::Error` does not, so a path or an inner address cannot slip out by accident.

/// Whose fault a failure was: it decides the log level and the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The person or program that connected: logged at `debug` or `info`.
    Client,
    /// What the socket leads to: logged at `warn`.
    Upstream,
    /// Ourselves: logged at `error`; somebody must look.
    Gateway,
}

/// An error that may be told to the person who connected.
///
/// The words are lower case, without a trailing period, say what to do, and name nothing inside.
pub trait UserFacing {
    /// The words for the user.
    fn told(&self) -> String;
    /// Whose fault it was.
    fn fault(&self) -> Fault;
}

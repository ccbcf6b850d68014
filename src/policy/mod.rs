//! Who may do what on which sockets. Pure and synchronous: no clock, no files, no network.
//!
//! [`decide()`] is asked once per connection and gives a [`Permit`]; [`Permit::check`] is asked for every action and gives
//! a [`Grant`], which whatever dials, opens or starts something consumes. Both have private fields, so nothing can
//! happen that was not allowed. One allow rule must hold alone in all its parts; two rules' parts never combine; a
//! deny rule wins over every allow.
mod decide;
mod exec;
mod rules;
mod wildcard;

pub use decide::{Action, Context, Denied, Grant, Permit, decide};
pub use exec::{ExecPattern, ExecPatternError, NotPlain};
pub use rules::{Effect, ExecRight, Policies, Rule, SocketMatch, SshRights, Who};

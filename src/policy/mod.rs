//! Who may do what on which sockets. Pure and synchronous: no clock, no files, no network.
//!
//! [`decide()`] is asked at the door, and again for what lives whenever something has changed; it gives a [`Permit`].
//! [`Permit::check`] is asked for every action and gives a [`Grant`], which whatever dials, opens or starts something
//! consumes. Both have private fields, so nothing can happen that was not allowed. One allow rule must hold alone in all
//! its parts; two rules' parts never combine; a deny rule wins over every allow, and a lock over everything.
//! [`Question`] asks ahead: how long an answer holds, and when a session will end.
mod action;
mod asked;
mod decide;
mod destination;
mod exec;
mod explain;
mod lock;
mod outlook;
mod policies;
mod rights;
mod rules;
mod stage;
mod when;
mod wildcard;
mod words;

pub use action::{Action, StatementClass};
pub use asked::NoAction;
pub use decide::{Cause, Context, Denied, Grant, Permit, StepUp, decide};
pub use destination::{Destination, DestinationPattern, NoDestination};
pub use exec::{ExecPattern, ExecPatternError};
pub use explain::{Account, Allowed, RuleAccount};
pub use lock::{Lock, LockTarget, Locks};
pub use outlook::{Foreseen, Question};
pub use policies::Policies;
pub use rights::{DatabaseRights, ExecRight, FilesRight, HttpRights, KubernetesRights, Rights, SomeSsh, SshRights};
pub use rules::{Country, Effect, Limits, PlaceMatch, Require, Rule, SocketMatch, Who};
use stage::Stage;
pub use when::{Days, Hours, HoursError, When, weekday};

#[cfg(test)]
mod tests;

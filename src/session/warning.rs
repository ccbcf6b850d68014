//! Warnings of an end that can be foreseen: 15, 5 and 1 minutes before it, once each, and again when it has moved.

use std::time::Duration;

use tokio::time::Instant;

use crate::policy::{Cause, Context, Foreseen, StepUp};

/// How far ahead an end is looked for.
pub(super) const HORIZON: Duration = Duration::from_secs(24 * 3600);

/// How long before the end somebody is warned, the earliest first.
const BEFORE: [Duration; 3] = [Duration::from_secs(15 * 60), Duration::from_secs(5 * 60), Duration::from_secs(60)];

/// Ends that are no further apart are the same one.
const SAME: Duration = Duration::from_secs(5);

/// What is to be said of the session's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// It will end.
    Ends {
        /// When.
        at: Instant,
        /// Why, in words for the user.
        reason: String,
        /// Whether a new sign-in moves the end.
        renewable: bool,
    },
    /// It will not end as soon as was said.
    GoesOn,
}

/// What is known of the end, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    end: Option<(Instant, Option<StepUp>)>,
    /// How many of [`BEFORE`] were said or passed unsaid.
    said: usize,
    warned: bool,
    /// When an end that nobody is told of yet is to be looked at again.
    look_at: Option<Instant>,
}

impl Foresight {
    /// What the end looks like now; what is to be said, if it is time to say something.
    pub(super) fn look(&mut self, end: Option<Foreseen>, context: &Context) -> Option<Warning> {
        let now = Instant::now();
        // Where none is in sight, one may be before the first warning of it is due.
        let wait = end.as_ref().map_or(Some(HORIZON - BEFORE[0]), |end| untold(end, context));
        self.look_at = wait.map(|wait| now + wait);
        let Some(Foreseen { after, denied }) = end.filter(|_| self.look_at.is_none()) else {
            return self.moved_away(None);
        };
        let at = now + after;
        let moved = self.end.as_ref().is_none_or(|(last, _)| *last > at + SAME || at > *last + SAME);
        let renewable = matches!(denied.cause(), Cause::SignInOver | Cause::SignInAge);
        let wants = renewable.then(|| denied.step_up().cloned().unwrap_or_default());
        let due = BEFORE.iter().filter(|before| **before >= after).count();
        if moved {
            let before = self.moved_away(Some((at, wants)));
            if due == 0 {
                return before;
            }
        }
        if due <= self.said {
            return None;
        }
        self.said = due;
        self.warned = true;
        Some(Warning::Ends { at, reason: denied.foretold().to_owned(), renewable })
    }

    /// When the next thing is to be said.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let (end, _) = match self.look_at {
            Some(at) => return Some(at),
            None => self.end.as_ref()?,
        };
        end.checked_sub(*BEFORE.get(self.said)?)
    }

    /// The sign-in that would move the end.
    pub(super) fn step_up(&self) -> Option<StepUp> {
        self.end.as_ref()?.1.clone()
    }

    fn moved_away(&mut self, end: Option<(Instant, Option<StepUp>)>) -> Option<Warning> {
        self.end = end;
        self.said = 0;
        std::mem::take(&mut self.warned).then_some(Warning::GoesOn)
    }
}

/// How long nobody is told of this end yet. Of a limit that begins with the session, or with its last activity, not before
/// half of it is over: short ones would be told of at once.
fn untold(end: &Foreseen, context: &Context) -> Option<Duration> {
    let past = match end.denied.cause() {
        Cause::Idle => context.idle,
        Cause::Length => context.elapsed,
        _ => return None,
    };
    end.after.checked_sub(past).filter(|rest| !rest.is_zero()).map(|rest| rest / 2 + Duration::from_millis(1))
}

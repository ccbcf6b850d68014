//! Authorization codes. Synchronous; each method is one critical section of its caller.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Challenge, CodeRefused, RedirectUri};
use crate::identity::approval::Approval;
use crate::identity::link::same_place;
use crate::identity::random::{self, Hashed};

/// From the redirect to the token request: a program does that at once.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long a used code is remembered, so that its second use is noticed.
const REMEMBERED: Duration = Duration::from_secs(600);
const MOST: usize = 10_000;
const MOST_OF_ONE: usize = 16;

#[derive(Default)]
pub(super) struct Codes(HashMap<Hashed, Code>);

struct Code {
    made: Instant,
    state: State,
}

enum State {
    Fresh { redirect: RedirectUri, challenge: Challenge, approval: Box<Approval>, browser: IpAddr },
    Used { sign_in: Option<Uuid>, again: bool },
}

impl Codes {
    pub(super) fn add(
        &mut self,
        id: Hashed,
        redirect: RedirectUri,
        challenge: Challenge,
        approval: Approval,
        browser: IpAddr,
    ) {
        self.make_room(&approval);
        let state = State::Fresh { redirect, challenge, approval: Box::new(approval), browser };
        self.0.insert(id, Code { made: Instant::now(), state });
    }

    pub(super) fn redeem(
        &mut self,
        id: Hashed,
        redirect: &str,
        verifier: &str,
        from: IpAddr,
    ) -> Result<Approval, CodeRefused> {
        let code = self.0.get_mut(&id).ok_or(CodeRefused::Invalid)?;
        let in_time = code.made.elapsed() < LIFETIME;
        match std::mem::replace(&mut code.state, State::Used { sign_in: None, again: false }) {
            State::Fresh { redirect: asked, challenge, approval, browser } => {
                let right = random::same(asked.as_str(), redirect) & challenge.holds(verifier);
                match same_place(browser, from) {
                    _ if !right || !in_time => Err(CodeRefused::Invalid),
                    // It was sent to loopback, so it comes from the browser's own machine, or somebody copied it.
                    false => Err(CodeRefused::OtherPlace { browser, program: from }),
                    true => Ok(*approval),
                }
            }
            State::Used { sign_in, .. } => {
                code.state = State::Used { sign_in, again: true };
                Err(CodeRefused::Reused(sign_in))
            }
        }
    }

    pub(super) fn came_of(&mut self, id: Hashed, of: Uuid) -> bool {
        match self.0.get_mut(&id).map(|code| &mut code.state) {
            Some(State::Used { sign_in, again }) => {
                *sign_in = Some(of);
                !*again
            }
            _ => true,
        }
    }

    /// Nobody redeems what these people agreed to.
    pub(super) fn forget(&mut self, email: &str) {
        self.0.retain(|_, code| !matches!(&code.state, State::Fresh { approval, .. } if approval.is_of(email)));
    }

    /// One person's many codes push out that person's own oldest, not others'.
    fn make_room(&mut self, whose: &Approval) {
        let who = whose.identity();
        self.0.retain(|_, code| match code.state {
            State::Fresh { .. } => code.made.elapsed() < LIFETIME,
            State::Used { .. } => code.made.elapsed() < REMEMBERED,
        });
        let same = |code: &Code| match &code.state {
            State::Fresh { approval, .. } => {
                let identity = approval.identity();
                identity.subject() == who.subject() && identity.issuer() == who.issuer()
            }
            State::Used { .. } => false,
        };
        if self.0.values().filter(|code| same(code)).count() >= MOST_OF_ONE {
            self.remove_oldest(same);
        }
        if self.0.len() >= MOST {
            self.remove_oldest(|_| true);
        }
    }

    fn remove_oldest(&mut self, of: impl Fn(&Code) -> bool) {
        let oldest = self.0.iter().filter(|(_, code)| of(code)).min_by_key(|(_, code)| code.made).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.0.remove(&id);
        }
    }
}

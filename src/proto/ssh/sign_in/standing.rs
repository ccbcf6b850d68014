//! Whether what somebody has shown still counts: asked again before everything that is opened on a connection that was
//! signed in a while ago, so that it opens no more than a new one would.

use jiff::Timestamp;

use super::Known;
use crate::identity::Identity;
use crate::identity::sign_ins::SignInError;
use crate::proto::ssh::Front;

/// What becomes of somebody who was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto::ssh) enum Standing {
    /// What they have shown would let them in again.
    Counts,
    /// It would not: it has ended, or was taken back.
    Lapsed,
    /// The book does not say.
    Unknown,
}

impl Known {
    /// Looks at it as the door does. Whether the person was revoked is another's question, who is told.
    pub(in crate::proto::ssh) async fn standing(&self, front: &Front) -> Standing {
        let now = Timestamp::now();
        let counts = match (self.sign_in, &self.key) {
            (Some(sign_in), _) => match front.sign_ins.living(sign_in).await {
                Ok(_) => Ok(self.until.is_none_or(|until| until > now)),
                Err(SignInError::Over) => Ok(false),
                Err(error) => Err(error.to_string()),
            },
            (None, Some(key)) => match front.store.remembered_key(key, now).await {
                Ok(whose) => Ok(whose.is_some_and(|whose| self.is_of(&whose, &front.issuer))),
                Err(error) => Err(error.to_string()),
            },
            // By a link alone, which vouched for this connection until the sign-in in the browser ends.
            (None, None) => Ok(self.identity.expires() > now && self.is_of(&self.identity, &front.issuer)),
        };
        match counts {
            Ok(true) => Standing::Counts,
            Ok(false) => Standing::Lapsed,
            Err(error) => {
                tracing::error!(error, "it cannot be looked up whether a sign-in still counts");
                Standing::Unknown
            }
        }
    }

    fn is_of(&self, whose: &Identity, issuer: &str) -> bool {
        whose.issuer() == issuer && self.identity.is_same_person(whose)
    }
}

//! What the API and the pages act on: live sessions, recordings where they are kept, tokens.

use std::io::{self, Read};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::pages::{IssuedToken, TokenIssuer, TokenNotIssued};
use super::{Format, KillError, Killer, ReplayError, Replays};
use crate::identity::Identity;
use crate::identity::tokens::Tokens;
use crate::record::export::ExportError;
use crate::record::export::cast::{CastOptions, write_cast};
use crate::record::{ReadError, Recordings};
use crate::session::{self, Kill, Sessions};
use crate::store::RecordingRow;

/// How long an administrator's token counts that was made on its page.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

impl Killer for Sessions {
    fn kill(&self, session: Uuid, by: &str, reason: &str) -> BoxFuture<'static, Result<(), KillError>> {
        let sessions = self.clone();
        let kill = Kill { by: by.to_owned(), reason: reason.to_owned() };
        async move {
            sessions.kill(session, kill).await.map_err(|error| match error {
                session::KillError::NotLive => KillError::NotLive,
                session::KillError::TimedOut => KillError::TimedOut,
            })
        }
        .boxed()
    }
}

impl Replays for Recordings {
    fn export(
        &self,
        session: Uuid,
        recording: &RecordingRow,
        format: Format,
        with_input: bool,
        out: &mut dyn io::Write,
    ) -> Result<(), ReplayError> {
        let (id, started) = (recording.recording_id, recording.start_time);
        match format {
            Format::Raw => {
                let raw = Handle::current().block_on(self.raw(session, id, started)).map_err(told)?;
                io::copy(&mut raw.file.take(raw.len), out)?;
                Ok(())
            }
            Format::Cast => {
                let reader = Handle::current().block_on(self.open_reader(session, id, started)).map_err(told)?;
                let title = recording.command.clone();
                let options = CastOptions { started, title, input: with_input };
                write_cast(reader, &options, out).map_err(|error| match error {
                    ExportError::Read(error) => told(error),
                    ExportError::Write(error) => ReplayError::Io(error),
                })
            }
        }
    }
}

impl TokenIssuer for Tokens {
    fn issue<'a>(&'a self, who: &'a Identity) -> BoxFuture<'a, Result<IssuedToken, TokenNotIssued>> {
        async move {
            let expires = Timestamp::now() + TOKEN_LIFETIME;
            let issued = self.issue_admin("page", Some(who.email()), TOKEN_LIFETIME).await;
            let token = issued.map_err(|error| TokenNotIssued(error.to_string()))?;
            Ok(IssuedToken { token, expires })
        }
        .boxed()
    }
}

fn told(error: ReadError) -> ReplayError {
    match error {
        ReadError::NotFound => ReplayError::Missing,
        other => ReplayError::Io(io::Error::other(other)),
    }
}

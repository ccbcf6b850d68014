//! What the API and the pages act on: live sessions, recordings where they are kept, tokens.

use std::io::{self, Read};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::pages::{IssuedToken, TokenIssuer, TokenNotIssued};
use super::{Format, KillError, Killer, ReplayError, Replays};
use crate::identity::Identity;
use crate::identity::approval::Approval;
use crate::identity::sign_ins::SignIns;
use crate::identity::tokens::Role;
use crate::record::export::ExportError;
use crate::record::export::cast::{CastOptions, write_cast};
use crate::record::export::cast3::write_cast3;
use crate::record::export::text::{TextOptions, write_text};
use crate::record::{ReadError, Recordings};
use crate::session::{self, Kill, Sessions};
use crate::store::RecordingRow;

/// How long a token counts that was made on its page, if the sign-in does.
const TOKEN_LIFETIME: Duration = Duration::from_secs(12 * 3600);

impl Killer for Sessions {
    fn kill(&self, session: Uuid, by: &str, reason: &str) -> BoxFuture<'static, Result<(), KillError>> {
        let (sessions, kill) = (self.clone(), ordered(by, reason));
        async move { sessions.kill(session, kill).await.map_err(not_ended) }.boxed()
    }

    fn kill_channel(
        &self,
        session: Uuid,
        recording: Uuid,
        by: &str,
        reason: &str,
    ) -> BoxFuture<'static, Result<(), KillError>> {
        let (sessions, kill) = (self.clone(), ordered(by, reason));
        async move { sessions.kill_channel(session, recording, kill).await.map_err(not_ended) }.boxed()
    }

    fn is_open(&self, session: Uuid, recording: Uuid) -> Option<bool> {
        Sessions::is_open(self, session, recording)
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
        let reader = || Handle::current().block_on(self.open_reader(session, id, started)).map_err(told);
        let opaque = recording.legibility != "screen";
        let cast = || CastOptions { started, title: recording.command.clone(), input: with_input, opaque };
        let text = |view| TextOptions { started, view, input: with_input, opaque };
        let done = match format {
            Format::Raw => {
                let raw = Handle::current().block_on(self.raw(session, id, started)).map_err(told)?;
                io::copy(&mut raw.file.take(raw.len), out)?;
                return Ok(());
            }
            Format::Cast => write_cast(reader()?, &cast(), out),
            Format::Cast3 => write_cast3(reader()?, &cast(), out),
            Format::Text(view) => write_text(reader()?, &text(view), out),
        };
        done.map_err(|error| match error {
            ExportError::Read(error) => told(error),
            ExportError::Write(error) => ReplayError::Io(error),
        })
    }
}

impl TokenIssuer for SignIns {
    fn role_of(&self, who: &Identity) -> Role {
        SignIns::role_of(self, who)
    }

    fn issue<'a>(&'a self, who: &'a Approval, from: IpAddr) -> BoxFuture<'a, Result<IssuedToken, TokenNotIssued>> {
        async move {
            let issued = self.begin_in_browser(who, from, "page", TOKEN_LIFETIME).await;
            let issued = issued.map_err(|error| TokenNotIssued(error.to_string()))?;
            Ok(IssuedToken { token: issued.secret, expires: issued.row.expires })
        }
        .boxed()
    }
}

fn ordered(by: &str, reason: &str) -> Kill {
    Kill { by: by.to_owned(), reason: reason.to_owned() }
}

fn not_ended(error: session::KillError) -> KillError {
    match error {
        session::KillError::NotLive => KillError::NotLive,
        session::KillError::TimedOut => KillError::TimedOut,
    }
}

fn told(error: ReadError) -> ReplayError {
    match error {
        ReadError::NotFound => ReplayError::Missing,
        key @ ReadError::UnknownKey(_) => ReplayError::Key(key.to_string()),
        other => ReplayError::Io(io::Error::other(other)),
    }
}

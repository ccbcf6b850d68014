//! What russh calls. Nothing here takes time: sign-in waits at most a second a round, requests are answered at once and
//! acted on by the channel's task, and messages are counted so that a channel that lags slows its sender.
//!
//! A connection's loop is as large as its largest handler, for as long as it lives; what is large and short is boxed.

use std::collections::HashSet;
use std::sync::Arc;

use russh::keys::ssh_key::{Algorithm, Certificate};
use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Response, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty, Sig};
use serde_json::json;
use tracing::Instrument;

use super::config::{SMALL_WINDOW, WINDOW};
use super::connection::Connection;
use super::forward::Near;
use super::lobby::jump;
use super::sign_in::SignIn;
use super::{channel, forward, listening, sign_in};
use crate::policy::{Action, Destination};
use crate::session::{End, Stalled};

/// To a client with too many channels.
const TOO_MANY: &str = "too many channels on this connection";

/// One connection's handler.
pub(super) struct Handler {
    connection: Arc<Connection>,
    sign_in: SignIn,
    started: HashSet<ChannelId>,
}

impl Handler {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self { sign_in: SignIn::new(connection.clone()), connection, started: HashSet::new() }
    }

    /// Counts a message that russh has put into a channel's queue.
    async fn arrived(&self, channel: ChannelId, bytes: usize) -> Result<(), russh::Error> {
        match self.connection.flow(channel) {
            Some(flow) => flow.arrived(bytes).await.map_err(|stalled| self.stalled(&stalled)),
            None => Ok(()),
        }
    }

    /// Ends the session with the reason before the error ends the connection.
    fn stalled(&self, stalled: &Stalled) -> russh::Error {
        if let Some(session) = self.connection.session() {
            session.end(End::UpstreamFailed(stalled.to_string()));
        }
        russh::Error::Pending
    }

    /// Only one `shell`, `exec` or `subsystem` a channel (RFC 4254 section 6.5).
    fn start(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), russh::Error> {
        match self.started.insert(channel) {
            true => session.channel_success(channel),
            false => session.channel_failure(channel),
        }
    }

    /// Leads on to a socket, in a task of its own.
    async fn jump(&self, channel: Channel<Msg>, host: &str, reply: ChannelOpenHandle) {
        if !self.connection.has_room() {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        let (connection, host) = (self.connection.clone(), host.to_owned());
        let id = channel.id();
        let _ = self.connection.spawn_channel(id, |flow| jump::to(connection, channel, flow, host, reply));
    }

    /// Opens a forwarded connection in a task of its own: dialling takes time.
    async fn forward(&self, channel: Channel<Msg>, to: Destination, reply: ChannelOpenHandle, session: &mut Session) {
        if !self.connection.has_room() {
            self.refuse("ssh_channel", &to.to_string(), TOO_MANY);
            return reply.reject(forward::no_room(TOO_MANY)).await;
        }
        let (connection, handle) = (self.connection.clone(), session.handle());
        let id = channel.id();
        let run = |flow| forward::to(connection, Near { channel, handle, flow }, to, reply);
        // Full only if another took the last place in between; dropped, the reply is a refusal.
        let _ = self.connection.spawn_channel(id, run);
    }

    /// Whether something may be lent, for the answer to the request; the channel's task asks again when it starts.
    fn may_lend(&self, channel: ChannelId, action: &Action) -> bool {
        let allowed = match self.connection.session() {
            Some(session) if self.connection.can_lend() => session.allows(action).map_err(|denied| denied.to_string()),
            _ => Err("not offered here".to_owned()),
        };
        if let Err(reason) = &allowed {
            self.refuse(action.event_kind(), &action.to_string(), reason);
        }
        allowed.is_ok() && !self.started.contains(&channel)
    }

    /// Refuses something politely, as an event. What the client sent is cut to what a log needs.
    fn refuse(&self, kind: &'static str, what: &str, reason: &str) {
        let what: String = what.chars().take(256).collect();
        self.connection.refused(kind, json!({ "what": what, "reason": reason }));
    }
}

impl russh::server::Handler for Handler {
    type Error = russh::Error;

    async fn authentication_banner(&mut self) -> Result<Option<String>, Self::Error> {
        // Whoever comes through another connection has read it there.
        Ok(self.connection.inner.is_none().then(|| sign_in::BANNER.into()))
    }

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Self::Error> {
        let span = tracing::info_span!(parent: &self.connection.span, "sign_in");
        Ok(Box::pin(self.sign_in.inherited(user)).instrument(span).await)
    }

    async fn auth_publickey_offered(&mut self, _: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        // Every key may be proved, because any may have been remembered; never by SHA-1.
        match offer.algorithm {
            Algorithm::Rsa { hash: None } | Algorithm::Dsa => Ok(Auth::reject()),
            _ => Ok(Auth::Accept),
        }
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let span = tracing::info_span!(parent: &self.connection.span, "sign_in");
        Ok(Box::pin(self.sign_in.key_proved(user, key.public_key)).instrument(span).await)
    }

    async fn auth_openssh_certificate(&mut self, user: &str, certificate: &Certificate) -> Result<Auth, Self::Error> {
        // russh has checked the client's signature by the certificate's key, and nothing else about it.
        let span = self.connection.span.clone();
        Ok(Box::pin(self.sign_in.certified(user, certificate)).instrument(span).await)
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let answers: Option<Vec<bytes::Bytes>> = response.map(Iterator::collect);
        let span = tracing::info_span!(parent: &self.connection.span, "sign_in");
        Ok(Box::pin(self.sign_in.asked(user, answers)).instrument(span).await)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Self::Error> {
        if !self.connection.is_somebodys() {
            return Err(russh::Error::NotAuthenticated);
        }
        let version = String::from_utf8_lossy(session.remote_sshid()).trim_end().to_owned();
        self.connection.keep_client(session.handle(), version);
        if let Some(open) = self.connection.session() {
            self.connection.tell_version(open);
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let (connection, handle) = (self.connection.clone(), session.handle());
        let id = channel.id();
        match self.connection.spawn_channel(id, |flow| channel::run(connection, channel, handle, flow)) {
            Some(()) => reply.accept().await,
            None => {
                self.refuse("ssh_channel", "session", TOO_MANY);
                reply.reject(forward::no_room(TOO_MANY)).await;
            }
        }
        Ok(())
    }

    async fn channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.refuse("ssh_x11", "x11", "X11 forwarding is not offered");
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.connection.lobby().is_some() {
            self.jump(channel, host, reply).await;
            return Ok(());
        }
        match u16::try_from(port) {
            // A path in a host's place would be another kind of destination.
            Ok(port) if port != 0 && !host.starts_with('/') => {
                let to = Destination::Tcp { host: host.to_owned(), port };
                self.forward(channel, to, reply, session).await;
            }
            _ => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.forward(channel, Destination::Path(path.to_owned()), reply, session).await;
        Ok(())
    }

    async fn tcpip_forward(&mut self, address: &str, port: &mut u32, _: &mut Session) -> Result<bool, Self::Error> {
        let Ok(asked) = u16::try_from(*port) else { return Ok(false) };
        let at = Destination::Tcp { host: address.to_owned(), port: asked };
        let listens = Box::pin(listening::listen(&self.connection, at)).await;
        *port = listens.map_or(*port, u32::from);
        Ok(listens.is_some())
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32, _: &mut Session) -> Result<bool, Self::Error> {
        let Ok(port) = u16::try_from(port) else { return Ok(false) };
        Ok(listening::cancel(&self.connection, &Destination::Tcp { host: address.to_owned(), port }))
    }

    async fn streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Self::Error> {
        let at = Destination::Path(path.to_owned());
        Ok(Box::pin(listening::listen(&self.connection, at)).await.is_some())
    }

    async fn cancel_streamlocal_forward(&mut self, path: &str, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(listening::cancel(&self.connection, &Destination::Path(path.to_owned())))
    }

    async fn agent_request(&mut self, channel: ChannelId, _: &mut Session) -> Result<bool, Self::Error> {
        self.arrived(channel, 0).await?;
        Ok(self.may_lend(channel, &Action::SshAgent))
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.may_lend(channel, &Action::SshX11) {
            true => session.channel_success(channel)?,
            false => session.channel_failure(channel)?,
        }
        self.arrived(channel, 0).await
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match !self.started.contains(&channel) && self.connection.permits_terminals() {
            true => session.channel_success(channel)?,
            false => session.channel_failure(channel)?,
        }
        self.arrived(channel, 0).await
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.started.contains(&channel) {
            false => session.channel_success(channel)?,
            true => session.channel_failure(channel)?,
        }
        self.arrived(channel, name.len() + value.len()).await
    }

    async fn shell_request(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        self.start(channel, session)?;
        self.arrived(channel, 0).await
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(channel, session)?;
        self.arrived(channel, command.len()).await
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        // Accepted on the wire, so that the channel's task can say in words that it is refused.
        self.start(channel, session)?;
        self.arrived(channel, name.len()).await
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        self.arrived(channel, 0).await
    }

    async fn signal(&mut self, channel: ChannelId, _: Sig, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_success(channel)?;
        self.arrived(channel, 0).await
    }

    async fn data(&mut self, channel: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Self::Error> {
        self.arrived(channel, data.len()).await
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        _: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.arrived(channel, data.len()).await
    }

    async fn channel_eof(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.arrived(channel, 0).await
    }

    async fn channel_close(&mut self, channel: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.started.remove(&channel);
        Ok(())
    }

    async fn window_adjusted(&mut self, channel: ChannelId, _: u32, _: &mut Session) -> Result<(), Self::Error> {
        // Never waited on: it is what makes room.
        match self.connection.flow(channel) {
            Some(flow) => flow.count(0).map(drop).map_err(|stalled| self.stalled(&stalled)),
            None => Ok(()),
        }
    }

    fn adjust_window(&mut self, channel: ChannelId, _: u32) -> u32 {
        // russh gives the window back on receipt; a small one at least bounds what is on its way while a channel lags.
        match self.connection.flow(channel).is_some_and(|flow| flow.lags()) {
            true => SMALL_WINDOW,
            false => WINDOW,
        }
    }
}

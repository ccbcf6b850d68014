//! The way through a jump host: a forwarded connection (RFC 4254 section 7.2) as a stream for the next handshake. [`carry`]
//! also serves who is a jump host.
//!
//! russh's own stream over a channel would not do: nothing counts what it has read, so that nothing slows the jump host's
//! loop for a target that lags (`session/flow.rs` says why that must be), and a write that waits for room in the window
//! does not learn of the connection's end. So a task carries bytes between the channel and a small pipe. What waits in
//! it is bounded both ways: by the pipe, by the channel's window towards the target, and by its [`Flow`] back.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use russh::client::Handle;
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::timeout;
use tracing::Instrument;

use super::channel::Flows;
use super::host_key::Verifier;
use super::{OPEN_DEADLINE, opening};
use crate::session::{Flow, KillLine};
use crate::socket::HostPort;

/// Bytes that a pipe holds in each direction.
const PIPE: usize = 128 << 10;

/// Bytes that are sent as one.
const CHUNK: usize = 32 << 10;

/// For the word that the channel is closed, once nobody uses it.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// Has the jump host connect to this address, as it is written: the name is resolved there. The error is in words for the
/// user.
pub(super) async fn open(
    hop: &Arc<Handle<Verifier>>,
    flows: &Flows,
    address: &HostPort,
    line: &KillLine,
) -> Result<DuplexStream, String> {
    // Where the connection comes from is nobody's business behind the gateway.
    let (hop, host, port) = (hop.clone(), address.host.clone(), u32::from(address.port));
    let opened = opening(async move { hop.channel_open_direct_tcpip(host, port, "127.0.0.1", 0).await });
    let channel = match timeout(OPEN_DEADLINE, opened).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(russh::Error::ChannelOpenFailure(why))) => return Err(refused(why).into()),
        Ok(Err(_)) => return Err("the connection to the jump host is lost".into()),
        Err(_) => return Err("the jump host does not answer; tell whoever runs it".into()),
    };
    let (near, far) = pipe();
    let (flow, registered) = flows.register(channel.id());
    let line = line.child();
    let carried = async move {
        let _registered = registered;
        carry(channel, far, &flow, Counted::Data, &line).await;
    };
    tokio::spawn(carried.in_current_span());
    Ok(near)
}

/// A pipe for [`carry`]: the near end is the stream, the far end is carried.
pub fn pipe() -> (DuplexStream, DuplexStream) {
    duplex(PIPE)
}

fn refused(why: ChannelOpenFailure) -> &'static str {
    match why {
        ChannelOpenFailure::AdministrativelyProhibited => {
            "the jump host forbids to lead on (AllowTcpForwarding, PermitOpen); tell whoever runs it"
        }
        ChannelOpenFailure::ConnectFailed => "the jump host cannot reach the server; tell whoever runs it",
        _ => "the jump host does not lead on; tell whoever runs it",
    }
}

/// What a connection's handler counts into a channel's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Data alone, as the client's.
    Data,
    /// Every message, as the server's: window updates too.
    Messages,
}

/// Carries until either side ends or the line is cut; then the pipe's near end reads its end and can write no more.
///
/// `counted` is what the connection's handler counts into `flow`.
pub async fn carry<M>(channel: Channel<M>, far: DuplexStream, flow: &Flow, counted: Counted, line: &KillLine)
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let (read, write) = channel.split();
    let (from, to) = split(far);
    tokio::select! {
        biased;
        () = line.until_cut() => {}
        () = there(from, &write) => {}
        () = back(read, to, flow, counted) => {}
    }
    let _ = timeout(CLOSE_DEADLINE, write.close()).await;
}

async fn there<M>(mut from: ReadHalf<DuplexStream>, write: &ChannelWriteHalf<M>)
where
    M: From<(ChannelId, ChannelMsg)> + Send + Sync + 'static,
{
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(1..) if write.data_bytes(buffer.split().freeze()).await.is_ok() => {}
            _ => return,
        }
    }
}

async fn back(mut read: ChannelReadHalf, mut to: WriteHalf<DuplexStream>, flow: &Flow, counted: Counted) {
    loop {
        match read.wait().await {
            Some(ChannelMsg::Data { data }) => {
                if to.write_all(&data).await.is_err() {
                    return;
                }
                flow.taken(data.len());
            }
            // There is no second stream in a forwarded connection.
            Some(ChannelMsg::ExtendedData { data, .. }) => flow.taken(data.len()),
            Some(ChannelMsg::Eof | ChannelMsg::Close) | None => return,
            Some(_) if counted == Counted::Messages => flow.taken(0),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use russh::server::{self, Auth, ChannelOpenHandle, Session};
    use tokio::sync::oneshot;

    use super::super::{Connection, handshake};
    use super::*;
    use crate::identity::ssh_ca::create_key;
    use crate::socket::{HostKeyCheck, SshCredential, SshUpstream};

    /// What the server would send at most.
    const FLOOD: usize = 256 << 20;

    /// A jump host that leads to a source without end, and tells how much it could send.
    struct Flooding(Option<oneshot::Sender<usize>>);

    impl server::Handler for Flooding {
        type Error = russh::Error;

        async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
            Ok(Auth::Accept)
        }

        async fn channel_open_direct_tcpip(
            &mut self,
            channel: Channel<server::Msg>,
            _: &str,
            _: u32,
            _: &str,
            _: u32,
            reply: ChannelOpenHandle,
            _: &mut Session,
        ) -> Result<(), Self::Error> {
            reply.accept().await;
            let told = self.0.take();
            tokio::spawn(async move {
                let (chunk, mut sent) = (bytes::Bytes::from(vec![0; CHUNK]), 0);
                while sent < FLOOD && channel.data_bytes(chunk.clone()).await.is_ok() {
                    sent += CHUNK;
                }
                told.map(|told| told.send(sent))
            });
            Ok(())
        }
    }

    /// A connection to such a jump host, and how much it could send once it cannot send any more.
    async fn hop() -> (Connection, HostPort, oneshot::Receiver<usize>) {
        let (ours, theirs) = duplex(1 << 20);
        let (told, sent) = oneshot::channel();
        let key = create_key(&tempfile::tempdir().unwrap().path().join("key")).unwrap();
        let config = Arc::new(server::Config { keys: vec![key], ..Default::default() });
        tokio::spawn(async move { server::run_stream(config, theirs, Flooding(Some(told))).await.unwrap().await });
        let address = HostPort { host: "target".into(), port: 22 };
        let spec = SshUpstream {
            address: address.clone(),
            username: None,
            credential: SshCredential::Certificate,
            host_key: HostKeyCheck::Unverified,
            via: None,
        };
        let mut hop = handshake(&spec, ours).await.unwrap();
        assert!(hop.handle.authenticate_none("x").await.unwrap().success());
        (hop.through(None), address, sent)
    }

    /// A target that sends whatever its own protocol says, to a gateway that stands still: SSH's window inside of the tunnel
    /// binds an honest target alone.
    #[tokio::test(start_paused = true)]
    async fn a_target_that_floods_is_slowed_and_in_the_end_cut_off() {
        let (hop, address, sent) = hop().await;
        let mut near = open(&hop.handle, &hop.flows, &address, &KillLine::new()).await.unwrap();
        let sent = sent.await.unwrap();
        assert!((1 << 20..100 << 20).contains(&sent), "{sent}");
        // What waited in the pipe, and then the end.
        let mut rest = Vec::new();
        near.read_to_end(&mut rest).await.unwrap();
        assert!(!rest.is_empty() && near.write_all(b"x").await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_ends_it_whatever_it_waits_for() {
        let (hop, address, _sent) = hop().await;
        let line = KillLine::new();
        let mut near = open(&hop.handle, &hop.flows, &address, &line).await.unwrap();
        near.read_exact(&mut [0; 1]).await.unwrap();
        line.cut();
        // The jump host's connection is another's business, and still stands.
        near.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(near.write_all(b"x").await.is_err() && !hop.handle.is_closed());
    }
}

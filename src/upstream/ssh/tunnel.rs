//! The way through a jump host: a forwarded connection (RFC 4254 section 7.2) as a stream for the next handshake.
//!
//! russh's own stream over a channel would not do: nothing counts what it has read, so that nothing slows the jump host's
//! loop for a target that lags (`session/flow.rs` says why that must be), and a write that waits for room in the window
//! does not learn of the connection's end. So a task carries bytes between the channel and a small pipe. What waits in
//! it is bounded both ways: by the pipe, by the channel's window towards the target, and by its [`Flow`] back.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use russh::client::{Handle, Msg};
use russh::{Channel, ChannelMsg, ChannelOpenFailure, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::timeout;
use tracing::Instrument;

use super::OPEN_DEADLINE;
use super::channel::{Flows, Registered};
use super::host_key::Verifier;
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
    hop: &Handle<Verifier>,
    flows: &Flows,
    address: &HostPort,
    line: &KillLine,
) -> Result<DuplexStream, String> {
    // Where the connection comes from is nobody's business behind the gateway.
    let opened = hop.channel_open_direct_tcpip(address.host.as_str(), address.port.into(), "127.0.0.1", 0);
    let channel = match timeout(OPEN_DEADLINE, opened).await {
        Ok(Ok(channel)) => channel,
        Ok(Err(russh::Error::ChannelOpenFailure(why))) => return Err(refused(why).into()),
        Ok(Err(_)) => return Err("the connection to the jump host is lost".into()),
        Err(_) => return Err("the jump host does not answer; tell whoever runs it".into()),
    };
    let (near, far) = duplex(PIPE);
    let (flow, registered) = flows.register(channel.id());
    tokio::spawn(carry(channel, far, flow, registered, line.child()).in_current_span());
    Ok(near)
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

/// Carries until either side ends or the line is cut; then the pipe's near end reads its end and can write no more.
async fn carry(channel: Channel<Msg>, far: DuplexStream, flow: Arc<Flow>, _registered: Registered, line: KillLine) {
    let (read, write) = channel.split();
    let (from, to) = split(far);
    tokio::select! {
        biased;
        () = line.until_cut() => return,
        () = there(from, &write) => {}
        () = back(read, to, &flow) => {}
    }
    let _ = timeout(CLOSE_DEADLINE, write.close()).await;
}

async fn there(mut from: ReadHalf<DuplexStream>, write: &ChannelWriteHalf<Msg>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        match from.read_buf(&mut buffer).await {
            Ok(1..) if write.data_bytes(buffer.split().freeze()).await.is_ok() => {}
            _ => return,
        }
    }
}

async fn back(mut read: ChannelReadHalf, mut to: WriteHalf<DuplexStream>, flow: &Flow) {
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
            Some(_) => {}
        }
    }
}

//! The accept loop: one for every listener, whatever is spoken behind it.
//!
//! It backs off when the system has no descriptors left, holds each address to its share, gives every connection a
//! span and a task of its own, and counts those that ended before anybody was known: they write no rows, so that a
//! stranger cannot fill the book.
//!
//! From trusted networks a PROXY protocol header is required, and the address that it names is the client's from there
//! on, for limits too; from all others none is looked for, so nobody can claim an address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::address::customer;
use crate::pace::Pace;
use crate::proxy_protocol::{self, HeaderError, Said};
use crate::telemetry::Metrics;

/// Pauses after failed accepts: from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often connections that ended before anybody was known are told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Connections that may wait for their PROXY protocol header at once.
const HEADERS: usize = 4096;

/// Addresses that are counted apart between two tellings; the rest counts together.
const COUNTED_ADDRESSES: usize = 10_000;

/// The two ends of a connection, as the client has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Where the client is.
    pub client: SocketAddr,
    /// The address that the client reached: the gateway's, or that of the balancer before it.
    pub reached: SocketAddr,
}

/// What one address may do.
#[derive(Clone, Copy, Debug)]
pub struct PerAddress {
    /// Connections that may be open at a time.
    pub at_a_time: usize,
    /// Connections that may be made in a minute.
    pub a_minute: u32,
}

/// Whether anybody became known on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// There is a row, or requests were answered.
    Somebody,
    /// It ended before any identity was known.
    Nobody,
}

/// What all listeners of a gateway share. Cheap to clone.
#[derive(Clone)]
pub struct Doors {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

struct Shared {
    total: Arc<Semaphore>,
    per_address: usize,
    pace: Pace<IpAddr>,
    /// Networks whose PROXY protocol header is believed.
    believed: Vec<IpNet>,
    /// A permit for each connection whose header has not come yet.
    headers: Arc<Semaphore>,
    metrics: Metrics,
    open: Mutex<HashMap<IpAddr, usize>>,
    nobodies: Mutex<HashMap<IpAddr, u64>>,
    /// Connections that have ended.
    ended: AtomicU64,
}

impl Doors {
    /// Doors through which `total` connections may be open, and from one address (an IPv6 /64 counts as one)
    /// as many as `limits` say. From `believed` networks a PROXY protocol header is required.
    pub fn new(total: usize, limits: PerAddress, believed: Vec<IpNet>, metrics: Metrics) -> Self {
        let shared = Shared {
            total: Arc::new(Semaphore::new(total)),
            per_address: limits.at_a_time,
            pace: Pace::new(limits.a_minute),
            believed,
            headers: Arc::new(Semaphore::new(total.min(HEADERS))),
            metrics,
            open: Mutex::default(),
            nobodies: Mutex::default(),
            ended: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), tasks: TaskTracker::new() }
    }

    /// The same doors and limits, whose connections are waited for apart.
    pub fn apart(&self) -> Self {
        Self { shared: self.shared.clone(), tasks: TaskTracker::new() }
    }

    /// Has a connection that another's doors accepted waited for here too, for as long as the answer lives.
    pub fn adopt(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Accepts until `stop`. Each connection runs `serve` in a task of its own.
    pub async fn accept<F, S>(&self, name: &'static str, listener: TcpListener, stop: CancellationToken, serve: F)
    where
        F: Fn(TcpStream, Ends) -> S + Send + Sync + 'static,
        S: Future<Output = Served> + Send + 'static,
    {
        let serve = Arc::new(serve);
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    pause = FIRST_PAUSE;
                    self.admit(name, stream, peer, serve.clone());
                }
                Err(error) => {
                    // Out of descriptors or memory, or a connection that died in the queue: going on at once would spin.
                    tracing::warn!(listener = name, %error, "accept failed");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Waits until every connection's task has ended.
    pub async fn until_empty(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many connections have ended, through these doors and those apart.
    pub fn ended(&self) -> u64 {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Tells every minute, for as long as the gateway runs, from where nobody became known.
    pub async fn keep_telling(&self) {
        let mut tick = tokio::time::interval(TELL_EVERY);
        loop {
            tick.tick().await;
            let nobodies = std::mem::take(&mut *lock(&self.shared.nobodies));
            for (address, connections) in nobodies {
                tracing::info!(%address, connections, "connections ended before anybody was known");
            }
        }
    }

    fn admit<F, S>(&self, name: &'static str, stream: TcpStream, peer: SocketAddr, serve: Arc<F>)
    where
        F: Fn(TcpStream, Ends) -> S + Send + Sync + 'static,
        S: Future<Output = Served> + Send + 'static,
    {
        let Ok(total) = self.shared.total.clone().try_acquire_owned() else {
            return self.turn_away(name, peer);
        };
        let ends = match (stream.set_nodelay(true), stream.local_addr()) {
            (Ok(()), Ok(reached)) => Ends { client: peer, reached },
            (Err(error), _) | (_, Err(error)) => {
                return tracing::debug!(client = %peer, %error, "the connection died while it was accepted");
            }
        };
        let doors = self.clone();
        if !self.shared.believes(peer.ip()) {
            let Some(open) = self.enter(customer(peer.ip())) else { return self.turn_away(name, peer) };
            let span = tracing::info_span!("connection", listener = name, client = %ends.client);
            self.tasks.spawn(doors.serve(name, (total, open), stream, ends, serve).instrument(span));
            return;
        }
        // The balancer's own address has no share: all its clients would have to fit into it.
        let Ok(waiting) = self.shared.headers.clone().try_acquire_owned() else { return self.turn_away(name, peer) };
        self.tasks.spawn(async move {
            let mut stream = stream;
            let Some(ends) = doors.introduced(name, &mut stream, ends).await else { return };
            drop(waiting);
            let Some(open) = doors.enter(customer(ends.client.ip())) else { return doors.turn_away(name, ends.client) };
            let span = tracing::info_span!("connection", listener = name, client = %ends.client, via = %peer);
            doors.serve(name, (total, open), stream, ends, serve).instrument(span).await;
        });
    }

    async fn serve<F, S>(
        self,
        name: &'static str,
        _places: (OwnedSemaphorePermit, Open),
        stream: TcpStream,
        ends: Ends,
        serve: Arc<F>,
    ) where
        F: Fn(TcpStream, Ends) -> S,
        S: Future<Output = Served>,
    {
        let _counted = self.shared.metrics.connection(name);
        if serve(stream, ends).await == Served::Nobody {
            self.nobody(name, customer(ends.client.ip()));
        }
    }

    /// Who a balancer says is there. `None`: nobody, and that is noted.
    async fn introduced(&self, name: &'static str, stream: &mut TcpStream, ends: Ends) -> Option<Ends> {
        match proxy_protocol::read(stream).await {
            Ok(Said::Proxied { client, reached }) => Some(Ends { client, reached }),
            Ok(Said::Itself) => Some(ends),
            Err(HeaderError::Silent) => None,
            Err(error) => {
                tracing::debug!(peer = %ends.client, %error, "closed a connection of a trusted balancer");
                self.nobody(name, customer(ends.client.ip()));
                None
            }
        }
    }

    fn turn_away(&self, name: &'static str, client: SocketAddr) {
        tracing::debug!(%client, "too many connections");
        self.shared.metrics.turned_away(name);
        self.nobody(name, customer(client.ip()));
    }

    fn enter(&self, address: IpAddr) -> Option<Open> {
        self.shared.pace.once(address).ok()?;
        let mut open = lock(&self.shared.open);
        let count = open.entry(address).or_default();
        if *count >= self.shared.per_address {
            return None;
        }
        *count += 1;
        Some(Open { doors: self.clone(), address })
    }

    fn nobody(&self, name: &'static str, address: IpAddr) {
        self.shared.metrics.unidentified(name);
        let mut nobodies = lock(&self.shared.nobodies);
        let address = match nobodies.len() < COUNTED_ADDRESSES || nobodies.contains_key(&address) {
            true => address,
            false => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        *nobodies.entry(address).or_default() += 1;
    }
}

impl Shared {
    fn believes(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.believed.iter().any(|network| network.contains(&peer))
    }
}

/// One connection's place; given back on drop.
struct Open {
    doors: Doors,
    address: IpAddr,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.doors.shared.ended.fetch_add(1, Ordering::Relaxed);
        let mut open = lock(&self.doors.shared.open);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn an_address_gets_its_share_and_its_places_back() {
        let doors = Doors::new(100, PerAddress { at_a_time: 2, a_minute: 1000 }, Vec::new(), Metrics::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let (accepting, stopped) = (doors.clone(), stop.clone());
        let running = tokio::spawn(async move {
            let serve = |mut stream: TcpStream, _| async move {
                let _ = stream.read(&mut [0]).await;
                Served::Nobody
            };
            accepting.accept("test", listener, stopped, serve).await;
        });
        let first = TcpStream::connect(to).await.unwrap();
        let _second = TcpStream::connect(to).await.unwrap();
        let mut third = TcpStream::connect(to).await.unwrap();
        assert_eq!(third.read(&mut [0]).await.unwrap(), 0, "the third is closed at once");
        drop(first);
        while lock(&doors.shared.open).values().sum::<usize>() > 1 {
            tokio::task::yield_now().await;
        }
        let mut fourth = TcpStream::connect(to).await.unwrap();
        let waits = tokio::time::timeout(Duration::from_millis(50), fourth.read(&mut [0])).await;
        assert!(waits.is_err(), "the fourth has the first one's place");
        assert_eq!(lock(&doors.shared.nobodies).values().sum::<u64>(), 2);
        stop.cancel();
        running.await.unwrap();
    }
}

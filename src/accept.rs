//! The accept loop: one for every listener, whatever is spoken behind it.
//!
//! It backs off when the system has no descriptors left, holds each address to its share, gives every connection a
//! span and a task of its own, and counts those that ended before anybody was known: they write no rows, so that a
//! stranger cannot fill the book.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Pauses after failed accepts: from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often connections that ended before anybody was known are told.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Addresses that are counted apart between two tellings; the rest counts together.
const COUNTED_ADDRESSES: usize = 10_000;

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
    open: Mutex<HashMap<IpAddr, usize>>,
    nobodies: Mutex<HashMap<IpAddr, u64>>,
}

impl Doors {
    /// Doors through which `total` connections may be open, and from one address (an IPv6 /64 counts as one)
    /// `per_address`.
    pub fn new(total: usize, per_address: usize) -> Self {
        let total = Arc::new(Semaphore::new(total));
        let shared = Shared { total, per_address, open: Mutex::default(), nobodies: Mutex::default() };
        Self { shared: Arc::new(shared), tasks: TaskTracker::new() }
    }

    /// The same doors and limits, whose connections are waited for apart.
    pub fn apart(&self) -> Self {
        Self { shared: self.shared.clone(), tasks: TaskTracker::new() }
    }

    /// Accepts until `stop`. Each connection runs `serve` in a task of its own.
    pub async fn accept<F, S>(&self, name: &'static str, listener: TcpListener, stop: CancellationToken, serve: F)
    where
        F: Fn(TcpStream, SocketAddr) -> S,
        S: Future<Output = Served> + Send + 'static,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => {
                    pause = FIRST_PAUSE;
                    self.admit(name, stream, client, &serve);
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

    fn admit<F, S>(&self, name: &'static str, stream: TcpStream, client: SocketAddr, serve: &F)
    where
        F: Fn(TcpStream, SocketAddr) -> S,
        S: Future<Output = Served> + Send + 'static,
    {
        let address = place(client.ip());
        let (Ok(place), Some(open)) = (self.shared.total.clone().try_acquire_owned(), self.enter(address)) else {
            tracing::debug!(%client, "too many connections");
            return self.nobody(address);
        };
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%client, %error, "the connection died while it was accepted");
        }
        let span = tracing::info_span!("connection", listener = name, %client);
        let served = serve(stream, client);
        let doors = self.clone();
        let task = async move {
            let _places = (place, open);
            if served.await == Served::Nobody {
                doors.nobody(address);
            }
        };
        self.tasks.spawn(task.instrument(span));
    }

    fn enter(&self, address: IpAddr) -> Option<Open> {
        let mut open = lock(&self.shared.open);
        let count = open.entry(address).or_default();
        if *count >= self.shared.per_address {
            return None;
        }
        *count += 1;
        Some(Open { doors: self.clone(), address })
    }

    fn nobody(&self, address: IpAddr) {
        let mut nobodies = lock(&self.shared.nobodies);
        let address = match nobodies.len() < COUNTED_ADDRESSES || nobodies.contains_key(&address) {
            true => address,
            false => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        *nobodies.entry(address).or_default() += 1;
    }
}

/// One connection's place; given back on drop.
struct Open {
    doors: Doors,
    address: IpAddr,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = lock(&self.doors.shared.open);
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// The address that counts: of IPv6 the /64, which is what one customer gets.
fn place(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
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
        let doors = Doors::new(100, 2);
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

    #[test]
    fn an_ipv6_customer_is_one_place() {
        let one = place("2001:db8:1:2:3::1".parse().unwrap());
        assert_eq!(one, place("2001:db8:1:2:ffff::9".parse().unwrap()));
        assert_ne!(one, place("2001:db8:1:3::1".parse().unwrap()));
        assert_eq!(place("::ffff:192.0.2.1".parse().unwrap()), place("192.0.2.1".parse().unwrap()));
    }
}

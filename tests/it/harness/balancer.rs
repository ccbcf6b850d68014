//! A load balancer: passes connections on from an address of its own, with a PROXY protocol header before each.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// What the gateway is told to trust. Tests themselves connect from 127.0.0.1.
pub const TRUSTED: &str = "127.0.0.2";

/// A running balancer.
pub struct Balancer {
    /// Where `ssh` connects, on 127.0.0.1.
    pub port: u16,
    /// Where a browser connects, on the gateway's own port: URLs name that.
    pub address: IpAddr,
    running: [JoinHandle<()>; 2],
}

impl Balancer {
    /// Passes everything on to this port, with this header first.
    pub async fn start(to: u16, header: impl Into<Vec<u8>>) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let address = Ipv4Addr::new(127, 0, 1, NEXT.fetch_add(1, Ordering::Relaxed)).into();
        let any = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let same = TcpListener::bind((address, to)).await.unwrap();
        let port = any.local_addr().unwrap().port();
        let header: Vec<u8> = header.into();
        let running = [any, same].map(|listener| tokio::spawn(pass_on(listener, to, header.clone())));
        Self { port, address, running }
    }

    /// A balancer for one client, in version 1.
    pub async fn of(client: &str, to: u16) -> Self {
        Self::start(to, v1(client)).await
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.running.iter().for_each(JoinHandle::abort);
    }
}

async fn pass_on(listener: TcpListener, to: u16, header: Vec<u8>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let header = header.clone();
        tokio::spawn(async move {
            let mut gateway = connect(to).await;
            if gateway.write_all(&header).await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut gateway).await;
            }
        });
    }
}

/// A connection to this port from the trusted address.
pub async fn connect(to: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(TRUSTED.parse().unwrap(), 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, to).into()).await.unwrap()
}

/// Version 1: this client, from its port 50000, reached port 443 of the balancer.
pub fn v1(client: &str) -> Vec<u8> {
    match client.contains(':') {
        true => format!("PROXY TCP6 {client} 2001:db8::1 50000 443\r\n").into_bytes(),
        false => format!("PROXY TCP4 {client} 198.51.100.1 50000 443\r\n").into_bytes(),
    }
}

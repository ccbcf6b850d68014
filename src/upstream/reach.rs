//! Where forwards may never lead, and where only with a right of its own.
//!
//! A rule is about the destination as it was written. Beside it there are places that no rule opens: the gateway's own
//! listeners, link-local and cloud metadata addresses, and the unspecified address. And there are places that have a
//! door of their own: another socket's upstream is reached through that socket, or as something that cannot be read.
//!
//! A name is resolved here once. Where the gateway itself connects, it connects to what was looked at; an SSH server
//! resolves for itself, so there the answer is what the gateway can know, and no more.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout, timeout_at};

use crate::policy::Destination;
use crate::socket::{HostPort, Socket, UpstreamSpec};

/// For resolving names.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);

/// Names of other sockets' upstreams that are resolved at a time for one forward: those that have its port.
const NAMES_AT_ONCE: usize = 64;

/// For resolving all of them.
const NAMES_DEADLINE: Duration = Duration::from_secs(10);

/// Cloud metadata services that are not link-local: AWS by IPv6, Alibaba, Azure's wire server.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// The names of such services, which may mean nothing here and something there.
const METADATA_NAMES: [&str; 4] =
    ["metadata.google.internal", "metadata", "instance-data", "instance-data.ec2.internal"];

/// Where forwards leave from.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    /// This host.
    Here,
    /// The SSH server behind a socket: what is local means it.
    Server(&'a HostPort),
}

/// What was found out about a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What it resolves to, as far as the gateway can tell; empty for a path.
    pub addresses: Vec<SocketAddr>,
    /// It is where a socket leads.
    pub behind: Option<String>,
}

/// Nothing leads there. The words are for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// The gateway itself.
    #[error("a forward never leads to the gateway itself")]
    Gateway,
    /// Link-local, metadata, unspecified, or no address of one machine.
    #[error("a forward never leads to link-local, metadata or unspecified addresses")]
    Address,
    /// The name means nothing here, where the gateway would have to connect.
    #[error("that name cannot be resolved by the gateway")]
    Unknown,
    /// A path at the gateway.
    #[error("sockets of the gateway's own host are not reached by a forward")]
    Path,
}

/// Looks at a destination. `own` are the gateway's listeners.
pub async fn look(
    to: &Destination,
    from: From<'_>,
    own: &[SocketAddr],
    sockets: &[Arc<Socket>],
) -> Result<Place, Unreachable> {
    let (host, port) = match (to, from) {
        (Destination::Tcp { host, port }, _) => (host, *port),
        (Destination::Path(_), From::Server(_)) => return Ok(Place { addresses: Vec::new(), behind: None }),
        (Destination::Path(_), From::Here) => return Err(Unreachable::Path),
    };
    // A dot at the end says that the name is whole, and changes nothing else.
    let host = host.strip_suffix('.').unwrap_or(host);
    if METADATA_NAMES.iter().any(|name| host.eq_ignore_ascii_case(name)) {
        return Err(Unreachable::Address);
    }
    let addresses = resolve(host, port).await;
    if addresses.is_empty() && matches!(from, From::Here) {
        return Err(Unreachable::Unknown);
    }
    if addresses.iter().any(|address| is_closed(address.ip())) {
        return Err(Unreachable::Address);
    }
    // What the server calls itself is its own address.
    let server = match from {
        From::Here => Vec::new(),
        From::Server(server) => resolve(&server.host, port).await,
    };
    let is_server_itself = |address: &SocketAddr| address.ip().is_loopback();
    let mut meant: BTreeSet<SocketAddr> = addresses.iter().copied().collect();
    if !server.is_empty() && addresses.iter().any(is_server_itself) {
        meant.retain(|address| !is_server_itself(address));
        meant.extend(&server);
        if server.iter().any(|address| is_here(address.ip())) {
            // The server is this host: then its loopback is ours.
            meant.extend(&addresses);
        }
    }
    if meant.iter().any(|address| own.iter().any(|own| is_same(own, address))) {
        return Err(Unreachable::Gateway);
    }
    Ok(Place { behind: behind(host, port, &meant, sockets).await, addresses })
}

/// The socket that leads to one of these addresses, or is written like this. Where there is no time to look at all of
/// them, one that was not looked at: nobody knows that it is not.
async fn behind(host: &str, port: u16, meant: &BTreeSet<SocketAddr>, sockets: &[Arc<Socket>]) -> Option<String> {
    let upstreams = sockets.iter().filter_map(|socket| match &socket.upstream {
        UpstreamSpec::Ssh(upstream) if upstream.address.port == port => Some((socket, &upstream.address)),
        _ => None,
    });
    // Written alike is one place, unless each host means itself by it.
    let is_written = |address: &HostPort| !is_anyones_own(host) && address.host.eq_ignore_ascii_case(host);
    let mut named = Vec::new();
    for (socket, address) in upstreams {
        let literal = address.host.parse::<IpAddr>().ok();
        let meets = literal.is_some_and(|ip| meant.iter().any(|meant| is_one(ip, meant.ip())));
        if meets || is_written(address) {
            return Some(socket.name.clone());
        }
        if literal.is_none() {
            named.push((socket, &address.host));
        }
    }
    let end = Instant::now() + NAMES_DEADLINE;
    for some in named.chunks(NAMES_AT_ONCE) {
        let resolved = join_all(some.iter().map(|(_, host)| resolve(host, port)));
        let Ok(resolved) = timeout_at(end, resolved).await else { return some.first().map(|(s, _)| s.name.clone()) };
        let meets = |address: SocketAddr| meant.iter().any(|meant| is_one(address.ip(), meant.ip()));
        let met = some.iter().zip(resolved).find(|(_, addresses)| addresses.iter().copied().any(meets));
        if let Some(((socket, _), _)) = met {
            return Some(socket.name.clone());
        }
    }
    None
}

/// Everything that a name or an address in whatever notation stands for; nothing, if it stands for nothing.
async fn resolve(host: &str, port: u16) -> Vec<SocketAddr> {
    match timeout(RESOLVE_DEADLINE, lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect(),
        _ => Vec::new(),
    }
}

/// Whether no forward leads there, whoever asks.
fn is_closed(ip: IpAddr) -> bool {
    let ip = plain(ip);
    let v6_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let v4_closed = matches!(ip, IpAddr::V4(ip) if ip.is_link_local() || ip.is_broadcast() || ip.octets()[0] == 0);
    ip.is_unspecified() || ip.is_multicast() || v6_link_local || v4_closed || METADATA.contains(&ip)
}

/// Loopback addresses, and the name that stands for them everywhere (RFC 6761 section 6.3).
fn is_anyones_own(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip| plain(ip).is_loopback())
}

/// IPv4 addresses that are written as IPv6: mapped (RFC 4291 section 2.5.5.2), compatible, by NAT64 (RFC 6052, and
/// RFC 8215 with a prefix of 96 bits), and by 6to4 (RFC 3056).
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => v4_of(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => v4_of(high, low),
        [0x2002, high, low, ..] => v4_of(high, low),
        _ => ip,
    }
}

fn v4_of(high: u16, low: u16) -> IpAddr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d).into()
}

/// All of a machine's loopback addresses lead to what listens on one of them or on all.
fn is_one(one: IpAddr, other: IpAddr) -> bool {
    let (one, other) = (plain(one), plain(other));
    one == other || one.is_loopback() && other.is_loopback()
}

fn is_same(listener: &SocketAddr, address: &SocketAddr) -> bool {
    listener.port() == address.port()
        && (is_one(listener.ip(), address.ip()) || listener.ip().is_unspecified() && is_here(address.ip()))
}

/// Whether an address is one of this host's: only such a one can be bound.
fn is_here(ip: IpAddr) -> bool {
    let ip = plain(ip);
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::{HostKeyCheck, SshCredential, SshUpstream};

    fn own() -> Vec<SocketAddr> {
        vec!["127.0.0.1:2222".parse().unwrap(), "0.0.0.0:8443".parse().unwrap()]
    }

    fn tcp(text: &str) -> Destination {
        Destination::parse(text).unwrap()
    }

    fn server(host: &str) -> HostPort {
        HostPort { host: host.into(), port: 22 }
    }

    fn leads_to(name: &str, host: &str, port: u16) -> Arc<Socket> {
        let upstream = SshUpstream {
            address: HostPort { host: host.into(), port },
            username: None,
            credential: SshCredential::Password("x".into()),
            host_key: HostKeyCheck::Unverified,
            via: None,
        };
        Arc::new(Socket { upstream: UpstreamSpec::Ssh(Arc::new(upstream)), ..Socket::into_shell(name, "x") })
    }

    async fn from(from: From<'_>, to: &str) -> Result<Place, Unreachable> {
        let sockets = [
            leads_to("db", "127.0.0.1", 5432),
            leads_to("here", "localhost", 5434),
            leads_to("inner", "db.invalid", 5435),
            leads_to("far", "192.0.2.9", 22),
        ];
        look(&tcp(to), from, &own(), &sockets).await
    }

    #[tokio::test]
    async fn nothing_leads_to_the_gateway_or_to_what_is_closed() {
        use Unreachable::{Address, Gateway};
        let here = server("127.0.0.1");
        for (to, why) in [
            ("127.0.0.1:2222", Gateway),
            ("127.0.0.2:8443", Gateway),
            ("localhost:8443", Gateway),
            ("2130706433:2222", Gateway),
            ("0x7f.1:8443", Gateway),
            ("[::ffff:127.0.0.1]:2222", Gateway),
            ("[::ffff:7f00:1]:8443", Gateway),
            ("169.254.169.254:80", Address),
            ("[::ffff:169.254.169.254]:80", Address),
            ("[64:ff9b::a9fe:a9fe]:80", Address),
            ("[64:ff9b:1::a9fe:a9fe]:80", Address),
            ("[2002:a9fe:a9fe::1]:80", Address),
            ("[fe80::1]:80", Address),
            ("[fd00:ec2::254]:80", Address),
            ("0.0.0.0:80", Address),
            ("0:80", Address),
            ("[::]:80", Address),
            ("[::ffff:0.0.0.0]:80", Address),
            ("224.0.0.1:80", Address),
            ("metadata.google.internal.:80", Address),
        ] {
            for seat in [From::Here, From::Server(&here)] {
                assert_eq!(from(seat, to).await, Err(why), "{to} from {seat:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_loopback_of_another_host_is_not_ours() {
        let far = server("192.0.2.1");
        let place = from(From::Server(&far), "127.0.0.1:2222").await.unwrap();
        assert_eq!(place.behind, None);
        for to in ["127.0.0.1:5432", "localhost:5434", "127.0.0.1:5434"] {
            assert_eq!(from(From::Server(&far), to).await.unwrap().behind, None, "{to}");
        }
        // But its own address is, by whatever name.
        let far = server("192.0.2.9");
        assert_eq!(from(From::Server(&far), "127.0.0.1:22").await.unwrap().behind.as_deref(), Some("far"));
    }

    #[tokio::test]
    async fn another_sockets_upstream_is_known_however_it_is_written() {
        for to in ["127.0.0.1:5432", "localhost:5432", "[::ffff:127.0.0.1]:5432", "127.1:5432"] {
            assert_eq!(from(From::Here, to).await.unwrap().behind.as_deref(), Some("db"), "{to}");
        }
        for to in ["localhost:5434", "LocalHost:5434", "127.0.0.1:5434"] {
            assert_eq!(from(From::Here, to).await.unwrap().behind.as_deref(), Some("here"), "{to}");
        }
        assert_eq!(from(From::Here, "127.0.0.1:5433").await.unwrap().behind, None);
        // A name that only the server can resolve is the one that was configured, as far as anybody can tell.
        let far = server("192.0.2.1");
        assert_eq!(from(From::Server(&far), "DB.invalid:5435").await.unwrap().behind.as_deref(), Some("inner"));
    }

    #[tokio::test]
    async fn however_many_sockets_there_are_each_is_looked_at() {
        let mut sockets: Vec<_> = (0..200).map(|n| leads_to(&format!("s{n}"), "0xc0.0.2.7", 22)).collect();
        sockets.push(leads_to("last", "localhost", 22));
        let place = look(&tcp("127.0.0.1:22"), From::Here, &own(), &sockets).await.unwrap();
        assert_eq!(place.behind.as_deref(), Some("last"));
    }

    #[tokio::test]
    async fn a_name_that_only_the_server_knows_is_its_business() {
        let far = server("192.0.2.1");
        let place = from(From::Server(&far), "db.invalid:80").await;
        assert_eq!(place, Ok(Place { addresses: Vec::new(), behind: None }));
        assert_eq!(from(From::Here, "db.invalid:80").await, Err(Unreachable::Unknown));
        let path = Destination::Path("/run/x".into());
        assert_eq!(look(&path, From::Here, &[], &[]).await, Err(Unreachable::Path));
        assert!(look(&path, From::Server(&far), &[], &[]).await.is_ok());
    }
}

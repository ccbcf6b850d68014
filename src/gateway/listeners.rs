//! Where the gateway listens: bound here, passed by the service manager, or taken over from the process before.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use listenfd::ListenFd;
use rustix::net::sockopt::socket_acceptconn;

use super::{GatewayError, io_error};
use crate::config::Config;
use crate::socket::Socket;

/// Bound listeners: `config` says where, and the addresses are known before anything is built on them.
pub struct Listeners {
    pub(super) doors: Vec<Door>,
    pub(super) sockets: Vec<Arc<Socket>>,
    /// Where HTTPS is served.
    pub https_address: SocketAddr,
    /// Where SSH is served.
    pub ssh_address: SocketAddr,
}

/// A listening socket and what is behind it.
pub(super) struct Door {
    /// As in the configuration: `https`, `ssh`, `all`, or `socket-NAME`.
    pub(super) name: String,
    pub(super) leads_to: LeadsTo,
    pub(super) listener: TcpListener,
}

/// What is behind a door.
#[derive(Clone)]
pub(super) enum LeadsTo {
    /// The pages and the API.
    Https,
    /// SSH: to the socket that the client names, or to this one.
    Ssh(Option<Arc<Socket>>),
    /// Whichever of the two the client's first bytes are of.
    All,
}

/// Listening sockets that were there before this process.
pub struct Inherited {
    found: Vec<(String, SocketAddr, TcpListener)>,
    from: From,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Manager,
    Predecessor,
}

impl Listeners {
    /// Takes what was inherited and binds the rest of what the configuration names.
    pub async fn bind(config: &mut Config, mut inherited: Inherited) -> Result<Self, GatewayError> {
        let (https, https_address) = inherited.open("https", "listen.https", config.listen.https).await?;
        let (ssh, ssh_address) = inherited.open("ssh", "listen.ssh", config.listen.ssh).await?;
        let mut doors = vec![
            Door { name: "https".into(), leads_to: LeadsTo::Https, listener: https },
            Door { name: "ssh".into(), leads_to: LeadsTo::Ssh(None), listener: ssh },
        ];
        if let Some(address) = config.listen.all {
            let (listener, _) = inherited.open("all", "listen.all", address).await?;
            doors.push(Door { name: "all".into(), leads_to: LeadsTo::All, listener });
        }
        let sockets: Vec<Arc<Socket>> = std::mem::take(&mut config.sockets).into_iter().map(Arc::new).collect();
        for socket in &sockets {
            if let Some(address) = socket.listen {
                let name = format!("socket-{}", socket.name);
                let (listener, _) = inherited.open(&name, &format!("socket {}", socket.name), address).await?;
                doors.push(Door { name, leads_to: LeadsTo::Ssh(Some(socket.clone())), listener });
            }
        }
        inherited.finish()?;
        Ok(Self { doors, sockets, https_address, ssh_address })
    }

    /// Everywhere that the gateway listens.
    pub(super) fn addresses(&self) -> Arc<[SocketAddr]> {
        self.doors.iter().filter_map(|door| door.listener.local_addr().ok()).collect()
    }
}

impl Inherited {
    /// Nothing.
    pub fn none() -> Self {
        Self { found: Vec::new(), from: From::Predecessor }
    }

    /// What the service manager passed (sd_listen_fds(3)). To be called once, before there is any thread: it takes the
    /// variables out of the environment.
    pub fn from_service_manager() -> Result<Self, GatewayError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut found = Vec::new();
        for index in 0..passed.len() {
            let what = format!("descriptor {} of the service manager", 3 + index);
            let listener = passed.take_tcp_listener(index).map_err(io_error(&what))?;
            let name = names.next().unwrap_or_default().to_owned();
            let listener = listener.ok_or_else(|| io_error(&what)(io::Error::other("it was passed twice")))?;
            found.push(listening(name, listener).map_err(io_error(&what))?);
        }
        Ok(Self { found, from: From::Manager })
    }

    /// What the process before hands over.
    pub(super) fn from_predecessor(handed: impl Iterator<Item = (String, TcpListener)>) -> io::Result<Self> {
        let found = handed.map(|(name, listener)| listening(name, listener));
        Ok(Self { found: found.collect::<Result<_, _>>()?, from: From::Predecessor })
    }

    async fn open(
        &mut self,
        name: &str,
        what: &str,
        address: SocketAddr,
    ) -> Result<(TcpListener, SocketAddr), GatewayError> {
        let listener = match self.take(name, address) {
            Some(listener) => listener,
            None => {
                let bound = tokio::net::TcpListener::bind(address).await;
                let bound = bound.and_then(tokio::net::TcpListener::into_std);
                bound.map_err(io_error(&format!("{what} = {address}")))?
            }
        };
        let ready = listener.set_nonblocking(true).and_then(|()| listener.local_addr());
        let address = ready.map_err(io_error(what))?;
        Ok((listener, address))
    }

    /// A name that somebody wrote into a socket unit says more than the address. What the process before listened on
    /// counts by its address: the configuration may have changed since. Port 0 stands for whatever it got.
    fn take(&mut self, name: &str, address: SocketAddr) -> Option<TcpListener> {
        let named = |found: &(String, SocketAddr, TcpListener)| match self.from {
            From::Manager => found.0 == name,
            From::Predecessor => found.0 == name && address.port() == 0 && found.1.ip() == address.ip(),
        };
        let at = |found: &(String, SocketAddr, TcpListener)| found.1 == address;
        let position = self.found.iter().position(named).or_else(|| self.found.iter().position(at))?;
        Some(self.found.swap_remove(position).2)
    }

    /// What nobody took: of the process before it is closed with it, of the service manager it is a mistake.
    fn finish(self) -> Result<(), GatewayError> {
        match self.found.first() {
            Some((name, address, _)) if self.from == From::Manager => {
                Err(GatewayError::Unwanted { address: *address, name: name.clone() })
            }
            _ => Ok(()),
        }
    }
}

fn listening(name: String, listener: TcpListener) -> io::Result<(String, SocketAddr, TcpListener)> {
    match socket_acceptconn(&listener)? {
        true => Ok((name, listener.local_addr()?, listener)),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    fn inherited(from: From, names: [&str; 2]) -> (Inherited, [SocketAddr; 2]) {
        let (one, other) = (bound(), bound());
        let addresses = [one.0, other.0];
        let found = vec![(names[0].into(), one.0, one.1), (names[1].into(), other.0, other.1)];
        (Inherited { found, from }, addresses)
    }

    fn address_of(taken: Option<TcpListener>) -> SocketAddr {
        taken.unwrap().local_addr().unwrap()
    }

    #[test]
    fn the_service_manager_is_matched_by_name_then_by_address() {
        let (mut all, [one, other]) = inherited(From::Manager, ["ssh", "gatescribe.socket"]);
        let elsewhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert_eq!(address_of(all.take("ssh", elsewhere)), one);
        assert!(all.take("https", elsewhere).is_none());
        assert_eq!(address_of(all.take("https", other)), other);
        all.finish().unwrap();
    }

    #[test]
    fn a_descriptor_that_nobody_wants_is_an_error() {
        let (mut all, [one, other]) = inherited(From::Manager, ["", ""]);
        all.take("ssh", one).unwrap();
        let words = all.finish().unwrap_err().to_string();
        assert!(words.contains(&other.to_string()), "{words}");
    }

    #[test]
    fn the_process_before_is_matched_by_address_and_what_is_left_is_let_go() {
        let (mut all, [one, other]) = inherited(From::Predecessor, ["ssh", "https"]);
        assert_eq!(address_of(all.take("https", one)), one, "it was ssh's before");
        assert!(all.take("ssh", "127.0.0.1:1".parse().unwrap()).is_none());
        assert_eq!(address_of(all.take("https", "127.0.0.1:0".parse().unwrap())), other, "any port is the same port");
        let (all, _) = inherited(From::Predecessor, ["ssh", "https"]);
        all.finish().unwrap();
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let (_, listener) = bound();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let posing = TcpListener::from(std::os::fd::OwnedFd::from(stream));
        assert!(listening("ssh".into(), posing).is_err());
    }
}

//! Many SSH clients, and the server that they reach: both small, in this process.

use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, ssh_key};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelMsg, Disconnect, client};
use tokio::net::TcpListener;

use crate::harness::{Gateway, Setup, make_key};

/// A gateway with one socket, `web`, that leads to a server in this process, and a key that it remembers.
pub struct Fleet {
    pub gateway: Gateway,
    /// The server's port.
    pub port: u16,
    key: Arc<ssh_key::PrivateKey>,
    config: Arc<client::Config>,
    _dir: tempfile::TempDir,
}

/// One client's connection, with one channel if it was opened.
pub struct Visitor {
    handle: client::Handle<Anybody>,
    pub channel: Channel<client::Msg>,
}

impl Fleet {
    pub async fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let login = make_key(&dir.path().join("login"), "gateway");
        let host = make_key(&dir.path().join("host"), "target");
        let print = crate::harness::fingerprint(&host.with_extension("pub"));
        let port = serve(russh::keys::load_secret_key(&host, None).unwrap()).await;
        let setup = Setup::new().upstream("web", "", &format!("127.0.0.1:{port}"), &login, &print);
        let limits =
            "[limits]\nconnections_per_address = 5000\nconnections_per_minute = 1000000\nsessions_per_user = 100000\n";
        let gateway = setup.more(&format!("{limits}{more}")).start().await;
        let ssh = gateway.signed_in("alice", "web").await;
        let key = Arc::new(russh::keys::load_secret_key(ssh.path("id"), None).unwrap());
        let config = Arc::new(client::Config { nodelay: true, ..Default::default() });
        Self { gateway, port, key, config, _dir: dir }
    }

    /// Signs in and starts `command`.
    pub async fn visit(&self, command: &str) -> Visitor {
        let address = ("127.0.0.1", self.gateway.ssh);
        let mut handle = client::connect(self.config.clone(), address, Anybody).await.unwrap();
        let key = PrivateKeyWithHashAlg::new(self.key.clone(), None);
        assert!(handle.authenticate_publickey("web", key).await.unwrap().success(), "signed in");
        let channel = handle.channel_open_session().await.unwrap();
        channel.exec(true, command).await.unwrap();
        Visitor { handle, channel }
    }
}

impl Visitor {
    /// Waits for this much output.
    pub async fn receive(&mut self, mut bytes: usize) {
        while bytes > 0 {
            match self.channel.wait().await {
                Some(ChannelMsg::Data { data }) => bytes = bytes.saturating_sub(data.len()),
                Some(ChannelMsg::Close) | None => panic!("the channel ended"),
                Some(_) => {}
            }
        }
    }

    /// Reads to the end and says goodbye.
    pub async fn finish(mut self) -> u32 {
        let mut status = u32::MAX;
        while let Some(message) = self.channel.wait().await {
            if let ChannelMsg::ExitStatus { exit_status } = message {
                status = exit_status;
            }
        }
        self.leave().await;
        status
    }

    /// Waits until the gateway has closed the connection.
    pub async fn until_closed(self) {
        let _ = self.handle.await;
    }

    pub async fn leave(self) {
        let _ = self.handle.disconnect(Disconnect::ByApplication, "", "").await;
        let _ = tokio::time::timeout(Duration::from_secs(20), self.handle).await;
    }
}

/// A client that takes any host key: this is loopback.
pub struct Anybody;

impl client::Handler for Anybody {
    type Error = russh::Error;
    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// A server where `true` ends at once and everything else echoes.
async fn serve(key: ssh_key::PrivateKey) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = server::Config { keys: vec![key], nodelay: true, inactivity_timeout: None, ..Default::default() };
    let config = Arc::new(config);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let config = config.clone();
            tokio::spawn(async move {
                if let Ok(session) = server::run_stream(config, stream, Target).await {
                    let _ = session.await;
                }
            });
        }
    });
    port
}

struct Target;

impl server::Handler for Target {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, _: &str, _: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let (handle, id) = (session.handle(), channel.id());
        tokio::spawn(async move {
            let mut channel = channel;
            while let Some(message) = channel.wait().await {
                match message {
                    ChannelMsg::Exec { command, .. } => {
                        let _ = handle.channel_success(id).await;
                        if command == b"true" {
                            let _ = channel.exit_status(0).await;
                            let _ = channel.eof().await;
                            let _ = channel.close().await;
                            return;
                        }
                        let _ = channel.data_bytes("up\n").await;
                    }
                    ChannelMsg::Data { data } => {
                        let _ = channel.data_bytes(data).await;
                    }
                    ChannelMsg::Eof => {
                        let _ = channel.exit_status(0).await;
                        let _ = channel.close().await;
                        return;
                    }
                    _ => {}
                }
            }
        });
        reply.accept().await;
        Ok(())
    }
}

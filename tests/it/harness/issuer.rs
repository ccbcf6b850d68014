//! The identity provider of a test: the library's development issuer, in the test's own process, or any other.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use gatescribe::api::dev_issuer::DevIssuer;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// A running provider and how the gateway is registered there.
pub struct Issuer {
    dir: TempDir,
    pub url: String,
    pub client_id: String,
    /// The library's own; `None` where the provider is another program.
    pub own: Option<DevIssuer>,
}

impl Issuer {
    /// Starts the development issuer for the gateway with this HTTPS port.
    pub async fn start(https: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redirect = redirect_uri(https).parse().unwrap();
        let own = DevIssuer::start(listener, &redirect).unwrap();
        let settings = own.settings(redirect, Duration::from_secs(3600));
        let secret = settings.client_secret.unwrap();
        let issuer = Self::other(own.issuer_url(), own.client_id(), secret.expose_secret());
        Self { own: Some(own), ..issuer }
    }

    /// A provider that runs somewhere else.
    pub fn other(url: &str, client_id: &str, client_secret: &str) -> Self {
        let dir = TempDir::with_prefix("gatescribe-issuer-").unwrap();
        let issuer = Self { dir, url: url.into(), client_id: client_id.into(), own: None };
        fs::write(issuer.secret_file(), client_secret).unwrap();
        fs::set_permissions(issuer.secret_file(), fs::Permissions::from_mode(0o600)).unwrap();
        issuer
    }

    /// Where the client secret is kept for the configuration.
    pub fn secret_file(&self) -> PathBuf {
        self.dir.path().join("client_secret")
    }
}

/// The one redirect URI of the gateway with this HTTPS port.
pub fn redirect_uri(https: u16) -> String {
    format!("https://localhost:{https}/oidc/callback")
}

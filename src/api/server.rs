//! HTTPS for one accepted connection: the TLS handshake, then HTTP/1.1 on it. Knows nothing of routes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// For the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// For an answer's head; longer than the longest wait for a kill. What follows the head has deadlines of its own.
const ANSWER: Duration = Duration::from_secs(75);

/// For requests that run when the gateway stops.
const LAST_ANSWERS: Duration = Duration::from_secs(15);

/// For the head of a request, also between two requests on one connection.
const REQUEST_HEAD: Duration = Duration::from_secs(30);

/// Serves the API and the pages. Cheap to clone.
#[derive(Clone)]
pub struct Https {
    tls: TlsAcceptor,
    router: Router,
    leave: CancellationToken,
    stop: CancellationToken,
}

/// Keeps a connection's place, and has its end waited for, while it lives on as something else than HTTP. In the
/// extensions of every request; whoever takes the connection over holds it for as long as that lasts.
#[derive(Clone, Debug)]
pub struct Lease {
    _held: mpsc::Sender<()>,
}

impl Https {
    /// `leave` lets requests that run finish and takes no more on a connection; `stop`, which also cancels `leave`, gives
    /// them a deadline.
    pub fn new(
        tls: Arc<rustls::ServerConfig>,
        router: Router,
        leave: CancellationToken,
        stop: CancellationToken,
    ) -> Self {
        Self { tls: TlsAcceptor::from(tls), router, leave, stop }
    }

    /// Serves one connection; whether it came as far as a request's answer.
    pub fn serve(&self, stream: TcpStream, client: SocketAddr) -> impl Future<Output = bool> + Send + 'static {
        let Self { tls, router, leave, stop } = self.clone();
        async move {
            let stream = match timeout(HANDSHAKE, tls.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    return false;
                }
                Err(_) => return false,
            };
            let (held, mut upgraded) = mpsc::channel(1);
            let lease = Lease { _held: held };
            let service = service_fn(move |mut request: Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo(client));
                request.extensions_mut().insert(lease.clone());
                let answer = router.clone().oneshot(request.map(axum::body::Body::new));
                async move {
                    timeout(ANSWER, answer).await.unwrap_or_else(|_| Ok(StatusCode::GATEWAY_TIMEOUT.into_response()))
                }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD);
            let served = {
                let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
                tokio::pin!(connection);
                tokio::select! {
                    served = connection.as_mut() => served,
                    () = leave.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        tokio::select! {
                            served = connection.as_mut() => served,
                            () = stop.cancelled() => timeout(LAST_ANSWERS, connection).await.unwrap_or(Ok(())),
                        }
                    }
                }
            };
            if let Err(error) = &served {
                tracing::debug!(%error, "HTTP connection ended");
            }
            // Until the last lease is given up. Its holders know the gateway's stop themselves.
            let _ = upgraded.recv().await;
            served.is_ok()
        }
    }
}

//! What needs the provider's insides; the rest is tested beside the development issuer, over HTTP.

use tokio::net::TcpListener;
use tokio::task::yield_now;
use tokio::time::{advance, pause, resume, timeout};

use super::*;
use crate::api::dev_issuer::DevIssuer;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn it_keeps_asking_until_the_provider_is_up_and_every_hour_after() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let provider = Arc::new(Provider::new(&format!("http://{address}")).unwrap());
    let asking = provider.clone();
    let task = tokio::spawn(async move { asking.keep_fresh().await });
    timeout(SOON, until(|| provider.failures() > 0)).await.unwrap();
    assert!(provider.known().is_none());

    let callback = "https://localhost:8443/oidc/callback".parse().unwrap();
    let issuer = DevIssuer::start(TcpListener::bind(address).await.unwrap(), &callback).unwrap();
    // The pause after the first failure is a second.
    pause();
    advance(Duration::from_secs(2)).await;
    resume();
    timeout(SOON, until(|| provider.known().is_some())).await.unwrap();

    let before = provider.known().unwrap();
    issuer.rotate().unwrap();
    // The task must have gone to sleep for its hour before the hour is over.
    timeout(SOON, until(|| provider.is_idle())).await.unwrap();
    pause();
    advance(Duration::from_secs(3601)).await;
    resume();
    timeout(SOON, until(|| !Arc::ptr_eq(&before, &provider.known().unwrap()))).await.unwrap();
    assert_ne!(before.jwks(), provider.known().unwrap().jwks());
    task.abort();
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        yield_now().await;
    }
}

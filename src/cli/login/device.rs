//! Signing in with a browser on another machine (RFC 8628): a code to type there, and polling here.

use std::time::{Duration, Instant};

use anyhow::bail;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::oauth::{CLIENT, Granted, form, secret};
use super::trust::Met;
use crate::cli::client::{call, explain, read, read_json};
use crate::cli::escape;

/// A device authorization answer (section 3.2).
#[derive(Deserialize)]
struct Asked {
    #[serde(deserialize_with = "secret")]
    device_code: SecretString,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

/// Shows the code and waits until somebody has approved it.
pub(super) async fn sign_in(met: &Met) -> anyhow::Result<Granted> {
    let Some(endpoint) = &met.metadata.device_authorization_endpoint else {
        bail!("this gateway signs nobody in with --device; sign in without it, with a browser on this machine");
    };
    let request = form(met.http.post(endpoint.clone()), &[("client_id", CLIENT)]);
    let asked: Asked = read_json(&met.base, call(&met.base, request).await?).await?;
    let (page, code) = (escape::line(&asked.verification_uri), escape::line(&asked.user_code));
    eprintln!("To sign in, open this page in any browser and type the code:\n\n    {page}\n\n    {code}\n");
    eprintln!("Waiting for it; Ctrl-C gives up.");
    let deadline = Instant::now() + Duration::from_secs(asked.expires_in.min(LONGEST_WAIT));
    let mut interval = Duration::from_secs(asked.interval.unwrap_or(5).clamp(1, 60));
    loop {
        tokio::time::sleep(interval).await;
        match poll(met, &asked.device_code).await? {
            Polled::SignedIn(granted) => return Ok(granted),
            Polled::Pending => {}
            Polled::SlowDown => interval += SLOWER,
        }
        if Instant::now() >= deadline {
            bail!("nobody approved the code in time");
        }
    }
}

enum Polled {
    SignedIn(Granted),
    Pending,
    SlowDown,
}

async fn poll(met: &Met, code: &SecretString) -> anyhow::Result<Polled> {
    let fields = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", code.expose_secret()),
        ("client_id", CLIENT),
    ];
    let request = form(met.http.post(met.metadata.token_endpoint.clone()), &fields);
    let answer = match request.send().await {
        Ok(answer) => answer,
        // Section 3.5: a time-out is a reason to ask more slowly, not to give up.
        Err(error) if error.is_timeout() => return Ok(Polled::SlowDown),
        Err(error) => return Err(explain(&met.base, &error)),
    };
    if answer.status() == StatusCode::OK {
        return Ok(Polled::SignedIn(read_json(&met.base, answer).await?));
    }
    let told: Value = serde_json::from_slice(&read(&met.base, answer).await?).unwrap_or_default();
    match told.get("error").and_then(Value::as_str).unwrap_or_default() {
        "authorization_pending" => Ok(Polled::Pending),
        "slow_down" => Ok(Polled::SlowDown),
        "access_denied" => bail!("the sign-in was denied in the browser"),
        "expired_token" => bail!("nobody approved the code in time"),
        other => {
            let words = told.get("error_description").and_then(Value::as_str).unwrap_or(other);
            bail!("the gateway refused the sign-in: {}", escape::line(words))
        }
    }
}

/// Section 3.5: by this much after `slow_down`.
const SLOWER: Duration = Duration::from_secs(5);
/// In seconds, whatever the gateway says.
const LONGEST_WAIT: u64 = 30 * 60;

//! The authorization code flow for programs (RFC 8252): a browser on this machine, PKCE (RFC 7636), and a redirect to a
//! server of our own on loopback.

use std::time::Duration;

use anyhow::{anyhow, bail};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use tokio::time::timeout;

use super::loopback::{Loopback, Returned};
use super::oauth::{CLIENT, Granted, form, urlencoded};
use super::trust::Met;
use crate::cli::client::{call, read_json};
use crate::cli::escape;
use crate::identity::random;

/// Shows the page's address, opens it, and waits for the browser to come back.
pub(super) async fn sign_in(met: &Met, open: bool) -> anyhow::Result<Granted> {
    let loopback = Loopback::bind().await?;
    let redirect = loopback.redirect_uri();
    let state = random::code()?;
    let verifier = format!("{}{}", random::code()?, random::code()?);
    let page = page(&met.metadata.authorization_endpoint, &redirect, &state, &verifier);
    eprintln!("To sign in, open this page in a browser on this machine:\n\n    {page}\n");
    eprintln!("Waiting for it, {} minutes at most; Ctrl-C gives up.", WAIT.as_secs() / 60);
    if open && has_screen() {
        // On a thread that nobody waits for: some browsers return when they are closed.
        let page = page.to_string();
        std::thread::spawn(move || webbrowser::open(&page));
    }
    let returned = timeout(WAIT, loopback.wait(&state, &met.metadata.issuer)).await;
    let returned = returned.map_err(|_| anyhow!("nobody signed in within {} minutes", WAIT.as_secs() / 60))??;
    let code = match returned {
        Returned::Code(code) => code,
        Returned::Refused(why) if why == "access_denied" => bail!("the sign-in was denied in the browser"),
        Returned::Refused(why) => bail!("the gateway refused the sign-in: {}", escape::line(&why)),
    };
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", redirect.as_str()),
        ("client_id", CLIENT),
        ("code_verifier", verifier.as_str()),
    ];
    let request = form(met.http.post(met.metadata.token_endpoint.clone()), &fields);
    read_json(&met.base, call(&met.base, request).await?).await
}

fn page(endpoint: &Url, redirect: &str, state: &str, verifier: &str) -> Url {
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let fields = [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("redirect_uri", redirect),
        ("state", state),
        ("code_challenge", challenge.as_str()),
        ("code_challenge_method", "S256"),
    ];
    let mut page = endpoint.clone();
    page.set_query(Some(&urlencoded(&fields)));
    page
}

/// Whether there is a place for a browser's window. Without one, a browser of text would take the terminal over.
fn has_screen() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(not(target_os = "linux")) || ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"].into_iter().any(is_set)
}

/// The longest that a person may take.
const WAIT: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_what_rfc_7636_wants() {
        let endpoint = "https://a.example.com/oauth/authorize?left=over".parse().unwrap();
        // The verifier and the challenge of RFC 7636 appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let page = page(&endpoint, "http://127.0.0.1:4711/callback", "abc", verifier);
        let fields: std::collections::BTreeMap<_, _> = page.query_pairs().into_owned().collect();
        assert_eq!(fields["code_challenge"], "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert_eq!(fields["redirect_uri"], "http://127.0.0.1:4711/callback");
        assert_eq!((fields["state"].as_str(), fields["client_id"].as_str()), ("abc", CLIENT));
        assert_eq!(fields.len(), 6);
    }
}

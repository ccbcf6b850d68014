//! The gateway as authorization server: what it says about itself (RFC 8414), and its tokens. Trusts no address in the
//! metadata that is not on the gateway itself.

use anyhow::bail;
use reqwest::header::CONTENT_TYPE;
use reqwest::{RequestBuilder, Url};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use uuid::Uuid;

use crate::cli::client::{call, origin, read_json};

/// This program, a public client.
pub(super) const CLIENT: &str = "gatescribe-cli";

/// What is needed of the metadata (RFC 8414 section 2).
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Metadata {
    pub issuer: String,
    pub authorization_endpoint: Url,
    pub token_endpoint: Url,
    pub device_authorization_endpoint: Option<Url>,
}

/// A token answer (RFC 6749 section 5.1), with who it is for.
#[derive(Debug, Deserialize)]
pub(super) struct Granted {
    #[serde(deserialize_with = "secret")]
    pub access_token: SecretString,
    pub email: String,
    pub name: Option<String>,
    pub sign_in_id: Uuid,
}

impl Metadata {
    /// Asks for it and checks it.
    pub async fn ask(base: &Url, http: &reqwest::Client) -> anyhow::Result<Self> {
        let request = http.get(base.join("/.well-known/oauth-authorization-server")?);
        let metadata: Self = read_json(base, call(base, request).await?).await?;
        metadata.check(base)?;
        Ok(metadata)
    }

    /// Section 3.3: the issuer must be who was asked. Everything else must be there too.
    fn check(&self, base: &Url) -> anyhow::Result<()> {
        let here = origin(base);
        let issuer = self.issuer.trim_end_matches('/');
        if issuer != here {
            match issuer.parse::<Url>() {
                Ok(url) if url.scheme() == "https" && origin(&url) == issuer => {
                    bail!("this gateway goes by another name; run: gatescribe login --gateway {issuer}")
                }
                _ => bail!("{here} is no gateway that can be signed in to"),
            }
        }
        let endpoints = [Some(&self.authorization_endpoint), Some(&self.token_endpoint)];
        let elsewhere = |url: &&Url| origin(url) != here;
        match endpoints.into_iter().chain([self.device_authorization_endpoint.as_ref()]).flatten().find(elsewhere) {
            Some(_) => bail!("{here} wants the sign-in to go somewhere else"),
            None => Ok(()),
        }
    }
}

/// A string that is not to be shown.
pub(super) fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// A request with a form as its body.
pub(super) fn form(request: RequestBuilder, fields: &[(&str, &str)]) -> RequestBuilder {
    request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(urlencoded(fields))
}

/// Fields as a form, or a query, writes them.
pub(super) fn urlencoded(fields: &[(&str, &str)]) -> String {
    // `Url` has the one encoder that is at hand.
    let url = Url::parse_with_params("http://localhost/", fields);
    url.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(issuer: &str, token: &str) -> Metadata {
        Metadata {
            issuer: issuer.into(),
            authorization_endpoint: "https://a.example.com:8443/oauth/authorize".parse().unwrap(),
            token_endpoint: token.parse().unwrap(),
            device_authorization_endpoint: None,
        }
    }

    #[test]
    fn only_the_gateway_itself_is_signed_in_at() {
        let base = "https://a.example.com:8443".parse().unwrap();
        let (own, token) = ("https://a.example.com:8443", "https://a.example.com:8443/oauth/token");
        metadata(own, token).check(&base).unwrap();
        let table = [
            ("https://b.example.com", token, "--gateway https://b.example.com"),
            ("http://a.example.com:8443", token, "is no gateway"),
            ("https://b.example.com/ --ca x", token, "is no gateway"),
            (own, "https://evil.example.com/oauth/token", "somewhere else"),
            (own, "http://a.example.com:8443/oauth/token", "somewhere else"),
        ];
        for (issuer, token, words) in table {
            let error = metadata(issuer, token).check(&base).unwrap_err().to_string();
            assert!(error.contains(words), "{issuer} {token}: {error}");
        }
        let elsewhere = "https://evil.example.com/device".parse().ok();
        let device = Metadata { device_authorization_endpoint: elsewhere, ..metadata(own, token) };
        assert!(device.check(&base).unwrap_err().to_string().contains("somewhere else"));
    }

    #[test]
    fn forms_are_encoded() {
        assert_eq!(urlencoded(&[("a", "x y&z=1"), ("b", "é/:")]), "a=x+y%26z%3D1&b=%C3%A9%2F%3A");
    }
}

//! Which gateway, and which authority vouches for it: a file that was named, the one that was pinned before, the
//! platform's, or, shown to a person and confirmed, the one that the gateway itself hands out.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use reqwest::Url;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;

use super::oauth::Metadata;
use super::{has_terminal, says_yes};
use crate::cli::Usage;
use crate::cli::client::{Trust, Untrusted, call, fingerprint, gateway_url, http, origin, pinned, read, read_json};
use crate::cli::profile::{self, Known, Profile};

/// A gateway that is trusted, and what it says about itself.
pub(super) struct Met {
    pub base: Url,
    pub http: reqwest::Client,
    pub metadata: Metadata,
    /// Where SSH is, if it says so.
    pub ssh_port: Option<u16>,
    trust: Trust,
}

impl Met {
    /// The pinned authority, PEM; none where the platform vouches.
    pub fn authority(&self) -> Option<&[u8]> {
        match &self.trust {
            Trust::Only(pem) => Some(pem),
            Trust::Platform | Trust::Unchecked => None,
        }
    }

    /// The fingerprint to pin it by.
    pub fn pinned(&self) -> anyhow::Result<Option<String>> {
        self.authority().map(fingerprint).transpose()
    }
}

/// The gateway that was named, or the one known before.
pub(super) fn gateway(named: Option<&str>, known: Option<&Known>) -> anyhow::Result<Url> {
    match (named, known) {
        (Some(named), _) => gateway_url(named),
        (None, Some(known)) => gateway_url(&known.url),
        (None, None) => Err(Usage("which gateway? run: gatescribe login --gateway https://…".into()).into()),
    }
}

/// Finds out whom to trust and asks the gateway what it is.
pub(super) async fn meet(base: &Url, ca: Option<&Path>, profile: &Profile) -> anyhow::Result<Met> {
    let known = profile.known()?.filter(|known| known.url == origin(base));
    match (ca, known) {
        (Some(file), _) => {
            let pem = fs::read(file).with_context(|| file.display().to_string())?;
            fingerprint(&pem).with_context(|| file.display().to_string())?;
            match with(base, Trust::Only(pem)).await {
                Err(error) if error.is::<Untrusted>() => bail!(
                    "the certificate of {} is not signed by the authority in {}; get the right file from whoever runs \
                     the gateway",
                    origin(base),
                    file.display()
                ),
                met => met,
            }
        }
        // A person is asked about a gateway once: whoever gets between must not be able to have the question come again.
        (None, Some(known)) if known.ca_sha256.is_none() => match with(base, Trust::Platform).await {
            Err(error) if error.is::<Untrusted>() => bail!(
                "the certificate of {} is not signed by an authority that this machine trusts, as it was before; if \
                 the gateway got another one, ask whoever runs it for the file and run: gatescribe login --ca FILE",
                origin(base)
            ),
            met => met,
        },
        (None, Some(known)) => match with(base, pinned(profile, &known)?).await {
            Err(error) if error.is::<Untrusted>() => bail!(
                "the certificate of {} is not signed by the authority pinned in {}; if the gateway got a new one, ask \
                 for its file and run: gatescribe login --ca FILE",
                origin(base),
                profile.path(profile::CA).display()
            ),
            met => met,
        },
        (None, None) => match with(base, Trust::Platform).await {
            Err(error) if error.is::<Untrusted>() => ask(base).await,
            met => met,
        },
    }
}

async fn with(base: &Url, trust: Trust) -> anyhow::Result<Met> {
    let http = http(base, &trust)?;
    let metadata = Metadata::ask(base, &http).await?;
    let ssh_port = about(base, &http).await.ok().and_then(|about| about.ssh_port);
    Ok(Met { base: base.clone(), http, metadata, ssh_port, trust })
}

/// What a gateway tells everybody.
#[derive(Deserialize)]
struct About {
    ssh_port: Option<u16>,
}

async fn about(base: &Url, http: &reqwest::Client) -> anyhow::Result<About> {
    read_json(base, call(base, http.get(base.join("/.well-known/gatescribe")?)).await?).await
}

/// Gets the authority from the gateway, unchecked, and has a person compare it.
async fn ask(base: &Url) -> anyhow::Result<Met> {
    let name = origin(base);
    let request = http(base, &Trust::Unchecked)?.get(base.join("/ca.pem")?);
    let given = read(base, call(base, request).await?).await?;
    // One certificate, so that nothing is trusted that was not shown.
    let der = CertificateDer::from_pem_slice(&given);
    let der = der.map_err(|_| anyhow::anyhow!("{name} hands out no certificate authority; name its file with --ca"))?;
    let authority = pem(&der);
    let met = with(base, Trust::Only(authority.clone().into_bytes())).await;
    let met = met.map_err(|error| match error.is::<Untrusted>() {
        true => anyhow::anyhow!("{name} does not use the authority that it hands out; name the right file with --ca"),
        false => error,
    })?;
    if !has_terminal() {
        bail!(
            "the certificate authority of {name} is not known here, and there is no terminal to ask at; get its file \
             from whoever runs the gateway and run: gatescribe login --gateway {name} --ca FILE"
        );
    }
    eprintln!("The certificate authority of {name} is not known to this machine. Its SHA-256 fingerprint:\n");
    eprintln!("{}", shown(&fingerprint(authority.as_bytes())?));
    eprintln!("Compare it with what whoever runs the gateway says. There it is shown by:\n");
    eprintln!("    openssl x509 -in ca.pem -noout -fingerprint -sha256\n");
    eprint!("Trust it for this gateway from now on? [yes/no] ");
    if says_yes()? { Ok(met) } else { bail!("the authority is not trusted, so nothing was done") }
}

/// As openssl shows it, in two lines.
fn shown(fingerprint: &str) -> String {
    let pairs: Vec<&str> = (0..fingerprint.len()).step_by(2).filter_map(|at| fingerprint.get(at..at + 2)).collect();
    let lines = pairs.chunks(16).map(|line| format!("    {}\n", line.join(":").to_ascii_uppercase()));
    lines.collect()
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).filter_map(|at| text.get(at..(at + 64).min(text.len()))).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_one_certificate() {
        let made = || rcgen::generate_simple_self_signed(["a.example.com".to_owned()]).unwrap().cert;
        let (first, second) = (made(), made());
        let both = format!("{}{}", first.pem(), second.pem());
        let der = CertificateDer::from_pem_slice(both.as_bytes()).unwrap();
        let one = pem(&der);
        assert_eq!(CertificateDer::pem_slice_iter(one.as_bytes()).count(), 1);
        assert_eq!(CertificateDer::from_pem_slice(one.as_bytes()).unwrap(), *first.der());
        assert_eq!(fingerprint(one.as_bytes()).unwrap(), fingerprint(first.pem().as_bytes()).unwrap());
        assert_ne!(fingerprint(both.as_bytes()).unwrap(), fingerprint(one.as_bytes()).unwrap(), "all of a file counts");
    }

    #[test]
    fn a_fingerprint_is_shown_as_openssl_shows_it() {
        let text = shown(&"0a".repeat(32));
        assert_eq!(text.lines().count(), 2);
        assert_eq!(text.lines().next().unwrap().trim(), ["0A"; 16].join(":"));
    }

    #[test]
    fn the_gateway_is_the_named_one_or_the_known_one() {
        let known = Known { url: "https://a.example.com".into(), ..Known::default() };
        assert_eq!(origin(&gateway(None, Some(&known)).unwrap()), "https://a.example.com");
        assert_eq!(origin(&gateway(Some("https://b.example.com"), Some(&known)).unwrap()), "https://b.example.com");
        assert!(gateway(None, None).unwrap_err().is::<Usage>());
    }
}

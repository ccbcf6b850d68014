//! Names and addresses as typed: domains, `host:port`, origins. Pure; resolves nothing.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::socket::HostPort;

/// Why something is no name or address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Not a domain name.
    #[error("this is no domain name")]
    Domain,
    /// Not a DNS label.
    #[error("this is no DNS label: lower-case letters, digits and inner hyphens, at most 63")]
    Label,
    /// Not a host.
    #[error("this is no host name or address")]
    Host,
    /// An IPv6 address without brackets.
    #[error("an IPv6 address stands in brackets")]
    Brackets,
    /// Not a port.
    #[error("the port is not between 1 and 65535")]
    Port,
    /// Not `https://host[:port]`.
    #[error("this is no https URL of a host alone")]
    Origin,
}

/// `https://host[:port]`: where browsers reach the gateway. Printed without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name or address, lower case; an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = HostPort { host: self.host.clone(), port: self.port }.to_string();
        write!(f, "https://{}", at.strip_suffix(":443").unwrap_or(&at))
    }
}

/// One DNS label in lower case (RFC 1035 section 2.3.1, with RFC 1123 section 2.1: a digit may come first).
pub fn label(text: &str) -> Result<String, HostError> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = (1..=63).contains(&text.len()) && text.chars().all(inner);
    match good && !text.starts_with('-') && !text.ends_with('-') {
        true => Ok(text.to_owned()),
        false => Err(HostError::Label),
    }
}

/// A domain name, given back in lower case.
pub fn domain(text: &str) -> Result<String, HostError> {
    let lower = text.to_ascii_lowercase();
    let good = lower.len() <= 253 && lower.split('.').all(|part| label(part).is_ok());
    let number = lower.rsplit('.').next().is_some_and(|last| last.chars().all(|c| c.is_ascii_digit()));
    if good && !number { Ok(lower) } else { Err(HostError::Domain) }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
pub fn host_port(text: &str, default: u16) -> Result<HostPort, HostError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or(HostError::Brackets)?;
        let host = host.parse::<Ipv6Addr>().map_err(|_| HostError::Host)?.to_string();
        let number = match rest.strip_prefix(':') {
            Some(number) => port(number)?,
            None if rest.is_empty() => default,
            None => return Err(HostError::Port),
        };
        return Ok(HostPort { host, port: number });
    }
    let (host, number) = match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => return Err(HostError::Brackets),
        Some((host, number)) => (host, port(number)?),
        None => (text, default),
    };
    Ok(HostPort { host: name(host)?, port: number })
}

/// An origin (RFC 6454) with scheme https and nothing behind it.
pub fn origin(text: &str) -> Result<Origin, HostError> {
    let rest = text.strip_prefix("https://").ok_or(HostError::Origin)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return Err(HostError::Origin);
    }
    let HostPort { host, port } = host_port(rest, 443)?;
    Ok(Origin { host: host.to_ascii_lowercase(), port })
}

/// The host of an issuer's URL: https anywhere, http on this host alone. What else is in it is the provider's business.
pub fn issuer_host(text: &str) -> Option<String> {
    let (secure, rest) = match text.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix("http://")?),
    };
    if text.contains(['?', '#', '@']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let host = host_port(rest.split('/').next()?, 443).ok()?.host;
    let local = host == "localhost" || host == "::1" || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback());
    (secure || local).then_some(host)
}

/// Where a collector takes traces, as a whole URL: without a path, `/v1/traces` is meant (OTLP/HTTP).
pub fn collector(text: &str) -> Result<String, HostError> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(HostError::Host)?;
    if text.contains(['?', '#', '@']) || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(HostError::Host);
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    host_port(authority, 4318)?;
    Ok(match path.is_empty() {
        true => format!("{}/v1/traces", text.trim_end_matches('/')),
        false => text.to_owned(),
    })
}

/// A host name or an IPv4 address. Underscores occur in the names of containers.
fn name(text: &str) -> Result<String, HostError> {
    let part = |part: &str| {
        let inner = part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        (1..=63).contains(&part.len()) && inner && !part.starts_with('-')
    };
    let numbers = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    let address = !numbers || text.parse::<Ipv4Addr>().is_ok();
    let good = text.len() <= 253 && address && text.strip_suffix('.').unwrap_or(text).split('.').all(part);
    if good { Ok(text.to_owned()) } else { Err(HostError::Host) }
}

fn port(text: &str) -> Result<u16, HostError> {
    let digits = text.chars().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0).ok_or(HostError::Port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        use HostError as E;
        for (text, expected) in [
            ("10.0.0.5:22", Ok("10.0.0.5:22")),
            ("10.0.0.5", Ok("10.0.0.5:7")),
            ("web-1.example.com:2222", Ok("web-1.example.com:2222")),
            ("my_container", Ok("my_container:7")),
            ("[::1]:22", Ok("[::1]:22")),
            ("[2001:DB8::1]", Ok("[2001:db8::1]:7")),
            ("::1", Err(E::Brackets)),
            ("[::1", Err(E::Brackets)),
            ("[::1]22", Err(E::Port)),
            ("[web]:22", Err(E::Host)),
            ("web:", Err(E::Port)),
            ("web:0", Err(E::Port)),
            ("web:65536", Err(E::Port)),
            ("web:+22", Err(E::Port)),
            ("web:ssh", Err(E::Port)),
            (":22", Err(E::Host)),
            ("", Err(E::Host)),
            ("10.0.0.256:22", Err(E::Host)),
            ("-oProxyCommand=x", Err(E::Host)),
            ("a b", Err(E::Host)),
            ("a..b", Err(E::Host)),
            ("ssh://web", Err(E::Port)),
        ] {
            assert_eq!(host_port(text, 7).map(|at| at.to_string()), expected.map(Into::into), "{text:?}");
        }
    }

    #[test]
    fn labels_domains_origins() {
        for (text, good) in [("web-1", true), ("1", true), ("a".repeat(63).as_str(), true)] {
            assert_eq!(label(text).is_ok(), good, "{text}");
        }
        for text in ["", "Web", "-a", "a-", "a.b", "a_b", "é", "a".repeat(64).as_str()] {
            assert_eq!(label(text), Err(HostError::Label), "{text}");
        }
        assert_eq!(domain("Access.Example.COM").as_deref(), Ok("access.example.com"));
        assert_eq!(domain("localhost").as_deref(), Ok("localhost"));
        for text in ["", "10.0.0.1", "a..b", ".a", "a.", "*.a", "a:1", "https://a"] {
            assert_eq!(domain(text), Err(HostError::Domain), "{text}");
        }
        for (text, expected) in [
            ("https://a.example.com:8443", Some("https://a.example.com:8443")),
            ("https://A.example.com:443/", Some("https://a.example.com")),
            ("https://[::1]:8443", Some("https://[::1]:8443")),
            ("http://a.example.com", None),
            ("https://a.example.com/app", None),
            ("https://u@a.example.com", None),
            ("https://", None),
            ("a.example.com", None),
        ] {
            assert_eq!(origin(text).ok().map(|url| url.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn issuers_are_https_or_local() {
        for (text, good) in [
            ("https://idp.example.com", true),
            ("https://idp.example.com/realms/a/", true),
            ("http://127.0.0.1:9000", true),
            ("http://localhost:9000/x", true),
            ("http://[::1]:9000", true),
            ("http://idp.example.com", false),
            ("http://127.0.0.1.example.com", false),
            ("http://localhost@idp.example.com", false),
            ("https://idp.example.com?x", false),
            ("https://idp.example.com ", false),
            ("ftp://localhost", false),
            ("", false),
        ] {
            assert_eq!(issuer_host(text).is_some(), good, "{text}");
        }
    }
}

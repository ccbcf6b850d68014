//! What an OpenSSH `known_hosts` file says of one server (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): its keys, the authorities
//! that may vouch for it, and what is revoked.
//!
//! Plain lines are read by russh. The marked ones are read here: a revoked key is refused for whatever address, and an
//! authority counts for the name with its port or, as OpenSSH does it, for the name alone.

use std::path::Path;

use russh::keys::known_hosts::known_host_keys_path;
use russh::keys::parse_public_key_base64;
use russh::keys::ssh_key::PublicKey;

use super::pattern;
use crate::socket::HostPort;

/// The longest file that is read.
const MOST: u64 = 16 << 20;

/// What a server may prove itself with.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed {
    /// The name that a certificate must be for.
    pub(super) host: String,
    /// Its keys.
    pub(super) keys: Vec<PublicKey>,
    /// Who may certify its key.
    pub(super) authorities: Vec<PublicKey>,
    /// What is never accepted, from anybody.
    pub(super) revoked: Vec<PublicKey>,
}

/// Reads the file for this address. `None`: it cannot be read. Blocking.
pub(super) fn read(path: &Path, address: &HostPort) -> Option<Listed> {
    // Read here first: russh takes a file that cannot be read for an empty one.
    let file = std::fs::File::open(path).ok()?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, MOST), &mut text).ok()?;
    let keys = known_host_keys_path(&address.host, address.port, path).ok()?;
    let keys = keys.into_iter().map(|(_, key)| key).collect();
    Some(Listed { keys, ..marked(&text, address) })
}

/// The marked lines.
fn marked(text: &str, address: &HostPort) -> Listed {
    let HostPort { host, port } = address;
    let with_port = format!("[{host}]:{port}");
    let names = [host.as_str(), with_port.as_str()];
    let mut listed = Listed { host: host.clone(), ..Listed::default() };
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(marker), Some(hosts), Some(_), Some(key)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Ok(key) = parse_public_key_base64(key) else { continue };
        match marker {
            "@revoked" => listed.revoked.push(key),
            "@cert-authority" if pattern::list_matches(hosts, &names) => listed.authorities.push(key),
            _ => {}
        }
    }
    listed
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;
    use russh::keys::ssh_key::private::Ed25519Keypair;

    use super::*;

    fn key(seed: u8) -> PublicKey {
        PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32])).public_key().clone()
    }

    fn line(seed: u8) -> String {
        key(seed).to_openssh().unwrap()
    }

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    #[test]
    fn authorities_count_for_their_hosts_and_what_is_revoked_for_all() {
        let text = format!(
            "# @revoked * {0}\n@cert-authority *.example.com,!bad.example.com {1} with a comment\n\
             \t@cert-authority\t[10.0.0.5]:2222\t{2}\n@revoked other {3}\n@cert-authority * ssh-ed25519 no-key\n\
             @cert-authority *.example.com\n@other * {4}\n",
            line(1),
            line(2),
            line(3),
            line(4),
            line(5)
        );
        for (address, authorities) in [
            (at("web.example.com", 22), vec![key(2)]),
            (at("web.example.com", 2222), vec![key(2)]),
            (at("bad.example.com", 22), vec![]),
            (at("example.com", 22), vec![]),
            (at("10.0.0.5", 2222), vec![key(3)]),
            (at("10.0.0.5", 22), vec![]),
        ] {
            let listed = marked(&text, &address);
            assert_eq!(listed.authorities, authorities, "{address}");
            assert_eq!((listed.revoked, listed.host), (vec![key(4)], address.host));
        }
    }

    #[test]
    fn a_file_gives_keys_and_authorities_and_none_is_no_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        std::fs::write(&path, format!("[a]:7 {}\n@cert-authority a {}\n", line(1), line(2))).unwrap();
        let listed = read(&path, &at("a", 7)).unwrap();
        assert_eq!((listed.keys, listed.authorities), (vec![key(1)], vec![key(2)]));
        let other = read(&path, &at("b", 7)).unwrap();
        assert!(other.keys.is_empty() && other.authorities.is_empty());
        assert!(read(&dir.path().join("none"), &at("a", 7)).is_none());
    }
}

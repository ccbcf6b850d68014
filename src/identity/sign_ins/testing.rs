//! Sign-ins over a test's book, with authorities of their own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Parts, SignIns};
use crate::identity::grants::{GrantSettings, Grants};
use crate::identity::link::{LinkSettings, Links, OtherAddress};
use crate::identity::ssh_ca::SshCa;
use crate::identity::tokens::Tokens;
use crate::identity::x509_ca::GatewayCa;
use crate::store::Store;

/// The provider that `store::testing::identity` names.
pub(crate) const ISSUER: &str = "https://idp.example.com";

pub(crate) fn sign_ins(dir: &Path, store: &Store, tokens: &Tokens) -> SignIns {
    SignIns::new(Parts {
        store: store.clone(),
        tokens: tokens.clone(),
        grants: Grants::new(GrantSettings { device_groups: vec!["engineering".into()], ..GrantSettings::default() }),
        links: links(),
        issuer: ISSUER.to_owned(),
        ssh_ca: SshCa::load_or_create(&dir.join("ssh_user_ca")).unwrap(),
        known_hosts: "@cert-authority access.example.com ssh-ed25519 AAAA".to_owned(),
        x509_ca: Arc::new(GatewayCa::load_or_create(dir).unwrap()),
    })
}

pub(crate) fn links() -> Links {
    Links::new(LinkSettings {
        public_url: "https://access.example.com:8443/".parse().unwrap(),
        lifetime: Duration::from_secs(300),
        other_address: OtherAddress::Confirm,
        max_waiting: 8,
        max_per_address: 8,
        pace: Arc::new(crate::pace::SignInPace::new(1000)),
    })
}

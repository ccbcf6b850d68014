use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::advance;

use super::*;
use crate::identity::link::{LinkRefused, Place};
use crate::store::testing::identity;

const VERIFIER: &str = "a-verifier-that-is-just-long-enough-0123456";
const HERE: &str = "192.0.2.1";
const THERE: &str = "198.51.100.7";
const SECOND: Duration = Duration::from_secs(1);

fn who() -> Identity {
    identity(Timestamp::now() + SignedDuration::from_hours(1))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn grants(groups: &[&str], other_address: OtherAddress) -> Grants {
    Grants::new(GrantSettings {
        device_groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        other_address,
    })
}

fn redirect() -> RedirectUri {
    RedirectUri::parse("http://127.0.0.1:4000/callback").unwrap()
}

fn challenge() -> Challenge {
    Challenge::parse(&URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()))).unwrap()
}

#[test]
fn a_redirect_leads_to_loopback_in_one_spelling() {
    for good in ["http://127.0.0.1:1/callback", "http://127.0.0.1:65535/callback", "http://[::1]:4000/callback"] {
        assert_eq!(RedirectUri::parse(good).unwrap().as_str(), good);
    }
    let bad = [
        "",
        "http://localhost:4000/callback",
        "https://127.0.0.1:4000/callback",
        "http://127.0.0.1/callback",
        "http://127.0.0.1:/callback",
        "http://127.0.0.1:0/callback",
        "http://127.0.0.1:04000/callback",
        "http://127.0.0.1:+4000/callback",
        "http://127.0.0.1:65536/callback",
        "http://127.0.0.1:4000/callback/",
        "http://127.0.0.1:4000/callback?x=1",
        "http://127.0.0.1:4000/callback#x",
        "http://127.0.0.1:4000@evil.example.com/callback",
        "http://127.0.0.1:4000.evil.example.com/callback",
        "http://user@127.0.0.1:4000/callback",
        "http://127.0.0.2:4000/callback",
        "http://[::2]:4000/callback",
        "HTTP://127.0.0.1:4000/callback",
        " http://127.0.0.1:4000/callback",
        "http://127.0.0.1:4000/callback\n",
    ];
    for bad in bad {
        assert_eq!(RedirectUri::parse(bad), None, "{bad:?}");
    }
    let url = redirect().with(&[("code", "a&b")]).unwrap();
    assert_eq!(url.as_str(), "http://127.0.0.1:4000/callback?code=a%26b");
    assert_eq!(redirect().form_action(), "http://127.0.0.1:4000");
}

#[test]
fn a_challenge_is_a_hash_and_a_verifier_is_well_formed() {
    let good = challenge();
    assert!(good.holds(VERIFIER));
    for wrong in ["", good.as_str(), &VERIFIER[1..], "b-verifier-that-is-just-long-enough-0123456"] {
        assert!(!good.holds(wrong), "{wrong}");
    }
    // Right hashes of what no verifier may be (RFC 7636 section 4.1).
    for verifier in ["short".to_owned(), "x".repeat(129), format!("{VERIFIER} "), format!("{VERIFIER}é")] {
        let challenge = Challenge::parse(&URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))).unwrap();
        assert!(!challenge.holds(&verifier), "{verifier}");
    }
    for bad in ["", "plain", VERIFIER, &format!("{}=", good.as_str()), &good.as_str()[1..]] {
        assert_eq!(Challenge::parse(bad), None, "{bad}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_code_counts_once_for_a_minute_with_all_that_it_was_made_for() {
    let grants = grants(&[], OtherAddress::Confirm);
    let issue = || grants.issue_code(redirect(), challenge(), who(), ip(HERE)).unwrap();
    let code = issue();
    assert_eq!(
        grants.redeem_code(&code, redirect().as_str(), VERIFIER, ip(HERE)).unwrap().email(),
        "alice@example.com"
    );
    let sign_in = Uuid::now_v7();
    assert!(grants.came_of_code(&code, sign_in));
    let again = grants.redeem_code(&code, redirect().as_str(), VERIFIER, ip(HERE));
    assert_eq!(again, Err(CodeRefused::Reused(Some(sign_in))));

    let other = "http://127.0.0.1:4001/callback";
    for (redirect, verifier) in [(other, VERIFIER), (redirect().as_str(), "wrong"), (redirect().as_str(), "")] {
        let code = issue();
        assert_eq!(grants.redeem_code(&code, redirect, verifier, ip(HERE)), Err(CodeRefused::Invalid));
        let late = grants.redeem_code(&code, self::redirect().as_str(), VERIFIER, ip(HERE));
        assert!(late.is_err(), "a failed try spends the code");
    }
    assert_eq!(grants.redeem_code("", redirect().as_str(), VERIFIER, ip(HERE)), Err(CodeRefused::Invalid));

    let (early, late) = (issue(), issue());
    advance(Duration::from_secs(59)).await;
    assert!(grants.redeem_code(&early, redirect().as_str(), VERIFIER, ip(HERE)).is_ok());
    advance(SECOND).await;
    assert_eq!(grants.redeem_code(&late, redirect().as_str(), VERIFIER, ip(HERE)), Err(CodeRefused::Invalid));
}

#[tokio::test(start_paused = true)]
async fn a_code_that_is_seen_again_before_its_sign_in_is_there_still_ends_it() {
    let grants = grants(&[], OtherAddress::Confirm);
    let code = grants.issue_code(redirect(), challenge(), who(), ip(HERE)).unwrap();
    grants.redeem_code(&code, redirect().as_str(), VERIFIER, ip(HERE)).unwrap();
    assert_eq!(grants.redeem_code(&code, redirect().as_str(), VERIFIER, ip(HERE)), Err(CodeRefused::Reused(None)));
    assert!(!grants.came_of_code(&code, Uuid::now_v7()));
}

#[tokio::test(start_paused = true)]
async fn a_code_is_for_the_machine_where_it_was_agreed_to() {
    for other_address in [OtherAddress::Confirm, OtherAddress::Deny] {
        let grants = grants(&[], other_address);
        let issue = |browser: &str| grants.issue_code(redirect(), challenge(), who(), ip(browser)).unwrap();
        let redeem = |code: &str, from: &str| grants.redeem_code(code, redirect().as_str(), VERIFIER, ip(from));
        let code = issue(HERE);
        let refused = CodeRefused::OtherPlace { browser: ip(HERE), program: ip(THERE) };
        assert_eq!(redeem(&code, THERE), Err(refused));
        assert_eq!(redeem(&code, HERE), Err(CodeRefused::Reused(None)), "it is spent");
        for (browser, from) in [(HERE, "::ffff:192.0.2.1"), ("127.0.0.1", "::1")] {
            assert!(redeem(&issue(browser), from).is_ok(), "{browser} {from}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_persons_codes_push_out_their_own_oldest() {
    let grants = grants(&[], OtherAddress::Confirm);
    let issue = || grants.issue_code(redirect(), challenge(), who(), ip(HERE)).unwrap();
    let first = issue();
    advance(SECOND).await;
    let rest: Vec<_> = (0..16).map(|_| issue()).collect();
    assert!(grants.redeem_code(&first, redirect().as_str(), VERIFIER, ip(HERE)).is_err());
    assert!(grants.redeem_code(&rest[15], redirect().as_str(), VERIFIER, ip(HERE)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_device_is_signed_in_by_who_may_and_told_once() {
    let grants = grants(&["engineering"], OtherAddress::Confirm);
    let device = grants.ask_for_device(ip(HERE), "gatescribe/0.1\x1b[2J").unwrap();
    assert_eq!(device.user_code.len(), 9);
    assert_eq!(grants.poll_device(&device.device_code), Polled::Pending);
    let typed = device.user_code.to_lowercase().replace('-', " ");
    let asked = grants.look_at_device(&typed, &who(), ip(HERE)).unwrap();
    assert_eq!((asked.place, asked.from), (Place::Same, ip(HERE)));
    assert_eq!(asked.software, "gatescribe/0.1?[2J");
    grants.approve_device(&typed, who(), ip(HERE), false).unwrap();
    let again = grants.approve_device(&typed, who(), ip(HERE), false);
    assert_eq!(again, Err(DeviceRefused::Unknown), "once");
    advance(5 * SECOND).await;
    assert!(
        matches!(grants.poll_device(&device.device_code), Polled::SignedIn(who) if who.email() == "alice@example.com")
    );
    advance(5 * SECOND).await;
    assert_eq!(grants.poll_device(&device.device_code), Polled::Expired);
    assert_eq!(grants.poll_device("nonsense"), Polled::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_asks_too_often_waits_longer_and_learns_nothing() {
    let grants = grants(&["engineering"], OtherAddress::Confirm);
    let device = grants.ask_for_device(ip(HERE), "").unwrap();
    let poll = || grants.poll_device(&device.device_code);
    assert_eq!(poll(), Polled::Pending);
    advance(4 * SECOND).await;
    assert_eq!(poll(), Polled::SlowDown);
    grants.approve_device(&device.user_code, who(), ip(HERE), false).unwrap();
    advance(9 * SECOND).await;
    assert_eq!(poll(), Polled::SlowDown, "ten seconds now");
    advance(15 * SECOND).await;
    assert!(matches!(poll(), Polled::SignedIn(_)));
}

#[tokio::test(start_paused = true)]
async fn a_device_is_denied_or_expires() {
    let grants = grants(&["engineering"], OtherAddress::Confirm);
    let (denied, late) = (grants.ask_for_device(ip(HERE), "").unwrap(), grants.ask_for_device(ip(HERE), "").unwrap());
    grants.deny_device(&denied.user_code, &who()).unwrap();
    assert_eq!(grants.poll_device(&denied.device_code), Polled::Denied);
    assert_eq!(grants.poll_device(&denied.device_code), Polled::Expired);
    advance(Duration::from_secs(600)).await;
    assert_eq!(grants.poll_device(&late.device_code), Polled::Expired);
    let refused = grants.approve_device(&late.user_code, who(), ip(HERE), false);
    assert_eq!(refused, Err(DeviceRefused::Unknown));
}

#[tokio::test(start_paused = true)]
async fn who_is_in_no_named_group_signs_no_device_in() {
    let off = grants(&[], OtherAddress::Confirm);
    assert_eq!(off.ask_for_device(ip(HERE), "").unwrap_err(), DeviceRefused::Off);
    let grants = grants(&["oncall"], OtherAddress::Confirm);
    let device = grants.ask_for_device(ip(HERE), "").unwrap();
    assert_eq!(grants.look_at_device(&device.user_code, &who(), ip(HERE)).unwrap_err(), DeviceRefused::Group);
    let refused = grants.approve_device(&device.user_code, who(), ip(HERE), true);
    assert_eq!(refused, Err(DeviceRefused::Group));
    assert_eq!(grants.deny_device(&device.user_code, &who()), Err(DeviceRefused::Group));
    assert_eq!(grants.poll_device(&device.device_code), Polled::Pending);
}

#[tokio::test(start_paused = true)]
async fn two_places_need_a_fresh_sign_in_or_are_refused() {
    let grants = grants(&["engineering"], OtherAddress::Confirm);
    let device = grants.ask_for_device(ip(HERE), "").unwrap();
    let asked = grants.look_at_device(&device.user_code, &who(), ip(THERE)).unwrap();
    assert_eq!(asked.place, Place::Other { terminal: ip(HERE) });
    let refused = grants.approve_device(&device.user_code, who(), ip(THERE), false);
    assert!(matches!(refused, Err(DeviceRefused::Place(LinkRefused::OtherAddress { .. }))));
    grants.approve_device(&device.user_code, who(), ip(THERE), true).unwrap();

    let strict = self::grants(&["engineering"], OtherAddress::Deny);
    let device = strict.ask_for_device(ip(HERE), "").unwrap();
    let refused = strict.approve_device(&device.user_code, who(), ip(THERE), true);
    assert!(matches!(refused, Err(DeviceRefused::Place(LinkRefused::OtherAddressForbidden { .. }))));
    strict.approve_device(&device.user_code, who(), ip(HERE), false).unwrap();
}

#[tokio::test(start_paused = true)]
async fn guessing_codes_and_asking_without_end_stop() {
    let grants = grants(&["engineering"], OtherAddress::Confirm);
    let device = grants.ask_for_device(ip(HERE), "").unwrap();
    for _ in 0..10 {
        let refused = grants.look_at_device("BBBB-BBBB", &who(), ip(HERE)).unwrap_err();
        assert_eq!(refused, DeviceRefused::Unknown);
    }
    let refused = grants.look_at_device(&device.user_code, &who(), ip(HERE)).unwrap_err();
    assert_eq!(refused, DeviceRefused::TooManyTries);
    advance(Duration::from_secs(600)).await;
    for _ in 0..32 {
        grants.ask_for_device(ip(HERE), "").unwrap();
    }
    assert_eq!(grants.ask_for_device(ip(HERE), "").unwrap_err(), DeviceRefused::TooMany);
    assert!(grants.ask_for_device(ip(THERE), "").is_ok(), "others may");
    let over = identity(Timestamp::now() - SignedDuration::from_secs(1));
    let device = grants.ask_for_device(ip(THERE), "").unwrap();
    let refused = grants.approve_device(&device.user_code, &over, ip(THERE), false);
    assert_eq!(refused, Err(DeviceRefused::SignInExpired));
}

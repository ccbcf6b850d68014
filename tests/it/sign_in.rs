//! Signing in by a link: what the terminal shows, what the browser asks, and everything that must not work.

use std::time::Duration;

use gatescribe::identity::dev_issuer::Flaw;
use gatescribe::store::{AuthResult, EventStatus, Outcome};

use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually, within};

async fn gate() -> (Sshd, Gateway) {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh("web", &sshd).start().await;
    (sshd, gateway)
}

#[tokio::test]
async fn a_link_signs_in_and_the_row_says_who() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    let mut sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let shown = sign_in.ssh.stderr();
    assert!(shown.is_ascii() && shown.len() < 1400, "{shown:?}");
    assert!(sign_in.link.starts_with(&gateway.url("/")), "links are made of public_url: {}", sign_in.link);
    let mut browser = gateway.browser();
    let page = browser.sign_in(&sign_in.link, "alice").await;
    let text = page.text();
    for fact in ["web", "127.0.0.1", "alice@example.com"] {
        assert!(text.contains(fact), "the page does not say {fact}: {text}");
    }
    let page = browser.submit(&page.form("approve")).await;
    let digits = page.digits().unwrap();
    eventually("the terminal asks for the digits", SOON, async || (sign_in.asked().len() == 1).then_some(())).await;
    sign_in.answer(&digits);
    let done = sign_in.ssh.finish(SOON).await;
    assert_eq!(done.ok(), "in\n");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!((row.user_email.as_str(), row.sub.as_str()), ("alice@example.com", "dev-1"));
    assert_eq!((row.name.as_deref(), row.nickname.as_deref()), (Some("Alice Archer"), Some("alice")));
    assert!(row.picture.is_some());
    assert_eq!((row.result, row.client_ip.as_str()), (AuthResult::Success, "127.0.0.1"));
    assert!(row.events.iter().any(|e| e.kind == "sign_in" && e.status == EventStatus::Success), "{row:?}");
    assert!(row.events.iter().any(|e| e.metadata.to_string().contains("OpenSSH")), "the client's software: {row:?}");
}

#[tokio::test]
async fn a_key_proved_when_a_link_was_approved_is_remembered_and_no_other() {
    let (_sshd, gateway) = gate().await;
    let stranger = Ssh::new(gateway.ssh);
    let batch = ["-o", "BatchMode=yes", "web@gate", "echo in"];
    let refused = stranger.start(&batch).finish(SOON).await;
    assert_eq!(refused.status, Some(255));
    assert!(refused.stderr.contains("gatescribe: "), "it is told how to sign in: {refused:?}");
    let ssh = gateway.signed_in("alice", "web").await;
    assert_eq!(ssh.start(&batch).finish(SOON).await.ok(), "in\n");
    assert_eq!(stranger.start(&batch).finish(SOON).await.status, Some(255));
    // Not without the private key: the public half is known to everybody.
    let thief = Ssh::new(gateway.ssh);
    std::fs::copy(ssh.path("id.pub"), thief.path("id.pub")).unwrap();
    assert_eq!(thief.start(&batch).finish(SOON).await.status, Some(255));
}

#[tokio::test]
async fn wrong_digits_three_times_are_the_end() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    let mut sign_in = ssh.sign_in(&["web@gate", "true"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    let wrong = format!("{:06}", (digits.parse::<u32>().unwrap() + 1) % 1_000_000);
    for _ in 0..3 {
        sign_in.answer(&wrong);
    }
    // Even the right ones come too late.
    sign_in.answer(&digits);
    let asked = sign_in.asked();
    let done = sign_in.ssh.finish(SOON).await;
    assert_eq!(done.status, Some(255), "{done:?}");
    assert!(asked.len() <= 3, "{asked:?}");
    assert!(done.refusal().contains("connect again"), "{done:?}");
    assert!(gateway.admin().await.rows("socket_name=web").await.is_empty());
    // The key was not remembered.
    assert_eq!(ssh.start(&["-o", "BatchMode=yes", "web@gate", "true"]).finish(SOON).await.status, Some(255));
}

#[tokio::test]
async fn a_person_may_take_their_time_over_the_digits() {
    let (_sshd, gateway) = gate().await;
    let mut sign_in = Ssh::new(gateway.ssh).sign_in(&["web@gate", "echo in"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    eventually("the terminal asks", SOON, async || (!sign_in.asked().is_empty()).then_some(())).await;
    // Longer than keepalives are apart: anything that the gateway sends during authentication ends OpenSSH.
    tokio::time::sleep(Duration::from_secs(20)).await;
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
}

#[tokio::test]
async fn the_second_try_may_be_the_right_one() {
    let (_sshd, gateway) = gate().await;
    let mut sign_in = Ssh::new(gateway.ssh).sign_in(&["web@gate", "echo in"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer("12345");
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
}

#[tokio::test]
async fn a_link_holds_once_and_only_while_its_connection_waits() {
    let (_sshd, gateway) = gate().await;
    let mut browser = gateway.browser();
    // Unknown.
    let mut sign_in = Ssh::new(gateway.ssh).sign_in(&["web@gate", "true"]).await;
    let mut unknown = sign_in.link.clone();
    let last = unknown.pop().unwrap();
    unknown.push(if last == 'A' { 'B' } else { 'A' });
    let page = browser.sign_in(&unknown, "alice").await;
    assert!(page.status.is_client_error() && page.find_form("approve").is_none(), "{page:?}");
    // Used.
    browser.approve(&sign_in.link, "alice").await;
    let again = browser.open(&sign_in.link).await;
    assert!(again.find_form("approve").is_none() && again.digits().is_none(), "{again:?}");
    // Gone: the page was open when the client went away.
    let mut gone = Ssh::new(gateway.ssh).sign_in(&["web@gate", "true"]).await;
    let page = browser.sign_in(&gone.link, "alice").await;
    let form = page.form("approve");
    gone.ssh.child.kill().await.unwrap();
    eventually("the link is void", SOON, async || {
        browser.open(&gone.link).await.find_form("approve").is_none().then_some(())
    })
    .await;
    let late = browser.submit(&form).await;
    assert!(late.digits().is_none() && late.status.is_client_error(), "{late:?}");
    sign_in.ssh.child.kill().await.unwrap();
}

#[tokio::test]
async fn approval_is_a_post_with_a_token_of_this_browser() {
    let (_sshd, gateway) = gate().await;
    let mut sign_in = Ssh::new(gateway.ssh).sign_in(&["web@gate", "true"]).await;
    let mut browser = gateway.browser();
    let page = browser.sign_in(&sign_in.link, "alice").await;
    let good = page.form("approve");
    let hidden: Vec<_> = good.names().into_iter().map(str::to_owned).collect();
    let token = hidden.iter().find(|name| name.contains("csrf")).expect("a CSRF token").clone();
    let mut without = good.clone();
    without.remove(&token);
    let mut wrong = good.clone();
    wrong.set(&token, "AAAAAAAAAAAAAAAAAAAAAA");
    for bad in [without, wrong] {
        let page = browser.submit(&bad).await;
        assert!(page.status.is_client_error() && page.digits().is_none(), "{page:?}");
    }
    // Another browser's token does not count here either.
    let mut other = gateway.browser();
    let theirs = other.sign_in(&sign_in.link, "bob").await.form("approve").remove(&token).unwrap();
    let mut stolen = good.clone();
    stolen.set(&token, &theirs);
    assert!(browser.submit(&stolen).await.status.is_client_error());
    assert!(browser.submit(&good).await.digits().is_some());
    sign_in.ssh.child.kill().await.unwrap();
}

#[tokio::test]
async fn a_denial_in_the_browser_ends_the_waiting() {
    let (_sshd, gateway) = gate().await;
    let sign_in = Ssh::new(gateway.ssh).sign_in(&["web@gate", "true"]).await;
    let mut browser = gateway.browser();
    let page = browser.sign_in(&sign_in.link, "alice").await;
    browser.submit(&page.form("deny")).await;
    let done = sign_in.ssh.finish(SOON).await;
    assert!(!done.refusal().is_empty());
}

#[tokio::test]
async fn connections_share_a_link_only_where_they_proved_the_same_key() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    let mut first = ssh.sign_in(&["web@gate", "echo first"]).await;
    let mut second = ssh.sign_in(&["web@gate", "echo second"]).await;
    assert_eq!(first.link, second.link);
    let mut other_key = Ssh::new(gateway.ssh).sign_in(&["web@gate", "true"]).await;
    assert_ne!(first.link, other_key.link);
    let keyless = Ssh::without_key(gateway.ssh);
    let mut one = keyless.sign_in(&["web@gate", "true"]).await;
    let mut two = keyless.sign_in(&["web@gate", "true"]).await;
    assert_ne!(one.link, two.link);
    let digits = gateway.browser().approve(&first.link, "alice").await;
    first.answer(&digits);
    second.answer(&digits);
    second.answer(&digits);
    assert_eq!(first.ssh.finish(SOON).await.ok(), "first\n");
    assert_eq!(second.ssh.finish(SOON).await.ok(), "second\n");
    for waiting in [&mut other_key, &mut one, &mut two] {
        assert!(waiting.ssh.child.try_wait().unwrap().is_none(), "only who proved the key was let in");
        waiting.ssh.child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn without_a_key_nothing_is_remembered() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::without_key(gateway.ssh);
    let mut sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
    let mut again = ssh.sign_in(&["web@gate", "true"]).await;
    again.ssh.child.kill().await.unwrap();
}

#[tokio::test]
async fn a_person_who_is_denied_is_told_once_and_is_a_row() {
    let (_sshd, gateway) = gate().await;
    let ssh = Ssh::new(gateway.ssh);
    let mut sign_in = ssh.sign_in(&["web@gate", "true"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "bob").await;
    sign_in.answer(&digits);
    let done = within(SOON, "the refusal", sign_in.ssh.finish(SOON)).await;
    assert_eq!(done.status, Some(255));
    assert_eq!(done.stderr.matches("gatescribe: ").count(), 2, "a banner, and one refusal: {done:?}");
    let row = gateway.admin().await.newest("web").await;
    assert_eq!((row.result, row.outcome), (AuthResult::Denied, Some(Outcome::Refused)));
    assert_eq!(row.user_email, "bob@example.com");
    assert!(row.end_time.is_some());
    assert!(done.stderr.contains(&row.session_id.to_string()), "the id under which it stands in the log: {done:?}");
}

#[tokio::test]
async fn tokens_that_are_not_right_sign_nobody_in() {
    let (_sshd, mut gateway) = gate().await;
    gateway.expect_errors();
    let mut sign_in = Ssh::new(gateway.ssh).sign_in(&["web@gate", "echo in"]).await;
    let flaws = [
        Flaw::Issuer,
        Flaw::Audience,
        Flaw::SecondAudienceForOther,
        Flaw::Expired,
        Flaw::Nonce,
        Flaw::AlgNone,
        Flaw::Hs256,
        Flaw::UnknownKey,
        Flaw::ForgedSignature,
        Flaw::AccessTokenHash,
    ];
    for flaw in flaws {
        gateway.issuer.as_ref().unwrap().own.as_ref().unwrap().set_flaw(flaw);
        let page = gateway.browser().sign_in(&sign_in.link, "alice").await;
        assert!(page.status.is_client_error() || page.status.is_server_error(), "{flaw:?}: {page:?}");
        assert!(page.find_form("approve").is_none(), "{flaw:?}: {page:?}");
    }
    // The link is still good for an honest sign-in.
    gateway.issuer.as_ref().unwrap().own.as_ref().unwrap().set_flaw(Flaw::None);
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
}

#[tokio::test]
async fn a_provider_may_change_its_key() {
    let (_sshd, gateway) = gate().await;
    gateway.signed_in("alice", "web").await;
    gateway.issuer.as_ref().unwrap().own.as_ref().unwrap().rotate().unwrap();
    let ssh = gateway.signed_in("alice", "web").await;
    assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
}

#[tokio::test]
async fn a_socket_may_refuse_links() {
    let sshd = Sshd::start().await;
    let gateway = Setup::new().ssh_with("web", &sshd, "sign_in = [\"certificate\"]").start().await;
    // Who asks is told once it is known who that is.
    let ssh = Ssh::new(gateway.ssh);
    let mut sign_in = ssh.sign_in(&["web@gate", "true"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    let words = "takes no sign-in by link; get a certificate with `gatescribe login`";
    let done = sign_in.ssh.finish(SOON).await;
    assert!(done.refusal().contains(words), "{done:?}");
    // Whose key is remembered needs no other link to hear it.
    let again = ssh.run("web", "true").await;
    assert!(again.refusal().contains(words) && !again.stderr.contains("https://"), "{again:?}");
    let rows = gateway.admin().await.rows("socket_name=web").await;
    assert_eq!(rows.iter().map(|row| row.result).collect::<Vec<_>>(), [AuthResult::Denied; 2]);
    assert!(done.refusal().contains(&rows[1].session_id.to_string()), "{done:?}");
    // A certificate counts beside it.
    let login = gateway.login("alice").await;
    gateway.certify(&login, &ssh).await;
    assert_eq!(ssh.run("web", "echo in").await.ok(), "in\n");
}

#[tokio::test]
async fn before_sign_in_an_unknown_socket_looks_like_a_known_one() {
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("web", &sshd).ssh_with("strict", &sshd, "sign_in = [\"certificate\"]");
    let gateway = setup.start().await;
    let strip = |shown: String, name: &str| {
        let link = crate::harness::ssh::link_in(&shown).unwrap();
        shown.replace(&link, "LINK").replace(name, "NAME")
    };
    let mut known = Ssh::new(gateway.ssh).sign_in(&["web@gate", "true"]).await;
    let shown = strip(known.ssh.stderr(), "web");
    for (user, name) in [("strict", "strict"), ("me@strict", "strict"), ("me@nowhere", "nowhere")] {
        let other = Ssh::new(gateway.ssh).sign_in(&[&format!("{user}@gate"), "true"]).await;
        assert_eq!(strip(other.ssh.stderr(), name), shown, "{user}");
    }
    // Without an @ it may be who somebody is on their own machine.
    let mut unknown = Ssh::new(gateway.ssh).sign_in(&["nix@gate", "true"]).await;
    assert_eq!(strip(unknown.ssh.stderr(), "nix"), shown);
    let digits = gateway.browser().approve(&unknown.link, "alice").await;
    unknown.answer(&digits);
    let done = unknown.ssh.finish(SOON).await;
    assert!(done.stderr.contains("no socket"), "{done:?}");
    known.ssh.child.kill().await.unwrap();
    let row = gateway.admin().await.newest("nix").await;
    assert_eq!((row.result, row.outcome), (AuthResult::Denied, Some(Outcome::Refused)));
}

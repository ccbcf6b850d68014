//! Rules that ask for a newer or another sign-in: the terminal shows a link, and the same connection goes on.

use gatescribe::identity::dev_issuer::{ACR, Flaw};
use gatescribe::store::{AuthResult, Event, EventStatus, Outcome, SessionRow};
use serde_json::{Value, json};

use crate::harness::ssh::{SignIn, link_in};
use crate::harness::{Gateway, SOON, Setup, Ssh, Sshd, eventually};

const PWD: &str = ACR[0];
const MFA: &str = ACR[1];

/// Anybody of engineering on `plain`; on `web` and `strict` with this `require`.
async fn gate(require: &str) -> (Sshd, Gateway) {
    let policies = format!(
        "[[policy]]\nname = \"anyhow\"\neffect = \"allow\"\nsockets = {{ names = [\"plain\"] }}\n\
         who = {{ groups = [\"engineering\"] }}\n[policy.allow.ssh]\n\
         [[policy]]\nname = \"proved\"\neffect = \"allow\"\nsockets = {{ names = [\"web\", \"strict\"] }}\n\
         who = {{ groups = [\"engineering\"] }}\nrequire = {{ {require} }}\n[policy.allow.ssh]\n"
    );
    let sshd = Sshd::start().await;
    let setup = Setup::new().ssh("plain", &sshd).ssh("web", &sshd);
    let setup = setup.ssh_with("strict", &sshd, "sign_in = [\"certificate\"]").policies(&policies);
    let gateway = setup.start().await;
    (sshd, gateway)
}

fn set_flaw(gateway: &Gateway, flaw: Flaw) {
    gateway.issuer.as_ref().unwrap().own.as_ref().unwrap().set_flaw(flaw);
}

fn sign_ins(row: &SessionRow) -> Vec<&Event> {
    row.events.iter().filter(|event| event.kind == "sign_in").collect()
}

/// Each sign-in's way, class and methods, as the row tells them.
fn proved(row: &SessionRow) -> Vec<[Value; 3]> {
    sign_ins(row).iter().map(|event| ["how", "acr", "amr"].map(|name| event.metadata[name].clone())).collect()
}

/// What stands between the banner and the first prompt.
fn instruction(sign_in: &SignIn) -> String {
    let shown = sign_in.ssh.stderr();
    assert!(shown.is_ascii(), "{shown:?}");
    let from = shown.find("gatescribe: web refused").unwrap_or_else(|| panic!("no reason in {shown:?}"));
    shown[from..].to_owned()
}

async fn denied_row(gateway: &Gateway, socket: &str) -> SessionRow {
    let admin = gateway.admin().await;
    let query = format!("socket_name={socket}");
    eventually("the row of the denial", SOON, async || admin.rows(&query).await.pop()).await;
    admin.details(&admin.newest(socket).await).await
}

#[tokio::test]
async fn a_sign_in_that_is_too_old_is_renewed_by_a_link_and_the_connection_goes_on() {
    let (_sshd, gateway) = gate("max_sign_in_age = \"30m\"").await;
    set_flaw(&gateway, Flaw::SignedInAnHourAgo);
    let ssh = gateway.signed_in("alice", "plain").await;
    set_flaw(&gateway, Flaw::None);
    let mut sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let told = instruction(&sign_in);
    assert!(told.len() <= 900 && told.contains("not older than 30m") && told.contains("alice@example.com"), "{told}");
    let mut browser = gateway.browser();
    let page = browser.sign_in(&sign_in.link, "alice").await;
    assert!(page.text().contains("not older than 30m"), "the page says why: {}", page.text());
    let digits = browser.submit(&page.form("approve")).await.digits().unwrap();
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!(row.result, AuthResult::Success);
    let ways: Vec<_> = proved(&row).into_iter().map(|[how, ..]| how).collect();
    assert_eq!(ways, ["remembered key", "step-up"]);
    let signed_in: Vec<jiff::Timestamp> =
        sign_ins(&row).iter().map(|event| event.metadata["signed_in"].as_str().unwrap().parse().unwrap()).collect();
    assert!(signed_in[1].duration_since(signed_in[0]).as_secs() > 3000, "{signed_in:?}");
    // The key is remembered by the new sign-in, so scripts go on too.
    assert_eq!(ssh.start(&["-o", "BatchMode=yes", "web@gate", "echo in"]).finish(SOON).await.ok(), "in\n");
}

#[tokio::test]
async fn another_kind_of_sign_in_is_asked_for_and_the_row_says_what_was_proved() {
    let (_sshd, gateway) = gate(&format!("acr = [\"{MFA}\"]")).await;
    let ssh = gateway.signed_in("alice", "plain").await;
    // A browser that is signed in already, by a password alone.
    let mut browser = gateway.browser();
    browser.sign_in(&gateway.url("/sign-in"), "alice").await;
    let mut sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let digits = browser.approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
    let row = gateway.admin().await.ended("web").await;
    let expected =
        [[json!("remembered key"), json!(PWD), json!(["pwd"])], [json!("step-up"), json!(MFA), json!(["pwd", "otp"])]];
    assert_eq!(proved(&row), expected);
}

#[tokio::test]
async fn who_signs_in_by_a_link_may_be_asked_for_more() {
    let (_sshd, gateway) = gate(&format!("acr = [\"{MFA}\"]")).await;
    let mut browser = gateway.browser();
    let mut sign_in = Ssh::without_key(gateway.ssh).sign_in(&["web@gate", "echo in"]).await;
    let digits = browser.approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    let first = sign_in.link.clone();
    let link = eventually("a second link", SOON, async || {
        let shown = sign_in.ssh.stderr();
        link_in(&shown[shown.rfind("https://")?..]).filter(|link| *link != first)
    })
    .await;
    let digits = browser.approve(&link, "alice").await;
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
    let row = gateway.admin().await.ended("web").await;
    assert_eq!(
        proved(&row).into_iter().map(|[how, acr, _]| [how, acr]).collect::<Vec<_>>(),
        [[json!("link"), json!(PWD)], [json!("step-up"), json!(MFA)]]
    );
}

#[tokio::test]
async fn nobody_else_can_approve_and_who_goes_away_leaves_a_row() {
    let (_sshd, gateway) = gate(&format!("acr = [\"{MFA}\"]")).await;
    let ssh = gateway.signed_in("alice", "plain").await;
    let mut sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let page = gateway.browser().sign_in(&sign_in.link, "bob").await;
    assert!(page.status.is_client_error() && page.find_form("approve").is_none(), "{page:?}");
    assert!(page.text().contains("this link is for alice@example.com"), "{}", page.text());
    assert!(gateway.admin().await.rows("socket_name=web").await.is_empty(), "nothing is decided yet");
    sign_in.ssh.child.kill().await.unwrap();
    let row = denied_row(&gateway, "web").await;
    assert_eq!((row.result, row.outcome), (AuthResult::Denied, Some(Outcome::Refused)));
    let last = sign_ins(&row).last().map(|event| (event.status, event.metadata["reason"].clone()));
    assert_eq!(last, Some((EventStatus::Denied, json!("the client went away"))));
}

#[tokio::test]
async fn a_client_that_can_show_no_link_is_refused_with_a_row() {
    let (_sshd, gateway) = gate(&format!("acr = [\"{MFA}\"]")).await;
    let ssh = gateway.signed_in("alice", "plain").await;
    let done = ssh.start(&["-o", "BatchMode=yes", "web@gate", "echo in"]).finish(SOON).await;
    assert_eq!((done.status, done.stdout.len()), (Some(255), 0));
    assert!(done.stderr.contains("needs a terminal"), "{done:?}");
    let row = denied_row(&gateway, "web").await;
    assert_eq!(
        (row.result, row.outcome, row.rule.as_deref()),
        (AuthResult::Denied, Some(Outcome::Refused), Some("proved"))
    );
    assert_eq!(row.user_email, "alice@example.com");
    assert_eq!(proved(&row)[0], [json!("remembered key"), json!(PWD), json!(["pwd"])]);
    assert!(row.events.iter().any(|event| event.kind == "decision" && event.status == EventStatus::Denied), "{row:?}");
}

#[tokio::test]
async fn a_certificate_is_raised_by_a_link_also_where_links_open_nothing() {
    let (_sshd, gateway) = gate(&format!("acr = [\"{MFA}\"]")).await;
    let ssh = Ssh::new(gateway.ssh);
    let login = gateway.login("alice").await;
    gateway.certify(&login, &ssh).await;
    let mut sign_in = ssh.sign_in(&["strict@gate", "echo in"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    assert_eq!(sign_in.ssh.finish(SOON).await.ok(), "in\n");
    let row = gateway.admin().await.ended("strict").await;
    let told: Vec<_> = proved(&row).into_iter().map(|[how, acr, _]| [how, acr]).collect();
    assert_eq!(told, [[json!("certificate"), json!(PWD)], [json!("step-up"), json!(MFA)]]);
    // The link vouched for this connection, not for the key.
    std::fs::remove_file(ssh.path("id-cert.pub")).unwrap();
    let again = ssh.sign_in(&["strict@gate", "true"]).await;
    assert!(again.ssh.stderr().contains("to open strict, sign in here"), "{}", again.ssh.stderr());
}

#[tokio::test]
async fn what_another_sign_in_does_not_cure_is_refused_once_with_its_row() {
    let (_sshd, gateway) = gate("amr = [\"hwk\"]").await;
    let ssh = gateway.signed_in("alice", "plain").await;
    let mut sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let digits = gateway.browser().approve(&sign_in.link, "alice").await;
    sign_in.answer(&digits);
    let done = sign_in.ssh.finish(SOON).await;
    let rows = gateway.admin().await.rows("socket_name=web").await;
    assert_eq!((done.status, rows.len()), (Some(255), 1), "{done:?}");
    assert!(done.refusal().contains("amr hwk") && done.refusal().contains(&rows[0].session_id.to_string()), "{done:?}");
    let row = gateway.admin().await.details(&rows[0]).await;
    assert_eq!(proved(&row).into_iter().map(|[how, ..]| how).collect::<Vec<_>>(), ["remembered key", "step-up"]);
}

#[tokio::test]
async fn a_denial_in_the_browser_is_a_row_that_the_words_name() {
    let (_sshd, gateway) = gate(&format!("acr = [\"{MFA}\"]")).await;
    let ssh = gateway.signed_in("alice", "plain").await;
    let sign_in = ssh.sign_in(&["web@gate", "echo in"]).await;
    let mut browser = gateway.browser();
    let page = browser.sign_in(&sign_in.link, "alice").await;
    browser.submit(&page.form("deny")).await;
    let done = sign_in.ssh.finish(SOON).await;
    let row = denied_row(&gateway, "web").await;
    assert!(done.refusal().contains(&row.session_id.to_string()), "{done:?}");
}

#[tokio::test]
async fn a_new_sign_in_for_open_sessions_is_a_page() {
    let (_sshd, gateway) = gate("max_sign_in_age = \"30m\"").await;
    let mut browser = gateway.browser();
    set_flaw(&gateway, Flaw::SignedInAnHourAgo);
    browser.sign_in(&gateway.url("/sign-in"), "alice").await;
    set_flaw(&gateway, Flaw::None);
    let page = browser.sign_in(&gateway.url("/renew"), "alice").await;
    assert!(page.text().contains("renewed until"), "{}", page.text());
}

//! Tests of asking again, on a paused clock: what a session may do while everything around it changes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{advance, sleep};

use super::*;
use crate::policy::{
    Days, Effect, ExecRight, Lock, LockTarget, Locks, Policies, Rights, Rule, SomeSsh, SshRights, When, Who,
};
use crate::session::channels::Ordered;
use crate::session::minder::mind;
use crate::session::{Kill, KillLine, Rules, Warning};

const MINUTE: Duration = Duration::from_secs(60);

fn person(changed: Value) -> Identity {
    let mut claims = json!({
        "issuer": "https://idp.example.com", "subject": "1", "email": "alice@example.com", "groups": ["staff"],
        "signed_in": Timestamp::now(), "expires": Timestamp::now() + Duration::from_secs(12 * 3600),
    });
    claims.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
    serde_json::from_value(claims).unwrap()
}

fn socket(name: &str) -> Arc<Socket> {
    Arc::new(Socket::into_shell(name, "me"))
}

fn rule(name: &str) -> Rule {
    let who = Who { groups: vec!["staff".into()], ..Who::default() };
    let rights = Rights { ssh: Some(SshRights::All), ..Rights::default() };
    Rule { who, rights, ..Rule::new(name, Effect::Allow) }
}

fn rules(list: Vec<Rule>) -> Rules {
    Rules::new(Policies::new(list), vec![socket("web")])
}

fn exec() -> Action {
    Action::SshExec { command: b"make".to_vec() }
}

/// A session that was let in and is minded.
fn session(rules: &Rules, who: Identity) -> Arc<Live> {
    let anywhere = SocketAddr::from(([192, 0, 2, 1], 5000));
    let visit = Visit {
        identity: who,
        sign_in: None,
        since: Instant::now(),
        socket: socket("web"),
        login: None,
        client: anywhere,
        reached: anywhere,
        events: Vec::new(),
        may_step_up: false,
        line: KillLine::new(),
    };
    let live = Arc::new(Live::new(Uuid::now_v7(), &visit, Country::Unknown));
    let _grant = live.let_in(&rules.now()).unwrap();
    tokio::spawn(mind(live.clone(), rules.clone()));
    live
}

fn begin(live: &Arc<Live>, rules: &Rules, action: Action) -> Result<Underway, String> {
    live.begin(action, Manner::Alone, &rules.now())
        .map(|(_, underway)| underway)
        .map_err(|denied| denied.reason().to_owned())
}

/// Lets everybody run who can.
async fn settle() {
    sleep(Duration::from_millis(10)).await;
}

async fn after(time: Duration) {
    advance(time).await;
    settle().await;
}

fn refused(underway: &Underway) -> Option<String> {
    underway.refused.borrow().as_ref().map(|denied| denied.reason().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_goes_ends_the_session_and_one_that_stays_does_not() {
    let rules = rules(vec![rule("first"), rule("second")]);
    let live = session(&rules, person(json!({})));
    settle().await;
    rules.replace(Policies::new(vec![rule("second")]), vec![socket("web")]);
    settle().await;
    assert_eq!(live.reason(), None);
    rules.replace(Policies::default(), vec![socket("web")]);
    settle().await;
    let words = "session ended: no policy lets alice@example.com in".to_owned();
    assert_eq!(live.reason(), Some(End::PolicyChanged(words)));
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_goes_ends_the_session() {
    let rules = rules(vec![rule("r")]);
    let live = session(&rules, person(json!({})));
    rules.replace(Policies::new(vec![rule("r")]), vec![socket("other")]);
    settle().await;
    let words = "session ended: there is no socket web any more".to_owned();
    assert_eq!(live.reason(), Some(End::PolicyChanged(words)));
}

#[tokio::test(start_paused = true)]
async fn a_lock_ends_whom_it_is_about() {
    let rules = rules(vec![rule("r")]);
    let live = session(&rules, person(json!({})));
    let lock = |target| Lock {
        lock_id: Uuid::nil(),
        target,
        reason: "lost laptop".into(),
        by: "admin@example.com".into(),
        created: Timestamp::now(),
        until: None,
    };
    let bob = LockTarget { user: Some("bob@example.com".into()), ..LockTarget::default() };
    rules.set_locks(Locks::new(vec![lock(bob)]));
    settle().await;
    assert_eq!(live.reason(), None);
    let alice = LockTarget { user: Some("ALICE@example.com".into()), ..LockTarget::default() };
    rules.set_locks(Locks::new(vec![lock(alice)]));
    settle().await;
    let words = "session ended: locked by admin@example.com: lost laptop".to_owned();
    assert_eq!(live.reason(), Some(End::PolicyChanged(words)));
}

#[tokio::test]
async fn a_channel_is_open_until_it_is_down_and_its_first_order_stands() {
    let live = session(&rules(vec![rule("r")]), person(json!({})));
    let id = Uuid::now_v7();
    let (channel, place) = Ordered::enrol(&live, id);
    assert!(live.channels.is_open(id) && !live.channels.is_open(Uuid::now_v7()));
    let order = |reason: &str| Kill { by: "admin@example.com".into(), reason: reason.into() };
    let first = live.channels.kill(id, order("first")).unwrap();
    let _second = live.channels.kill(id, order("second")).unwrap();
    assert_eq!(channel.until_given().await, order("first"));
    drop(channel);
    assert!(!live.channels.is_open(id), "it is down, though its row is not closed");
    drop(place);
    first.await;
    assert!(live.channels.kill(id, order("late")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_smaller_permit_ends_what_it_does_not_hold_and_nothing_else() {
    let rules = rules(vec![rule("r")]);
    let live = session(&rules, person(json!({})));
    let (shell, make) = (begin(&live, &rules, Action::SshShell).unwrap(), begin(&live, &rules, exec()).unwrap());
    let mut smaller = rule("r");
    let rights = SomeSsh { exec: ExecRight::Any, ..SomeSsh::default() };
    smaller.rights.ssh = Some(SshRights::Some(Box::new(rights)));
    rules.replace(Policies::new(vec![smaller]), vec![socket("web")]);
    // Asked before whoever minds it has run.
    assert_eq!(begin(&live, &rules, Action::SshShell).err().unwrap(), "r does not allow shell");
    settle().await;
    assert_eq!(refused(&shell).as_deref(), Some("r does not allow shell"));
    assert_eq!(shell.until_refused().await.reason(), "r does not allow shell");
    assert_eq!((refused(&make), live.reason()), (None, None));
    assert!(begin(&live, &rules, exec()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_new_sign_in_shrinks_or_extends() {
    let mut young = rule("young");
    young.require.max_sign_in_age = Some(MINUTE * 30);
    let rules = rules(vec![young]);
    let live = session(&rules, person(json!({})));
    after(MINUTE * 20).await;
    let later = |changed: Value| {
        let mut all =
            json!({ "signed_in": Timestamp::now() + MINUTE * 20, "expires": Timestamp::now() + MINUTE * 600 });
        all.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        person(all)
    };
    assert!(!live.renew(&later(json!({ "subject": "2" }))), "somebody else");
    assert!(live.renew(&later(json!({}))));
    assert!(!live.renew(&person(json!({ "signed_in": "2020-01-01T00:00:00Z" }))), "an older sign-in");
    after(MINUTE * 20).await;
    assert_eq!(live.reason(), None, "it would have ended without the new sign-in");
    let lost = person(json!({ "signed_in": Timestamp::now() + MINUTE * 39, "groups": ["other"] }));
    assert!(live.renew(&lost));
    settle().await;
    let words = "session ended: no policy lets alice@example.com in".to_owned();
    assert_eq!(live.reason(), Some(End::IdentityLost(words)));
}

#[tokio::test(start_paused = true)]
async fn time_ends_it_by_a_timer() {
    let mut short = rule("short");
    short.limits.max_session = Some(MINUTE * 90);
    let rules = rules(vec![short]);
    let live = session(&rules, person(json!({})));
    after(MINUTE * 90 - Duration::from_secs(1)).await;
    assert_eq!(live.reason(), None);
    after(Duration::from_secs(1)).await;
    assert_eq!(live.reason(), Some(End::Expired("session ended: short allows 1h 30m at a time".into())));
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_that_grows_too_old_or_ends_ends_it() {
    let mut young = rule("young");
    young.require.max_sign_in_age = Some(MINUTE * 10);
    for (list, expires, words) in [
        (vec![young], 600, "session ended: young needs a sign-in not older than 10m, yours is 10m"),
        (vec![rule("r")], 10, "session ended: your sign-in has expired; connect again to sign in"),
    ] {
        let rules = rules(list);
        let live = session(&rules, person(json!({ "expires": Timestamp::now() + MINUTE * expires })));
        after(MINUTE * 9).await;
        assert_eq!(live.reason(), None);
        after(MINUTE + Duration::from_secs(1)).await;
        let end = live.reason();
        assert!(matches!(&end, Some(End::Expired(told)) if told.starts_with(words)), "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_what_is_idle_ends_as_idle() {
    let mut lazy = rule("lazy");
    lazy.limits.idle_timeout = Some(MINUTE * 10);
    let rules = rules(vec![lazy]);
    let idle = session(&rules, person(json!({})));
    let active = session(&rules, person(json!({})));
    let busy = session(&rules, person(json!({})));
    let make = begin(&busy, &rules, exec()).unwrap();
    let shell = begin(&active, &rules, Action::SshShell).unwrap();
    for _ in 0..4 {
        after(MINUTE * 3).await;
        active.touch();
    }
    assert_eq!(idle.reason(), Some(End::Idle("session ended: lazy ends what is idle for 10m".into())));
    assert_eq!((active.reason(), busy.reason()), (None, None));
    // From the end of the command on it is idle.
    drop(make);
    after(MINUTE * 9).await;
    assert_eq!(busy.reason(), None);
    after(MINUTE + Duration::from_secs(1)).await;
    assert!(matches!(busy.reason(), Some(End::Idle(_))));
    assert!(matches!(active.reason(), Some(End::Idle(_))), "a shell alone is no activity");
    drop(shell);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_may_finish_where_a_rule_says_so() {
    let mut kind = rule("kind");
    kind.limits.max_session = Some(MINUTE * 10);
    kind.limits.finish_grace = Some(MINUTE * 5);
    let rules = rules(vec![kind]);
    let [done, late, killed] = std::array::from_fn(|_| session(&rules, person(json!({}))));
    let begun = [&done, &late, &killed].map(|live| begin(live, &rules, exec()).unwrap());
    let shell = begin(&done, &rules, Action::SshShell).unwrap();
    after(MINUTE * 10).await;
    assert!(refused(&shell).is_some(), "a shell is at a prompt as far as anybody knows");
    assert_eq!(begin(&done, &rules, exec()).err().unwrap(), "the session is ending");
    assert_eq!([&done, &late, &killed].map(|live| live.reason()), [None, None, None]);
    after(MINUTE).await;
    let [first, second, third] = begun;
    drop((first, shell));
    settle().await;
    let words = || End::Expired("session ended: kind allows 10m at a time".into());
    assert_eq!(done.reason(), Some(words()));
    after(MINUTE * 4).await;
    assert_eq!(late.reason(), Some(words()), "the grace is over");
    drop((second, third));

    // Not where the right itself is lost.
    let live = session(&rules, person(json!({})));
    let _make = begin(&live, &rules, exec()).unwrap();
    after(MINUTE * 11).await;
    assert_eq!(live.reason(), None);
    rules.replace(Policies::default(), vec![socket("web")]);
    settle().await;
    assert!(matches!(live.reason(), Some(End::PolicyChanged(_))), "{:?}", live.reason());
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_of_three_times_and_a_new_sign_in_takes_it_back() {
    let mut young = rule("young");
    young.require.max_sign_in_age = Some(MINUTE * 60);
    let rules = rules(vec![young]);
    let live = session(&rules, person(json!({})));
    let mut heard = live.warning.subscribe();
    let mut left = || match heard.has_changed().unwrap().then(|| heard.borrow_and_update().clone()).flatten() {
        Some(Warning::Ends { at: end, renewable, .. }) => {
            assert!(renewable);
            Some(((end - Instant::now()).as_secs_f64() / 60.0).round())
        }
        Some(Warning::GoesOn) => Some(f64::INFINITY),
        None => None,
    };
    let mut told = Vec::new();
    for _ in 0..59 * 6 + 1 {
        after(MINUTE / 6 - Duration::from_millis(10)).await;
        told.extend(left());
    }
    assert_eq!(told, [15.0, 5.0, 1.0]);
    assert!(live.wants().is_some());
    assert!(live.renew(&person(json!({ "signed_in": Timestamp::now() + MINUTE * 59 }))));
    settle().await;
    assert_eq!(left(), Some(f64::INFINITY));
    after(MINUTE * 30).await;
    assert_eq!((live.reason(), left()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_days_away_is_told_of_too() {
    let rules = rules(vec![rule("r")]);
    let live = session(&rules, person(json!({ "expires": Timestamp::now() + MINUTE * 60 * 72 })));
    for _ in 0..72 * 4 - 2 {
        after(MINUTE * 15).await;
    }
    assert_eq!(*live.warning.borrow(), None);
    after(MINUTE * 15 + Duration::from_secs(10)).await;
    assert!(matches!(*live.warning.borrow(), Some(Warning::Ends { renewable: true, .. })));
}

#[tokio::test(start_paused = true)]
async fn short_limits_are_not_told_of_at_once() {
    let mut short = rule("short");
    short.limits.max_session = Some(MINUTE * 4);
    let rules = rules(vec![short]);
    let live = session(&rules, person(json!({})));
    after(MINUTE).await;
    assert_eq!(*live.warning.borrow(), None);
    after(MINUTE + Duration::from_secs(1)).await;
    assert!(matches!(*live.warning.borrow(), Some(Warning::Ends { renewable: false, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_is_asked_again() {
    let mut day = rule("today");
    let tomorrow = Timestamp::now() + Duration::from_secs(86_400);
    day.when = When::new(Days::ALL, None, jiff::tz::TimeZone::UTC, None, Some(tomorrow));
    let rules = rules(vec![day]);
    let live = session(&rules, person(json!({})));
    settle().await;
    rules.ask_again();
    settle().await;
    assert_eq!(live.reason(), None);
    assert!(live.has_heard(&rules.now()));
}

fn lock_everything() -> Locks {
    let (by, reason) = ("admin@example.com".into(), "an incident".into());
    let (target, created) = (LockTarget::default(), Timestamp::now());
    Locks::new(vec![Lock { lock_id: Uuid::nil(), target, reason, by, created, until: None }])
}

#[tokio::test(start_paused = true)]
async fn no_grace_outlives_a_lock_a_lost_right_or_a_lost_group() {
    let mut kind = rule("kind");
    kind.limits.finish_grace = Some(MINUTE * 60 * 24);
    for case in ["lock", "deny", "right", "group", "unrelated"] {
        let rules = rules(vec![kind.clone()]);
        let live = session(&rules, person(json!({ "expires": Timestamp::now() + MINUTE * 10 })));
        let make = begin(&live, &rules, exec()).unwrap();
        after(MINUTE * 11).await;
        assert_eq!(live.reason(), None, "{case}: the sign-in is over, the command may finish");
        let mut other = kind.clone();
        match case {
            "lock" => rules.set_locks(lock_everything()),
            "deny" => {
                let deny = Rule { effect: Effect::Deny, name: "no".into(), ..rule("no") };
                rules.replace(Policies::new(vec![kind.clone(), deny]), vec![socket("web")]);
            }
            "right" => {
                other.rights.ssh = Some(SshRights::Some(Box::new(SomeSsh { shell: true, ..SomeSsh::default() })));
                rules.replace(Policies::new(vec![other]), vec![socket("web")]);
            }
            "group" => {
                let lost = json!({ "groups": [], "told": Timestamp::now() + MINUTE * 11 });
                assert!(live.renew(&person(lost)));
            }
            _ => rules.replace(Policies::new(vec![kind.clone(), rule("more")]), vec![socket("web"), socket("db")]),
        }
        settle().await;
        match case {
            "unrelated" => assert_eq!((live.reason(), refused(&make)), (None, None)),
            "right" => assert!(refused(&make).is_some()),
            "group" => assert!(matches!(live.reason(), Some(End::IdentityLost(_))), "{:?}", live.reason()),
            _ => assert!(matches!(live.reason(), Some(End::PolicyChanged(_))), "{case}: {:?}", live.reason()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_gets_its_own_grace() {
    let patterned = |name: &str, command: &str, grace| {
        let exec = ExecRight::Patterns(vec![crate::policy::ExecPattern::parse(command).unwrap()]);
        let mut rule = rule(name);
        rule.rights.ssh = Some(SshRights::Some(Box::new(SomeSsh { exec, ..SomeSsh::default() })));
        rule.limits.max_session = Some(MINUTE);
        rule.limits.finish_grace = Some(grace);
        rule
    };
    let rules = rules(vec![patterned("short", "make", MINUTE), patterned("long", "sleep", MINUTE * 10)]);
    let live = session(&rules, person(json!({})));
    let sleep = Action::SshExec { command: b"sleep".to_vec() };
    let (short, long) = (begin(&live, &rules, exec()).unwrap(), begin(&live, &rules, sleep).unwrap());
    after(MINUTE + Duration::from_secs(1)).await;
    after(MINUTE + Duration::from_secs(1)).await;
    assert_eq!((refused(&short).is_some(), refused(&long), live.reason()), (true, None, None));
    after(MINUTE * 9).await;
    assert!(matches!(live.reason(), Some(End::Expired(_))));
}

#[tokio::test(start_paused = true)]
async fn what_the_provider_told_last_counts_also_of_an_older_sign_in() {
    let rules = rules(vec![rule("r")]);
    let at = Timestamp::now();
    let live = session(&rules, person(json!({ "signed_in": at, "told": at })));
    let older = json!({ "signed_in": at - Duration::from_secs(60), "told": at + Duration::from_secs(5), "groups": [] });
    assert!(live.renew(&person(older)));
    settle().await;
    assert!(matches!(live.reason(), Some(End::IdentityLost(_))));
    assert_eq!(live.identity().signed_in(), at);
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_of_unknown_age_is_never_young() {
    let mut young = rule("young");
    young.require.max_sign_in_age = Some(MINUTE);
    let rules = rules(vec![young]);
    let visit = person(json!({ "undated": true }));
    let socket = socket("web");
    let in_force = rules.now();
    let context = Context::at_door([192, 0, 2, 1].into(), Country::Unknown, Timestamp::now());
    let denied = decide(&in_force.policies, &in_force.locks, &visit, &socket, &context).unwrap_err();
    assert_eq!(denied.cause(), Cause::SignInAge);
}

#[tokio::test(start_paused = true)]
async fn a_command_with_a_terminal_can_be_idle() {
    let mut lazy = rule("lazy");
    lazy.limits.idle_timeout = Some(MINUTE);
    let rules = rules(vec![lazy]);
    let live = session(&rules, person(json!({})));
    let _bash = live.begin(exec(), Manner::Interactive, &rules.now()).unwrap();
    after(MINUTE + Duration::from_secs(1)).await;
    assert!(matches!(live.reason(), Some(End::Idle(_))));
}

//! Locks: whom they mean, and that they win.

use uuid::Uuid;

use super::*;

pub(super) fn lock(target: LockTarget, until: Option<&str>) -> Lock {
    Lock {
        lock_id: Uuid::nil(),
        target,
        reason: "lost laptop".into(),
        by: "admin@example.com".into(),
        created: at("2026-01-01T00:00:00Z"),
        until: until.map(at),
    }
}

#[test]
fn a_lock_means_what_fits_everything_that_is_named() {
    let alice = person("Alice@Example.com", &["engineering"]);
    let target = |user: Option<&str>, group: Option<&str>, socket: Option<&str>, address: Option<&str>| LockTarget {
        user: user.map(Into::into),
        group: group.map(Into::into),
        socket: socket.map(Into::into),
        address: address.map(|net| net.parse().unwrap()),
    };
    for (target, expected) in [
        (LockTarget::default(), true),
        (target(Some("aLice@example.com"), None, None, None), true),
        (target(Some("bob@example.com"), None, None, None), false),
        (target(Some("alice*"), None, None, None), false),
        (target(None, Some("engineering"), None, None), true),
        (target(None, Some("Engineering"), None, None), false),
        (target(None, None, Some("web-1"), None), true),
        (target(None, None, Some("web-*"), None), false),
        (target(None, None, None, Some("10.0.0.0/8")), true),
        (target(None, None, None, Some("192.0.2.0/24")), false),
        (target(Some("alice@example.com"), Some("engineering"), Some("web-1"), Some("10.0.0.0/8")), true),
        (target(Some("alice@example.com"), None, Some("db-1"), None), false),
        (target(Some("alice@example.com"), None, None, Some("192.0.2.1/32")), false),
    ] {
        for address in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(target.holds(&alice, "web-1", address.parse().unwrap()), expected, "{target:?} {address}");
        }
    }
}

#[test]
fn a_lock_wins_over_every_rule_until_it_ends() {
    let (who, to) = (person("bob@example.com", &[]), socket("web-1", None));
    let policies = Policies::new(vec![allow("r"), rule("d", Effect::Deny)]);
    let other = LockTarget { user: Some("alice@example.com".into()), ..LockTarget::default() };
    let ask = |locks: Vec<Lock>, now: &str| {
        let context = Context { now: at(now), ..noon() };
        decide(&policies, &Locks::new(locks), &who, &to, &context).unwrap_err()
    };
    let all = LockTarget::default;
    let denied =
        ask(vec![lock(other.clone(), None), lock(all(), Some("2026-01-01T12:15:00Z"))], "2026-01-01T12:14:59Z");
    let words = "web-1 refused: locked until 2026-01-01 12:15 UTC by admin@example.com: lost laptop";
    assert_eq!((denied.to_string().as_str(), denied.cause(), denied.rule()), (words, Cause::Lock, None));
    assert_eq!(ask(vec![lock(all(), Some("2026-01-01T12:15:00Z"))], "2026-01-01T12:15:00Z").cause(), Cause::DenyRule);
    let denied = ask(vec![lock(all(), None)], "2026-01-01T12:15:00Z");
    assert_eq!(denied.to_string(), "web-1 refused: locked by admin@example.com: lost laptop");
    assert_eq!(ask(vec![lock(other, None)], "2026-01-01T12:00:00Z").cause(), Cause::DenyRule);
}

#[test]
fn a_target_is_kept_as_what_is_named() {
    let target =
        LockTarget { user: Some("a@x".into()), address: Some("10.0.0.0/8".parse().unwrap()), ..LockTarget::default() };
    let text = serde_json::to_string(&target).unwrap();
    assert_eq!(text, r#"{"user":"a@x","address":"10.0.0.0/8"}"#);
    assert_eq!(serde_json::from_str::<LockTarget>(&text).unwrap(), target);
    assert!(serde_json::from_str::<LockTarget>(r#"{"usr":"a@x"}"#).is_err());
}

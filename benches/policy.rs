//! What a decision costs, by how many rules there are and how many of them are about the person and the socket.
//!
//! `cargo bench --bench policy`. Prints the median and the slowest of many rounds; compare within one run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use gatescribe::identity::Identity;
use gatescribe::policy::{
    Action, Context, Country, Effect, Limits, Locks, Policies, Question, Rights, Rule, SocketMatch, SshRights, When,
    Who, decide,
};
use gatescribe::policy::{Days, Hours};
use gatescribe::socket::Socket;
use jiff::Timestamp;
use jiff::tz::TimeZone;

const ROUNDS: usize = 300;
const MANY: usize = 10_000;

type Failed = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failed> {
    let groups: Vec<String> = (0..20).map(|n| format!("group-{n}")).collect();
    let who: Identity = serde_json::from_value(serde_json::json!({
        "issuer": "https://idp.example.com", "subject": "1", "email": "alice@example.com", "groups": groups,
        "signed_in": "2026-01-05T08:00:00Z", "expires": "2026-01-05T20:00:00Z",
        "claims": {"dept": "web"},
    }))?;
    let to = socket("web-0");
    let every = |name: usize| SocketMatch { names: vec![format!("web-{name}*")], ..SocketMatch::default() };
    let of_group = |n: usize| Who { groups: vec![format!("group-{n}")], ..Who::default() };
    let office = window("09:00-18:00")?;
    let cases: Vec<(&str, Vec<Rule>)> = vec![
        ("10 rules, 1 about it", (0..10).map(|n| rule(n, every(n), of_group(n))).collect()),
        // 20 groups of 500; the socket is named by one rule in ten.
        (
            "10,000 rules, 500 groups, 20 of them hers",
            (0..MANY).map(|n| rule(n, every(n % 10), of_group(n % 500))).collect(),
        ),
        (
            "10,000 rules, 20 groups, all hers, 1,000 about it",
            (0..MANY).map(|n| rule(n, every(n % 10), of_group(n % 20))).collect(),
        ),
        (
            "10,000 rules about everybody, 10 about it",
            (0..MANY).map(|n| rule(n, every(n % 1000), Who::default())).collect(),
        ),
        (
            "10,000 rules about everybody, 1,000 about it",
            (0..MANY).map(|n| rule(n, every(n % 10), Who::default())).collect(),
        ),
        ("10,000 rules about everybody, all about it", (0..MANY).map(|n| rule(n, every(0), Who::default())).collect()),
        (
            "10,000 rules about everybody, all about it, none of them now",
            (0..MANY).map(|n| Rule { when: office.clone(), ..rule(n, every(0), Who::default()) }).collect(),
        ),
        (
            "10,000 rules, 500 groups, 20 of them hers, with hours",
            (0..MANY).map(|n| Rule { when: office.clone(), ..rule(n, every(n % 10), of_group(n % 500)) }).collect(),
        ),
    ];
    println!("{:<62} {:>10} {:>21} {:>21} {:>21}", "", "", "decide", "and check", "holds_for");
    for (name, rules) in cases {
        for known in [true, false] {
            let policies = Policies::new(rules.clone());
            let policies = if known { policies.with_sockets([&to]) } else { policies };
            let locks = Locks::default();
            let late = name.ends_with("now");
            let now: Timestamp = if late { "2026-01-05T19:00:00Z" } else { "2026-01-05T12:00:00Z" }.parse()?;
            let context = Context::at_door([192, 0, 2, 1].into(), Country::Unknown, now);
            let question = Question { policies: &policies, locks: &locks, who: &who, to: &to, login: None };
            let decided = timed(|| decide(&policies, &locks, &who, &to, &context).is_ok());
            let asked = timed(|| question.ask(&Action::SshShell, &context).is_ok());
            let held = timed(|| question.holds_for(&context).is_some());
            let known = if known { "known" } else { "unknown" };
            println!("{name:<62} {known:>10} {} {} {}", figures(decided), figures(asked), figures(held));
        }
    }
    Ok(())
}

fn rule(n: usize, sockets: SocketMatch, who: Who) -> Rule {
    let limits = Limits { max_session: Some(Duration::from_secs(8 * 3600)), ..Limits::default() };
    let rights = Rights { ssh: Some(SshRights::All), ..Rights::default() };
    Rule { sockets, who, limits, rights, ..Rule::new(format!("rule-{n}"), Effect::Allow) }
}

fn window(hours: &str) -> Result<When, Failed> {
    let zone = TimeZone::get("Europe/Amsterdam")?;
    Ok(When::new(Days::ALL, Some(Hours::parse(hours)?), zone, None, None))
}

fn socket(name: &str) -> Socket {
    Socket::into_shell(name, "deploy")
}

fn timed(ask: impl Fn() -> bool) -> Vec<Duration> {
    let mut took: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let begin = Instant::now();
            black_box(ask());
            begin.elapsed()
        })
        .collect();
    took.sort();
    took
}

/// The median and the slowest but one in a hundred, in microseconds.
fn figures(took: Vec<Duration>) -> String {
    let at = |part: usize| took.get(took.len() * part / 100).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6);
    format!("{:>9.1} {:>8.1} us", at(50), at(99))
}

//! Tests of the decision: tables, and a second evaluator written from the contract that must agree.

mod decide;
mod lock;
mod naive;
mod outlook;
mod parts;
mod rights;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::identity::Identity;
use crate::socket::{HostKeyCheck, HostPort, Protocol, Socket, SshCredential, SshUpstream, UpstreamSpec};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Signed in at nine on the first of January, a Thursday, for twelve hours; `more` replaces and adds.
fn identity(email: &str, groups: &[&str], more: Value) -> Identity {
    let mut person = json!({
        "issuer": "https://idp.example.com", "subject": email, "email": email, "groups": groups,
        "signed_in": "2026-01-01T09:00:00Z", "expires": "2026-01-01T21:00:00Z",
    });
    let both = person.as_object_mut().unwrap();
    both.extend(more.as_object().unwrap().clone());
    serde_json::from_value(person).unwrap()
}

fn person(email: &str, groups: &[&str]) -> Identity {
    identity(email, groups, json!({}))
}

fn socket(name: &str, username: Option<&str>) -> Socket {
    let upstream = UpstreamSpec::Ssh(Arc::new(SshUpstream {
        address: HostPort { host: "10.0.0.5".into(), port: 22 },
        username: username.map(Into::into),
        credential: SshCredential::Password("x".into()),
        host_key: HostKeyCheck::Unverified,
        via: None,
    }));
    Socket { upstream, ..Socket::into_shell(name, "") }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

/// About everybody and every socket, at all times and places; an allowing one allows everything over SSH.
fn rule(name: &str, effect: Effect) -> Rule {
    let rights = Rights { ssh: (effect == Effect::Allow).then_some(SshRights::All), ..Rights::default() };
    Rule { rights, ..Rule::new(name, effect) }
}

fn allow(name: &str) -> Rule {
    rule(name, Effect::Allow)
}

fn some(some: SomeSsh) -> Rights {
    Rights { ssh: Some(SshRights::Some(Box::new(some))), ..Rights::default() }
}

fn patterns(items: &[&str]) -> ExecRight {
    ExecRight::Patterns(items.iter().map(|item| ExecPattern::parse(item).unwrap()).collect())
}

fn exec(command: &str) -> Action {
    Action::SshExec { command: command.as_bytes().to_vec() }
}

/// From the gateway's own host, at noon on the first of January.
fn noon() -> Context {
    Context::at_door([127, 0, 0, 1].into(), Country::Private, at("2026-01-01T12:00:00Z"))
}

fn ask(rules: Vec<Rule>, who: &Identity, to: &Socket) -> Result<Permit, Denied> {
    ask_in(rules, who, to, &noon())
}

fn ask_in(rules: Vec<Rule>, who: &Identity, to: &Socket, context: &Context) -> Result<Permit, Denied> {
    decide(&Policies::new(rules), &Locks::default(), who, to, context)
}

//! A question in the words of people, its answer in theirs. Pure but for the clock and the databases that come with it,
//! so that the command line can ask a file the same way as the gateway.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::config::size;
use crate::geo::Geo;
use crate::identity::Identity;
use crate::identity::supposed::Supposed;
use crate::policy::{Action, Allowed, Context, Country, Denied, Effect, Question, RuleAccount};
use crate::session::{InForce, country};
use crate::socket::Socket;

/// How far ahead is looked. The longest sign-in.
const HORIZON: Duration = Duration::from_secs(366 * 86_400);

/// A question.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// The person's e-mail address.
    pub user: String,
    /// Their groups; left out: as they last signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// The socket's name.
    pub socket: String,
    /// From which address; left out: that of whoever asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ip: Option<IpAddr>,
    /// In which country (ISO 3166-1 alpha-2); left out: where the address is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// When; left out: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The login at the upstream that they ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// `connect` (when left out), `shell`, `exec COMMAND`, `sftp read`, `sftp write`, `forward HOST:PORT`,
    /// `forward-from HOST:PORT`, `agent` or `x11`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Of which class the sign-in is; left out: as the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// By which methods; left out: as the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amr: Option<Vec<String>>,
    /// Claims, beside those of the last sign-in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub claims: Option<BTreeMap<String, Value>>,
    /// How old the sign-in is, such as `2h`; left out: as old as the last one if it counts then, else new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign_in_age: Option<String>,
}

/// What the policy answers.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Answer {
    /// Whether it would be allowed.
    pub allowed: bool,
    /// The rule that allows or denies it, or the one that comes nearest; null: none.
    #[schema(required)]
    pub rule: Option<String>,
    /// The words that stand in a refusal.
    pub reason: String,
    /// The sign-in that would be enough, where nothing else is missing.
    #[schema(required)]
    pub step_up: Option<StepUp>,
    /// When it will be another answer, as far as can be seen: no more allowed, by another rule, or allowed then.
    #[schema(required)]
    pub until: Option<Timestamp>,
    /// When and why it would end, if nothing happens in the session.
    #[schema(required)]
    pub ends: Option<Ends>,
    /// Every rule in the order of the file.
    pub rules: Vec<AboutRule>,
    /// Who was asked about, as the rules see them.
    pub asked: Asked,
    /// What to know about this answer.
    pub notes: Vec<String>,
}

/// The sign-in that would be enough.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct StepUp {
    /// Not older than as many seconds; null: of any age.
    #[schema(required)]
    pub max_age: Option<u64>,
    /// Of one of these classes. Empty: of any.
    pub acr: Vec<String>,
}

/// An end that can be foreseen.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Ends {
    /// When.
    pub at: Timestamp,
    /// What will be said.
    pub reason: String,
}

/// What one rule has to do with it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct AboutRule {
    /// Its name.
    pub name: String,
    /// `allow` or `deny`.
    pub effect: String,
    /// Whether it is about this person on this socket.
    pub about: bool,
    /// Whether it says yes (of a rule that denies: no) to this.
    pub holds: bool,
    /// What it says, or everything that is missing.
    pub why: String,
}

/// What was asked, with all that was left out.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct Asked {
    /// The person.
    pub user: String,
    /// Their groups.
    pub groups: Vec<String>,
    /// The socket.
    pub socket: String,
    /// What they would do.
    pub action: String,
    /// The address.
    pub ip: String,
    /// The country; null: nobody knows, or the address is in a private network.
    #[schema(required)]
    pub country: Option<String>,
    /// The time.
    pub at: Timestamp,
    /// When they signed in.
    pub signed_in: Timestamp,
}

/// What a question is asked of.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// Rules, locks and sockets.
    pub in_force: &'a InForce,
    /// Where addresses are.
    pub geo: &'a Geo,
    /// How long a sign-in counts.
    pub session_lifetime: Duration,
    /// Who has this e-mail address, as they last signed in, the newest first; `None`: nobody knows, there is no book.
    pub known: Option<&'a [Identity]>,
    /// The address, where none is asked about.
    pub here: IpAddr,
    /// What the clock shows.
    pub now: Timestamp,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAsk {
    /// It makes no sense; the words say what to write.
    #[error("{0}")]
    Wrong(String),
    /// There is no such socket.
    #[error("there is no socket called {0:?}")]
    NoSocket(String),
}

/// What the policy answers.
pub fn answer(ask: &Ask, world: &World<'_>) -> Result<Answer, BadAsk> {
    let mut notes = Vec::new();
    let action = Action::asked(ask.action.as_deref().unwrap_or("connect"), ask.login.as_deref())
        .map_err(|error| BadAsk::Wrong(format!("`action` is not known: {error}")))?;
    let to = world.in_force.sockets.get(&ask.socket).ok_or_else(|| BadAsk::NoSocket(ask.socket.clone()))?;
    let at = ask.at.unwrap_or(world.now);
    let who = who(ask, world, at, &mut notes)?;
    let context = Context::at_door(ask.ip.unwrap_or(world.here).to_canonical(), place(ask, world)?, at);
    let question = question(ask, world, &who, to);
    let account = question.explain(&action, &context);
    let when = |after: Option<Duration>| after.and_then(|after| at.checked_add(after).ok());
    let until = match account.answer {
        Ok(_) => question.next_answer(&action, &context, HORIZON),
        // Whoever is refused signs in again before they come back, so that the end of this sign-in is no other answer.
        Err(_) => {
            let lasting = Supposed { expires: Timestamp::MAX, ..same(&who) }.identity(Some(&who));
            self::question(ask, world, &lasting, to).next_answer(&action, &context, HORIZON)
        }
    };
    let ends = account.answer.is_ok().then(|| question.end_of(&action, &context, HORIZON)).flatten();
    Ok(Answer {
        allowed: account.answer.is_ok(),
        rule: rule(&account.answer),
        reason: reason(&account.answer, &action),
        step_up: account.answer.as_ref().err().and_then(step_up),
        until: when(until),
        ends: ends.and_then(|end| Some(Ends { at: when(Some(end.after))?, reason: end.denied.reason().to_owned() })),
        rules: account.rules.into_iter().map(about).collect(),
        asked: asked(&who, to, &action, &context),
        notes,
    })
}

fn question<'a>(ask: &'a Ask, world: &World<'a>, who: &'a Identity, to: &'a Socket) -> Question<'a> {
    let (policies, locks) = (&world.in_force.policies, &world.in_force.locks);
    Question { policies, locks, who, to, login: ask.login.as_deref() }
}

/// The person as they would come.
fn who(ask: &Ask, world: &World<'_>, at: Timestamp, notes: &mut Vec<String>) -> Result<Identity, BadAsk> {
    if ask.user.trim().is_empty() || ask.user.chars().any(char::is_control) {
        return Err(BadAsk::Wrong("`user` must be an e-mail address".into()));
    }
    let known = world.known.and_then(<[Identity]>::first);
    match world.known {
        Some([]) => notes.push(format!(
            "the gateway has never seen {}: asked as somebody with the groups that were given",
            ask.user
        )),
        Some([_, _, ..]) => {
            notes.push(format!("several people have had the address {}: asked about the last", ask.user))
        }
        _ => {}
    }
    let age = ask.sign_in_age.as_deref().map(size::duration).transpose();
    let age = age.map_err(|error| BadAsk::Wrong(format!("`sign_in_age` must be a time such as \"2h\": {error}")))?;
    let before = |age: Duration| at.checked_sub(age).unwrap_or(Timestamp::MIN);
    let counts = known.filter(|known| known.signed_in() <= at && at < known.expires());
    let (signed_in, expires) = match (age, counts) {
        (Some(age), _) => (before(age), after(before(age), world.session_lifetime)),
        (None, Some(known)) => (known.signed_in(), known.expires()),
        (None, None) => (at, after(at, world.session_lifetime)),
    };
    if let (None, Some(known), None) = (age, known, counts) {
        let words = match at < known.signed_in() {
            true => "is later",
            false => "is over by then",
        };
        notes.push(format!("the last sign-in of {} {words}: asked as if they signed in again", known.email()));
    }
    let supposed = Supposed {
        email: ask.user.clone(),
        groups: ask.groups.clone(),
        acr: ask.acr.clone(),
        amr: ask.amr.clone(),
        claims: ask.claims.clone().unwrap_or_default(),
        signed_in,
        expires,
    };
    Ok(supposed.identity(known))
}

/// Supposes nothing else.
fn same(who: &Identity) -> Supposed {
    Supposed {
        email: who.email().to_owned(),
        groups: None,
        acr: None,
        amr: None,
        claims: BTreeMap::new(),
        signed_in: who.signed_in(),
        expires: who.expires(),
    }
}

fn after(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

fn place(ask: &Ask, world: &World<'_>) -> Result<Country, BadAsk> {
    let Some(code) = &ask.country else {
        return Ok(country(&world.geo.locate(ask.ip.unwrap_or(world.here))));
    };
    match code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        true => Ok(Country::Known(code.to_ascii_uppercase())),
        false => Err(BadAsk::Wrong("`country` must be a two-letter code such as \"NL\"".into())),
    }
}

fn rule(answer: &Result<Allowed, Denied>) -> Option<String> {
    match answer {
        Ok(allowed) => Some(allowed.rule.clone()),
        Err(denied) => denied.rule().map(str::to_owned),
    }
}

fn reason(answer: &Result<Allowed, Denied>, action: &Action) -> String {
    match answer {
        Ok(Allowed { rule, patterned: true }) => {
            format!("{rule} allows {action} by a pattern: without a terminal, with few variables")
        }
        Ok(Allowed { rule, patterned: false }) => format!("{rule} allows {action}"),
        Err(denied) => denied.reason().to_owned(),
    }
}

fn step_up(denied: &Denied) -> Option<StepUp> {
    let step_up = denied.step_up()?;
    Some(StepUp { max_age: step_up.max_age.map(|age| age.as_secs()), acr: step_up.acr.clone() })
}

fn about(rule: RuleAccount) -> AboutRule {
    let effect = match rule.effect {
        Effect::Allow => "allow",
        Effect::Deny => "deny",
    };
    let RuleAccount { name, about, holds, why, .. } = rule;
    AboutRule { name, effect: effect.to_owned(), about, holds, why }
}

fn asked(who: &Identity, to: &Socket, action: &Action, context: &Context) -> Asked {
    Asked {
        user: who.email().to_owned(),
        groups: who.groups().to_vec(),
        socket: to.name.clone(),
        action: action.to_string(),
        ip: context.client_ip.to_string(),
        country: match &context.country {
            Country::Known(code) => Some(code.clone()),
            Country::Private | Country::Unknown => None,
        },
        at: context.now,
        signed_in: who.signed_in(),
    }
}

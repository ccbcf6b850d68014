//! `gatescribe config check --against-live`: who would gain and lose access if a file came into force, and which live
//! sessions would end. Reads what the gateway left in its data directory; asks the gateway nothing, changes nothing.
//!
//! People are asked about as they last signed in, as if they did so now, from where they were last. Locks are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::policy::{Judge, book};
use super::{escape, local, print};
use crate::config::in_force::{self, InForce};
use crate::config::{Config, ConfigErrors};
use crate::geo::Place;
use crate::identity::Identity;
use crate::identity::supposed::Supposed;
use crate::policy::{Action, Context};
use crate::session;
use crate::store::{LastVisit, Owner, PastSession, Store};

/// Compares. `at`: the time to ask about.
pub async fn run(file: &Path, at: Option<Timestamp>, as_json: bool) -> anyhow::Result<ExitCode> {
    let config = match Config::load_leniently(file) {
        Ok(config) => config,
        Err(errors) => return Ok(wrong(&errors)),
    };
    let data_dir = config.gateway.data_dir.clone();
    let live = in_force::load(&data_dir).with_context(|| {
        let dir = data_dir.display();
        format!(
            "what is in force cannot be read from {dir}; the gateway writes it when it starts: run this on its host"
        )
    })?;
    let before = match live.config() {
        Ok(config) => config,
        Err(errors) => return Ok(wrong(&errors)),
    };
    let now = Timestamp::now();
    let both = Both { before: Judge::new(before), after: Judge::new(config) };
    let found = compare(&book(&data_dir)?, &both, at.unwrap_or(now), now).await?;
    match as_json {
        true => print(&format!("{}\n", escape::json(&found.json(&live))))?,
        false => print(&found.words(&live))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn wrong(errors: &ConfigErrors) -> ExitCode {
    eprint!("{errors}");
    ExitCode::from(2)
}

/// What is in force, and what would be.
struct Both {
    before: Judge,
    after: Judge,
}

/// Sockets by person.
type Access = BTreeMap<String, BTreeSet<String>>;

/// What would change.
#[derive(Debug, Default)]
struct Found {
    at: Timestamp,
    people: usize,
    sockets: usize,
    gains: Access,
    loses: Access,
    /// What they could do more, or no more, where they could be before: person, socket, rights.
    widens: Vec<(String, String, Vec<String>)>,
    narrows: Vec<(String, String, Vec<String>)>,
    ending: Vec<(PastSession, String)>,
}

async fn compare(store: &Store, both: &Both, at: Timestamp, now: Timestamp) -> anyhow::Result<Found> {
    let live = store.live_visits().await?;
    let mut people: Vec<Identity> = store.people().await?.into_iter().map(|(who, _)| who).collect();
    for visit in &live {
        if !people.iter().any(|who| who.is_same_person(&visit.identity)) {
            people.push(visit.identity.clone());
        }
    }
    people.sort_by_key(|who| who.email().to_lowercase());
    let sockets: BTreeSet<&str> =
        [&both.before, &both.after].iter().flat_map(|judge| judge.sockets().all()).map(|to| to.name.as_str()).collect();
    let mut found = Found { at, people: people.len(), sockets: sockets.len(), ..Found::default() };
    for who in &people {
        let last = store.last_visit(Owner::of(who)).await?;
        found.add_person(both, who, last.as_ref(), &sockets);
    }
    for visit in live {
        let done: Vec<Action> =
            store.done_in(vec![visit.session_id]).await?.into_iter().map(|(_, action)| action).collect();
        let newest = people.iter().find(|who| who.is_same_person(&visit.identity));
        let newest = newest.filter(|who| who.signed_in() > visit.identity.signed_in());
        let who = newest.unwrap_or(&visit.identity).clone();
        if let Err(refusal) = both.after.now(&visit, &who, &done, now) {
            found.ending.push((visit, refusal.reason));
        }
    }
    Ok(found)
}

impl Found {
    fn add_person(&mut self, both: &Both, who: &Identity, last: Option<&LastVisit>, sockets: &BTreeSet<&str>) {
        let client_ip = last.map_or(NOWHERE, |last| last.client_ip);
        let country = session::country(last.map_or(&Place::default(), |last| &last.place));
        let door = Context::at_door(client_ip, country, self.at);
        let (who, login) = (fresh(who, self.at), last.and_then(|last| last.ssh_user.as_deref()));
        let email = who.email().to_lowercase();
        for socket in sockets {
            let opens = |judge: &Judge| judge.opens(&who, socket, &door);
            match (opens(&both.before), opens(&both.after)) {
                (false, true) => add(&mut self.gains, &email, socket),
                (true, false) => add(&mut self.loses, &email, socket),
                (false, false) => {}
                (true, true) => {
                    let may = |judge: &Judge, action: &Action| judge.may(&who, socket, login, action, &door);
                    let (mut more, mut less) = (Vec::new(), Vec::new());
                    for (name, action) in rights() {
                        match (may(&both.before, &action), may(&both.after, &action)) {
                            (false, true) => more.push(name),
                            (true, false) => less.push(name),
                            _ => {}
                        }
                    }
                    for (rights, changes) in [(more, &mut self.widens), (less, &mut self.narrows)] {
                        if !rights.is_empty() {
                            changes.push((email.clone(), (*socket).to_owned(), rights));
                        }
                    }
                }
            }
        }
    }

    fn words(&self, live: &InForce) -> String {
        let line = |text: &str| escape::line(text).to_string();
        let mut lines = vec![format!(
            "against {} as in force since {}: people: {}, sockets: {}, asked about {}",
            live.file.display(),
            local(live.since),
            self.people,
            self.sockets,
            local(self.at)
        )];
        let mut part = |title: &str, rows: Vec<String>| {
            lines.push(match rows.is_empty() {
                true => format!("{title}: none"),
                false => format!("{title}:\n  {}", rows.join("\n  ")),
            });
        };
        let access = |access: &Access| {
            let names =
                |sockets: &BTreeSet<String>| sockets.iter().map(|name| line(name)).collect::<Vec<_>>().join(", ");
            access.iter().map(|(user, sockets)| format!("{}  {}", line(user), names(sockets))).collect::<Vec<_>>()
        };
        part("gains", access(&self.gains));
        part("loses", access(&self.loses));
        for (title, changes) in [("may do more", &self.widens), ("may do less", &self.narrows)] {
            if !changes.is_empty() {
                let rows = changes
                    .iter()
                    .map(|(user, socket, rights)| format!("{}  {}: {}", line(user), line(socket), rights.join(", ")));
                part(title, rows.collect());
            }
        }
        let ending = self.ending.iter().map(|(visit, reason)| {
            let (user, socket) = (line(visit.identity.email()), line(&visit.socket_name));
            format!("{}  {user} on {socket}: {}", visit.session_id, line(reason))
        });
        part("live sessions that would end", ending.collect());
        lines.join("\n") + "\n"
    }

    fn json(&self, live: &InForce) -> Value {
        let access = |access: &Access| -> Value {
            access.iter().map(|(user, sockets)| json!({"user": user, "sockets": sockets})).collect()
        };
        let changes = |changes: &[(String, String, Vec<String>)]| -> Value {
            let one = |(user, socket, rights): &(String, String, Vec<String>)| json!({"user": user, "socket": socket, "rights": rights});
            changes.iter().map(one).collect()
        };
        let ending = self.ending.iter().map(|(visit, reason)| {
            json!({
                "session_id": visit.session_id, "user": visit.identity.email(), "socket": visit.socket_name,
                "start_time": visit.start_time, "reason": reason,
            })
        });
        json!({
            "in_force": {"config": live.file.display().to_string(), "since": live.since}, "at": self.at,
            "people": self.people, "sockets": self.sockets, "gains": access(&self.gains), "loses": access(&self.loses),
            "may_do_more": changes(&self.widens), "may_do_less": changes(&self.narrows),
            "live_sessions_that_would_end": ending.collect::<Vec<_>>(),
        })
    }
}

fn add(access: &mut Access, email: &str, socket: &str) {
    access.entry(email.to_owned()).or_default().insert(socket.to_owned());
}

/// The same person, who signs in now.
fn fresh(who: &Identity, at: Timestamp) -> Identity {
    let supposed = Supposed {
        email: String::new(),
        groups: None,
        acr: None,
        amr: None,
        claims: BTreeMap::new(),
        signed_in: at,
        expires: Timestamp::MAX,
    };
    supposed.identity(Some(who))
}

/// What can be told apart without knowing what people do: patterns and forwards cannot.
fn rights() -> [(String, Action); 6] {
    // No pattern matches a newline: who may run it may run anything.
    let any = Action::SshExec { command: b"\n".to_vec() };
    let files = |write| Action::SshFiles { write };
    let rest = [Action::SshShell, files(false), files(true), Action::SshAgent, Action::SshX11];
    let [shell, read, write, agent, x11] = rest.map(|action| (action.to_string(), action));
    [shell, ("any command".to_owned(), any), read, write, agent, x11]
}

/// Where people are who were nowhere yet.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{Book, new_session};
    use crate::store::{Event, EventStatus, NewSession};

    const HEAD: &str = "[gateway]\ndomain = \"a.example.com\"\n[oidc]\nissuer = \"https://idp.example.com\"\n\
                        client_id = \"g\"\nclient_secret = \"file:none\"\n";

    fn judge(sockets: &[&str], policies: &str) -> Judge {
        let socket = |name: &&str| {
            format!(
                "[[socket]]\nname = \"{name}\"\ntype = \"ssh\"\n[socket.upstream]\naddress = \"10.0.0.5\"\n\
                 username = \"deploy\"\npassword = \"env:NONE\"\nhost_key = \"insecure-accept-any\"\n"
            )
        };
        let text = [HEAD, &sockets.iter().map(socket).collect::<String>(), policies].concat();
        Judge::new(Config::parse_leniently(&text, Path::new("x")).unwrap_or_else(|errors| panic!("{errors}")))
    }

    fn rule(name: &str, socket: &str, group: &str, ssh: &str) -> String {
        format!(
            "[[policy]]\nname = \"{name}\"\neffect = \"allow\"\nsockets = {{ names = [\"{socket}\"] }}\n\
             who = {{ groups = [\"{group}\"] }}\n[policy.allow.ssh]\n{ssh}\n"
        )
    }

    fn person(name: &str, group: &str) -> Identity {
        serde_json::from_value(json!({
            "issuer": "https://idp.example.com", "subject": name, "email": format!("{name}@example.com"),
            "groups": [group], "signed_in": "2026-01-01T00:00:00Z", "expires": "2026-01-01T12:00:00Z",
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn who_gains_loses_and_whose_session_would_end() {
        let book = Book::new();
        for who in [person("bob", "sales"), person("carol", "engineering")] {
            book.person_seen(&who).await.unwrap();
        }
        // Alice is known by her session alone; it ran a shell.
        let now = Timestamp::now();
        let live = NewSession { start_time: now, socket_name: "one".into(), ..new_session() };
        book.open_session(live.clone()).await.unwrap();
        book.add_event(live.session_id, Event::now("ssh_shell", EventStatus::Success, json!({}))).await.unwrap();
        let gone = NewSession { start_time: now, socket_name: "two".into(), ..new_session() };
        book.open_session(gone.clone()).await.unwrap();
        let before = rule("all", "*", "engineering", "");
        let after = [
            rule("narrow", "one", "engineering", "exec = [\"uptime\"]"),
            rule("new", "three", "sales", "shell = true"),
        ];
        let both = Both { before: judge(&["one", "two"], &before), after: judge(&["one", "three"], &after.concat()) };
        let found = compare(&book, &both, now, now).await.unwrap();
        let told = found.json(&InForce { text: String::new(), file: "f".into(), since: now });
        assert_eq!(told["gains"], json!([{"user": "bob@example.com", "sockets": ["three"]}]));
        let two = json!(["two"]);
        assert_eq!(told["loses"][0], json!({"user": "alice@example.com", "sockets": two}));
        assert_eq!(told["loses"][1], json!({"user": "carol@example.com", "sockets": two}));
        let rights = ["shell", "any command", "reading files", "writing files", "agent forwarding", "X11 forwarding"];
        assert_eq!(told["may_do_less"][0], json!({"user": "alice@example.com", "socket": "one", "rights": rights}));
        assert_eq!((&told["may_do_more"], &told["people"]), (&json!([]), &json!(3)));
        let ending: Vec<_> = found.ending.iter().map(|(visit, why)| (visit.session_id, why.as_str())).collect();
        let expected = [
            (live.session_id, "narrow does not allow shell"),
            (gone.session_id, "there is no socket called two any more"),
        ];
        assert_eq!(ending, expected);

        let same = Both { before: judge(&["one", "two"], &before), after: judge(&["one", "two"], &before) };
        let nothing = compare(&book, &same, now, now).await.unwrap();
        let words = nothing.words(&InForce { text: String::new(), file: "f".into(), since: now });
        assert!(words.ends_with("gains: none\nloses: none\nlive sessions that would end: none\n"), "{words}");
    }
}

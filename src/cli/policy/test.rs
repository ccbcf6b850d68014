//! `gatescribe policy test`: would somebody get in, which rule decides, and why not. Asks the gateway, or a file.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::Value;

use super::table;
use crate::api::policy::{Answer, Ask, BadAsk, World, answer};
use crate::cli::client::{Client, Options};
use crate::cli::sessions::time;
use crate::cli::{Usage, escape, local, print};
use crate::config::{Config, size};
use crate::geo::Geo;
use crate::policy::Action;
use crate::session::Rules;

/// Arguments of `gatescribe policy test`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exits with 0 when it would be allowed, 1 when it would be refused.\n\n\
    Example: gatescribe policy test --user alice@example.com --socket web-1 --action \"exec uptime\"")]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Whom to ask about: an e-mail address
    #[arg(long, value_name = "EMAIL")]
    user: String,
    /// On which socket
    #[arg(long, value_name = "NAME")]
    socket: String,
    /// From which address [default: this one]
    #[arg(long, value_name = "IP")]
    ip: Option<IpAddr>,
    /// In which country, two letters [default: where the address is]
    #[arg(long, value_name = "CODE")]
    country: Option<String>,
    /// When: 2026-03-01, "2026-03-01 14:00", RFC 3339, or 2h for two hours ago [default: now]
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// connect, shell, "exec COMMAND", "sftp read", "sftp write", "forward HOST:PORT", agent, x11 [default: connect]
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// The login that they ask for
    #[arg(long, value_name = "NAME")]
    login: Option<String>,
    /// In this group, and in no other that is not named; can be repeated
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// How old their sign-in is, such as 2h
    #[arg(long, value_name = "AGE")]
    sign_in_age: Option<String>,
    /// Ask this file instead of the gateway. It knows nobody: --group says who they are
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The answer as JSON
    #[arg(long)]
    json: bool,
}

/// Asks. Exit code 1 when it would be refused.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let ask = args.ask()?;
    let answer: Value = match &args.config {
        None => {
            let client = Client::open(&args.options)?;
            client.send(Method::POST, "/api/v1/policy/test", Some(&serde_json::to_value(&ask)?)).await?
        }
        Some(file) => match Config::load_leniently(file) {
            Ok(config) => serde_json::to_value(offline(&ask, config, file)?)?,
            Err(errors) => {
                eprint!("{errors}");
                return Ok(ExitCode::from(2));
            }
        },
    };
    let told: Answer = serde_json::from_value(answer.clone())?;
    match args.json {
        true => print(&format!("{}\n", escape::json(&answer)))?,
        false => print(&words(&told, args.action.is_some()))?,
    }
    Ok(if told.allowed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Args {
    /// The question. What makes no sense is told before anybody is asked.
    fn ask(&self) -> Result<Ask, Usage> {
        if let Some(action) = &self.action {
            Action::asked(action, None).map_err(|error| Usage(format!("--action: {error}")))?;
        }
        if let Some(age) = &self.sign_in_age {
            size::duration(age).map_err(|error| Usage(format!("--sign-in-age: {error}")))?;
        }
        Ok(Ask {
            user: self.user.clone(),
            groups: (!self.groups.is_empty()).then(|| self.groups.clone()),
            socket: self.socket.clone(),
            ip: self.ip,
            country: self.country.clone(),
            at: self.at,
            login: self.login.clone(),
            action: self.action.clone(),
            sign_in_age: self.sign_in_age.clone(),
            ..Ask::default()
        })
    }
}

/// What the rules of a file answer. They know no locks and nobody, and addresses have no country.
fn offline(ask: &Ask, config: Config, file: &Path) -> anyhow::Result<Answer> {
    let session_lifetime = config.oidc.session_lifetime;
    let sockets = config.sockets.into_iter().map(Into::into).collect();
    let rules = Rules::new(config.policies, sockets);
    let world = World {
        in_force: &rules.now(),
        geo: &Geo::default(),
        session_lifetime,
        known: None,
        here: IpAddr::V4(Ipv4Addr::LOCALHOST),
        now: Timestamp::now(),
    };
    match answer(ask, &world) {
        Ok(answer) => Ok(answer),
        Err(BadAsk::Wrong(words)) => Err(Usage(words).into()),
        Err(error @ BadAsk::NoSocket(_)) => bail!("{}: {error}", file.display()),
    }
}

fn words(told: &Answer, names_action: bool) -> String {
    let line = |text: &str| escape::line(text).to_string();
    let action = if names_action { format!(", {}", line(&told.asked.action)) } else { String::new() };
    let verdict = match (told.allowed, &told.rule) {
        (true, Some(rule)) => format!("allowed by {}", line(rule)),
        (true, None) => "allowed".to_owned(),
        (false, _) => format!("refused: {}", line(&told.reason)),
    };
    let mut lines = vec![format!("{} on {}{action}: {verdict}", line(&told.asked.user), line(&told.asked.socket))];
    lines.extend(told.notes.iter().map(|note| format!("note: {}", line(note))));
    let (about, others): (Vec<_>, Vec<_>) = told.rules.iter().partition(|rule| rule.about);
    if !about.is_empty() {
        let rows = about.into_iter().map(|rule| {
            let holds = if rule.holds { "yes" } else { "no" };
            [line(&rule.name), line(&rule.effect), holds.to_owned(), line(&rule.why)]
        });
        lines.push(format!("\n{}", table(["RULE", "EFFECT", "HOLDS", "WHY"], rows)));
    }
    let more = if others.len() == told.rules.len() { "" } else { "other " };
    match others.len() {
        0 => {}
        1 => lines.push(format!("\n1 {more}rule is about other people or sockets")),
        count => lines.push(format!("\n{count} {more}rules are about other people or sockets")),
    }
    lines.extend(outlook(told));
    lines.join("\n") + "\n"
}

/// When it ends, or begins.
fn outlook(told: &Answer) -> Vec<String> {
    let mut lines = Vec::new();
    match (&told.ends, told.until) {
        (Some(ends), until) => {
            lines.push(format!("\nends {} if nothing happens: {}", local(ends.at), escape::line(&ends.reason)));
            if let Some(until) = until.filter(|until| *until < ends.at) {
                lines.push(format!("allowed by another rule from {}", local(until)));
            }
        }
        (None, Some(until)) if !told.allowed => lines.push(format!("\nwould be allowed from {}", local(until))),
        _ => {}
    }
    if let Some(step_up) = &told.step_up {
        let age = step_up.max_age.map(|seconds| {
            let age =
                crate::cli::sessions::duration(jiff::SignedDuration::from_secs(seconds.try_into().unwrap_or(i64::MAX)));
            format!("not older than {age}")
        });
        let acr = (!step_up.acr.is_empty()).then(|| format!("with acr {}", escape::line(&step_up.acr.join(" or "))));
        let what: Vec<String> = [age, acr].into_iter().flatten().collect();
        lines.push(format!("\na sign-in {} would be enough", what.join(" and ")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(allowed: bool) -> Answer {
        let evil = "\u{1b}[2J\n";
        serde_json::from_value(json!({
            "allowed": allowed, "rule": "engineers", "reason": format!("engineers needs more{evil}"),
            "step_up": {"max_age": 3600, "acr": ["high"]}, "until": "2026-03-01T09:00:00Z",
            "ends": allowed.then(|| json!({"at": "2026-03-01T18:00:00Z", "reason": format!("over{evil}")})),
            "rules": [
                {"name": format!("engineers{evil}"), "effect": "allow", "about": true, "holds": allowed, "why": evil},
                {"name": "others", "effect": "deny", "about": false, "holds": false, "why": "is about other people"},
            ],
            "asked": {"user": format!("alice{evil}"), "groups": [], "socket": "web-1", "action": "shell",
                "ip": "192.0.2.1", "country": null, "at": "2026-03-01T08:00:00Z", "signed_in": "2026-03-01T08:00:00Z"},
            "notes": [format!("never seen{evil}")],
        }))
        .unwrap()
    }

    #[test]
    fn the_answer_is_told_first_and_nothing_in_it_acts() {
        let yes = words(&told(true), false);
        assert!(yes.starts_with("alice\\x1b[2J\\n on web-1: allowed by engineers\nnote: never seen"), "{yes}");
        assert!(yes.contains("by another rule from") && yes.contains("if nothing happens: over"), "{yes}");
        assert!(yes.contains("1 other rule is about other people or sockets") && !yes.contains("others"), "{yes}");
        let no = words(&told(false), true);
        assert!(no.starts_with("alice\\x1b[2J\\n on web-1, shell: refused: engineers needs more"), "{no}");
        assert!(no.contains("would be allowed from "), "{no}");
        assert!(no.contains("a sign-in not older than 1h00m and with acr high would be enough"), "{no}");
        for text in [yes, no] {
            assert!(!text.chars().any(|c| c != '\n' && escape::is_dangerous(c)), "{text:?}");
        }
    }
}

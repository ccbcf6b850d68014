//! `[[policy]]` as typed to [`Policies`], and warnings of rules that cannot do what they seem to.

use std::collections::HashSet;

use toml::Spanned;

use super::check::Checker;
use super::raw::{self, Exec};
use crate::policy::{
    Effect, ExecPattern, ExecRight, Limits, PlaceMatch, Policies, Require, Rights, Rule, SocketMatch, SomeSsh, SshRights,
    When, Who,
};
use crate::socket::Socket;

/// Every rule that is good; what is wrong with the others was told.
pub fn policies(raw: &[Spanned<raw::Policy>], sockets: &[Socket], check: &mut Checker<'_, '_>) -> Policies {
    let mut names = HashSet::new();
    let mut rules: Vec<(&Spanned<raw::Policy>, Rule)> = Vec::new();
    for policy in raw {
        if let Some(name) = &policy.get_ref().name
            && !names.insert(name.get_ref())
        {
            let words = format!("there is another policy called {:?}", name.get_ref());
            check.report.error(&name.span(), words, "give every policy its own name");
        }
        rules.extend(check.policy(policy).map(|rule| (policy, rule)));
    }
    // Where something is wrong, a rule or socket may be missing here, and a warning would mislead.
    if !check.report.is_bad() {
        for (policy, rule) in &rules {
            check.doubts(policy, rule, &rules, sockets);
        }
        check.unreachable(&rules, sockets);
    }
    Policies::new(rules.into_iter().map(|(_, rule)| rule).collect())
}

impl Checker<'_, '_> {
    fn policy(&mut self, table: &Spanned<raw::Policy>) -> Option<Rule> {
        let raw = table.get_ref();
        let name = self.need(&raw.name, table, "policy", "name", "\"engineers-prod\"");
        let name = name.and_then(|typed| self.filled(typed));
        let effect = self.need(&raw.effect, table, "policy", "effect", "\"allow\", or \"deny\", which wins");
        let effect =
            effect.and_then(|typed| self.choice(typed, &[("allow", Effect::Allow), ("deny", Effect::Deny)], &[]));
        let sockets = raw.sockets.as_ref().map(|sockets| self.list(&sockets.get_ref().names)).unwrap_or_default();
        let who = raw.who.as_ref().map(|who| self.who(who.get_ref())).unwrap_or_default();
        let ssh =
            raw.allow.as_ref().and_then(|allow| allow.get_ref().ssh.as_ref()).map(|ssh| self.rights(ssh.get_ref()));
        if let (Some(Effect::Deny), Some(allow)) = (effect, &raw.allow) {
            let words = "a rule that denies cannot allow something: it denies everything on its sockets";
            self.report.error(&allow.span(), words, "leave [policy.allow] out, or write effect = \"allow\"");
        }
        let ssh = ssh.map_or(Some(None), |ssh| ssh.map(Some))?;
        Some(Rule {
            name: name?,
            effect: effect?,
            sockets: SocketMatch { names: sockets, ..SocketMatch::default() },
            who,
            place: PlaceMatch::default(),
            when: When::default(),
            require: Require::default(),
            limits: Limits::default(),
            rights: Rights { ssh, ..Rights::default() },
        })
    }

    fn who(&mut self, raw: &raw::PolicyWho) -> Who {
        for email in raw.emails.iter().flat_map(|list| list.get_ref()) {
            let plain = email.get_ref().matches('@').count() == 1 && !email.get_ref().contains(['*', ' ']);
            if !plain && !email.get_ref().is_empty() {
                let words = "this is no e-mail address";
                self.report.error(&email.span(), words, "write whole addresses; wildcards do not work here");
            }
        }
        let emails = self.list(&raw.emails).into_iter().map(|email| email.to_lowercase()).collect();
        Who { emails, groups: self.list(&raw.groups), ..Who::default() }
    }

    fn rights(&mut self, raw: &raw::AllowSsh) -> Option<SshRights> {
        if raw.shell.is_none() && raw.exec.is_none() && raw.logins.is_none() {
            return Some(SshRights::All);
        }
        let shell = raw.shell.as_ref().is_some_and(|shell| *shell.get_ref());
        let exec = match raw.exec.as_ref().map(Spanned::get_ref) {
            None | Some(Exec::Any(false)) => ExecRight::None,
            Some(Exec::Any(true)) => ExecRight::Any,
            // An empty list counts as absent, and what is absent is refused.
            Some(Exec::Patterns(list)) if list.is_empty() => ExecRight::None,
            Some(Exec::Patterns(list)) => {
                let help = "words are compared one by one; `*` stands for one, `**` at the end for the rest";
                let list: Vec<_> = list
                    .iter()
                    .map(|typed| self.report.value(typed, ExecPattern::parse(typed.get_ref()), help))
                    .collect();
                ExecRight::Patterns(list.into_iter().collect::<Option<_>>()?)
            }
        };
        Some(SshRights::Some(Box::new(SomeSsh { shell, exec, logins: self.list(&raw.logins), ..SomeSsh::default() })))
    }

    /// Warns of what in this rule can never hold, or not as it looks.
    fn doubts(
        &mut self,
        table: &Spanned<raw::Policy>,
        rule: &Rule,
        rules: &[(&Spanned<raw::Policy>, Rule)],
        sockets: &[Socket],
    ) {
        let raw = table.get_ref();
        let at = raw.name.as_ref().map_or(table.span(), Spanned::span);
        let name = &rule.name;
        let names = raw.sockets.as_ref().and_then(|sockets| sockets.get_ref().names.as_ref());
        for typed in names.into_iter().flat_map(|names| names.get_ref()) {
            let one = SocketMatch { names: vec![typed.get_ref().clone()], ..SocketMatch::default() };
            if !sockets.iter().any(|socket| one.holds(socket)) {
                let what = if typed.get_ref().contains('*') { "matches" } else { "is the name of" };
                self.report.warn(&typed.span(), format!("{:?} {what} no socket", typed.get_ref()));
            }
        }
        if raw.who.is_some() && rule.who.emails.is_empty() && rule.who.groups.is_empty() {
            let words =
                format!("`who` of {name} names nobody, which counts as absent: it means everybody who is signed in");
            self.report.warn(&at, words);
        }
        if raw.sockets.is_some() && rule.sockets.names.is_empty() {
            let words = format!("`sockets` of {name} names none, which counts as absent: it means every socket");
            self.report.warn(&at, words);
        }
        if rule.effect == Effect::Deny {
            return;
        }
        let reach = || sockets.iter().filter(|socket| rule.sockets.holds(socket));
        if let Some((_, deny)) = rules.iter().find(|(_, other)| shadows(other, rule, sockets)) {
            self.report.warn(&at, format!("{name} never allows anything: {} denies the same people there", deny.name));
        }
        match &rule.rights.ssh {
            None => self.report.warn(&at, format!("{name} allows nothing: it has no [policy.allow.ssh]")),
            Some(SshRights::Some(some)) if !some.shell && some.exec == ExecRight::None => {
                self.report.warn(&at, format!("{name} allows neither shell nor exec, so nothing"));
            }
            Some(SshRights::Some(some)) if some.shell && matches!(some.exec, ExecRight::Patterns(_)) => {
                let words = format!("`shell = true` in {name} makes `exec` advisory: a shell runs anything");
                self.report.warn(&at, words);
            }
            _ => {}
        }
        if let Some(SshRights::Some(some)) = &rule.rights.ssh
            && some.logins.is_empty()
            && let Some(socket) = reach().find(|socket| !socket.fixes_login())
        {
            let words =
                format!("{name} has no `logins`, and {} has no `username`: nobody gets in there by it", socket.name);
            self.report.warn(&at, words);
        }
    }

    fn unreachable(&mut self, rules: &[(&Spanned<raw::Policy>, Rule)], sockets: &[Socket]) {
        for socket in sockets {
            let opens =
                |rule: &Rule| rule.effect == Effect::Allow && rule.rights.ssh.is_some() && rule.sockets.holds(socket);
            if !rules.iter().any(|(_, rule)| opens(rule)) {
                self.report.warn(&(0..0), format!("no policy lets anybody on {}", socket.name));
            }
        }
    }
}

/// Whether `deny` keeps out everybody whom `allow` lets in, wherever it does.
fn shadows(deny: &Rule, allow: &Rule, sockets: &[Socket]) -> bool {
    let everybody = |who: &Who| who.emails.is_empty() && who.groups.is_empty();
    let within = |few: &[String], many: &[String]| few.iter().all(|one| many.contains(one));
    let who = everybody(&deny.who)
        || !everybody(&allow.who)
            && within(&allow.who.emails, &deny.who.emails)
            && within(&allow.who.groups, &deny.who.groups);
    let mut reach = sockets.iter().filter(|socket| allow.sockets.holds(socket)).peekable();
    deny.effect == Effect::Deny && who && reach.peek().is_some() && reach.all(|socket| deny.sockets.holds(socket))
}

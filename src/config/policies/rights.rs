//! `[policy.allow]`: what a rule allows, protocol by protocol.
//!
//! A table with nothing in it allows everything. In one with keys, an absent or empty right is refused, and an absent or
//! empty narrowing does not narrow.

use toml::Spanned;

use crate::config::check::Checker;
use crate::config::raw::{self, Exec, List, Sftp, Typed};
use crate::policy::{
    DatabaseRights, DestinationPattern, ExecPattern, ExecRight, FilesRight, HttpRights, KubernetesRights, Rights,
    SomeSsh, SshRights, StatementClass,
};

impl Checker<'_, '_> {
    pub(super) fn rights(&mut self, raw: &raw::Allow) -> Option<Rights> {
        let ssh = raw.ssh.as_ref().map(|ssh| self.ssh_rights(ssh.get_ref()));
        let database = raw.database.as_ref().map(|database| self.database_rights(database.get_ref()));
        let http: Vec<_> = raw.http.iter().map(|http| self.http_rights(http.get_ref())).collect();
        let kubernetes: Vec<_> = raw.kubernetes.iter().map(|rights| self.kubernetes_rights(rights.get_ref())).collect();
        Some(Rights {
            ssh: ssh.map_or(Some(None), |ssh| ssh.map(Some))?,
            database: database.map_or(Some(None), |database| database.map(Some))?,
            http: http.into_iter().collect::<Option<_>>()?,
            kubernetes: kubernetes.into_iter().collect::<Option<_>>()?,
            tcp: raw.tcp.is_some(),
        })
    }

    fn ssh_rights(&mut self, raw: &raw::AllowSsh) -> Option<SshRights> {
        let raw::AllowSsh { shell, exec, sftp, forward_to, forward_from, forward_opaque, agent, x11, logins } = raw;
        let switches = [shell, forward_opaque, agent, x11];
        let lists = [forward_to, forward_from, logins];
        if exec.is_none() && sftp.is_none() && switches.iter().all(|s| s.is_none()) && lists.iter().all(|l| l.is_none())
        {
            return Some(SshRights::All);
        }
        let on = |switch: &Typed<bool>| switch.as_ref().is_some_and(|switch| *switch.get_ref());
        let (exec, sftp) = (self.exec(exec), self.sftp(sftp));
        let (forward_to, forward_from) = (self.hosts(forward_to), self.hosts(forward_from));
        Some(SshRights::Some(Box::new(SomeSsh {
            shell: on(shell),
            exec: exec?,
            sftp: sftp?,
            forward_to: forward_to?,
            forward_from: forward_from?,
            forward_opaque: on(forward_opaque),
            agent: on(agent),
            x11: on(x11),
            logins: self.list(logins),
        })))
    }

    fn exec(&mut self, typed: &Typed<Exec>) -> Option<ExecRight> {
        match typed.as_ref().map(Spanned::get_ref) {
            None | Some(Exec::Any(false)) => Some(ExecRight::None),
            Some(Exec::Any(true)) => Some(ExecRight::Any),
            // An empty list counts as absent, and what is absent is refused.
            Some(Exec::Patterns(list)) if list.is_empty() => Some(ExecRight::None),
            Some(Exec::Patterns(list)) => {
                let help = "words are compared one by one; `*` stands for one, `**` at the end for the rest";
                let list: Vec<_> = list
                    .iter()
                    .map(|typed| self.report.value(typed, ExecPattern::parse(typed.get_ref()), help))
                    .collect();
                Some(ExecRight::Patterns(list.into_iter().collect::<Option<_>>()?))
            }
        }
    }

    fn sftp(&mut self, typed: &Typed<Sftp>) -> Option<FilesRight> {
        let Some(typed) = typed else { return Some(FilesRight::None) };
        match typed.get_ref() {
            Sftp::Plain(false) => Some(FilesRight::None),
            Sftp::Plain(true) => {
                let help = "write \"read\" or \"write\", which reads too";
                self.report.error(&typed.span(), "`true` does not say what may be done with files", help);
                None
            }
            Sftp::Word(word) => {
                let word = Spanned::new(typed.span(), word.clone());
                self.choice(&word, &[("read", FilesRight::Read), ("write", FilesRight::Write)], &[])
            }
        }
    }

    fn hosts(&mut self, list: &List) -> Option<Vec<DestinationPattern>> {
        let help = "write \"10.0.0.7:443\", \"[2001:db8::7]:443\" or \"/run/app.sock\"; `*` stands for any run of characters, or every port";
        let typed = list.iter().flat_map(|list| list.get_ref());
        let hosts: Vec<_> =
            typed.map(|typed| self.report.value(typed, DestinationPattern::parse(typed.get_ref()), help)).collect();
        hosts.into_iter().collect()
    }

    fn database_rights(&mut self, raw: &raw::AllowDatabase) -> Option<DatabaseRights> {
        let typed = raw.statements.iter().flat_map(|list| list.get_ref());
        let statements: Vec<_> = typed.map(|typed| self.choice(typed, &StatementClass::NAMED, &[])).collect();
        let databases = self.list(&raw.databases);
        Some(DatabaseRights { databases, statements: statements.into_iter().collect::<Option<_>>()? })
    }

    fn http_rights(&mut self, raw: &raw::AllowHttp) -> Option<HttpRights> {
        let help = "write \"GET\" and the like; leave `methods` out for all of them";
        let methods = self.words(&raw.methods, is_method, "this is no HTTP method", help);
        let help = "write \"/app/*\"; `*` stands for any run of characters";
        let paths = self.words(&raw.paths, |path| path.starts_with(['/', '*']), "a path begins with `/`", help);
        Some(HttpRights { methods: methods?.iter().map(|method| method.to_ascii_uppercase()).collect(), paths: paths? })
    }

    fn kubernetes_rights(&mut self, raw: &raw::AllowKubernetes) -> Option<KubernetesRights> {
        let help = "write \"get\" and the like in small letters; leave `verbs` out for all of them";
        let is_verb = |verb: &str| verb.bytes().all(|byte| byte.is_ascii_lowercase());
        let verbs = self.words(&raw.verbs, is_verb, "this is no verb", help);
        let (namespaces, resources) = (self.list(&raw.namespaces), self.list(&raw.resources));
        Some(KubernetesRights { namespaces, resources, verbs: verbs? })
    }

    /// A list's texts, each of which must be one of a kind.
    fn words(&mut self, list: &List, good: impl Fn(&str) -> bool, wrong: &str, help: &str) -> Option<Vec<String>> {
        let bad: Vec<_> = list.iter().flat_map(|list| list.get_ref()).filter(|typed| !good(typed.get_ref())).collect();
        for typed in &bad {
            self.report.error(&typed.span(), wrong, help);
        }
        bad.is_empty().then(|| self.list(list))
    }
}

/// A token (RFC 9110 section 5.6.2), but without the star, which would look as if it stood for something.
fn is_method(text: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(token)
}

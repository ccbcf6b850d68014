//! A second evaluator, written from the contract's sentences alone: it keeps rules as plain text and numbers, compares them
//! in the slowest way, and must agree with the engine.

mod random;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Zoned};
use proptest::prelude::*;

pub(super) use self::random::{any_rules, any_visit};
use super::*;

type Texts = Vec<&'static str>;

/// A rule as somebody might read it aloud. Empty lists and `None` are absent.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    deny: bool,
    names: Texts,
    tags: Texts,
    groups: Texts,
    emails: Texts,
    domains: Texts,
    /// Values of the claim `dept`.
    dept: Texts,
    networks: Texts,
    countries: Texts,
    not_countries: Texts,
    days: Vec<i8>,
    /// Minutes of the day, the second up to 24:00.
    hours: Option<(u16, u16)>,
    zone: &'static str,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    max_age: Option<u64>,
    acr: Texts,
    amr: Texts,
    max_session: Option<u64>,
    idle_timeout: Option<u64>,
    ssh: Option<PlainSsh>,
    database: Option<(Texts, Vec<StatementClass>)>,
    http: Vec<(Texts, Texts)>,
    kubernetes: Vec<(Texts, Texts, Texts)>,
    tcp: bool,
}

/// `None`: an empty table.
type PlainSsh = Option<Keys>;

#[derive(Clone, Debug)]
struct Keys {
    shell: bool,
    any_exec: bool,
    exec: Texts,
    /// 0: nothing, 1: read, 2: write.
    sftp: u8,
    forward_to: Texts,
    forward_from: Texts,
    agent: bool,
    x11: bool,
    logins: Texts,
}

/// Who asks what, where, and when.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) who: Identity,
    groups: Texts,
    email: &'static str,
    dept: Texts,
    acr: Option<&'static str>,
    amr: Texts,
    signed_in: Timestamp,
    expires: Timestamp,
    pub(super) to: Socket,
    pub(super) login: Option<&'static str>,
    pub(super) context: Context,
    pub(super) action: Action,
}

impl Plain {
    /// "Which sockets: a name matches, or all tags do."
    fn about_socket(&self, to: &Socket) -> bool {
        let tags: Vec<String> = to.tags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let named = self.names.iter().any(|name| like(name, &to.name));
        let tagged = !self.tags.is_empty() && self.tags.iter().all(|tag| tags.contains(&(*tag).to_owned()));
        named || tagged || self.names.is_empty() && self.tags.is_empty()
    }

    /// "Any of them."
    fn about_person(&self, visit: &Visit) -> bool {
        let email = visit.email.to_lowercase();
        let everybody =
            self.groups.is_empty() && self.emails.is_empty() && self.domains.is_empty() && self.dept.is_empty();
        everybody
            || self.groups.iter().any(|group| visit.groups.contains(group))
            || self.emails.iter().any(|wanted| *wanted == email)
            || self.domains.iter().any(|domain| email.ends_with(&format!("@{domain}")))
            || self.dept.iter().any(|value| visit.dept.contains(value))
    }

    /// "All of them." A country that nobody knows is in no list, and outside of one only for a rule that denies.
    fn about_place(&self, context: &Context) -> bool {
        let networks = self.networks.is_empty() || self.networks.iter().any(|net| is_within(context.client_ip, net));
        let is_in = |list: &Texts| matches!(&context.country, Country::Known(code) if list.contains(&code.as_str()));
        let countries = self.countries.is_empty() || is_in(&self.countries);
        let certain = self.deny || context.country != Country::Unknown;
        let not_countries = self.not_countries.is_empty() || certain && !is_in(&self.not_countries);
        networks && countries && not_countries
    }

    /// Days and hours on the zone's wall clock; a window over midnight belongs to the day on which it begins.
    fn about_time(&self, now: Timestamp) -> bool {
        if self.after.is_some_and(|after| now < after) || self.before.is_some_and(|before| now >= before) {
            return false;
        }
        let local = Zoned::new(now, TimeZone::get(self.zone).unwrap());
        let today = local.weekday().to_monday_zero_offset();
        let on = |day: i8| self.days.is_empty() || self.days.contains(&day);
        let minute = local.hour() as u16 * 60 + local.minute() as u16;
        match self.hours {
            None => on(today),
            Some((from, to)) if from < to => on(today) && minute >= from && minute < to,
            Some((from, to)) => on(today) && minute >= from || on((today + 6) % 7) && minute < to,
        }
    }

    fn about_sign_in(&self, visit: &Visit) -> bool {
        let age = latest(&visit.context).duration_since(visit.signed_in).as_secs();
        self.max_age.is_none_or(|most| age < most as i64)
            && (self.acr.is_empty() || visit.acr.is_some_and(|acr| self.acr.contains(&acr)))
            && (self.amr.is_empty() || self.amr.iter().any(|amr| visit.amr.contains(amr)))
    }

    fn about_length(&self, context: &Context) -> bool {
        self.max_session.is_none_or(|most| context.elapsed.as_secs() < most)
            && self.idle_timeout.is_none_or(|most| context.idle.as_secs() < most)
    }

    /// "Nothing that is not allowed is allowed."
    fn allows(&self, visit: &Visit) -> bool {
        let Some(ssh) = &self.ssh else { return false };
        let opens = ssh.as_ref().is_none_or(|keys| {
            keys.shell
                || keys.any_exec
                || !keys.exec.is_empty()
                || keys.sftp > 0
                || keys.agent
                || keys.x11
                || !keys.forward_to.is_empty()
                || !keys.forward_from.is_empty()
        });
        let login = match (visit.to.fixes_login(), visit.login) {
            (true, login) => login.is_none(),
            (false, None) => false,
            (false, Some(login)) => ssh.as_ref().is_none_or(|keys| keys.logins.iter().any(|one| like(one, login))),
        };
        opens && login && self.allows_action(ssh.as_ref(), &visit.action)
    }

    fn allows_action(&self, ssh: Option<&Keys>, action: &Action) -> bool {
        let either = |list: &Texts, name: &str| list.is_empty() || list.iter().any(|one| like(one, name));
        let exactly = |list: &Texts, name: &str| list.is_empty() || list.contains(&name);
        match action {
            Action::Connect { .. } => true,
            Action::Tcp => self.tcp,
            Action::Database { database, class } => self.database.as_ref().is_some_and(|(databases, classes)| {
                either(databases, database) && (classes.is_empty() || classes.contains(class))
            }),
            Action::Http { method, path } => {
                self.http.iter().any(|(methods, paths)| exactly(methods, method) && either(paths, path))
            }
            Action::Kubernetes { verb, resource, namespace } => {
                self.kubernetes.iter().any(|(namespaces, resources, verbs)| {
                    let namespace = namespaces.is_empty() || namespace.as_ref().is_some_and(|n| either(namespaces, n));
                    namespace && either(resources, resource) && exactly(verbs, verb)
                })
            }
            _ => ssh.is_none_or(|keys| keys.allow(action)),
        }
    }

    pub(super) fn rule(&self, name: String) -> Rule {
        let claims = (!self.dept.is_empty()).then(|| ("dept".to_owned(), strings(&self.dept)));
        let days = Days::of(self.days.iter().map(|day| jiff::civil::Weekday::from_monday_zero_offset(*day).unwrap()));
        let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let hours = self.hours.map(|(from, to)| Hours::parse(&format!("{}-{}", clock(from), clock(to))).unwrap());
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let zone = TimeZone::get(self.zone).unwrap();
        Rule {
            name,
            effect: if self.deny { Effect::Deny } else { Effect::Allow },
            sockets: SocketMatch {
                names: strings(&self.names),
                tags: self
                    .tags
                    .iter()
                    .map(|tag| tag.split_once('=').unwrap())
                    .map(|(n, v)| (n.into(), v.into()))
                    .collect(),
            },
            who: Who {
                emails: strings(&self.emails),
                domains: strings(&self.domains),
                groups: strings(&self.groups),
                service_accounts: vec![],
                claims: claims.into_iter().collect(),
            },
            place: PlaceMatch {
                networks: self.networks.iter().map(|net| net.parse().unwrap()).collect(),
                countries: strings(&self.countries),
                not_countries: strings(&self.not_countries),
            },
            when: When::new(days.unwrap_or(Days::ALL), hours, zone, self.after, self.before),
            require: Require {
                max_sign_in_age: seconds(self.max_age),
                acr: strings(&self.acr),
                amr: strings(&self.amr),
            },
            limits: Limits {
                max_session: seconds(self.max_session),
                idle_timeout: seconds(self.idle_timeout),
                finish_grace: None,
            },
            rights: self.rights(),
        }
    }

    fn rights(&self) -> Rights {
        let hosts = |list: &Texts| list.iter().map(|host| DestinationPattern::parse(host).unwrap()).collect();
        let some = |keys: &Keys| SomeSsh {
            shell: keys.shell,
            exec: match (keys.any_exec, keys.exec.is_empty()) {
                (true, _) => ExecRight::Any,
                (false, true) => ExecRight::None,
                (false, false) => patterns(&keys.exec),
            },
            sftp: [FilesRight::None, FilesRight::Read, FilesRight::Write][keys.sftp as usize],
            forward_to: hosts(&keys.forward_to),
            forward_from: hosts(&keys.forward_from),
            forward_opaque: false,
            agent: keys.agent,
            x11: keys.x11,
            logins: strings(&keys.logins),
        };
        let ssh = |ssh: &PlainSsh| ssh.as_ref().map_or(SshRights::All, |keys| SshRights::Some(Box::new(some(keys))));
        let http = |(methods, paths): &(Texts, Texts)| HttpRights { methods: strings(methods), paths: strings(paths) };
        let kubernetes = |(namespaces, resources, verbs): &(Texts, Texts, Texts)| KubernetesRights {
            namespaces: strings(namespaces),
            resources: strings(resources),
            verbs: strings(verbs),
        };
        let database = |(databases, statements): &(Texts, Vec<StatementClass>)| DatabaseRights {
            databases: strings(databases),
            statements: statements.clone(),
        };
        Rights {
            ssh: self.ssh.as_ref().map(ssh),
            database: self.database.as_ref().map(database),
            http: self.http.iter().map(http).collect(),
            kubernetes: self.kubernetes.iter().map(kubernetes).collect(),
            tcp: self.tcp,
        }
    }
}

impl Keys {
    fn allow(&self, action: &Action) -> bool {
        let leads = |list: &Texts, host: &str, port: u16| {
            list.iter().map(|one| one.split_once(':').unwrap()).any(|(wanted, at)| {
                like(&wanted.to_lowercase(), &host.to_lowercase()) && (at == "*" || at == port.to_string())
            })
        };
        match action {
            Action::SshShell => self.shell,
            Action::SshExec { command } => {
                self.any_exec || self.exec.iter().any(|pattern| runs(pattern, std::str::from_utf8(command).unwrap()))
            }
            Action::SshFiles { write } => self.sftp > u8::from(*write),
            Action::SshForwardTo { to: Destination::Tcp { host, port }, .. } => leads(&self.forward_to, host, *port),
            Action::SshForwardFrom { at: Destination::Tcp { host, port }, .. } => {
                leads(&self.forward_from, host, *port)
            }
            Action::SshAgent => self.agent,
            Action::SshX11 => self.x11,
            _ => false,
        }
    }
}

/// Which of the few commands that are asked for the few patterns describe.
fn runs(pattern: &str, command: &str) -> bool {
    match pattern {
        "uptime" => command == "uptime",
        "ls *" => command == "ls x",
        "git **" => command == "git log -p",
        _ => false,
    }
}

/// `*` stands for any run of characters.
fn like(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => {
            let Some(rest) = name.strip_prefix(before) else { return false };
            (0..=rest.len()).filter_map(|taken| rest.get(taken..)).any(|rest| like(after, rest))
        }
    }
}

/// Bit by bit.
fn is_within(ip: IpAddr, network: &str) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(ip.octets().to_vec(), |ip| ip.octets().to_vec()),
    };
    let (address, length) = network.split_once('/').unwrap();
    let (ip, address) = (bits(ip), bits(address.parse().unwrap()));
    let bit = |bytes: &[u8], at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    ip.len() == address.len() && (0..length.parse().unwrap()).all(|at| bit(&ip, at) == bit(&address, at))
}

fn latest(context: &Context) -> Timestamp {
    context.now.max(context.started + SignedDuration::try_from(context.elapsed).unwrap())
}

/// The contract's sentences, one after another.
fn is_allowed(rules: &[Plain], visit: &Visit) -> bool {
    let here = |rule: &&Plain| {
        rule.about_socket(&visit.to)
            && rule.about_person(visit)
            && rule.about_place(&visit.context)
            && rule.about_time(visit.context.now)
    };
    let alone = |rule: &Plain| {
        !rule.deny && rule.about_sign_in(visit) && rule.about_length(&visit.context) && rule.allows(visit)
    };
    latest(&visit.context) < visit.expires
        && !rules.iter().filter(here).any(|rule| rule.deny)
        && rules.iter().filter(here).any(alone)
}

pub(super) fn policies(rules: &[Plain]) -> Policies {
    Policies::new(rules.iter().enumerate().map(|(at, plain)| plain.rule(format!("r{at}"))).collect())
}

#[test]
fn the_engine_agrees_with_the_naive_evaluator() {
    let (asked, allowed) = (AtomicU32::new(0), AtomicU32::new(0));
    let config = ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(rules in any_rules(), visit in any_visit(), known in any::<bool>())| {
        let policies = policies(&rules);
        let policies = if known { policies.with_sockets([&visit.to]) } else { policies };
        let Visit { who, to, login, context, action, .. } = &visit;
        let expected = is_allowed(&rules, &visit);
        let got = decide(&policies, &Locks::default(), who, to, context).and_then(|permit| permit.check(*login, action));
        prop_assert_eq!(got.is_ok(), expected, "{:?}", got);
        let question = Question { policies: &policies, locks: &Locks::default(), who, to, login: *login };
        prop_assert_eq!(question.ask(action, context).is_ok(), expected);
        asked.fetch_add(1, Ordering::Relaxed);
        allowed.fetch_add(u32::from(expected), Ordering::Relaxed);
    });
    // Or it would have agreed on nothing much.
    let (asked, allowed) = (asked.into_inner(), allowed.into_inner());
    assert!(allowed * 20 > asked && allowed * 2 < asked, "{allowed} of {asked}");
}

//! `[[socket]]` as typed to [`Socket`]. Where one leads is in `upstream`, or in `shell` for this host itself, through which
//! others in `jumps`.

mod jumps;
mod shell;
pub(super) mod upstream;

use std::collections::HashMap;
use std::net::SocketAddr;

use toml::Spanned;

use super::check::Checker;
use super::host;
use super::raw;
use crate::socket::{Protocol, RecordFiles, Socket};

/// Names that the portal keeps for itself.
const TAKEN: [&str; 2] = ["api", "replay"];

/// Every socket that is good; what is wrong with the others was told.
pub fn sockets(
    raw: &[Spanned<raw::Socket>],
    listen: &Spanned<raw::Listen>,
    check: &mut Checker<'_, '_>,
) -> Vec<Socket> {
    if raw.is_empty() {
        check.report.warn(&(0..0), "there is no [[socket]]: nothing can be reached");
    }
    let mut names: HashMap<&str, ()> = HashMap::new();
    let mut addresses = Addresses::default();
    let shared = listen.get_ref();
    let doors = [("[listen] https", &shared.https), ("[listen] ssh", &shared.ssh), ("[listen] all", &shared.all)];
    for (what, typed) in doors {
        typed.iter().for_each(|typed| addresses.take(typed, what.to_owned(), check));
    }
    let mut good = Vec::new();
    for socket in raw {
        let name = &socket.get_ref().name;
        if let Some(name) = name
            && names.insert(name.get_ref(), ()).is_some()
        {
            let words = format!("there is another socket called {:?}", name.get_ref());
            check.report.error(&name.span(), words, "give every socket its own name");
        }
        if let Some(listen) = &socket.get_ref().listen {
            let whose =
                name.as_ref().map_or("another socket".to_owned(), |name| format!("socket {:?}", name.get_ref()));
            addresses.take(listen, whose, check);
        }
        good.extend(check.socket(socket));
    }
    jumps::link(good, raw, check)
}

/// How people may sign in.
#[derive(Clone, Copy)]
struct Ways {
    link: bool,
    certificate: bool,
}

impl Checker<'_, '_> {
    fn socket(&mut self, table: &Spanned<raw::Socket>) -> Option<Socket> {
        let raw = table.get_ref();
        let name = self.need(&raw.name, table, "socket", "name", "\"web-1\"").and_then(|typed| {
            let name = self.report.value(typed, host::label(typed.get_ref()), "write a name such as \"web-1\"")?;
            if TAKEN.contains(&name.as_str()) {
                let words = format!("the name {name:?} is taken by the gateway itself");
                self.report.error(&typed.span(), words, "choose another name");
            }
            Some(name)
        });
        let protocol = self.need(&raw.kind, table, "socket", "type", "\"ssh\"").and_then(|typed| {
            self.choice(typed, &[("ssh", Protocol::Ssh)], &["postgres", "mysql", "http", "kubernetes", "tcp"])
        });
        let upstream = self.need(&raw.upstream, table, "socket", "upstream", UPSTREAM_EXAMPLE);
        let upstream = upstream.and_then(|upstream| self.upstream(upstream));
        let on_failure = self.on_failure(raw.on_failure.as_ref()?);
        let files = [("metadata", RecordFiles::Metadata), ("content", RecordFiles::Contents)];
        let record_files = self.choice(raw.record_files.as_ref()?, &files, &[]);
        let listen = raw.listen.as_ref().map(|typed| self.address(typed));
        let ways = self.sign_in_ways(raw);
        Some(Socket {
            name: name?,
            protocol: protocol?,
            tags: raw.tags.as_ref().map(|tags| tags.get_ref().clone()).unwrap_or_default(),
            record: *raw.record.as_ref()?.get_ref(),
            on_failure: on_failure?,
            record_files: record_files?,
            notice: raw.notice.as_ref().map(|notice| notice.get_ref().clone()),
            listen: listen.map_or(Some(None), |listen| listen.map(Some))?,
            links: ways?.link,
            certificates: ways?.certificate,
            upstream: upstream?,
        })
    }

    fn sign_in_ways(&mut self, raw: &raw::Socket) -> Option<Ways> {
        let ways = raw.sign_in.as_ref()?;
        let (mut link, mut certificate) = (false, false);
        for way in ways.get_ref() {
            match self.choice(way, &[("link", true), ("certificate", false)], &[])? {
                true => link = true,
                false => certificate = true,
            }
        }
        if !link && !certificate {
            let words = "an empty `sign_in` lets nobody in";
            self.report.error(&ways.span(), words, "write [\"certificate\"] to turn links off, or leave it out");
        }
        Some(Ways { link, certificate })
    }
}

/// Who listens where.
#[derive(Default)]
struct Addresses(Vec<(SocketAddr, String)>);

impl Addresses {
    /// Notes an address, and tells where somebody else has it.
    fn take(&mut self, typed: &Spanned<String>, whose: String, check: &mut Checker<'_, '_>) {
        // What is no address is told where it is checked.
        let Ok(address) = typed.get_ref().parse::<SocketAddr>() else { return };
        let all = |address: &SocketAddr| address.ip().is_unspecified();
        let clash = self.0.iter().find(|(other, _)| {
            let same = other.ip() == address.ip() || all(other) || all(&address);
            same && other.port() == address.port() && address.port() != 0
        });
        if let Some((_, other)) = clash {
            // Two defaults cannot clash, so where one side is a default the other has a place to point at.
            let words = format!("{address} is where {other} listens");
            check.report.error(&typed.span(), words, "choose another port");
        }
        self.0.push((address, whose));
    }
}

const UPSTREAM_EXAMPLE: &str = "{ address = \"10.0.0.5:22\", ... }, or a table [socket.upstream]";

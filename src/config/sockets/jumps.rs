//! `via`: the jump hosts that sockets lead through, put into them once all are known.

use std::collections::HashMap;
use std::sync::Arc;

use toml::Spanned;

use crate::config::check::Checker;
use crate::config::{raw, schema};
use crate::socket::{JumpHost, Socket, SshUpstream, UpstreamSpec};

/// Jump hosts on one way. Each takes its part of the time that a dial has.
const MOST_JUMPS: usize = 8;

/// Every socket by its name, as typed; of two with one name, which was told, the first.
type ByName<'a> = HashMap<&'a str, &'a raw::Socket>;

/// Gives each socket the way to it. One whose way is wrong is left out; why was told.
pub(super) fn link(good: Vec<Socket>, raw: &[Spanned<raw::Socket>], check: &mut Checker<'_, '_>) -> Vec<Socket> {
    let mut by_name = ByName::new();
    for socket in raw.iter().map(Spanned::get_ref) {
        if let Some(name) = &socket.name {
            by_name.entry(name.get_ref()).or_insert(socket);
        }
    }
    for socket in raw.iter().map(Spanned::get_ref) {
        check.way(socket, &by_name);
    }
    let (mut waiting, mut done) = (good, Vec::new());
    // Each round links the sockets whose jump host was linked in the one before: nobody shares them yet. In a loop or
    // behind what is missing that never happens.
    for _ in 0..=MOST_JUMPS {
        let servers: HashMap<String, Arc<SshUpstream>> = done.iter().filter_map(server).collect();
        let (mut linked, mut rest) = (Vec::new(), Vec::new());
        for mut socket in waiting {
            match is_linked(&mut socket, &by_name, &servers) {
                true => linked.push(socket),
                false => rest.push(socket),
            }
        }
        waiting = rest;
        done.extend(linked);
    }
    // As they stand in the file.
    let names = raw.iter().filter_map(|socket| Some(socket.get_ref().name.as_ref()?.get_ref().as_str()));
    let places: HashMap<&str, usize> = names.enumerate().map(|(place, name)| (name, place)).collect();
    done.sort_by_key(|socket: &Socket| places.get(socket.name.as_str()).copied());
    done
}

/// Puts the way into a socket. `false`: its jump host is not ready.
fn is_linked(socket: &mut Socket, by_name: &ByName<'_>, servers: &HashMap<String, Arc<SshUpstream>>) -> bool {
    let Some(via) = by_name.get(socket.name.as_str()).and_then(|raw| via(raw)) else { return true };
    let Some(hop) = servers.get(via.get_ref()).filter(|hop| hop.username.is_some()) else { return false };
    let UpstreamSpec::Ssh(server) = &mut socket.upstream else { return false };
    let Some(server) = Arc::get_mut(server) else { return false };
    server.via = Some(JumpHost { name: via.get_ref().clone(), server: hop.clone() });
    true
}

fn server(socket: &Socket) -> Option<(String, Arc<SshUpstream>)> {
    match &socket.upstream {
        UpstreamSpec::Ssh(server) => Some((socket.name.clone(), server.clone())),
        UpstreamSpec::Shell { .. } | UpstreamSpec::ShellAs { .. } => None,
    }
}

fn is_called(socket: &raw::Socket, name: &str) -> bool {
    socket.name.as_ref().is_some_and(|typed| typed.get_ref() == name)
}

/// The jump host of a server. What leads to none has no way, and was told where it names one.
fn via(socket: &raw::Socket) -> Option<&Spanned<String>> {
    let upstream = socket.upstream.as_ref()?.get_ref();
    upstream.via.as_ref().filter(|_| is_server(upstream))
}

fn is_server(upstream: &raw::Upstream) -> bool {
    upstream.kind.as_ref().is_none_or(|kind| kind.get_ref() == "ssh")
}

impl Checker<'_, '_> {
    /// Tells what is wrong with the way of a socket.
    fn way(&mut self, socket: &raw::Socket, by_name: &ByName<'_>) {
        let Some(typed) = via(socket) else { return };
        let name = typed.get_ref().as_str();
        let Some(hop) = by_name.get(name) else {
            let help = match schema::meant(name, by_name.keys().copied().filter(|other| !is_called(socket, other))) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => "name a [[socket]] that leads to an SSH server".to_owned(),
            };
            self.report.error(&typed.span(), format!("there is no socket called {name:?}"), help);
            return;
        };
        let (words, help) = match hop.upstream.as_ref().map(Spanned::get_ref) {
            Some(upstream) if !is_server(upstream) => {
                (format!("socket {name:?} does not lead to an SSH server"), "name one that does")
            }
            Some(upstream) if upstream.username.is_none() => {
                (format!("socket {name:?} fixes no login to pass through it with"), "give it a `username`")
            }
            _ => match jumps(socket, by_name) {
                Jumps::Back => ("this way leads back to where it began".to_owned(), "leave `via` out of one of them"),
                Jumps::TooMany => (format!("there are more than {MOST_JUMPS} jump hosts on this way"), "shorten it"),
                Jumps::Good => return,
            },
        };
        self.report.error(&typed.span(), words, help);
    }
}

enum Jumps {
    Good,
    Back,
    TooMany,
}

/// Follows the way from a socket.
fn jumps<'a>(start: &'a raw::Socket, by_name: &ByName<'a>) -> Jumps {
    let (mut at, mut jumps) = (start, 0);
    while let Some(hop) = via(at).and_then(|via| by_name.get(via.get_ref().as_str())) {
        jumps += 1;
        if std::ptr::eq(*hop, start) {
            return Jumps::Back;
        }
        if jumps > MOST_JUMPS {
            return Jumps::TooMany;
        }
        at = hop;
    }
    Jumps::Good
}

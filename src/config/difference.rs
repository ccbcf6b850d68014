//! What differs between two readings of the file: what a running gateway takes over, and what needs a restart. Compares
//! what is written, so a secret whose file has changed is no difference.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use toml::{Table, Value};

use super::raw::Raw;
use super::schema;
use super::sockets::upstream::is_key;

/// A file's tables as they are written, defaults filled in.
#[derive(Clone, Debug, Default)]
pub struct Written {
    sockets: BTreeMap<String, Value>,
    policies: BTreeMap<String, Value>,
    rest: Table,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `[[socket]]`
    pub sockets: Names,
    /// `[[policy]]`
    pub policies: Names,
    /// `[roles]`
    pub roles: bool,
    /// Tables that a running gateway does not take over.
    pub needs_restart: Vec<String>,
}

/// Names of what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// Only in the new one.
    pub added: Vec<String>,
    /// Only in the old one.
    pub removed: Vec<String>,
    /// In both, but not the same.
    pub changed: Vec<String>,
}

impl Written {
    pub(super) fn of(raw: &Raw) -> Self {
        let Ok(Value::Table(mut rest)) = Value::try_from(raw) else { return Self::default() };
        let (sockets, policies) = (rest.remove("socket"), rest.remove("policy"));
        Self { sockets: by_name(sockets), policies: by_name(policies), rest }
    }

    /// The files that secrets are read from, as they are named: relative ones are relative to the configuration's directory.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        self.files(schema::is_secret, |text| text.strip_prefix("file:"))
    }

    /// The files that are no secrets but are believed, such as certificates and `known_hosts`, named in the same way.
    pub fn believed_files(&self) -> Vec<PathBuf> {
        // A key itself may stand where the name of its file may.
        self.files(schema::is_believed, |text| Some(text).filter(|text| !is_key(text)))
    }

    fn files(&self, of: fn(&str) -> bool, named: fn(&str) -> Option<&str>) -> Vec<PathBuf> {
        let mut texts = Vec::new();
        self.sockets.values().chain(self.rest.values()).for_each(|table| texts_of(table, of, &mut texts));
        texts.into_iter().filter_map(named).map(PathBuf::from).collect()
    }

    /// What is different in `new`.
    pub fn difference(&self, new: &Self) -> Difference {
        let keys = self.rest.keys().chain(new.rest.keys());
        let mut tables: Vec<String> =
            keys.filter(|key| self.rest.get(*key) != new.rest.get(*key)).map(|key| format!("[{key}]")).collect();
        tables.sort();
        tables.dedup();
        let roles = tables.iter().any(|table| table == "[roles]");
        tables.retain(|table| table != "[roles]");
        // A socket's own port is bound at the start.
        let listens = |sockets: &BTreeMap<String, Value>| -> Vec<(String, Option<Value>)> {
            let listens = sockets.iter().map(|(name, socket)| (name.clone(), socket.get("listen").cloned()));
            listens.filter(|(_, listen)| listen.is_some()).collect()
        };
        let (before, after) = (listens(&self.sockets), listens(&new.sockets));
        let bound = after.iter().filter(|listen| !before.contains(listen));
        tables.extend(bound.map(|(name, _)| format!("`listen` of socket {name}")));
        // Whom the helper may become is told it at its start.
        let users =
            |sockets: &BTreeMap<String, Value>| -> Vec<Value> { sockets.values().filter_map(shell_user).collect() };
        let before = users(&self.sockets);
        let added =
            new.sockets.iter().filter(|(_, socket)| shell_user(socket).is_some_and(|user| !before.contains(&user)));
        tables.extend(added.map(|(name, _)| format!("`username` of socket {name}")));
        let sockets = names(&self.sockets, &new.sockets);
        Difference { sockets, policies: names(&self.policies, &new.policies), roles, needs_restart: tables }
    }
}

impl Difference {
    /// Whether both are the same.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Difference {
    /// `sockets: +web-2 -web-1; policies: ~engineers; roles`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |what: &str, names: &Names| {
            let marked = [("+", &names.added), ("-", &names.removed), ("~", &names.changed)];
            let marked = marked.iter().flat_map(|(mark, names)| names.iter().map(move |name| format!(" {mark}{name}")));
            let marked: String = marked.collect();
            (!marked.is_empty()).then(|| format!("{what}:{marked}"))
        };
        let roles = self.roles.then(|| "roles".to_owned());
        let parts = [named("sockets", &self.sockets), named("policies", &self.policies), roles];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "nothing" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

/// The texts that stand behind these keys, alone or in a list.
fn texts_of<'a>(value: &'a Value, of: fn(&str) -> bool, found: &mut Vec<&'a str>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                match value {
                    Value::String(text) if of(key) => found.push(text),
                    Value::Array(list) if of(key) => found.extend(list.iter().filter_map(Value::as_str)),
                    _ => texts_of(value, of, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| texts_of(value, of, found)),
        _ => {}
    }
}

/// The user of a built-in shell.
fn shell_user(socket: &Value) -> Option<Value> {
    let upstream = socket.get("upstream")?;
    let is_shell = upstream.get("kind").and_then(Value::as_str) == Some("shell");
    upstream.get("username").filter(|_| is_shell).cloned()
}

fn by_name(list: Option<Value>) -> BTreeMap<String, Value> {
    let Some(Value::Array(list)) = list else { return BTreeMap::new() };
    let named = |value: Value| Some((value.get("name")?.as_str()?.to_owned(), value));
    list.into_iter().filter_map(named).collect()
}

fn names(old: &BTreeMap<String, Value>, new: &BTreeMap<String, Value>) -> Names {
    let only = |here: &BTreeMap<String, Value>, there: &BTreeMap<String, Value>| -> Vec<String> {
        here.keys().filter(|name| !there.contains_key(*name)).cloned().collect()
    };
    let changed = new.iter().filter(|(name, value)| old.get(*name).is_some_and(|old| old != *value));
    Names { added: only(new, old), removed: only(old, new), changed: changed.map(|(name, _)| name.clone()).collect() }
}

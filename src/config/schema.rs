//! Which keys there are, table by table, and which of the contract's are not built yet. The keys that there are come
//! from the types in `raw`, so nothing is listed twice.

use std::sync::OnceLock;

use serde::de::value::Error as NoValue;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};

use super::raw;

/// One table of the file.
pub struct Table {
    /// Its path, such as `socket.upstream`; the top is empty.
    pub path: &'static str,
    /// The keys that there are.
    pub keys: &'static [&'static str],
    /// The keys that come later.
    pub later: &'static [&'static str],
}

/// Keys whose value stands for a secret.
const SECRETS: &[&str] = &["key", "old_keys", "client_secret", "private_key", "private_key_passphrase", "password"];

/// Keys whose value names a file that the gateway believes.
const BELIEVED: &[&str] = &["certificate", "known_hosts", "host_ca", "country_database", "city_database"];

/// Every table.
pub fn tables() -> &'static [Table] {
    static TABLES: OnceLock<Vec<Table>> = OnceLock::new();
    TABLES.get_or_init(|| {
        vec![
            table::<raw::Raw>("", &[]),
            table::<raw::Gateway>("gateway", &[]),
            table::<raw::Listen>("listen", &["postgres", "mysql"]),
            table::<raw::Tls>("tls", &[]),
            table::<raw::Oidc>("oidc", &[]),
            table::<raw::Roles>("roles", &[]),
            table::<raw::SignIn>("sign_in", &[]),
            table::<raw::Store>("store", &[]),
            table::<raw::Recording>("recording", &[]),
            table::<raw::Geo>("geo", &[]),
            table::<raw::Limits>("limits", &[]),
            table::<raw::Log>("log", &[]),
            table::<raw::Telemetry>("telemetry", &[]),
            table::<raw::Socket>("socket", &[]),
            table::<raw::Upstream>("socket.upstream", &["tls", "roles"]),
            table::<raw::Policy>("policy", &[]),
            table::<raw::PolicySockets>("policy.sockets", &[]),
            table::<raw::PolicyWho>("policy.who", &[]),
            table::<raw::PolicyWhere>("policy.where", &[]),
            table::<raw::PolicyWhen>("policy.when", &[]),
            table::<raw::PolicyRequire>("policy.require", &[]),
            table::<raw::Allow>("policy.allow", &[]),
            table::<raw::AllowSsh>("policy.allow.ssh", &[]),
            table::<raw::AllowDatabase>("policy.allow.database", &[]),
            table::<raw::AllowHttp>("policy.allow.http", &[]),
            table::<raw::AllowKubernetes>("policy.allow.kubernetes", &[]),
            table::<raw::AllowTcp>("policy.allow.tcp", &[]),
        ]
    })
}

/// The table at this path.
pub fn at(path: &str) -> Option<&'static Table> {
    tables().iter().find(|table| table.path == path)
}

/// How a table is written: `[gateway]`, `[[socket]]`.
pub fn written(path: &str) -> String {
    match path {
        "" => "the file".to_owned(),
        _ if is_list(path) => format!("[[{path}]]"),
        _ => format!("[{path}]"),
    }
}

/// Whether a table of this path can stand more than once.
fn is_list(path: &str) -> bool {
    matches!(path, "socket" | "policy" | "policy.allow.http" | "policy.allow.kubernetes")
}

/// The path of the tables that can stand more than once below the key of this name.
pub fn list_called(key: &str) -> Option<&'static str> {
    let mut lists = tables().iter().map(|table| table.path).filter(|path| is_list(path));
    lists.find(|path| path.rsplit('.').next() == Some(key))
}

/// Whether this key's value stands for a secret.
pub fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// Whether this key's value may name a file that the gateway believes.
pub fn is_believed(key: &str) -> bool {
    BELIEVED.contains(&key)
}

/// Whether this is a key whose value may be shown.
pub fn is_harmless(key: &str) -> bool {
    tables().iter().any(|table| table.keys.contains(&key) || table.later.contains(&key)) && !SECRETS.contains(&key)
}

/// The candidate that somebody meant who typed `word`, if one is near enough.
pub fn meant<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate)).min()?;
    let most = (word.chars().count().max(near.1.chars().count()) / 3).max(1);
    (near.0 <= most).then_some(near.1)
}

/// Single edits between two words: a letter more, less, another, or two swapped.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut cost = (get(&last, j) + usize::from(x != y)).min(get(&last, j + 1) + 1).min(get(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                cost = cost.min(get(&before_last, j - 1) + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
}

fn table<'de, T: Deserialize<'de>>(path: &'static str, later: &'static [&'static str]) -> Table {
    let mut keys: &'static [&'static str] = &[];
    // The outcome is always an error: only the names are wanted.
    let _ = T::deserialize(Names(&mut keys));
    Table { path, keys, later }
}

/// A deserializer that learns the field names of the struct that asks it, and gives nothing.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = NoValue;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, NoValue> {
        *self.0 = fields;
        Err(NoValue::custom("only the names"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, NoValue> {
        Err(NoValue::custom("only the names"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_types() {
        assert_eq!(at("gateway").unwrap().keys, ["domain", "public_url", "data_dir", "proxy_protocol_from"]);
        assert!(at("socket").unwrap().keys.contains(&"type"));
        assert!(tables().iter().all(|table| table.keys.is_empty() == (table.path == "policy.allow.tcp")));
        assert!(tables().iter().all(|table| table.keys.iter().all(|key| !table.later.contains(key))));
        assert!(SECRETS.iter().all(|key| tables().iter().any(|table| table.keys.contains(key))));
        assert!(is_harmless("address") && is_harmless("tls") && !is_harmless("password") && !is_harmless("pasword"));
    }

    #[test]
    fn typos_are_understood() {
        let keys = ["address", "username", "kind", "password"];
        for (word, expected) in [
            ("adress", Some("address")),
            ("addres", Some("address")),
            ("Address", Some("address")),
            ("user_name", Some("username")),
            ("knid", Some("kind")),
            ("pasword", Some("password")),
            ("port", None),
            ("", None),
            ("completely", None),
        ] {
            assert_eq!(meant(word, keys), expected, "{word}");
        }
    }
}

//! Values that may be written in more than one way. By hand, because serde's untagged enums forget positions.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;
use toml::value::Datetime;

/// A text or a list of them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum OneOrMore {
    /// `"a"`
    One(String),
    /// `["a", "b"]`
    More(Vec<Spanned<String>>),
}

/// `true`, `false` or a list of patterns.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Exec {
    /// Any command, or none.
    Any(bool),
    /// These.
    Patterns(Vec<Spanned<String>>),
}

/// `false` or a word.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Sftp {
    /// `false`; `true` is told to be a mistake later.
    Plain(bool),
    /// `"read"`
    Word(String),
}

/// A time, as text; TOML has a type for it too.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Time(pub String);

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMore;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E>(self, text: &str) -> Result<OneOrMore, E> {
                Ok(OneOrMore::One(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMore, A::Error> {
                strings(list).map(OneOrMore::More)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Exec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Exec;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or a list of command patterns")
            }
            fn visit_bool<E>(self, any: bool) -> Result<Exec, E> {
                Ok(Exec::Any(any))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Exec, A::Error> {
                strings(list).map(Exec::Patterns)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Sftp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Sftp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"read\", \"write\" or false")
            }
            fn visit_bool<E>(self, plain: bool) -> Result<Sftp, E> {
                Ok(Sftp::Plain(plain))
            }
            fn visit_str<E>(self, word: &str) -> Result<Sftp, E> {
                Ok(Sftp::Word(word.to_owned()))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Time;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as \"2026-01-01T00:00:00Z\"")
            }
            fn visit_str<E>(self, text: &str) -> Result<Time, E> {
                Ok(Time(text.to_owned()))
            }
            // How TOML's own times come through serde.
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Time, A::Error> {
                let time = Datetime::deserialize(MapAccessDeserializer::new(map));
                time.map(|time| Time(time.to_string())).map_err(|_| A::Error::invalid_type(Unexpected::Map, &self))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn strings<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Vec<Spanned<String>>, A::Error> {
    let mut strings = Vec::new();
    while let Some(string) = list.next_element()? {
        strings.push(string);
    }
    Ok(strings)
}

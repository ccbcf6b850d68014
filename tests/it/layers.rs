//! Holds the drawing of `src/lib.rs`: imports point down, outside crates stay in their files, the pure layer is pure.
//!
//! Reads the sources as text: a small scanner finds every path, in `use` items and in expressions. What stands below
//! `#[cfg(test)]` is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Layer of each module; the longest matching name counts, and a module that is not covered fails the test.
const LAYERS: &[(&str, u8)] = &[
    ("main", 8),
    ("cli", 8),
    ("gateway", 7),
    ("api", 6),
    ("accept", 6),
    ("proxy_protocol", 6),
    ("proto", 5),
    ("upstream", 4),
    ("session", 3),
    ("keeping", 3),
    ("store", 2),
    ("record", 2),
    ("identity::*", 2),
    ("config", 2),
    ("geo", 2),
    ("telemetry", 2),
    ("files", 2),
    ("accounts", 2),
    ("record::codec", 1),
    ("record::container", 1),
    ("record::crypt", 1),
    ("record::export", 1),
    ("record::observation", 1),
    ("policy", 1),
    ("wire", 1),
    ("identity", 0),
    ("socket", 0),
    ("error", 0),
    ("address", 0),
    ("pace", 0),
];

/// Outside crates that only these modules (and what is below them) may name.
const PINNED: &[(&str, &[&str])] = &[
    ("rusqlite", &["store"]),
    ("refinery", &["store"]),
    ("openidconnect", &["identity::oidc", "identity::dev_issuer"]),
    ("russh", &["proto::ssh", "upstream::ssh"]),
    ("ssh_key", &["identity::ssh_ca", "identity::sign_ins", "cli::login"]),
    ("rcgen", &["identity::x509_ca", "cli::login"]),
    ("axum", &["api", "identity::dev_issuer"]),
    ("hyper", &["api", "identity::dev_issuer"]),
    ("hyper_util", &["api", "identity::dev_issuer"]),
    ("utoipa", &["api", "identity::tokens", "store"]),
    ("utoipa_axum", &["api"]),
    ("ppp", &["proxy_protocol"]),
    ("maxminddb", &["geo"]),
    ("asciicast", &["record::export"]),
    ("prometheus_client", &["telemetry"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
    ("tracing_opentelemetry", &["telemetry"]),
    ("anyhow", &["main", "cli"]),
    ("clap", &["main", "cli"]),
    ("comfy_table", &["cli"]),
    ("webbrowser", &["cli::login"]),
    ("p12_keystore", &["cli::login"]),
    ("avt", &["record::export", "api::watch"]),
    ("listenfd", &["gateway::listeners"]),
    ("sd_notify", &["gateway::notify"]),
];

/// Modules that are values in, values out.
const PURE: &[&str] = &[
    "policy",
    "wire",
    "record::codec",
    "record::container",
    "record::export",
    "record::observation",
    "socket",
    "error",
    "address",
];

/// What a pure module does not use: no runtime, no files, no network, no clock.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "jiff::Timestamp::now",
    "Zoned::now",
];

/// Pairs in one layer that must not know each other, beside the rule against cycles.
const STRANGERS: &str = "proto";

#[test]
fn imports_point_down() {
    let tree = Tree::read();
    tree.assert_none(tree.upward());
}

#[test]
fn modules_of_one_layer_do_not_import_each_other_in_a_circle() {
    let tree = Tree::read();
    tree.assert_none(tree.circles());
}

#[test]
fn outside_crates_stay_in_their_files() {
    let tree = Tree::read();
    tree.assert_none(tree.unpinned());
}

#[test]
fn pure_modules_use_no_runtime_file_network_or_clock() {
    let tree = Tree::read();
    tree.assert_none(tree.impure());
}

#[test]
fn a_breach_is_found_in_every_way_of_writing_it() {
    let tree = Tree::from([
        ("policy::decide", "use crate::{\n  error::Fault,\n  store::{row, Store as Book},\n};\n"),
        ("policy::exec", "fn f() -> u8 {\n    super::super::session::open(\"use crate::cli::x;\") // crate::cli::y\n}"),
        ("policy::rules", "use std::time::{Duration, Instant};\nuse tokio as t;\nfn f() { jiff::Timestamp::now(); }"),
        ("proto::ssh", "use crate::proto::postgres::Startup;\nuse rusqlite::Connection;"),
        ("proto::postgres", "\n#[cfg(test)]\nmod tests { use crate::cli::x; }"),
        ("session", "use crate::store::Store;\nuse openidconnect;"),
        ("store", "pub use self::row::Row;"),
        ("store::row", ""),
        ("error", ""),
    ]);
    let lines = |found: Vec<Breach>| found.iter().map(|b| format!("{}:{}", b.module, b.line)).collect::<Vec<_>>();
    assert_eq!(lines(tree.upward()), ["policy::decide:3", "policy::decide:3", "policy::exec:2", "proto::ssh:1"]);
    assert_eq!(lines(tree.impure()), ["policy::rules:1", "policy::rules:2", "policy::rules:3"]);
    assert_eq!(lines(tree.unpinned()), ["proto::ssh:2", "session:2"]);
}

/// The modules of the crate with the paths each of them names.
struct Tree {
    modules: BTreeMap<String, Module>,
}

struct Module {
    file: PathBuf,
    paths: Vec<Named>,
}

/// A path as it is named somewhere: its segments, absolute within the crate where it starts with `crate`.
struct Named {
    line: usize,
    segments: Vec<String>,
}

struct Breach {
    module: String,
    line: usize,
    words: String,
}

impl Tree {
    fn read() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        collect(&src, &mut files);
        assert!(files.len() > 5, "no sources found below {}", src.display());
        let modules = files
            .iter()
            .filter_map(|file| {
                let relative = file.strip_prefix(&src).unwrap();
                let name = module_name(relative)?;
                let text = fs::read_to_string(file).unwrap();
                Some((name.clone(), Module::scan(&name, Path::new("src").join(relative), &text)))
            })
            .collect();
        Self { modules }
    }

    fn from<const N: usize>(sources: [(&str, &str); N]) -> Self {
        let module = |(name, text): (&str, &str)| (name.to_owned(), Module::scan(name, name.into(), text));
        Self { modules: sources.into_iter().map(module).collect() }
    }

    fn assert_none(&self, breaches: Vec<Breach>) {
        let lines: Vec<_> = breaches
            .iter()
            .map(|b| format!("{}:{}: {}", self.modules[&b.module].file.display(), b.line, b.words))
            .collect();
        assert!(lines.is_empty(), "\n{}\n(the table is in tests/it/layers.rs)\n", lines.join("\n"));
    }

    /// Every use of a module in a higher layer, or of a stranger in the same one.
    fn upward(&self) -> Vec<Breach> {
        self.inner_uses()
            .filter_map(|(from, to, named)| {
                let (low, high) = (layer(from), layer(&to));
                let stranger =
                    from != to && [from, &to].iter().all(|name| top(name) == STRANGERS) && second(from) != second(&to);
                let words = match (low < high, stranger) {
                    (true, _) => format!("`{from}` (layer {low}) uses `{to}` (layer {high}); imports point down"),
                    (_, true) => format!("`{from}` uses `{to}`; what speaks to clients never knows each other"),
                    _ => return None,
                };
                Some(Breach { module: from.to_owned(), line: named.line, words })
            })
            .collect()
    }

    /// Every use between two top-level modules of one layer that also goes the other way.
    fn circles(&self) -> Vec<Breach> {
        let sideways: Vec<_> =
            self.inner_uses().filter(|(from, to, _)| layer(from) == layer(to) && top(from) != top(to)).collect();
        let pairs: BTreeSet<_> =
            sideways.iter().map(|(from, to, _)| (top(from).to_owned(), top(to).to_owned())).collect();
        sideways
            .iter()
            .filter(|(from, to, _)| pairs.contains(&(top(to).to_owned(), top(from).to_owned())))
            .map(|(from, to, named)| Breach {
                module: (*from).to_owned(),
                line: named.line,
                words: format!("`{from}` uses `{to}`, and `{}` also uses `{}`", top(to), top(from)),
            })
            .collect()
    }

    fn unpinned(&self) -> Vec<Breach> {
        self.all_uses()
            .filter_map(|(from, named)| {
                let (name, homes) =
                    PINNED.iter().find(|(name, _)| named.segments.first().is_some_and(|s| s == name))?;
                let at_home = homes.iter().any(|home| is_below(from, home));
                let words = format!("`{from}` uses the crate `{name}`, which belongs to {}", homes.join(", "));
                (!at_home).then(|| Breach { module: from.to_owned(), line: named.line, words })
            })
            .collect()
    }

    fn impure(&self) -> Vec<Breach> {
        self.all_uses()
            .filter(|(from, _)| PURE.iter().any(|pure| is_below(from, pure)))
            .filter_map(|(from, named)| {
                let path = named.segments.join("::");
                let what = IMPURE.iter().find(|banned| is_below(&path, banned))?;
                let words = format!("`{from}` is pure and uses `{what}`");
                Some(Breach { module: from.to_owned(), line: named.line, words })
            })
            .collect()
    }

    fn all_uses(&self) -> impl Iterator<Item = (&str, &Named)> {
        self.modules.iter().flat_map(|(name, module)| module.paths.iter().map(move |path| (name.as_str(), path)))
    }

    /// Uses of the crate's own modules. A module may name what is below itself: that is how a facade re-exports.
    fn inner_uses(&self) -> impl Iterator<Item = (&str, String, &Named)> {
        self.all_uses().filter_map(|(from, named)| {
            let rest = named.segments.strip_prefix(&["crate".to_owned()])?;
            let to = self.resolve(rest)?;
            (!is_below(&to, from)).then_some((from, to, named))
        })
    }

    /// The longest beginning of the path that is a module, or else its first segment, if the table has that.
    fn resolve(&self, rest: &[String]) -> Option<String> {
        let known = |end: &usize| self.modules.contains_key(&rest[..*end].join("::"));
        let module = (1..=rest.len()).rev().find(known).map(|end| rest[..end].join("::"));
        module.or_else(|| rest.first().filter(|name| LAYERS.iter().any(|(known, _)| known == name)).cloned())
    }
}

impl Module {
    fn scan(name: &str, file: PathBuf, text: &str) -> Self {
        let code = blank_comments_and_strings(before_tests(text));
        let is_crate = |name: &str| PINNED.iter().any(|(pinned, _)| *pinned == name) || IMPURE.contains(&name);
        let paths = paths(&tokens(&code))
            .into_iter()
            .filter(|named| named.segments.len() > 1 || is_crate(&named.segments[0]))
            .map(|named| Named { segments: absolute(name, named.segments), ..named })
            .collect();
        Self { file, paths }
    }
}

fn layer(module: &str) -> u8 {
    let covers = |name: &str| match name.strip_suffix("::*") {
        Some(parent) => module.starts_with(&format!("{parent}::")),
        None => is_below(module, name),
    };
    let found = LAYERS.iter().filter(|(name, _)| covers(name)).max_by_key(|(name, _)| name.len());
    found.unwrap_or_else(|| panic!("module `{module}` has no layer: give it one in tests/it/layers.rs")).1
}

/// Whether `path` is `root` or stands below it. `identity::oidc` also covers `identity::oidc_keys`.
fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::") || rest.starts_with('_'))
}

fn top(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

fn second(module: &str) -> Option<&str> {
    module.split("::").nth(1)
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false if path.extension().is_some_and(|e| e == "rs") => files.push(path),
            false => {}
        }
    }
    files.sort();
}

/// `src/identity/oidc.rs` is `identity::oidc`; the root and files of tests have none.
fn module_name(relative: &Path) -> Option<String> {
    let mut parts: Vec<_> = relative.with_extension("").iter().map(|p| p.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    let is_root = parts == ["lib"];
    let is_test = parts.iter().any(|part| part == "tests" || part.ends_with("_tests"));
    (!is_root && !is_test).then(|| parts.join("::"))
}

/// Tests come last in a file.
fn before_tests(text: &str) -> &str {
    let end = text.match_indices("#[cfg(test)]").find(|(at, m)| {
        let rest = text[at + m.len()..].trim_start();
        rest.starts_with("mod ") || rest.starts_with("#[")
    });
    end.map_or(text, |(at, _)| &text[..at])
}

/// Replaces comments, strings and character literals with spaces, so that lines keep their numbers.
fn blank_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let length = skipped(&text[at..]);
        let shown = if length == 0 { text[at..].chars().next().map_or(1, char::len_utf8) } else { length };
        let piece = &text[at..at + shown];
        match length {
            0 => out.push_str(piece),
            _ => out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' })),
        }
        at += shown;
    }
    out
}

/// How much of the start of `rest` is a comment or a literal; 0 if it is neither.
fn skipped(rest: &str) -> usize {
    let until = |from: usize, end: &str| rest[from..].find(end).map_or(rest.len(), |at| from + at + end.len());
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return until(2, "*/");
    }
    if rest.starts_with("r\"") {
        return until(2, "\"");
    }
    if rest.starts_with("r#\"") {
        return until(3, "\"#");
    }
    if rest.starts_with('"') {
        let mut escaped = false;
        let end = rest.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        return end.map_or(rest.len(), |(at, _)| at + 1);
    }
    // A character literal, not a lifetime.
    if let Some(inner) = rest.strip_prefix('\'') {
        let first = inner.chars().next().map_or(0, |c| if c == '\\' { 2 } else { c.len_utf8() });
        return inner.get(first..).filter(|tail| tail.starts_with('\'')).map_or(0, |_| first + 2);
    }
    0
}

/// Names and marks with their lines.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let length = match first {
                c if is_name(c) => rest.find(|c| !is_name(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            found.push((number + 1, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    found
}

fn paths(tokens: &[(usize, String)]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let starts = is_word(&tokens[at].1) && (at == 0 || !matches!(tokens[at - 1].1.as_str(), "::" | "."));
        at = if starts { path(tokens, at, &[], &mut found) } else { at + 1 };
    }
    found
}

/// Reads one path, with its group if it has one, and returns where it ended.
fn path(tokens: &[(usize, String)], mut at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    let word = |at: usize| tokens.get(at).map_or("", |(_, word)| word.as_str());
    let mut segments = prefix.to_vec();
    let line = tokens[at].0;
    while is_word(word(at)) {
        segments.push(word(at).to_owned());
        match (word(at + 1), word(at + 2)) {
            ("::", "{") => return group(tokens, at + 3, &segments, found),
            ("::", next) if is_word(next) => at += 2,
            _ => break,
        }
    }
    found.push(Named { line, segments });
    at + 1
}

fn group(tokens: &[(usize, String)], mut at: usize, prefix: &[String], found: &mut Vec<Named>) -> usize {
    while let Some((_, word)) = tokens.get(at) {
        match word.as_str() {
            "}" => return at + 1,
            // A rename names nothing new.
            "as" => at += 2,
            word if is_word(word) => at = path(tokens, at, prefix, found),
            _ => at += 1,
        }
    }
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// `super`, `self` and the binary's name for its library become paths that start with `crate`.
fn absolute(module: &str, segments: Vec<String>) -> Vec<String> {
    let ups = segments.iter().take_while(|s| *s == "super").count();
    let from_self = usize::from(ups == 0 && segments.first().is_some_and(|s| s == "self"));
    if ups + from_self == 0 {
        let is_library = segments.first().is_some_and(|s| s == "gatescribe");
        return match is_library {
            true => std::iter::once("crate".to_owned()).chain(segments.into_iter().skip(1)).collect(),
            false => segments,
        };
    }
    let here: Vec<_> = module.split("::").map(str::to_owned).collect();
    let base = here.len().saturating_sub(ups);
    let start = std::iter::once("crate".to_owned()).chain(here.into_iter().take(base));
    start.chain(segments.into_iter().skip(ups + from_self)).collect()
}

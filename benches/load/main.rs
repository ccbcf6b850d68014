//! Load on one gateway: keystroke echo, memory of idle sessions, many sessions one after another, the size of recordings,
//! the start with a full book, watchers. Client and target of the mass cases are small programs in this process, because
//! a thousand `ssh` and `sshd` would be measured instead of the gateway; what echo costs is measured with the stock ones.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a program for developers, which may stop")]

mod book;
mod cases;
mod fleet;
mod revocation;
mod upgrade;
mod watchers;

#[allow(dead_code, unused_imports, reason = "the tests use the rest of it")]
#[path = "../../tests/it/harness/mod.rs"]
mod harness;

/// What to measure, and how much of it.
struct Options {
    only: Option<String>,
    keys: usize,
    idle: usize,
    churn: usize,
    rows: i64,
    watchers: usize,
    bytes: u64,
}

#[tokio::main]
async fn main() {
    let options = Options::read();
    if options.wants("q3") {
        cases::echo(options.keys).await;
    }
    if options.wants("q11") {
        cases::idle(options.idle).await;
    }
    if options.wants("q13") {
        revocation::revocation(options.idle).await;
    }
    if options.wants("q16") {
        cases::churn(options.churn).await;
    }
    if options.wants("q15") {
        cases::size().await;
    }
    if options.wants("q17") {
        book::start(options.rows).await;
    }
    if options.wants("watch") {
        watchers::watch(options.watchers).await;
    }
    if options.wants("upgrade") {
        upgrade::upgrade(options.bytes).await;
    }
}

impl Options {
    fn read() -> Self {
        let mut options =
            Self { only: None, keys: 2000, idle: 1000, churn: 10_000, rows: 1_000_000, watchers: 200, bytes: 1 << 30 };
        let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            let number = || value.parse().expect("a number");
            match word.as_str() {
                "--only" => options.only = Some(value),
                "--keys" => options.keys = number(),
                "--idle" => options.idle = number(),
                "--churn" => options.churn = number(),
                "--rows" => options.rows = value.parse().expect("a number"),
                "--bytes" => options.bytes = value.parse().expect("a number"),
                "--watchers" => options.watchers = number(),
                _ => panic!("unknown option {word}; see benches/README.md"),
            }
        }
        options
    }

    fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.split(',').any(|name| name == case))
    }
}

/// The value below which this share of them lies.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

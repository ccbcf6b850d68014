//! Takes over a changed configuration file while the gateway runs: sockets, policies and roles.
//!
//! A file is read once it has stood still for a moment, because whoever writes it may not be done; SIGHUP reads it at
//! once. One that is broken or gone is told and changes nothing. What else is different is told to need a restart.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::config::{self, Config, ConfigErrors, Written};
use crate::identity::tokens::Tokens;
use crate::session::Rules;
use crate::store::Store;
use crate::telemetry::Metrics;
use crate::upstream::shell::Helper;

use super::{settings, shells};

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// For how many looks it must stand still.
const STILL: u8 = 2;

/// What takes changes over.
pub(super) struct Reload {
    pub(super) rules: Rules,
    pub(super) tokens: Tokens,
    pub(super) store: Store,
    pub(super) metrics: Metrics,
    /// Looks what the users of the built-in shell could get at.
    pub(super) helper: Option<Helper>,
    /// The rules as the API tells them.
    pub(super) written: api::policy::Written,
    /// Cancelled once a newer process has taken over.
    pub(super) retired: CancellationToken,
}

/// By which a file is known to be another one, or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

/// What the looks at the file have come to.
#[derive(Debug)]
struct Watched {
    /// Of what was read last, well or not.
    read: Option<Stamp>,
    /// At the last look.
    seen: Option<Stamp>,
    /// For how many looks it has been that.
    still: u8,
}

/// What a look says.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// As it was read, or still being written.
    Nothing,
    /// It is another one, and stands still.
    Changed,
    /// It was there and is gone.
    Gone,
}

impl Reload {
    /// Watches the file of `config`, and reads it when `told`, for as long as the gateway runs. Without anything that tells
    /// there is no file.
    pub(super) async fn keep_going(&self, config: &Config, told: Option<Signal>) {
        let Some(mut told) = told else { return };
        let mut written = config.written.clone();
        // It may have changed since it was read, while what a crash left behind was put in order.
        let first = stamp(&config.file);
        let same = fs::read_to_string(&config.file).is_ok_and(|text| text == config.text);
        let mut watched = Watched::new(first.filter(|_| same));
        let mut tick = interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look = tokio::select! {
                _ = tick.tick() => watched.look(stamp(&config.file)),
                Some(()) = told.recv() => {
                    watched.take(stamp(&config.file));
                    Look::Changed
                }
            };
            match look {
                Look::Nothing => {}
                Look::Gone => tracing::error!(
                    file = %config.file.display(),
                    "the configuration file is gone; what was read from it stays in force"
                ),
                Look::Changed => match self.read(&config.file, &written, &config.written).await {
                    Ok(newer) => written = newer,
                    Err(errors) => {
                        self.metrics.reloaded(false);
                        tracing::error!(
                            "the configuration file was not taken; what was read before stays in force\n{errors}"
                        );
                    }
                },
            }
        }
    }

    /// Reads the file and puts it in force; or why not, in words.
    async fn read(&self, file: &Path, before: &Written, started: &Written) -> Result<Written, String> {
        let path = file.to_owned();
        let read = tokio::task::spawn_blocking(move || Config::load(&path)).await;
        let read = read.unwrap_or_else(|error| Err(ConfigErrors::unreadable(file, &error)));
        let mut config = read.map_err(|errors| errors.to_string())?;
        let mut difference = before.difference(&config.written);
        // What is not taken over is as it was at the start, whatever was read since.
        difference.needs_restart = started.difference(&config.written).needs_restart;
        let sockets: Vec<_> = std::mem::take(&mut config.sockets).into_iter().map(Arc::new).collect();
        shells::vouch_again(self.helper.as_ref(), &config, &sockets).await.map_err(|error| error.to_string())?;
        self.tokens.set_roles(settings::role_groups(&config.roles));
        self.rules.replace(std::mem::take(&mut config.policies), sockets);
        self.written.replace(config::policies_as_written(&config.text));
        self.metrics.reloaded(true);
        for warning in &config.warnings {
            let line = warning.position().map(|position| position.line);
            tracing::warn!(file = %file.display(), line, "{}", warning.words());
        }
        let newer = config.written.clone();
        self.write_down(config).await;
        tracing::info!(file = %file.display(), %difference, "the configuration file was read again");
        if !difference.needs_restart.is_empty() {
            let what = difference.needs_restart.join(", ");
            tracing::warn!("changed, but only taken over by a restart or an upgrade: {what}");
        }
        let subject = file.display().to_string();
        if !(difference.is_none() || self.retired.is_cancelled())
            && let Ok(details) = serde_json::to_value(&difference)
            && let Err(error) = self.store.audit("gateway", "config.reloaded", &subject, details).await
        {
            tracing::error!(%error, "that could not be written into the audit log");
        }
        Ok(newer)
    }

    /// For tools on this host; what is in force does not depend on it. Not by a process that a newer one has replaced.
    async fn write_down(&self, config: Config) {
        if self.retired.is_cancelled() {
            return;
        }
        let saved = tokio::task::spawn_blocking(move || config::in_force::save(&config)).await;
        if let Err(error) = saved.map_err(std::io::Error::other).and_then(|saved| saved) {
            tracing::error!(%error, "what is in force could not be written down for `config check --against-live`");
        }
    }
}

impl Watched {
    fn new(read: Option<Stamp>) -> Self {
        Self { read, seen: read, still: 0 }
    }

    fn look(&mut self, now: Option<Stamp>) -> Look {
        let before = std::mem::replace(&mut self.seen, now);
        self.still = if now == before { self.still.saturating_add(1) } else { 0 };
        match now {
            // It stands still, and is not what was read.
            Some(_) if self.still >= STILL && now != self.read => {
                self.read = now;
                Look::Changed
            }
            None if before.is_some() => Look::Gone,
            _ => Look::Nothing,
        }
    }

    /// It is read now, whatever it looks like.
    fn take(&mut self, now: Option<Stamp>) {
        (self.read, self.seen, self.still) = (now, now, 0);
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let about = fs::metadata(file).ok()?;
    Some(Stamp {
        device: about.dev(),
        inode: about.ino(),
        size: about.size(),
        changed: (about.ctime(), about.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(inode: u64) -> Option<Stamp> {
        Some(Stamp { device: 1, inode, size: 10, changed: (0, 0) })
    }

    #[test]
    fn a_file_is_read_once_it_stands_still() {
        let mut watched = Watched::new(stamp(1));
        for (now, expected) in [
            (stamp(1), Look::Nothing),
            // It is being written.
            (stamp(2), Look::Nothing),
            (stamp(3), Look::Nothing),
            (stamp(3), Look::Nothing),
            (stamp(3), Look::Changed),
            (stamp(3), Look::Nothing),
            // Gone is told once, and the same file coming back is nothing new.
            (None, Look::Gone),
            (None, Look::Nothing),
            (stamp(3), Look::Nothing),
            (stamp(3), Look::Nothing),
            // An editor's way: gone, then another.
            (None, Look::Gone),
            (stamp(4), Look::Nothing),
            (stamp(4), Look::Nothing),
            (stamp(4), Look::Changed),
        ] {
            assert_eq!(watched.look(now), expected, "{now:?}");
        }
    }
}

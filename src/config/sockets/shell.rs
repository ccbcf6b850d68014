//! `[socket.upstream]` with `kind = "shell"`: this host itself, as another user of it. Whether that user could reach what the
//! gateway keeps is not known here: the gateway looks before it serves.

use std::path::PathBuf;

use toml::Spanned;

use crate::accounts::Account;
use crate::config::check::Checker;
use crate::config::raw;
use crate::socket::UpstreamSpec;

impl Checker<'_, '_> {
    pub(super) fn shell(&mut self, table: &Spanned<raw::Upstream>) -> Option<UpstreamSpec> {
        let raw = table.get_ref();
        let shell = raw.shell.as_ref().map(|typed| {
            let path = self.filled(typed).map(PathBuf::from)?;
            let good = path.is_absolute() && (raw.alone || path.is_file());
            let good = if good { Ok(path) } else { Err("this is no program of this host") };
            self.report.value(typed, good, "write the whole path: \"/bin/sh\"")
        });
        let username = self.need(&raw.username, table, "socket.upstream", "username", "\"support\"");
        let username = username.and_then(|typed| {
            let name = self.filled(typed)?;
            if raw.alone {
                return Some(name);
            }
            // Whether it is the gateway's own user is for the gateway to see: others may run this check.
            let account = Account::find(&name).and_then(|account| account.unprivileged(0));
            let account =
                self.report.value(typed, account, "name a user of this host who owns nothing of the gateway's")?;
            if raw.shell.is_none() && account.has_no_shell() {
                let words = format!("{} lets nobody in: name another `shell`", account.shell.display());
                self.report.warn(&typed.span(), words);
            }
            Some(name)
        });
        let shell = shell.map_or(Some(None), |shell| shell.map(Some))?;
        Some(UpstreamSpec::ShellAs { username: username?, shell })
    }
}

//! Before a gateway serves, and before it takes over a changed configuration: nobody who gets the built-in shell can get at
//! what the gateway keeps, reads as a secret or believes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{GatewayError, settings};
use crate::config::Config;
use crate::socket::{Socket, UpstreamSpec};
use crate::upstream::shell::{Helper, Places};

/// Has the helper look as each user; the first one who gets at something, or cannot be had, is the error.
pub(super) async fn vouch(
    helper: Option<&Helper>,
    config: &Config,
    sockets: &[Arc<Socket>],
) -> Result<(), GatewayError> {
    for (user, socket) in users(sockets) {
        let vouched = match helper {
            Some(helper) => helper.vouch(user, places(config)).await,
            // The file has changed between the helper's start and now.
            None => Err("its configuration changed while the gateway started; start it again".into()),
        };
        vouched.map_err(|why| GatewayError::Shell { socket: socket.to_owned(), why })?;
    }
    Ok(())
}

/// The same for a configuration that was read again. Who is new in it gets no shell before a restart.
pub(super) async fn vouch_again(
    helper: Option<&Helper>,
    config: &Config,
    sockets: &[Arc<Socket>],
) -> Result<(), GatewayError> {
    for (user, socket) in users(sockets) {
        let Some(helper) = helper.filter(|helper| helper.knows(user)) else { continue };
        let vouched = helper.vouch_again(user, places(config)).await;
        vouched.map_err(|why| GatewayError::Shell { socket: socket.to_owned(), why })?;
    }
    Ok(())
}

/// Whose shells there are, each with the first socket that leads to it.
fn users(sockets: &[Arc<Socket>]) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for socket in sockets {
        if let UpstreamSpec::ShellAs { username, .. } = &socket.upstream {
            found.entry(username.as_str()).or_insert(socket.name.as_str());
        }
    }
    found
}

/// What nobody but the gateway may get at. What is in a directory that nobody may search is not listed.
fn places(config: &Config) -> Places {
    let base = config.file.parent().unwrap_or(Path::new(""));
    let own = [config.gateway.data_dir.clone(), settings::spool(config)];
    let secret = config.written.secret_files().into_iter().map(|file| base.join(file));
    let believed = config.written.believed_files().into_iter().map(|file| base.join(file));
    // One that stays relative is refused by whoever looks.
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    Places {
        secret: own.into_iter().chain(secret).map(absolute).collect(),
        believed: std::iter::once(config.file.clone()).chain(believed).map(absolute).collect(),
    }
}

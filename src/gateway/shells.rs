//! Before a gateway serves: nobody who gets the built-in shell can reach what the gateway keeps or reads as a secret.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::{GatewayError, settings};
use crate::config::Config;
use crate::socket::{Socket, UpstreamSpec};
use crate::upstream::shell::Helper;

/// Has the helper look as each user; the first one who reaches something, or cannot be had, is the error.
pub(super) async fn vouch(
    helper: Option<&Helper>,
    config: &Config,
    sockets: &[Arc<Socket>],
) -> Result<(), GatewayError> {
    let mut seen = BTreeSet::new();
    for socket in sockets {
        let UpstreamSpec::ShellAs { username, .. } = &socket.upstream else { continue };
        if !seen.insert(username) {
            continue;
        }
        let vouched = match helper {
            Some(helper) => helper.vouch(username, secret_places(config)).await,
            // The file has changed between the helper's start and now.
            None => Err("its configuration changed while the gateway started; start it again".into()),
        };
        vouched.map_err(|why| GatewayError::Shell { socket: socket.name.clone(), why })?;
    }
    Ok(())
}

/// What nobody but the gateway may reach. What is in a directory that nobody may search is not listed.
fn secret_places(config: &Config) -> Vec<PathBuf> {
    let base = config.file.parent().map(PathBuf::from).unwrap_or_default();
    let files = config.written.secret_files().into_iter().map(|file| base.join(file));
    let own = [config.gateway.data_dir.clone(), settings::spool(config)];
    own.into_iter().chain(files).filter_map(|path| std::path::absolute(path).ok()).collect()
}

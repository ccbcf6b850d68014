//! The built-in shell: a real terminal, or plain pipes, on the gateway's own host, as the user who started the gateway.
//!
//! Every channel gets a keeper (`keeper.rs`): a small process of our own between us and the shell, which adopts all
//! that the shell leaves behind, however it detached itself, and ends all of it when the channel ends. Nothing started
//! here outlives its channel.

pub mod keeper;
mod process;
mod terminal;

pub use process::{Input, Output};

use super::{Preparation, Program, UpstreamError};

/// The gateway's own host as an upstream.
pub struct Host;

impl Host {
    pub(super) async fn start(
        &self,
        program: &Program,
        how: Preparation,
    ) -> Result<(super::Input, super::Output), UpstreamError> {
        let command = match program {
            Program::Shell => None,
            Program::Command(command) => Some(command.as_slice()),
            Program::Subsystem(_) => return Err(UpstreamError::new("nothing to start")),
        };
        let (input, output) = process::start(command, how).map_err(|error| {
            tracing::error!(%error, "the built-in shell could not be started");
            UpstreamError::new("the built-in shell could not be started")
        })?;
        Ok((super::Input::Shell(input), super::Output::Shell(output)))
    }
}

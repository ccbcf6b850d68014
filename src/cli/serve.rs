//! `gatescribe serve`: the gateway.

use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::fail;
use crate::config::{self, Config};
use crate::gateway::{Gateway, GatewayError, Listeners};
use crate::telemetry;

/// Arguments of `gatescribe serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe serve --config config/gatescribe.toml")]
pub struct Args {
    /// The configuration; left out: GATESCRIBE_CONFIG, ./config/gatescribe.toml, /etc/gatescribe/gatescribe.toml
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Runs the gateway until it is told to stop.
pub fn run(args: &Args) -> ExitCode {
    let config = match config::find(args.config.as_deref()).and_then(|path| Config::load(&path)) {
        Ok(config) => config,
        Err(errors) => {
            eprint!("{errors}");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = telemetry::init(config.log.format, &config.log.level) {
        return fail(&error);
    }
    for warning in &config.warnings {
        let line = warning.position().map(|position| position.line);
        tracing::warn!(file = %config.file.display(), line, "{}", warning.words());
    }
    match block_on(serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn serve(mut config: Config) -> Result<(), GatewayError> {
    let listeners = Listeners::bind(&mut config).await?;
    let (ssh, https) = (listeners.ssh_address, listeners.https_address);
    let gateway = Gateway::build(config, listeners, None).await?;
    tracing::info!(%ssh, %https, "serving");
    println!("ready");
    gateway.run(until_told()?).await;
    Ok(())
}

/// Runs a future on a new runtime.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T, GatewayError>>) -> Result<T, GatewayError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(future),
        Err(error) => Err(GatewayError::Io { what: "runtime".into(), error }),
    }
}

/// A token that is cancelled by SIGTERM or SIGINT; the second one ends the process at once.
pub(super) fn until_told() -> Result<CancellationToken, GatewayError> {
    let stop = CancellationToken::new();
    let signals = |kind| signal(kind).map_err(|error| GatewayError::Io { what: "signals".into(), error });
    let (mut term, mut int) = (signals(SignalKind::terminate())?, signals(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if told.is_cancelled() {
                std::process::exit(1);
            }
            told.cancel();
        }
    });
    Ok(stop)
}

//! `gatescribe serve`: the gateway, and its upgrades.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::fail;
use crate::config::{self, Config};
use crate::gateway::{self, Gateway, GatewayError, Inherited, Listeners, Seat};
use crate::socket::{Socket, UpstreamSpec};
use crate::telemetry::{self, Telemetry};
use crate::upstream::shell::Helper;

/// The option that a new process is started with to take over.
const UPGRADE: &str = "--upgrade";

/// How long a new process may take to take over; longer than the old one waits for it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Arguments of `gatescribe serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatescribe serve --config config/gatescribe.toml\n\n\
    SIGTERM stops it once its sessions have ended, or after `[limits] drain`. SIGHUP reads sockets, policies and roles\n\
    again, as a change of the file does by itself. SIGUSR2 starts the program again from its file with the same\n\
    arguments and --upgrade.")]
pub struct Args {
    /// The configuration; left out: GATESCRIBE_CONFIG, ./config/gatescribe.toml, /etc/gatescribe/gatescribe.toml
    #[arg(long)]
    config: Option<PathBuf>,
    /// Take over from the gateway that runs on the same data_dir; it keeps its sessions until they end
    #[arg(long)]
    upgrade: bool,
}

/// Runs the gateway until it is told to stop.
pub fn run(args: &Args) -> ExitCode {
    let path = config::find(args.config.as_deref());
    // Before any secret is read, anything is opened and any thread runs.
    let helper = match path.as_ref().ok().and_then(|path| helper(path)).transpose() {
        Ok(helper) => helper,
        Err(error) => return fail(&format_args!("the built-in shell's helper cannot be started: {error}")),
    };
    let config = match path.and_then(|path| Config::load(&path)) {
        Ok(config) => config,
        Err(errors) => {
            eprint!("{errors}");
            return ExitCode::from(2);
        }
    };
    let telemetry = match telemetry::init(&config.log, config.traces.as_ref()) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail(&error),
    };
    for warning in &config.warnings {
        let line = warning.position().map(|position| position.line);
        tracing::warn!(file = %config.file.display(), line, "{}", warning.words());
    }
    let served = Inherited::from_service_manager()
        .and_then(|passed| block_on(serve(config, args.upgrade, passed, telemetry, helper)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The helper for the users whose shells the configuration offers, if it does. What is wrong with the file is told by
/// whoever reads all of it.
fn helper(path: &Path) -> Option<std::io::Result<Helper>> {
    let config = Config::load_leniently(path).ok()?;
    let user = |socket: &Socket| match &socket.upstream {
        UpstreamSpec::ShellAs { username, .. } => Some(username.clone()),
        _ => None,
    };
    let users: BTreeSet<String> = config.sockets.iter().filter_map(user).collect();
    (!users.is_empty()).then(|| Helper::start(users.into_iter().collect()))
}

async fn serve(
    mut config: Config,
    upgrade: bool,
    passed: Inherited,
    telemetry: Telemetry,
    helper: Option<Helper>,
) -> Result<(), GatewayError> {
    let successor = Successor::of_this_program();
    let hang_ups = handler(SignalKind::hangup())?;
    let (seat, handed) = Seat::take(&config.gateway.data_dir, upgrade).await?;
    let listeners = Listeners::bind(&mut config, handed.unwrap_or(passed)).await?;
    let (ssh, https) = (listeners.ssh_address, listeners.https_address);
    let mut gateway = Gateway::build(config, seat, listeners, None, telemetry, helper).await?;
    gateway.reread_when(hang_ups);
    let (stop, upgrades) = (until_told()?, handler(SignalKind::user_defined2())?);
    gateway.take_over().await?;
    tokio::spawn(upgrade_when_told(upgrades, successor, gateway.retired()));
    tracing::info!(%ssh, %https, "serving");
    println!("ready");
    gateway.run(stop).await;
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
    let (mut term, mut int) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        for again in [false, true] {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            if again {
                std::process::exit(1);
            }
            told.cancel();
        }
    });
    Ok(stop)
}

/// Cancels `stop` when the terminal is gone (SIGHUP). It says so more than once, which is no impatience.
pub(super) fn stop_on_hang_up(stop: CancellationToken) -> Result<(), GatewayError> {
    let mut hang_up = handler(SignalKind::hangup())?;
    tokio::spawn(async move {
        hang_up.recv().await;
        stop.cancel();
    });
    Ok(())
}

fn handler(kind: SignalKind) -> Result<Signal, GatewayError> {
    signal(kind).map_err(|error| GatewayError::Io { what: "signals".into(), error })
}

/// How the program is started again: its file, which may be a newer one by then, and its arguments.
struct Successor {
    file: std::io::Result<PathBuf>,
    args: Vec<OsString>,
    /// How long it may take to take over.
    patience: Duration,
}

impl Successor {
    fn of_this_program() -> Self {
        let mut args: Vec<OsString> = std::env::args_os().skip(1).collect();
        if !args.iter().any(|arg| arg == UPGRADE) {
            args.push(UPGRADE.into());
        }
        // Looked up now: once the file is replaced, the kernel tells of the old one only that it is gone.
        Self { file: std::env::current_exe(), args, patience: PATIENCE }
    }

    /// Starts it and waits until it has taken over, or ends, or is ended because it does neither.
    async fn run(&self, retired: &CancellationToken) -> std::io::Result<()> {
        // Process 1 of a container cannot end before its successor, and whoever started the container watches it alone.
        if std::process::id() == 1 {
            return Err(std::io::Error::other(
                "process 1 cannot be replaced; start a new container with `serve --upgrade`",
            ));
        }
        let file = self.file.as_ref().map_err(|error| std::io::Error::other(error.to_string()))?;
        // The watchdog's variable names the process that it was for.
        let mut child = Command::new(file).args(&self.args).env_remove("WATCHDOG_PID").spawn()?;
        tokio::select! {
            biased;
            () = retired.cancelled() => Ok(()),
            ended = child.wait() => Err(std::io::Error::other(format!("the new process ended: {}", ended?))),
            () = tokio::time::sleep(self.patience) => {
                child.kill().await?;
                let words = format!("the new process had not taken over after {:?} and was ended", self.patience);
                Err(std::io::Error::other(words))
            }
        }
    }
}

/// Starts the program again for each SIGUSR2, until one of them has taken over.
async fn upgrade_when_told(mut told: Signal, successor: Successor, retired: CancellationToken) {
    while told.recv().await.is_some() {
        if retired.is_cancelled() {
            tracing::warn!("told to upgrade, but this process accepts no connections any more");
            continue;
        }
        gateway::upgrading();
        if let Err(error) = successor.run(&retired).await {
            tracing::error!(%error, "the upgrade failed; this process goes on as before");
            gateway::not_upgraded();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_new_process_that_neither_takes_over_nor_ends_is_ended() {
        let patience = Duration::from_millis(50);
        let never = Successor { file: Ok("/bin/sleep".into()), args: vec!["600".into()], patience };
        let words = never.run(&CancellationToken::new()).await.unwrap_err().to_string();
        assert!(words.contains("had not taken over after 50ms"), "{words}");
    }
}

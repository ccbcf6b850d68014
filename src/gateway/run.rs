//! The life of a process: its turn to accept, its sessions, its end. `handover` says how turns pass.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::control::{self, Answer, Line, Order};
use super::first_bytes::{self, Spoken};
use super::handover::{Held, Phase, Turn};
use super::listeners::LeadsTo;
use super::processes::{Process, Processes};
use super::{Gateway, Seat, clock, memory, notify, settings};
use crate::accept::{Doors, Ends, PerAddress, Served};
use crate::api::server::Https;
use crate::proto::ssh;
use crate::session::{self, Kill, Sessions};

/// How often the service manager is told how many sessions there are, when that has changed.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// How long an older process may take to close its rows, beyond its drain.
const LAST_ROWS: Duration = Duration::from_secs(15);

/// How long connections of the port for all may take until it is known what they are.
const FIRST_BYTES: Duration = first_bytes::PATIENCE.saturating_add(Duration::from_secs(1));

/// Between two tries to open a door.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// How long answers on their way may take once everything else has stopped.
const LAST_ANSWERS: Duration = Duration::from_secs(16);

impl Gateway {
    /// Runs until `told`, then stops accepting, drains, ends what is left and closes every row. After a newer process
    /// has taken over, runs until the last connection has ended.
    pub async fn run(self, told: CancellationToken) {
        let Self { config, seat, doors, front, sessions, processes, store, links, oidc, https, leave, stop, .. } = self;
        let (keeping, telemetry, rules) = (self.keeping, self.telemetry, self.rules);
        let (reload, reread, changes) = (self.reload, self.reread, self.changes);
        let Seat { process, lock, predecessor } = seat;
        let config = Arc::new(config);
        let turn = Arc::new(Turn::new(process.id, Held { lock, doors }));
        let per_address = PerAddress {
            at_a_time: config.limits.connections_per_address as usize,
            a_minute: config.limits.connections_per_minute,
        };
        let believed = config.gateway.proxy_protocol_from.clone();
        let ssh_doors = Doors::new(connections(), per_address, believed, telemetry.metrics.clone());
        let last_spans = CancellationToken::new();
        let tracing = telemetry.traces.map(|traces| tokio::spawn(traces.run(last_spans.clone())));
        let web_doors = ssh_doors.apart();
        let all_doors = ssh_doors.apart();
        let behind = Behind {
            front,
            https,
            ssh_doors: ssh_doors.clone(),
            web_doors: web_doors.clone(),
            all_doors: all_doors.clone(),
        };
        let on_call = tokio::spawn(answer_other_processes(&process, turn.clone(), sessions.clone(), told.clone()));
        let stopping = stop.clone();
        tokio::spawn(async move {
            told.cancelled().await;
            stopping.cancel();
        });
        let housekeeping = {
            let (sessions, doors, geo) = (sessions.clone(), ssh_doors.clone(), config.geo.clone());
            let config = config.clone();
            tokio::spawn(async move {
                tokio::join!(
                    clock::keep_watching(|| rules.ask_again()),
                    reload.keep_going(&config, reread),
                    sessions.keep_touched(),
                    sessions.keep_obeying(),
                    changes.keep_hearing(),
                    doors.keep_telling(),
                    oidc.keep_fresh(),
                    geo.keep_fresh(),
                    memory::keep_giving_back(&doors)
                );
            })
        };
        let leading = {
            let (sessions, processes, keeping) = (sessions.clone(), processes.clone(), keeping.clone());
            tokio::spawn(async move {
                notify::ready(&in_words(&sessions, &processes).await);
                drop(predecessor);
                tokio::join!(
                    processes.keep_burying(),
                    keeping.keep_going(),
                    notify::keep_alive(),
                    keep_status(&sessions, &processes)
                );
            })
        };
        let retired = behind.accept(&turn, &stop).await;
        leading.abort();
        keeping.look_at_clock().await;
        match retired {
            true => {
                links.close();
                leave.cancel();
                sessions.retire();
                tracing::info!(sessions = sessions.count(), "a newer process has taken over: serving what is left");
                let left = async {
                    // What was accepted in the last moment finds its way first.
                    let _ = tokio::time::timeout(FIRST_BYTES, all_doors.until_empty()).await;
                    ssh_doors.until_empty().await;
                    // Downloads too. What is left of them then is cut by `stop`.
                    let _ = tokio::time::timeout(config.limits.drain, web_doors.until_empty()).await;
                };
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = left => stop.cancel(),
                }
                tokio::join!(sessions.drain(config.limits.drain), turn.until_successor_is_known());
            }
            false => {
                // Whoever connects now is refused at once; the data directory stays this process' until its rows are closed.
                let lock = turn.close().map(|held| held.lock);
                notify::stopping();
                tracing::info!(sessions = sessions.count(), "stopping: no new connections");
                tokio::join!(
                    sessions.drain(config.limits.drain),
                    processes.stop_others(config.limits.drain + LAST_ROWS)
                );
                // Answers that are on their way, a kill's among them.
                let _ = tokio::time::timeout(LAST_ANSWERS, web_doors.until_empty()).await;
                // Goes only when it is empty, which it is unless a recording could not be written out.
                let _ = std::fs::remove_dir(settings::spool(&config));
                drop(lock);
            }
        }
        let _ = tokio::time::timeout(LAST_ANSWERS, web_doors.until_empty()).await;
        on_call.abort();
        housekeeping.abort();
        last_spans.cancel();
        if let Some(tracing) = tracing {
            let _ = tracing.await;
        }
        // Not while anything of it is open: then the next one cleans up after it.
        match store.end_process(process.id).await {
            Ok(true) => process.run.forget(process.id),
            Ok(false) => tracing::warn!("sessions or recordings are open in the book; the next process closes them"),
            Err(error) => tracing::error!(%error, "the end of this process could not be written down"),
        }
        tracing::info!("stopped");
    }
}

/// What is behind the doors.
#[derive(Clone)]
struct Behind {
    front: Arc<ssh::Front>,
    https: Https,
    ssh_doors: Doors,
    web_doors: Doors,
    /// What the one port for all accepted. Waited for with the others, once it is known what it is.
    all_doors: Doors,
}

impl Behind {
    /// Accepts whenever it is this process' turn, until it is told to stop or has handed over; whether it has.
    async fn accept(&self, turn: &Arc<Turn>, stop: &CancellationToken) -> bool {
        let mut phase = turn.phase();
        loop {
            let now = *phase.borrow_and_update();
            match now {
                Phase::Retired => return true,
                Phase::Serving => {
                    let pause = stop.child_token();
                    let accepting = self.accept_until(turn, &pause);
                    turn.set_idle(false);
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = phase.changed() => {}
                    }
                    pause.cancel();
                    accepting.join_all().await;
                    turn.set_idle(true);
                }
                Phase::Pausing => tokio::select! {
                    () = stop.cancelled() => {}
                    _ = phase.changed() => {}
                },
            }
            if stop.is_cancelled() {
                return false;
            }
        }
    }

    fn accept_until(&self, turn: &Arc<Turn>, pause: &CancellationToken) -> JoinSet<()> {
        let mut accepting = JoinSet::new();
        for (door, leads_to) in turn.doors().into_iter().enumerate() {
            let (turn, pause) = (turn.clone(), pause.clone());
            let open = move || turn.open(door).map(|listener| listener.and_then(TcpListener::from_std));
            match leads_to {
                LeadsTo::Https => {
                    let (doors, https) = (self.web_doors.clone(), self.https.clone());
                    accepting.spawn(async move {
                        let Some(listener) = until_open(&pause, open).await else { return };
                        let serve = move |stream, ends: Ends| {
                            let https = https.clone();
                            somebody(async move { https.serve(stream, ends.client).await })
                        };
                        doors.accept("https", listener, pause, serve).await;
                    });
                }
                LeadsTo::All => {
                    let (doors, all) = (self.all_doors.clone(), self.clone());
                    accepting.spawn(async move {
                        let Some(listener) = until_open(&pause, open).await else { return };
                        let serve = move |stream, ends| somebody(all.clone().serve_either(stream, ends));
                        doors.accept("all", listener, pause, serve).await;
                    });
                }
                LeadsTo::Ssh(fixed) => {
                    let (doors, front) = (self.ssh_doors.clone(), self.front.clone());
                    accepting.spawn(async move {
                        let Some(listener) = until_open(&pause, open).await else { return };
                        let serve = move |stream, ends: Ends| {
                            somebody(ssh::serve(front.clone(), stream, ends.client, ends.reached, fixed.clone()))
                        };
                        doors.accept("ssh", listener, pause, serve).await;
                    });
                }
            }
        }
        accepting
    }

    /// Serves one connection of the port for all; whether anybody became known on it.
    async fn serve_either(self, stream: TcpStream, ends: Ends) -> bool {
        match first_bytes::look(&stream).await {
            Some(Spoken::Ssh) => {
                let _held = self.ssh_doors.adopt();
                Box::pin(ssh::serve(self.front, stream, ends.client, ends.reached, None)).await
            }
            Some(Spoken::Tls) => {
                let _held = self.web_doors.adopt();
                Box::pin(self.https.serve(stream, ends.client)).await
            }
            None => false,
        }
    }
}

/// Opens a door, and tries until it is open: where there is no descriptor left, there may be one soon. `None` when it is
/// time to pause, or there is no door any more.
async fn until_open<T>(pause: &CancellationToken, mut open: impl FnMut() -> Option<io::Result<T>>) -> Option<T> {
    let mut wait = FIRST_WAIT;
    loop {
        match open()? {
            Ok(listener) => return Some(listener),
            Err(error) => tracing::error!(%error, "a listening socket cannot be used; trying again"),
        }
        tokio::select! {
            () = pause.cancelled() => return None,
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
        }
    }
}

async fn somebody(served: impl Future<Output = bool>) -> Served {
    if served.await { Served::Somebody } else { Served::Nobody }
}

/// Answers the other processes of this gateway, for as long as it runs.
fn answer_other_processes(
    process: &Process,
    turn: Arc<Turn>,
    sessions: Sessions,
    told: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let bound = process.run.bind(process.id);
    async move {
        let listener = match bound {
            Ok(listener) => listener,
            // It serves all the same, but cannot be upgraded without a stop.
            Err(error) => return tracing::error!(%error, "the control socket cannot be made"),
        };
        control::answer_calls(listener, move |line| answer(line, turn.clone(), sessions.clone(), told.clone())).await;
    }
}

async fn answer(mut line: Line, turn: Arc<Turn>, sessions: Sessions, told: CancellationToken) {
    let answered = match line.hear(control::MESSAGE).await {
        Ok(Order::HandOver) => turn.hand_over(line).await.inspect_err(|_| notify::not_upgraded()),
        Ok(Order::Kill { session, by, reason }) => {
            line.say(&killed(sessions.kill(session, Kill { by, reason }).await)).await
        }
        Ok(Order::KillChannel { session, recording, by, reason }) => {
            line.say(&killed(sessions.kill_channel(session, recording, Kill { by, reason }).await)).await
        }
        Ok(Order::Stop) => {
            tracing::info!(by = line.peer(), "told to stop by the process that took over");
            told.cancel();
            line.say(&Answer::Stopping).await
        }
        Ok(Order::Ready | Order::Taken) => line.say(&Answer::Refused { why: "there is nothing to take".into() }).await,
        Err(error) => Err(error),
    };
    if let Err(error) = answered {
        tracing::warn!(%error, "another process of this gateway was not answered to the end");
    }
}

fn killed(told: Result<(), session::KillError>) -> Answer {
    match told {
        Ok(()) => Answer::Down,
        Err(session::KillError::NotLive) => Answer::NotLive,
        Err(session::KillError::TimedOut) => Answer::TimedOut,
    }
}

async fn keep_status(sessions: &Sessions, processes: &Processes) {
    let mut tick = tokio::time::interval(TELL_EVERY);
    let mut told = String::new();
    loop {
        tick.tick().await;
        let words = in_words(sessions, processes).await;
        if words != told {
            notify::status(&words);
            told = words;
        }
    }
}

async fn in_words(sessions: &Sessions, processes: &Processes) -> String {
    let serving = format!("serving; sessions: {}", sessions.count());
    match processes.count_others().await {
        Ok(0) | Err(_) => serving,
        Ok(others) => format!("{serving}; older processes that serve what they have: {others}"),
    }
}

/// How many connections may be open: a quarter of the descriptors, because a session takes several (client, upstream,
/// recording, spool). The soft limit is raised to the hard one first.
fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    files.map_or(100_000, |files| usize::try_from(files / 4).unwrap_or(100_000)).clamp(64, 100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_descriptor() -> io::Error {
        io::Error::from(rustix::io::Errno::MFILE)
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_that_cannot_be_opened_now_is_tried_until_it_can_or_until_the_pause() {
        let pause = CancellationToken::new();
        let mut tries = 0;
        let opened = until_open(&pause, || {
            tries += 1;
            Some(if tries < 20 { Err(no_descriptor()) } else { Ok("open") })
        });
        assert_eq!(opened.await, Some("open"));
        assert_eq!(until_open::<()>(&pause, || None).await, None, "handed over");
        pause.cancel();
        assert_eq!(until_open::<()>(&pause, || Some(Err(no_descriptor()))).await, None);
    }
}

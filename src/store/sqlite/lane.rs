//! A lane: a bounded queue of calls in front of a thread that owns a connection.
//!
//! The writer takes all that is queued, up to a bound, into one transaction, with a savepoint for each call, and answers
//! after the commit. A call that fails rolls back its own savepoint only. If the transaction as a whole fails (the
//! disk is full), every call is tried again in a transaction of its own, so that the small ones may still fit; that is
//! why a call's work can run twice.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::store::StoreError;

/// The sending end. Clones share one thread, which ends after the last of them is dropped and the queue is empty.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl Lane {
    /// Does `work` on the lane's thread, even if the caller's future is dropped meanwhile.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.submit(work, Abandoned::Done).await
    }

    /// Does `work` on the lane's thread, unless nobody waits for the answer any more when its turn comes.
    pub(super) async fn call_if_awaited<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.submit(work, Abandoned::Skipped).await
    }

    /// Queues `work` without waiting for room or for an answer: for what may be lost.
    pub(super) fn offer(&self, work: impl FnMut(&Connection) -> Result<(), StoreError> + Send + 'static) {
        let (reply, _) = oneshot::channel();
        let _full_or_closed =
            self.queue.try_send(Box::new(Call { work, done: None, reply, abandoned: Abandoned::Done }));
    }

    async fn submit<T: Send + 'static>(
        &self,
        work: impl FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
        abandoned: Abandoned,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Call { work, done: None, reply, abandoned });
        let answered = async {
            self.queue.send(call).await.map_err(|_| StoreError::Closed)?;
            answer.await.map_err(|_| StoreError::Closed)?
        };
        tokio::time::timeout(DEADLINE, answered).await.unwrap_or(Err(StoreError::Slow))
    }
}

/// Starts the thread that writes.
pub(super) fn writer(name: &str, mut db: Connection) -> Result<Lane, StoreError> {
    start(name, move |mut queue| {
        let mut batch = Vec::with_capacity(BATCH);
        while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
            write(&mut db, &mut batch);
        }
    })
}

/// Starts a thread that reads. The connection must be read-only.
pub(super) fn reader(name: &str, db: Connection) -> Result<Lane, StoreError> {
    start(name, move |mut queue| {
        while let Some(mut job) = queue.blocking_recv() {
            job.run(&db);
            job.answer(Ok(()));
        }
    })
}

fn start(name: &str, run: impl FnOnce(mpsc::Receiver<Box<dyn Job>>) + Send + 'static) -> Result<Lane, StoreError> {
    let (queue, jobs) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || run(jobs))
        .map_err(|error| StoreError::Open(Arc::new(error)))?;
    Ok(Lane { queue })
}

/// Does a batch in one transaction, or one by one if that fails, and answers everybody.
fn write(db: &mut Connection, batch: &mut Vec<Box<dyn Job>>) {
    if batch.len() > 1 && transact(db, batch).is_ok() {
        batch.drain(..).for_each(|job| job.answer(Ok(())));
        return;
    }
    for mut job in batch.drain(..) {
        let committed = transact(db, std::slice::from_mut(&mut job));
        job.answer(committed);
    }
}

/// Runs jobs in one transaction. An error means that nothing of any of them was kept.
fn transact(db: &mut Connection, jobs: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for job in jobs {
        transaction.execute_batch("SAVEPOINT job")?;
        let kept = job.run(&transaction);
        // Some failures (full disk, I/O) end the whole transaction by themselves (SQLite, "Response To Errors Within A
        // Transaction"). The savepoint is gone then, and this fails, before a later call could be kept on its own.
        transaction.execute_batch(if kept { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" })?;
    }
    Ok(transaction.commit()?)
}

/// A call that waits in the queue, whatever it returns.
trait Job: Send {
    /// Does the work and keeps the result for [`Job::answer`]; may run again. True when its writes are to be kept.
    fn run(&mut self, db: &Connection) -> bool;
    /// Tells the caller: the result if what it wrote was committed, else why not.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Call<T, F> {
    work: F,
    done: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    abandoned: Abandoned,
}

/// What happens to a call that nobody waits for any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Abandoned {
    Done,
    Skipped,
}

impl<T: Send, F: FnMut(&Connection) -> Result<T, StoreError> + Send> Job for Call<T, F> {
    fn run(&mut self, db: &Connection) -> bool {
        if self.abandoned == Abandoned::Skipped && self.reply.is_closed() {
            return false;
        }
        self.done.insert((self.work)(db)).is_ok()
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let answer = match (committed, self.done) {
            (Ok(()), Some(done)) => done,
            // The call's own failure says more than that of its transaction.
            (Err(_), Some(Err(own))) => Err(own),
            (Err(error), _) => Err(error),
            (Ok(()), None) => return,
        };
        let _gone = self.reply.send(answer);
    }
}

/// Calls that may wait. More than the sessions that open at once, and small.
const QUEUE: usize = 1024;
/// Most calls in one transaction: bounds how long the first of them waits for the last.
const BATCH: usize = 128;
/// The longest that anybody waits for the book.
const DEADLINE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::sync::mpsc as std_mpsc;

    use super::*;

    fn lane(dir: &tempfile::TempDir) -> Lane {
        let db = Connection::open(dir.path().join("lane.db")).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER PRIMARY KEY, filler BLOB) STRICT")
            .unwrap();
        writer("lane", db).unwrap()
    }

    async fn insert(lane: Lane, n: i64, filler: usize) -> Result<(), StoreError> {
        lane.call(move |db| {
            db.execute("INSERT INTO t VALUES (?1, zeroblob(?2))", (n, filler as i64))?;
            Ok(())
        })
        .await
    }

    async fn rows(lane: &Lane) -> Vec<i64> {
        lane.call(|db| {
            let mut all = db.prepare("SELECT n FROM t ORDER BY n")?;
            Ok(all.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?)
        })
        .await
        .unwrap()
    }

    /// Holds the thread until the returned sender is dropped or used, so that what follows shares one batch.
    async fn hold(lane: &Lane) -> std_mpsc::Sender<()> {
        let (go, wait) = std_mpsc::channel::<()>();
        let (here, arrived) = oneshot::channel();
        let mut here = Some(here);
        lane.offer(move |_| {
            if let Some(here) = here.take() {
                here.send(()).unwrap();
            }
            let _dropped = wait.recv();
            Ok(())
        });
        arrived.await.unwrap();
        go
    }

    async fn queued(lane: &Lane, calls: usize) {
        let queued = async {
            while QUEUE - lane.queue.capacity() < calls {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, queued).await.unwrap();
    }

    #[tokio::test]
    async fn a_failing_call_fails_alone() {
        let dir = tempfile::tempdir().unwrap();
        let lane = lane(&dir);
        let go = hold(&lane).await;
        let calls: Vec<_> = [1, 2, 2, 3].map(|n| tokio::spawn(insert(lane.clone(), n, 0))).into_iter().collect();
        queued(&lane, 4).await;
        drop(go);
        let mut failed = 0;
        for call in calls {
            if let Err(error) = call.await.unwrap() {
                assert!(matches!(error, StoreError::Conflict(_)), "{error:?}");
                failed += 1;
            }
        }
        assert_eq!(failed, 1);
        assert_eq!(rows(&lane).await, [1, 2, 3]);
    }

    #[tokio::test]
    async fn a_call_that_fails_halfway_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let lane = lane(&dir);
        let half = |lane: Lane| async move {
            let work = |db: &Connection| {
                db.execute("INSERT INTO t VALUES (9, NULL)", [])?;
                Err::<(), _>(StoreError::UnknownSession)
            };
            lane.call(work).await
        };
        assert!(matches!(half(lane.clone()).await, Err(StoreError::UnknownSession)));
        let go = hold(&lane).await;
        let calls = [tokio::spawn(insert(lane.clone(), 1, 0)), tokio::spawn(half(lane.clone()))];
        queued(&lane, 2).await;
        drop(go);
        let [whole, half] = calls;
        whole.await.unwrap().unwrap();
        assert!(matches!(half.await.unwrap(), Err(StoreError::UnknownSession)));
        assert_eq!(rows(&lane).await, [1]);
    }

    #[tokio::test]
    async fn a_full_disk_fails_what_does_not_fit_and_keeps_what_fits() {
        let dir = tempfile::tempdir().unwrap();
        let lane = lane(&dir);
        lane.call(|db| Ok(db.pragma_update_and_check(None, "max_page_count", 20, |_| Ok(()))?)).await.unwrap();
        let go = hold(&lane).await;
        let small = tokio::spawn(insert(lane.clone(), 1, 10));
        let big = tokio::spawn(insert(lane.clone(), 2, 1 << 20));
        let other = tokio::spawn(insert(lane.clone(), 3, 10));
        queued(&lane, 3).await;
        drop(go);
        assert!(matches!(big.await.unwrap(), Err(StoreError::Full)));
        small.await.unwrap().unwrap();
        other.await.unwrap().unwrap();
        assert_eq!(rows(&lane).await, [1, 3]);
    }

    #[tokio::test]
    async fn a_lost_transaction_is_told_to_all_and_retried_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let lane = lane(&dir);
        let go = hold(&lane).await;
        let before = tokio::spawn(insert(lane.clone(), 1, 0));
        queued(&lane, 1).await;
        // What a full disk in the middle of a transaction does to it.
        let culprit = lane.clone();
        let culprit = tokio::spawn(async move {
            culprit
                .call(|db| {
                    db.execute_batch("ROLLBACK")?;
                    Err::<(), _>(StoreError::Full)
                })
                .await
        });
        queued(&lane, 2).await;
        let after = tokio::spawn(insert(lane.clone(), 2, 0));
        queued(&lane, 3).await;
        drop(go);
        before.await.unwrap().unwrap();
        after.await.unwrap().unwrap();
        assert!(matches!(culprit.await.unwrap(), Err(StoreError::Full)));
        assert_eq!(rows(&lane).await, [1, 2]);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_skipped_or_done() {
        let dir = tempfile::tempdir().unwrap();
        let lane = lane(&dir);
        let go = hold(&lane).await;
        let done = tokio::spawn(insert(lane.clone(), 1, 0));
        queued(&lane, 1).await;
        let skipping = lane.clone();
        let skipped = tokio::spawn(async move {
            skipping
                .call_if_awaited(|db| {
                    db.execute("INSERT INTO t VALUES (2, NULL)", [])?;
                    Ok(())
                })
                .await
        });
        queued(&lane, 2).await;
        for call in [done, skipped] {
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
        }
        drop(go);
        assert_eq!(rows(&lane).await, [1]);
    }

    #[tokio::test]
    async fn the_last_handle_lets_the_queue_run_dry() {
        let dir = tempfile::tempdir().unwrap();
        let lane = lane(&dir);
        let go = hold(&lane).await;
        let (said, mut heard) = mpsc::channel(8);
        for n in 0..4 {
            let said = said.clone();
            lane.offer(move |_| {
                said.try_send(n).unwrap();
                Ok(())
            });
        }
        drop((lane, said));
        drop(go);
        let mut all = Vec::new();
        // Ends only because the thread dropped its work, and so its last sender.
        while let Some(n) = heard.recv().await {
            all.push(n);
        }
        assert_eq!(all, [0, 1, 2, 3]);
    }
}

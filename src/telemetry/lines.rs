//! Where log lines wait for standard error: a queue with a bound in bytes and the one thread that writes. Whoever reads
//! the other end of a pipe may stop reading, and nobody but that thread may wait for it; what finds the queue full is
//! dropped and counted. Knows nothing of what a line says.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Bytes that may wait.
const ROOM: usize = 1 << 20;

/// The thread that writes.
const THREAD: &str = "log";

/// How long the last lines may take when the gateway ends.
const LAST: Duration = Duration::from_secs(1);

/// The queue's open end. Each call of `write` is one line and never waits. Cheap to clone.
#[derive(Clone)]
pub(super) struct Lines(Arc<Shared>);

/// Writes what is left when it is dropped, for a second at most.
pub struct LastLines(Lines);

struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    dropped: Counter,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// Of these lines, and of the one that is being written.
    bytes: usize,
    /// Dropped lines that nobody was told of yet.
    untold: u64,
}

impl Lines {
    /// Starts the thread that writes to `to`. `tell` is called there, with how many lines were dropped, once there is room
    /// again.
    pub(super) fn start(
        to: OwnedFd,
        dropped: Counter,
        tell: impl Fn(&Self, u64) + Send + 'static,
    ) -> io::Result<(Self, LastLines)> {
        let lines = Self(Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), dropped }));
        let (queue, to) = (lines.clone(), File::from(to));
        std::thread::Builder::new().name(THREAD.into()).spawn(move || {
            loop {
                let line = queue.next();
                let written = write_all(&to, &line).is_ok();
                let untold = queue.room_again(line.len(), written);
                if untold > 0 {
                    tell(&queue, untold);
                }
                // Last, so that whoever waits for the end waits for what was just told, too.
                queue.lock().bytes -= line.len();
                queue.0.changed.notify_all();
            }
        })?;
        Ok((lines.clone(), LastLines(lines)))
    }

    /// Waits for the next line.
    fn next(&self) -> Vec<u8> {
        let mut queue = self.lock();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                return line;
            }
            queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// After a line of so many bytes: how many dropped ones to tell of, if it works again and there is room.
    fn room_again(&self, line: usize, written: bool) -> u64 {
        let mut queue = self.lock();
        if !written {
            queue.untold += 1;
            self.0.dropped.inc();
        }
        if written && queue.bytes - line <= ROOM / 2 { std::mem::take(&mut queue.untold) } else { 0 }
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.lock();
        if queue.bytes + line.len() > ROOM {
            queue.untold += 1;
            self.0.dropped.inc();
            return;
        }
        queue.bytes += line.len();
        queue.lines.push_back(line.to_vec());
        drop(queue);
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until all of it is written, for so long at most. Not on the thread that writes, which would wait for itself.
    pub(super) fn wait(&self, most: Duration) {
        if std::thread::current().name() != Some(THREAD) {
            let _late = self.0.changed.wait_timeout_while(self.lock(), most, |queue| queue.bytes > 0);
        }
    }
}

impl LastLines {
    /// Where they wait.
    pub(super) fn lines(&self) -> Lines {
        self.0.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        self.0.wait(LAST);
    }
}

impl fmt::Debug for LastLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LastLines(..)")
    }
}

fn write_all(mut to: &File, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match to.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = line.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A program on the same terminal may have made it so.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match poll(&mut [PollFd::new(&to, PollFlags::OUT)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, PipeReader};

    use super::*;

    fn start() -> (PipeReader, Lines, LastLines, Counter) {
        let (reader, writer) = io::pipe().unwrap();
        let dropped = Counter::default();
        let tell = |lines: &Lines, count| lines.push(format!("{count} were dropped\n").as_bytes());
        let (lines, last) = Lines::start(writer.into(), dropped.clone(), tell).unwrap();
        (reader, lines, last, dropped)
    }

    #[test]
    fn nobody_waits_for_who_does_not_read_and_what_was_dropped_is_told() {
        let (reader, mut lines, last, dropped) = start();
        let line = [vec![b'x'; 999], vec![b'\n']].concat();
        // More than the queue and any pipe hold.
        let written = 4 * ROOM / line.len();
        for _ in 0..written {
            lines.write_all(&line).unwrap();
        }
        assert!(lines.lock().bytes <= ROOM);
        drop(last);
        let lost = dropped.get();
        assert!(lost > 0);
        let mut reader = BufReader::new(reader).lines();
        let mut whole = 0;
        let told = loop {
            match reader.next().unwrap().unwrap() {
                other if other.contains("dropped") => break other,
                line => whole += u64::from(line.len() == 999),
            }
        };
        assert_eq!(told, format!("{lost} were dropped"));
        let rest = reader.take(usize::try_from(written as u64 - lost - whole).unwrap());
        assert!(rest.map(Result::unwrap).all(|line| line.len() == 999));
        lines.write_all(b"on it goes\n").unwrap();
    }

    #[test]
    fn the_last_lines_are_waited_for() {
        let (reader, mut lines, last, _) = start();
        let reading = std::thread::spawn(move || {
            let mut lines = BufReader::new(reader).lines();
            lines.by_ref().take(100).map(Result::unwrap).collect::<Vec<_>>()
        });
        for n in 0..100 {
            lines.write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        drop(last);
        assert_eq!(lines.lock().bytes, 0);
        assert_eq!(reading.join().unwrap(), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    }

    #[test]
    fn a_reader_that_has_gone_costs_lines_alone() {
        let (reader, mut lines, last, dropped) = start();
        drop(reader);
        lines.write_all(b"nobody reads this\n").unwrap();
        drop(last);
        assert_eq!((dropped.get(), lines.lock().untold), (1, 1));
    }
}

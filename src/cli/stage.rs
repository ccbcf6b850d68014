//! The terminal while a recording is shown on it: output through the filter, keys one by one, and everything as it was
//! before once it is dropped, also by a panic.

use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::terminal_filter::{CLEAR, Filter};

/// A terminal that shows a recording.
pub struct Stage {
    filter: Filter,
    out: io::Stdout,
    /// How the keyboard was set, where there is one.
    before: Option<Termios>,
    keys: mpsc::Receiver<u8>,
    /// Ctrl-C, and what ends programs.
    ends: [Signal; 3],
    shown: String,
    used: bool,
}

/// What a person did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// Pressed this key.
    Key(u8),
    /// Wants it to end.
    Quit,
}

impl Stage {
    /// Takes the terminal over. Keys are neither shown nor held back until the end of a line.
    pub fn open() -> io::Result<Self> {
        let ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let [interrupt, terminate, hangup] = ends;
        let before = single_keys()?;
        let keys = if before.is_some() { read_keys() } else { mpsc::channel(1).1 };
        Ok(Self {
            filter: Filter::new(),
            out: io::stdout(),
            before,
            keys,
            ends: [interrupt?, terminate?, hangup?],
            shown: String::new(),
            used: false,
        })
    }

    /// Shows a piece of a recording's output.
    pub fn show(&mut self, text: &str) -> io::Result<()> {
        self.used = true;
        self.shown.clear();
        self.filter.push(text, &mut self.shown);
        self.out.write_all(self.shown.as_bytes())?;
        self.out.flush()
    }

    /// Clears the terminal.
    pub fn clear(&mut self) -> io::Result<()> {
        self.used = true;
        self.out.write_all(CLEAR.as_bytes())?;
        self.out.flush()
    }

    /// Waits for a key or the end. Cancel safe.
    pub async fn did(&mut self) -> Did {
        let [interrupt, terminate, hangup] = &mut self.ends;
        tokio::select! {
            Some(key) = self.keys.recv() => match key {
                b'q' | b'Q' => Did::Quit,
                key => Did::Key(key),
            },
            _ = interrupt.recv() => Did::Quit,
            _ = terminate.recv() => Did::Quit,
            _ = hangup.recv() => Did::Quit,
        }
    }

    /// Words for the person when the recording has a larger screen than this terminal.
    pub fn too_small(cols: u16, rows: u16) -> Option<String> {
        let size = tcgetwinsize(io::stdout()).ok()?;
        let fits = size.ws_col >= cols && size.ws_row >= rows;
        let (own_cols, own_rows) = (size.ws_col, size.ws_row);
        (!fits && own_cols > 0).then(|| {
            format!("the recording's terminal is {cols}x{rows}, this one {own_cols}x{own_rows}: enlarge it to see all as it was")
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.used && self.out.is_terminal() {
            let _ = self.out.write_all(self.filter.restore().as_bytes());
        }
        let _ = self.out.flush();
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, before);
        }
    }
}

/// Switches the keyboard to single keys; how it was before, or `None` where standard input is no terminal. Ctrl-C stays
/// what it is.
fn single_keys() -> io::Result<Option<Termios>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(None);
    }
    let before = tcgetattr(&stdin)?;
    let mut single = before.clone();
    single.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    single.special_codes[SpecialCodeIndex::VMIN] = 1;
    single.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(&stdin, OptionalActions::Now, &single)?;
    Ok(Some(before))
}

/// Keys, read on a thread of their own: it waits for the next one for good, and goes with the process.
fn read_keys() -> mpsc::Receiver<u8> {
    let (sender, keys) = mpsc::channel(KEYS);
    std::thread::spawn(move || {
        let mut key = [0];
        while let Ok(1) = io::stdin().read(&mut key) {
            let [key] = key;
            if sender.blocking_send(key).is_err() {
                return;
            }
        }
    });
    keys
}

/// Keys that wait.
const KEYS: usize = 16;

//! What was seen on a channel, and when: the unit that is spooled before anything is forwarded. Pure data.

use std::time::Duration;

use bytes::Bytes;

/// One thing seen, with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Since the recording's start, on the monotonic clock.
    pub at: Duration,
    /// What it was.
    pub what: What,
}

/// Which way something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the upstream: typed input.
    Input,
    /// From the upstream to the client: output.
    Output,
}

/// What was seen. Bytes are kept as they were on the wire; everything else are the facts that are no bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Channel data. `stream` is 0 for the main stream, else the extended data type (RFC 4254 section 5.2; 1 is stderr).
    Bytes {
        /// Which way.
        direction: Direction,
        /// Which stream.
        stream: u32,
        /// The data.
        data: Bytes,
    },
    /// A terminal was asked for (`pty-req`, RFC 4254 section 6.2).
    Pty {
        /// The `TERM` value.
        term: String,
        /// Width in characters.
        cols: u32,
        /// Height in characters.
        rows: u32,
    },
    /// An environment variable was passed on.
    Env {
        /// Its name.
        name: String,
        /// Its value; where it may be a secret only its length, as `(7 bytes)`.
        value: String,
    },
    /// A login shell was started.
    Shell,
    /// A command was started. Bytes, because SSH commands need not be UTF-8.
    Exec {
        /// The command line.
        command: Bytes,
    },
    /// A subsystem was started.
    Subsystem {
        /// Its name.
        name: String,
    },
    /// The terminal's size changed (`window-change`).
    Resize {
        /// Width in characters.
        cols: u32,
        /// Height in characters.
        rows: u32,
    },
    /// The client sent a signal; the name without `SIG`.
    Signal {
        /// Such as `INT`.
        name: String,
    },
    /// One side will send no more.
    Eof {
        /// Which side's stream ended.
        direction: Direction,
    },
    /// The program ended with this status.
    ExitStatus {
        /// The status.
        status: u32,
    },
    /// The program was ended by a signal.
    ExitSignal {
        /// Such as `KILL`.
        name: String,
        /// The upstream's words.
        message: String,
    },
    /// Words of the gateway itself that were written into the user's terminal (a kill's reason, an upstream's failure).
    Told {
        /// The words.
        text: String,
    },
    /// Something was not recorded.
    Gap {
        /// Why.
        reason: String,
        /// How many bytes are missing; 0 when not known.
        bytes: u64,
    },
    /// The wall clock was stepped; the new offset of the wall clock at `at`, in microseconds since the Unix epoch.
    ClockStep {
        /// Microseconds since the Unix epoch.
        wall_us: i64,
    },
    /// Bytes that passed here and are not kept, because the configuration says so: contents of files.
    Withheld {
        /// Which way.
        direction: Direction,
        /// How many.
        bytes: u64,
    },
    /// What the bytes were found to mean: an event as it stands in the session.
    Fact {
        /// JSON: `type`, `status`, `metadata`.
        body: Bytes,
    },
    /// A request of a structured protocol, in that protocol's own encoding (databases, HTTP, Kubernetes: later).
    Request {
        /// The request.
        body: Bytes,
    },
    /// The answer's facts (later, as above).
    Response {
        /// The facts.
        body: Bytes,
    },
}

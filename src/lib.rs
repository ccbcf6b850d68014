//! Gatescribe: an identity-aware, recording access proxy. This page is the map of the sources; read it first.
//!
//! # One connection, as data meets it
//! ```text
//! accept ─ who? ─ may they? ─ open the book ─ reach the upstream ─ carry, writing first ─ close the book
//! accept   identity  policy     session         upstream              proto + record        session, store
//!                                 └── kill, end of the sign-in, lost recording, stop: cut in here at any moment
//! ```
//! A *socket* is a resource behind the gateway, its *upstream* where it leads. A *session* is one identity's visit to a
//! socket: a row in the *book* with events, and a *recording* for each channel.
//!
//! # Tree
//! ```text
//! src/
//!   main.rs        parses arguments, runs, exits
//!   cli/           one file per command: demo, serve, config; shell_keeper is for the gateway itself
//!   config/        TOML as typed (raw, read) -> checked values (check, sockets, policies), or mistakes with their places
//!   gateway.rs     builds everything, binds, recovers, runs, drains; the only file that knows all others
//!   accept.rs      the accept loop: back-off, limits per address, a span and a task for each connection
//!   telemetry.rs   the gateway's own log
//!   error.rs       what may be shown to a user, and whose fault it was
//!   socket.rs      a socket as plain data
//!   identity/      who: the type; oidc (the provider's client), link (sign-in by link and digits), tokens (of the API),
//!                  x509_ca (certificates for HTTPS), random, dev_issuer (a small provider for demo and tests)
//!   policy/        may they: rules, exec patterns, decide() -> Permit, Permit::check() -> Grant
//!   session/       registry (open, kill, drain, close), recording (a channel's tap and row), end (why it ended),
//!                  kill and cut (streams that die with their line), flow (how much a channel may hold)
//!   store/         the book: rows as the API tells them; sqlite/ with one writing thread
//!   record/        observation, codec and container (the format), spool and writer (safe before forwarded), drain (spool
//!                  to container), file, reader, recover (after a crash), export/ (asciicast)
//!   upstream/      dial and start: ssh/ (a server), shell/ (this host, in demo)
//!   proto/ssh/     the client's side: sign_in, handler (what russh calls), connection, channel, relay
//!   api/           REST: sessions, replay, kill, health; pages/ (sign-in, tokens); live (what they act on); HTTPS
//! config/          gatescribe.toml: every key, commented; a test parses it
//! certs/           how clients trust the gateway
//! examples/        programs with one idea each, and a first deployment step by step
//! tests/           run (everything), it/ (real servers and clients), golden/ (every format version), fuzz/
//! benches/         direct, `ssh -J` and through the gateway, in turn in one run
//! ```
//!
//! # Imports point down
//! `tests/it/layers.rs` holds this table, keeps outside crates in their files (russh in `proto/ssh` and `upstream/ssh`,
//! rusqlite in `store`, openidconnect in `identity/oidc` and the development issuer, axum in `api`), and the pure
//! modules pure: no runtime, no files, no network, no clock.
//! ```text
//! 8  main, cli
//! 7  gateway
//! 6  api, accept
//! 5  proto
//! 4  upstream
//! 3  session
//! 2  store, record, identity/*, config, telemetry
//! 1  policy, record/{codec,container,export,observation}        pure
//! 0  identity (the type), socket, error
//! ```
//!
//! # Decisions and their reasons
//! 1. **Proof as a value.** [`policy`] gives a `Permit` for a person on a socket, and a `Grant` for each action. What
//!    dials or starts something consumes the `Grant`, so no channel type can forget to ask.
//! 2. **Enrolled, then decided, then written.** [`session`] puts a session where a kill finds it before it asks the
//!    policy, and lets nobody in whose row is not in the book.
//! 3. **Recorded, then forwarded, both ways.** The relay waits for the tap before it sends on. The tap copies into a
//!    spool in memory that outlives the process, so this costs a copy and not a disk's time; with `durability = "disk"`
//!    it waits for the disk too.
//! 4. **Storage never blocks others.** A blocking job per recording moves the spool into the container. A slow disk holds
//!    up its own session; a full one ends it (`max_recording`, `keep_free`) and leaves room for the book.
//! 5. **A lost recording ends the session,** unless the socket says `continue`: then the gap is in the recording.
//! 6. **What happened is kept, exports are made.** The container holds observations: bytes as they were on the wire, and
//!    the facts that are no bytes (resize, signal, exit status). A cast is made from them when somebody asks.
//! 7. **One format with room.** Frames are chained by BLAKE3, unknown ones are stepped over, and the header has slots
//!    for keys and signatures. Readers take recordings for hostile: every length has a cap.
//! 8. **A kill cuts bytes.** russh keeps its stream when its future is dropped, and a disconnect waits behind a client
//!    that does not read. So TCP streams sit in a `Cut` on a `KillLine`; the protocol's goodbye is a courtesy with a
//!    limit of a second. Lines form a tree, because one connection may come to carry several sessions.
//! 9. **A kill is a row first, a signal second,** and signals are levels: who looks later still sees them. The first
//!    reason to end stands.
//! 10. **Rows close on the gateway's time.** Closing is a task of the registry, not of the connection. After a crash
//!     the next start gives recordings their verdict and closes the rows.
//! 11. **Everything that waits is bounded:** queues, links, channels, connections of one address, and how long russh's
//!     one loop per connection stands still for a slow channel (`session/flow.rs` says why it must not wait for good).
//! 12. **Strangers write no rows.** What ends before an identity is known is counted by address and minute in the log; a
//!     known person who is refused is a row.
//!
//! # One SSH connection through the files
//! 1. `cli/serve.rs` loads a configuration; `gateway.rs` binds, builds and calls `accept.rs`, which gives the connection
//!    its place, span and task.
//! 2. `proto/ssh/mod.rs` `serve`: peeks at the client's greeting, puts the stream into a `Cut`, hands it to russh, and
//!    waits for its end or an order to end.
//! 3. `proto/ssh/sign_in.rs`: a remembered key, or a link from `identity/link`. The browser goes through
//!    `api/pages/link.rs` and `sign_in.rs` to the provider (`identity/oidc`), approves, and shows the digits that the
//!    terminal asks for.
//! 4. `session/registry.rs` `open`: enrols, asks `policy/decide.rs`, writes the row. `proto/ssh/connection.rs` dials at
//!    once (`upstream/mod.rs`), while the client opens its channel.
//! 5. `proto/ssh/channel.rs`: collects terminal and environment, checks `shell` or `exec`, opens the recording
//!    (`session/recording.rs`, `record/mod.rs`), writes down what will be started, and starts it upstream.
//! 6. `proto/ssh/relay.rs`: two directions, each `record` (`record/writer.rs`, `spool.rs`), then forward.
//! 7. The program ends: status, end of file, close, in order. `record/drain.rs` seals. When the connection ends, `finish`
//!    cuts what is left and the registry closes the row.
//!
//! # One kill
//! `api/kill.rs` writes the order into the row (`store/sqlite/sessions.rs`), then asks `session/registry.rs`, which sets
//! the reason and the level. Each `relay.rs` records the words, tells them to its terminal, and ends what it started.
//! `serve` says SSH's goodbye, a second at most, and cuts the line: both `Cut` streams fail at once and are reset. The
//! row is closed with what may remain upstream, and the API answers it.
//!
//! # One replay
//! `api/replay.rs` checks the token's scope, finds the row, and starts an export on a thread that may block
//! (`api/live.rs`). `record/reader.rs` gives observations in order, checking the chain as it goes: the container's first,
//! then, of a live recording, the spool's. `record/export/cast.rs` makes lines of them, and a short queue carries them
//! out, so that a slow reader slows the export and memory stays flat.
pub mod accept;
pub mod api;
pub mod cli;
pub mod config;
pub mod error;
pub mod gateway;
pub mod identity;
pub mod policy;
pub mod proto;
pub mod record;
pub mod session;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod upstream;

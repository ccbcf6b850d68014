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
//!   cli/           one file per command: demo, serve, config (against_live: who would gain and lose), policy/ (ask rules,
//!                  replay the log with others), verify; shell_keeper and shell_host are for the gateway itself. For people:
//!                  login/, logout, status, token, ssh, ssh_config, sessions/, lock, unlock; they share client (the API),
//!                  profile (what a sign-in left in files), agent, stage and terminal_filter (the terminal), table, escape
//!                  (what may be printed)
//!   config/        TOML as typed (raw, read) -> checked values (check, sockets, policies), or mistakes with their places;
//!                  lenient (without secrets, for tools), in_force (what the gateway serves by, for the same)
//!   gateway/       builds everything, runs, drains; the only module that knows all others. listeners, first_bytes (what is
//!                  spoken on the one port for all), handover (upgrades),
//!                  processes (several on one book), control (the wire between them), changes (what they hear through the
//!                  book), locks (into force), people (who signed in), reload (a changed file), clock (one that is set),
//!                  notify (the service manager), memory (gives it back)
//!   accounts.rs    users of this host
//!   address.rs     which addresses count as one
//!   pace.rs        how often somebody may do something
//!   accept.rs      the accept loop: back-off, limits per address, a span and a task for each connection
//!   proxy_protocol.rs  what a trusted load balancer says about the client
//!   telemetry/     what the gateway tells about itself: log (lines: its queue), metrics (every name), traces
//!   geo/           address -> country and city, from database files that are read again when they change
//!   error.rs       what may be shown to a user, and whose fault it was
//!   files.rs       files that are there whole or not at all
//!   socket.rs      a socket as plain data
//!   identity/      who: the type; oidc (the provider's client), link (sign-in by link and digits), grants (codes for the
//!                  command line), sign_ins (what `gatescribe login` begins, issues and revokes), ssh_ca and x509_ca (the
//!                  authorities), tokens (of the API; scopes, roles), approval (who agreed in a browser,
//!                  and was not revoked since), newcomers (who is told of every sign-in), people (as they signed in
//!                  last), supposed (somebody to ask about only), ssh_ca_upstream (opens servers, for a session each),
//!                  random, dev_issuer (a provider for demo and tests)
//!   policy/        may they: policies (finds the rules about a visit), rules and their parts (when, rights, exec), lock,
//!                  decide() -> Permit, Permit::check() -> Grant, outlook (asks ahead), explain (why, rule by rule)
//!   session/       registry (open, kill, drain, close), guests (inside without a session), in_force (rules, locks and sockets, replaced as one), live (a
//!                  session and what it does; asks the policy), minder (asks again when something changes), warning (of
//!                  an end), revocations, denied (rows of denials), recording (a channel's tap and row), end (why it
//!                  ended), kill and cut (streams that die with their line), flow (how much a channel may hold)
//!   keeping.rs     housekeeping: what has been kept for long enough goes, files first
//!   store/         the book: rows as the API tells them; sqlite/ with one writing thread
//!   record/        observation, codec and container (the format), crypt and keys (always encrypted), spool and writer (safe
//!                  before forwarded), drain (spool to container; fresh: what it need not read back), file, reader,
//!                  follow (at a live recording's end), verify, recover (after a crash), remove, export/ (cast and
//!                  cast3 for players, text/ for people, on screen, an emulated terminal; escape)
//!   wire/          what bytes mean: a reading follows a channel and tells what it carries. sftp/ (files, and what may not
//!                  be written), transfer (which commands copy files), scp/ and rsync/ (what they copy), told (the facts'
//!                  fields), words (a command line split), hello (what a forward begins with), agent (what one is asked),
//!                  disguise (what a terminal is made to do so that others see less), mosh (known,
//!                  to be refused)
//!   upstream/      dial and start: ssh/ (a server: host_key, host_certificate, known_hosts, login, tunnel through a jump
//!                  host), shell/ (this host: as oneself in demo, in serve as another user, by a helper that was there
//!                  before everything else; exposed: what such a user could get at), reach (where forwards may lead),
//!                  tcp (forwards from this host)
//!   proto/ssh/     the client's side: sign_in/, handler (what russh calls), connection, lobby/ (who named no socket: the
//!                  menu, and `ssh -J`), channel (client: its end; deed: what a start comes to; rights), relay (directions),
//!                  forward, lent and listening (what the upstream opens), notices (said in a terminal in between)
//!   api/           REST: sessions, replay, watch/ (a live one: hub follows it, ring tells it), kill, locks, tokens,
//!                  credentials, policy/ (the rules, and what they answer), health, metrics, log; auth (who may do what to whom), openapi (generated); oauth/ (for
//!                  the command line), pages/ (sign-in, tokens); live (what they act on); HTTPS
//! config/          gatescribe.toml: every key, commented; a test parses it
//! certs/           how clients trust the gateway
//! examples/        programs with one idea each, and a first deployment step by step
//! tests/           run (everything), it/ (real servers and clients), golden/ (every format version), fuzz/
//! benches/         compare: direct, `ssh -J` and through the gateway, in turn in one run; load, size, spool, policy, and the soak
//! ```
//!
//! # Imports point down
//! `tests/it/layers.rs` holds this table, keeps outside crates in their files (russh in `proto/ssh` and `upstream/ssh`,
//! rusqlite in `store`, openidconnect in `identity/oidc` and the development issuer, axum in `api`), and the pure
//! modules pure: no runtime, no files, no network, no clock.
//! ```text
//! 8  main, cli
//! 7  gateway
//! 6  api, accept, proxy_protocol
//! 5  proto
//! 4  upstream
//! 3  session, keeping
//! 2  store, record, identity/*, config, geo, telemetry, files, accounts
//! 1  policy, wire, record/{codec,container,export,observation}  pure; record/crypt draws random numbers
//! 0  identity (the type), socket, error, address, pace
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
//!    for keys and signatures. Readers take recordings for hostile: every length has a cap. Spool and container are
//!    always encrypted, each recording with a key of its own; the chain runs over what is stored, so that checking it
//!    needs no key.
//! 8. **A kill cuts bytes.** russh keeps its stream when its future is dropped, and a disconnect waits behind a client
//!    that does not read. So TCP streams sit in a `Cut` on a `KillLine`; the protocol's goodbye is a courtesy with a
//!    limit of half a second. Lines form a tree, because one connection may come to carry several sessions.
//! 9. **A kill is a row first, a signal second,** and signals are levels: who looks later still sees them. The first
//!    reason to end stands.
//! 10. **Rows close on the gateway's time.** Closing is a task of the registry, not of the connection. After a crash
//!     the next start gives recordings their verdict and closes the rows.
//! 11. **Everything that waits is bounded:** queues, links, channels, connections of one address, and how long russh's
//!     one loop per connection stands still for a slow channel (`session/flow.rs` says why it must not wait for good).
//! 12. **Strangers write no rows.** What ends before an identity is known is counted by address and minute in the log; a
//!     known person who is refused is a row.
//! 13. **A client's address is its own, or a named balancer's word.** A PROXY protocol header is required from the
//!     networks that the configuration names and looked for from nobody else; what HTTP headers say is never asked.
//! 14. **Telemetry never makes anybody wait.** Counting is an atomic addition, spans and lines go into queues with a bound,
//!     and what finds one full is dropped and counted. Labels come from fixed sets, so that clients cannot make series.
//! 15. **Asked again, not only at the door.** What is in force is one value; whoever decided by it hears of the next one. So
//!     nobody polls, and a session that is let in as the rules change is either refused or asked again.
//! 16. **An upgrade drops nothing.** A new process takes the listening sockets and the lock, the old one serves what it
//!     has (`gateway/handover.rs` draws it). Who lives is told by locked files, whose session is by its row, so anything
//!     that is open is closed by somebody. Old and new share one book and one spool directory: a migration only adds
//!     to what the version before uses.
//!
//! # One SSH connection through the files
//! 1. `cli/serve.rs` loads a configuration; `gateway/` binds (`listeners`), builds (`build`) and calls `accept.rs` (`run`), which gives the connection
//!    its place, span and task.
//! 2. `proto/ssh/mod.rs` `serve`: peeks at the client's greeting, puts the stream into a `Cut`, hands it to russh, and
//!    waits for its end or an order to end.
//! 3. `proto/ssh/sign_in/`: a certificate (`identity/ssh_ca.rs` looks at it, `identity/sign_ins` asks the book), a
//!    remembered key, or a link from `identity/link`. The browser goes through
//!    `api/pages/link.rs` and `sign_in.rs` to the provider (`identity/oidc`), approves, and shows the digits that the
//!    terminal asks for. Where a rule wants a newer or another sign-in, the same is done once more (`step_up`).
//!    Who named no socket waits in the lobby (`lobby/`) until one is picked; `ssh -J` runs the whole of this once more
//!    inside, on a connection of its own that inherits who it is.
//! 4. `session/registry.rs` `open`: enrols, asks `policy/decide.rs`, writes the row. `proto/ssh/connection.rs` dials at
//!    once (`upstream/mod.rs`), while the client opens its channel.
//! 5. `proto/ssh/channel.rs`: collects terminal and environment, checks `shell` or `exec`, opens the recording
//!    (`session/recording.rs`, `record/mod.rs`), writes down what will be started, and starts it upstream.
//! 6. `proto/ssh/relay.rs`: two `directions`, each `record` (`record/writer.rs`, `spool.rs`), then forward.
//! 7. The program ends: status, end of file, close, in order. `record/drain.rs` seals. When the connection ends, `finish`
//!    cuts what is left and the registry closes the row.
//!
//! # One change that takes a right away
//! `gateway/reload.rs` reads the file and puts it into [`session::Rules`] as one; a lock comes by `api/locks.rs` and
//! `gateway/locks.rs`, a new sign-in by `api/pages/sign_in.rs` and `gateway/people.rs`, what another process wrote by
//! `gateway/changes.rs`. `session/minder.rs`, one task for each session, wakes and has `session/live.rs` decide again: a
//! session that is not allowed any more ends, a channel whose action is not is told so by its `Underway`, and what
//! began in between was asked under the same lock. The same task sleeps until the next time at which an answer can
//! change (`policy/outlook.rs`), and warns before an end.
//!
//! # One `gatescribe login`
//! `api/pages/authorize.rs` asks in the browser and sends a code (`identity/grants`) to the loopback address where the
//! program waits. It brings the code and its verifier to `api/oauth`, which begins a sign-in (`identity/sign_ins`): a row,
//! and a token that ends with it. With the token, `api/credentials.rs` certifies the program's keys. A serial number stands
//! in the book before its certificate leaves, so that one revocation ends all of it.
//!
//! # One kill
//! `api/kill.rs` writes the order into the row (`store/sqlite/sessions.rs`), then asks `session/registry.rs`, which sets
//! the reason and the level. Each `relay.rs` records the words, tells them to its terminal, and ends what it started.
//! `serve` says SSH's goodbye, half a second at most, and cuts the line: both `Cut` streams fail at once and are reset. The
//! row is closed with what may remain upstream, and the API answers it. A session that an older process holds is found
//! by its row: `gateway/processes.rs` tells that process, which also looks for orders in the book every second. An order
//! for one channel names its recording and takes the same way; `session/channels.rs` tells that channel's relay alone.
//!
//! # One lock
//! `api/locks.rs` asks `gateway/locks.rs`, which writes it into the book (`store/sqlite/locks.rs`, with a line for the audit
//! log and one in `changes`), reads the book's locks and puts them into what everybody is asked by (`session/in_force.rs`).
//! `gateway/changes.rs` of every other process reads that line within a second and does the same. A kill with a lock
//! writes both in one transaction, so that nobody who is cut off finds the door open.
//!
//! # One replay
//! `api/replay.rs` finds the row of somebody whom the caller may read (`api/auth.rs`), and starts an export on a thread that may block
//! (`api/live.rs`). `record/reader.rs` gives observations in order, checking the chain as it goes: the container's first,
//! then, of a live recording, the spool's. `record/export/cast.rs` (`cast3.rs`, `text/`) makes lines of them, and a short
//! queue carries them out, so that a slow reader slows the export and memory stays flat.
//!
//! # One watcher
//! `api/watch/mod.rs` checks who and from which page, writes the event, and turns the connection into a WebSocket.
//! `watch/hub.rs` has one follower for the recording (`record/follow.rs`), which the writer bumps while there is one.
//! What it reads becomes events and a screen (`watch/screen.rs`), put into messages once for all (`watch/speak.rs`).
//! `watch/watcher.rs` begins with the screen as it is and carries the messages; a watcher who falls off the short ring
//! begins anew, so nobody is slowed.
pub mod accept;
pub mod accounts;
pub mod address;
pub mod api;
pub mod cli;
pub mod config;
pub mod error;
pub mod files;
pub mod gateway;
pub mod geo;
pub mod identity;
pub mod keeping;
pub mod pace;
pub mod policy;
pub mod proto;
pub mod proxy_protocol;
pub mod record;
pub mod session;
pub mod socket;
pub mod store;
pub mod telemetry;
pub mod upstream;
pub mod wire;

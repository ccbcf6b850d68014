//! `GET …/session_log`: a recording, exported and streamed.
//!
//! The export runs on a thread that may block and goes through a short queue, so that memory is bounded and a slow
//! reader slows the export. An export that fails after its first piece breaks the connection off: a reader must never
//! take a part for the whole.
//!
//! What runs is shared out (`shares`), and a reader who trickles is cut, so that nobody keeps the others out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::stream;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::auth::{owner, require, session};
use super::parameters::{Ids, Parameters, flag};
use super::shares::{NoShare, Share};
use super::{ApiError, Format, ReplayError, Shared};
use crate::identity::tokens::{Caller, Scope};
use crate::record::export::text::View;
use crate::store::{Event, EventStatus, RecordingRow};

/// The handler.
#[utoipa::path(
    get, path = "/api/v1/session/{socket_id}/{session_id}/session_log", operation_id = "session_log", tag = "sessions",
    params(
        Ids,
        ("recording_id" = Option<Uuid>, Query, description = "Which recording; the first if left out."),
        ("format" = Option<String>, Query, description = "`cast` (asciicast v2), `cast3` (asciicast v3), `text`, or `raw` (as it is kept)."),
        ("view" = Option<String>, Query, description = "Of `text`: `screen` (what was seen) or `all` (every byte)."),
        ("input" = Option<bool>, Query, description = "With what was typed; takes the scope `input:read`, as `raw` does."),
    ),
    responses(
        (status = 200, description = "The recording.", content(
            (Vec<u8> = "application/x-asciicast"), (String = "text/plain"), (Vec<u8> = "application/octet-stream"))),
    ),
)]
pub(super) async fn session_log(
    State(shared): State<Shared>,
    caller: Caller,
    ids: Ids,
    mut parameters: Parameters,
) -> Result<impl IntoResponse, ApiError> {
    let wanted = parameters.take("recording_id", "a UUID", |text| text.parse::<Uuid>().ok())?;
    let view = parameters.take("view", "`screen` or `all`", |text| text.parse::<View>().ok())?;
    let format = format(&mut parameters, view)?;
    let input = parameters.take("input", "`true` or `false`", flag)?.unwrap_or(false);
    parameters.finish()?;
    let with_input = input || format == Format::Raw;
    if with_input {
        require(&caller, Scope::InputRead)?;
    }
    let owner = owner(&caller, Scope::RecordingsRead)?;
    let row = session(&shared.api.store, &caller, Scope::RecordingsRead, &ids).await?;
    let recording = row.recordings.into_iter().find(|one| wanted.is_none_or(|id| one.recording_id == id));
    let recording = recording.ok_or_else(|| ApiError::not_found("there is no such recording in this session"))?;
    let share = shared.exports.take(owner).map_err(too_many)?;
    if with_input {
        // Written before the first byte goes out: reading what somebody typed leaves a trace, or does not happen.
        let details = json!({"by": caller.name(), "recording_id": recording.recording_id, "format": format.name()});
        let event = Event::now("typed_input_read", EventStatus::Success, details);
        shared.api.store.add_event(ids.session, event).await?;
    }
    let headers = headers(&recording, format);
    let body = export(&shared, share, ids.session, recording, format, with_input).await?;
    Ok((headers, body))
}

fn too_many(why: NoShare) -> ApiError {
    match why {
        NoShare::Full => {
            let words = "too many recordings are being read; try again later";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, words)
        }
        NoShare::Own => {
            let words = "you are reading too many recordings at once; try again when one of them is done";
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, words)
        }
    }
}

fn format(parameters: &mut Parameters, view: Option<View>) -> Result<Format, ApiError> {
    let known = |text: &str| match text {
        "cast" => Some(Ok(Format::Cast)),
        "cast3" => Some(Ok(Format::Cast3)),
        "text" => Some(Ok(Format::Text(view.unwrap_or_default()))),
        "raw" => Some(Ok(Format::Raw)),
        "jsonl" | "har" | "pcapng" => Some(Err(ApiError::bad_request(format!("`format={text}` is not built yet")))),
        _ => None,
    };
    let format = parameters.take("format", "`cast`, `cast3`, `text` or `raw`", known)?.unwrap_or(Ok(Format::Cast))?;
    match (view, format) {
        (None, format) | (Some(_), format @ Format::Text(_)) => Ok(format),
        (Some(_), _) => Err(ApiError::bad_request("`view` goes with `format=text` only")),
    }
}

impl Format {
    /// As in the URL.
    fn name(self) -> &'static str {
        match self {
            Format::Cast => "cast",
            Format::Cast3 => "cast3",
            Format::Text(_) => "text",
            Format::Raw => "raw",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Format::Cast | Format::Cast3 => "cast",
            Format::Text(_) => "txt",
            Format::Raw => "gsr",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Format::Cast | Format::Cast3 => "application/x-asciicast",
            Format::Text(_) => "text/plain; charset=utf-8",
            Format::Raw => "application/octet-stream",
        }
    }
}

fn headers(recording: &RecordingRow, format: Format) -> [(HeaderName, String); 2] {
    let name = format!("attachment; filename=\"{}.{}\"", recording.recording_id, format.extension());
    [(header::CONTENT_TYPE, format.content_type().to_owned()), (header::CONTENT_DISPOSITION, name)]
}

/// Starts the export and waits for its first piece, so that one that fails at once is an error and not a broken body.
async fn export(
    shared: &Shared,
    share: Share,
    session: Uuid,
    recording: RecordingRow,
    format: Format,
    with_input: bool,
) -> Result<Body, ApiError> {
    let recordings = Arc::clone(&shared.api.recordings);
    let (pieces, mut queue) = mpsc::channel(PIECES);
    let mut sink = Sink::new(pieces);
    tokio::task::spawn_blocking(move || {
        let _share = share;
        let done = recordings.export(session, &recording, format, with_input, &mut sink);
        let last = match done.and_then(|()| Ok(sink.send_buffer()?)) {
            Ok(()) => Piece::End,
            Err(error) => Piece::Failed(error),
        };
        let _nobody_reads = sink.send(last);
    });
    match timeout(FIRST_PIECE, queue.recv()).await {
        Ok(Some(Piece::Failed(error))) => Err(error.into()),
        Ok(Some(Piece::End)) => Ok(Body::empty()),
        Ok(Some(Piece::Bytes(first))) => Ok(body(first, queue)),
        Ok(None) => Err(ReplayError::from(io::Error::other("the export ended without a word")).into()),
        Err(_elapsed) => Err(ReplayError::from(io::Error::from(io::ErrorKind::TimedOut)).into()),
    }
}

fn body(first: Bytes, queue: mpsc::Receiver<Piece>) -> Body {
    let next = |(first, mut queue): (Option<Bytes>, mpsc::Receiver<Piece>)| async move {
        if let Some(first) = first {
            return Ok(Some((first, (None, queue))));
        }
        match queue.recv().await {
            Some(Piece::Bytes(bytes)) => Ok(Some((bytes, (None, queue)))),
            Some(Piece::End) => Ok(None),
            Some(Piece::Failed(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an export broke off");
                Err(io::Error::other(error))
            }
            None => Err(io::Error::other("the export ended without a word")),
        }
    };
    Body::from_stream(stream::try_unfold((Some(first), queue), next))
}

/// What goes through the queue. The end is said, so that an export which panics is not taken for a short one.
enum Piece {
    Bytes(Bytes),
    End,
    Failed(ReplayError),
}

/// The export's side of the queue. Must be used on a thread that may block.
struct Sink {
    pieces: mpsc::Sender<Piece>,
    runtime: Handle,
    buffer: Vec<u8>,
    pace: Pace,
}

impl Sink {
    /// Must be made where a runtime is.
    fn new(pieces: mpsc::Sender<Piece>) -> Self {
        Self { pieces, runtime: Handle::current(), buffer: Vec::with_capacity(PIECE_BYTES), pace: Pace::default() }
    }

    fn send(&mut self, piece: Piece) -> io::Result<()> {
        let bytes = piece.len();
        let began = Instant::now();
        let sending = timeout(self.pace.patience(), self.pieces.send(piece));
        let sent = self.runtime.block_on(sending);
        self.pace.sent(bytes, began.elapsed());
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_closed)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn send_buffer(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE_BYTES));
        self.send(Piece::Bytes(full.into()))
    }
}

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= PIECE_BYTES {
            self.send_buffer()?;
        }
        let taken = bytes.len().min(PIECE_BYTES - self.buffer.len());
        self.buffer.extend(bytes.iter().take(taken));
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send_buffer()
    }
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Bytes(bytes) => bytes.len(),
            Piece::End | Piece::Failed(_) => 0,
        }
    }
}

/// How well a reader keeps up. Only the time counts in which the export stands still for the reader: a slow disk is not
/// the reader's fault.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// How long the next piece may wait.
    fn patience(&self) -> Duration {
        let earned = Duration::from_secs(self.bytes / SLOWEST);
        (GRACE + earned).saturating_sub(self.waited).min(STALLED)
    }

    fn sent(&mut self, bytes: usize, waited: Duration) {
        self.bytes += bytes as u64;
        self.waited += waited;
    }
}

/// Pieces in the queue.
const PIECES: usize = 8;
/// Bytes in a piece.
const PIECE_BYTES: usize = 64 << 10;
/// The longest that an export may take to begin.
const FIRST_PIECE: Duration = Duration::from_secs(30);
/// The longest that a reader may take nothing.
const STALLED: Duration = Duration::from_secs(60);
/// For how long in all a reader may be slower than [`SLOWEST`].
const GRACE: Duration = Duration::from_secs(60);
/// Bytes in a second: who takes fewer on average is cut, so that a recording is held open no longer than its size gives
/// reason to.
const SLOWEST: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use futures_util::StreamExt;
    use serde_json::json;

    use super::*;
    use crate::api::testing::{Api, Ends, Exports, path};
    use crate::store::testing::{new_session, recording, socket_id};
    use crate::store::{NewSession, SessionRow};

    async fn recorded(exports: Exports) -> (Api, NewSession, RecordingRow) {
        let api = Api::with(Ends::Killed, exports).await;
        let (new, recording) = (new_session(), recording());
        api.book.open_session(new.clone()).await.unwrap();
        api.book.add_recording(new.session_id, recording.clone()).await.unwrap();
        (api, new, recording)
    }

    async fn row(api: &Api, new: &NewSession) -> SessionRow {
        api.book.session(socket_id(new), new.session_id).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn the_right_recording_goes_out_as_asked_for() {
        let (api, new, first) = recorded(Exports::Facts).await;
        let second = RecordingRow { start_time: first.start_time + Duration::from_secs(1), ..recording() };
        api.book.add_recording(new.session_id, second.clone()).await.unwrap();
        let (first, second, session) = (first.recording_id, second.recording_id, new.session_id);
        const CAST: &str = "application/x-asciicast";
        const TEXT: &str = "text/plain; charset=utf-8";
        const RAW: &str = "application/octet-stream";
        let table = [
            (String::new(), CAST, format!("{session} {first} Cast false")),
            ("?format=cast&input=false".into(), CAST, format!("{session} {first} Cast false")),
            ("?input=true".into(), CAST, format!("{session} {first} Cast true")),
            ("?format=raw".into(), RAW, format!("{session} {first} Raw true")),
            ("?format=cast3".into(), CAST, format!("{session} {first} Cast3 false")),
            ("?format=text".into(), TEXT, format!("{session} {first} Text(Screen) false")),
            ("?view=screen&format=text&input=true".into(), TEXT, format!("{session} {first} Text(Screen) true")),
            ("?format=text&view=all".into(), TEXT, format!("{session} {first} Text(All) false")),
            (format!("?recording_id={second}"), CAST, format!("{session} {second} Cast false")),
            (format!("?recording_id={second}&format=raw"), RAW, format!("{session} {second} Raw true")),
        ];
        for (query, content_type, facts) in table {
            let answer = api.get(&format!("{}/session_log{query}", path(&new))).await;
            assert_eq!(answer.status.as_u16(), 200, "{query}");
            assert_eq!(answer.header("content-type"), content_type);
            assert!(answer.header("content-disposition").starts_with("attachment; "));
            assert_eq!(String::from_utf8(answer.body.unwrap()).unwrap(), facts);
        }
    }

    #[tokio::test]
    async fn reading_typed_input_leaves_a_trace() {
        let (api, new, recording) = recorded(Exports::Facts).await;
        let before = row(&api, &new).await.events.len();
        api.get(&format!("{}/session_log", path(&new))).await;
        assert_eq!(row(&api, &new).await.events.len(), before);
        api.get(&format!("{}/session_log?input=true", path(&new))).await;
        api.get(&format!("{}/session_log?format=raw", path(&new))).await;
        let events = row(&api, &new).await.events.split_off(before);
        let id = recording.recording_id;
        for (event, format) in events.iter().zip(["cast", "raw"]) {
            assert_eq!(event.kind, "typed_input_read");
            let expected = json!({"by": "admin@example.com", "recording_id": id, "format": format});
            assert_eq!(event.metadata, expected);
        }
        assert_eq!(events.len(), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_refused() {
        let (api, new, _) = recorded(Exports::Facts).await;
        let bare = new_session();
        api.book.open_session(bare.clone()).await.unwrap();
        api.get(&format!("{}/session_log", path(&bare))).await.refused(404, "no such recording");
        let other = NewSession { socket_name: "other".into(), ..new.clone() };
        api.get(&format!("{}/session_log", path(&other))).await.refused(404, "no such session");
        let stranger = Uuid::now_v7();
        let table = [
            (format!("recording_id={stranger}"), 404, "no such recording"),
            ("recording_id=1".into(), 400, "`recording_id`"),
            ("format=gif".into(), 400, "`format` must be"),
            ("format=".into(), 400, "`format` must be"),
            ("format=jsonl".into(), 400, "not built yet"),
            ("format=har".into(), 400, "not built yet"),
            ("format=pcapng".into(), 400, "not built yet"),
            ("view=screen".into(), 400, "`view` goes with `format=text`"),
            ("format=cast3&view=all".into(), 400, "`view` goes with `format=text`"),
            ("format=text&view=lines".into(), 400, "`view` must be"),
            ("format=text&view=".into(), 400, "`view` must be"),
            ("input=yes".into(), 400, "`input`"),
            ("speed=2".into(), 400, "`speed`"),
        ];
        for (query, status, words) in table {
            api.get(&format!("{}/session_log?{query}", path(&new))).await.refused(status, words);
        }
    }

    #[tokio::test]
    async fn an_export_that_fails_at_once_is_an_error() {
        for (exports, status, words) in [
            (Exports::Missing, 404, "missing"),
            (Exports::FailsAfter(0), 500, "cannot be read"),
            (Exports::PanicsAfter(0), 500, "cannot be read"),
        ] {
            let (api, new, _) = recorded(exports).await;
            let answer = api.get(&format!("{}/session_log", path(&new))).await;
            answer.refused(status, words);
            assert!(!answer.json().to_string().contains("disk"), "nothing from inside");
        }
        let (api, new, _) = recorded(Exports::Nothing).await;
        let answer = api.get(&format!("{}/session_log", path(&new))).await;
        assert_eq!((answer.status.as_u16(), answer.body.unwrap()), (200, Vec::new()));
    }

    #[tokio::test]
    async fn a_part_is_never_taken_for_the_whole() {
        for exports in [Exports::FailsAfter(PIECE_BYTES * 2), Exports::PanicsAfter(PIECE_BYTES * 2)] {
            let (api, new, _) = recorded(exports).await;
            let answer = api.get(&format!("{}/session_log", path(&new))).await;
            assert_eq!(answer.status.as_u16(), 200);
            assert!(answer.body.is_err());
        }
    }

    #[tokio::test]
    async fn a_slow_reader_costs_bounded_memory() {
        const ALL: usize = 64 << 20;
        let (api, new, _) = recorded(Exports::Bytes(ALL)).await;
        let request = api.request(Method::GET, &format!("{}/session_log", path(&new)), Some(&api.admin));
        let mut body = api.begin(request.body(Body::empty()).unwrap()).await.into_body().into_data_stream();
        let mut read = 0;
        while let Some(piece) = body.next().await {
            read += piece.unwrap().len();
            // In the queue, in the buffer, and the one that waits for room.
            assert!(api.exporter.written() <= read + (PIECES + 2) * PIECE_BYTES);
        }
        assert_eq!(read, ALL);
    }

    #[tokio::test]
    async fn exports_at_once_are_bounded_and_given_back() {
        let (api, new, _) = recorded(Exports::Bytes(8 << 20)).await;
        let url = format!("{}/session_log", path(&new));
        let request = || api.request(Method::GET, &url, Some(&api.admin)).body(Body::empty()).unwrap();
        let mut open = Vec::new();
        for _ in 0..crate::api::EXPORTS.all {
            let response = api.begin(request()).await;
            assert_eq!(response.status().as_u16(), 200);
            open.push(response);
        }
        api.send(request()).await.refused(503, "too many");
        drop(open);
        // The threads see that nobody reads when they send the next piece.
        let free = async {
            while api.begin(request()).await.status().as_u16() == 503 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), free).await.unwrap();
    }

    #[tokio::test]
    async fn nobody_who_reads_their_own_keeps_others_out() {
        let (api, new, _) = recorded(Exports::Bytes(8 << 20)).await;
        let url = format!("{}/session_log", path(&new));
        let (alice, audrey) = (api.person("alice").await, api.person("audrey").await);
        let request = |token: &str| api.request(Method::GET, &url, Some(token)).body(Body::empty()).unwrap();
        let mut open = Vec::new();
        for _ in 0..crate::api::EXPORTS.each {
            let response = api.begin(request(&alice)).await;
            assert_eq!(response.status().as_u16(), 200);
            open.push(response);
        }
        api.send(request(&alice)).await.refused(429, "at once");
        for _ in 0..=crate::api::EXPORTS.each {
            let response = api.begin(request(&audrey)).await;
            assert_eq!(response.status().as_u16(), 200, "who reads everybody's has no such share");
            open.push(response);
        }
    }

    #[test]
    fn a_reader_who_trickles_is_cut_and_one_who_keeps_up_is_not() {
        /// How many bytes a reader gets of an endless recording who takes this many in this time, again and again.
        fn taken(bytes: usize, every: Duration) -> Option<u64> {
            let mut pace = Pace::default();
            for _ in 0..10_000 {
                if pace.patience() < every {
                    return Some(pace.bytes);
                }
                pace.sent(bytes, every);
            }
            None
        }
        let seconds = Duration::from_secs;
        assert_eq!(taken(PIECE_BYTES, seconds(59)), Some(PIECE_BYTES as u64), "once a minute is too little");
        assert!(taken(PIECE_BYTES, seconds(2)).unwrap() < 8 << 20);
        assert_eq!(taken(PIECE_BYTES, seconds(1)), None);
        assert_eq!(taken(64 << 20, seconds(61)), Some(0), "nobody may take nothing for longer than a minute");
    }

    #[tokio::test]
    async fn the_queue_asks_the_pace() {
        let (pieces, _queue) = mpsc::channel(1);
        let mut sink = Sink::new(pieces);
        sink.pace.waited = GRACE;
        let sent = tokio::task::spawn_blocking(move || {
            let piece = || Piece::Bytes(Bytes::from_static(b"x"));
            (sink.send(piece()), sink.send(piece()), sink.pace.bytes)
        });
        let (first, second, bytes) = timeout(Duration::from_secs(10), sent).await.unwrap().unwrap();
        assert!(first.is_ok(), "there is room in the queue");
        assert_eq!((second.unwrap_err().kind(), bytes), (io::ErrorKind::TimedOut, 2));
    }
}

-- The book. Times are microseconds since the Unix epoch, ids are 16 bytes, words are the API's own.

CREATE TABLE sessions (
    seq          INTEGER PRIMARY KEY,
    session_id   BLOB    NOT NULL UNIQUE CHECK (length(session_id) = 16),
    socket_id    BLOB    NOT NULL CHECK (length(socket_id) = 16),
    socket_name  TEXT    NOT NULL,
    session_type TEXT    NOT NULL,
    start_time   INTEGER NOT NULL,
    end_time     INTEGER,
    last_seen    INTEGER NOT NULL,
    issuer       TEXT    NOT NULL,
    sub          TEXT    NOT NULL,
    user_email   TEXT    NOT NULL COLLATE NOCASE,
    name         TEXT,
    picture      TEXT,
    nickname     TEXT,
    groups       TEXT    NOT NULL,
    signed_in    INTEGER NOT NULL,
    actor        TEXT    NOT NULL,
    server_name  TEXT    NOT NULL,
    server_port  INTEGER NOT NULL,
    upstream     TEXT    NOT NULL,
    client_ip    TEXT    NOT NULL,
    client_port  INTEGER NOT NULL,
    country_code TEXT    COLLATE NOCASE,
    country      TEXT    COLLATE NOCASE,
    city         TEXT,
    sshuser      TEXT,
    audit_log    INTEGER NOT NULL,
    killed       INTEGER NOT NULL DEFAULT 0,
    result       TEXT    NOT NULL,
    outcome      TEXT,
    end_reason   TEXT,
    rule         TEXT,
    durability   TEXT    NOT NULL,
    remaining    TEXT,
    CHECK ((end_time IS NULL) = (outcome IS NULL))
) STRICT;

-- Every index ends in the list's order, so that a page is read off the index and never sorted.
CREATE INDEX sessions_by_start   ON sessions (start_time, session_id);
CREATE INDEX sessions_by_socket  ON sessions (socket_id, start_time, session_id);
CREATE INDEX sessions_by_email   ON sessions (user_email, start_time, session_id);
CREATE INDEX sessions_by_client  ON sessions (client_ip, start_time, session_id);
CREATE INDEX sessions_by_type    ON sessions (session_type, start_time, session_id);
CREATE INDEX sessions_by_code    ON sessions (country_code, start_time, session_id) WHERE country_code IS NOT NULL;
CREATE INDEX sessions_by_country ON sessions (country, start_time, session_id) WHERE country IS NOT NULL;
CREATE INDEX sessions_live       ON sessions (start_time, session_id) WHERE end_time IS NULL;
CREATE INDEX sessions_killed     ON sessions (start_time, session_id) WHERE killed = 1;
CREATE INDEX sessions_denied     ON sessions (start_time, session_id) WHERE result = 'denied';

-- How many sessions there are: counting a million rows for every list would cost more than the list.
CREATE TABLE counts (
    what TEXT    PRIMARY KEY,
    n    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counts (what, n) VALUES ('sessions', 0);
CREATE TRIGGER sessions_counted AFTER INSERT ON sessions
BEGIN UPDATE counts SET n = n + 1 WHERE what = 'sessions'; END;
CREATE TRIGGER sessions_uncounted AFTER DELETE ON sessions
BEGIN UPDATE counts SET n = n - 1 WHERE what = 'sessions'; END;

CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    session    INTEGER NOT NULL REFERENCES sessions (seq) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    type       TEXT    NOT NULL,
    status     TEXT    NOT NULL,
    metadata   TEXT    NOT NULL
) STRICT;
CREATE INDEX events_by_session ON events (session, created_at, id);

CREATE TABLE recordings (
    id           INTEGER PRIMARY KEY,
    recording_id BLOB    NOT NULL UNIQUE CHECK (length(recording_id) = 16),
    session      INTEGER NOT NULL REFERENCES sessions (seq) ON DELETE CASCADE,
    kind         TEXT    NOT NULL,
    command      TEXT,
    start_time   INTEGER NOT NULL,
    end_time     INTEGER,
    state        TEXT    NOT NULL,
    legibility   TEXT    NOT NULL,
    size         INTEGER,
    exit_status  INTEGER
) STRICT;
CREATE INDEX recordings_by_session ON recordings (session, start_time, id);
CREATE INDEX recordings_unfinished ON recordings (id) WHERE end_time IS NULL;

-- An SSH key that was proved by signature when a link was approved, and who approved it.
CREATE TABLE remembered_keys (
    fingerprint TEXT    PRIMARY KEY,
    identity    TEXT    NOT NULL,
    expires     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX remembered_keys_by_expiry ON remembered_keys (expires);

-- API tokens, by the SHA-256 of the secret; the secret itself is nowhere.
CREATE TABLE tokens (
    hash      BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    label     TEXT    NOT NULL,
    email     TEXT,
    role      TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    last_used INTEGER
) STRICT, WITHOUT ROWID;

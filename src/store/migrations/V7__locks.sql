-- Locks: who or what is kept out for now. Those that ran out or were taken off stay as they were; what counts is in force.

CREATE TABLE locks (
    lock_id    BLOB    PRIMARY KEY CHECK (length(lock_id) = 16),
    user       TEXT,
    user_group TEXT,
    socket     TEXT,
    address    TEXT,
    reason     TEXT    NOT NULL,
    by         TEXT    NOT NULL,
    created    INTEGER NOT NULL,
    until      INTEGER,
    removed    INTEGER,
    removed_by TEXT,
    CHECK ((removed IS NULL) = (removed_by IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX locks_not_removed ON locks (until) WHERE removed IS NULL;

-- What the identity provider said of each person last: what lives is decided again with it.
CREATE TABLE people (
    issuer   TEXT    NOT NULL,
    sub      TEXT    NOT NULL,
    identity TEXT    NOT NULL,
    seen     INTEGER NOT NULL,
    PRIMARY KEY (issuer, sub)
) STRICT, WITHOUT ROWID;
CREATE INDEX people_by_email ON people (identity ->> 'email' COLLATE NOCASE);

-- What the other processes of this gateway must hear, written with what it tells. A number is never given twice, also when
-- old lines are gone.
CREATE TABLE changes (
    n    INTEGER PRIMARY KEY AUTOINCREMENT,
    at   INTEGER NOT NULL,
    kind TEXT    NOT NULL,
    what TEXT    NOT NULL
) STRICT;
CREATE INDEX changes_by_age ON changes (at);

-- What the sign-in proved beside who it is (JSON), and which sign-in at the gateway it was, where it was one. Null: a
-- session from before, or that of an older process.
ALTER TABLE sessions ADD COLUMN proved TEXT;
ALTER TABLE sessions ADD COLUMN sign_in BLOB CHECK (sign_in IS NULL OR length(sign_in) = 16);

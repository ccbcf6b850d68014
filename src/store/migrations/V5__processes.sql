-- The gateway processes that share this book: in an upgrade the new one, and those that still serve what they have. Who
-- lives is told by a locked file of each (the kernel lets go of it, whatever ends the process); an id is never reused.

CREATE TABLE processes (
    process_id BLOB    PRIMARY KEY CHECK (length(process_id) = 16),
    pid        INTEGER NOT NULL,
    version    TEXT    NOT NULL,
    started    INTEGER NOT NULL,
    ended      INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX processes_open ON processes (process_id) WHERE ended IS NULL;

-- Which process holds a session. Null: one from before processes were told apart.
ALTER TABLE sessions ADD COLUMN process BLOB CHECK (process IS NULL OR length(process) = 16);
CREATE INDEX sessions_held ON sessions (process, killed) WHERE end_time IS NULL;

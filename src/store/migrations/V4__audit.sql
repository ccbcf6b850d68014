-- What was done with the gateway itself and what it keeps: by whom, what, to what. Lines are added and never changed; time
-- is in microseconds since the Unix epoch, as everywhere.

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    action  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    details TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_by_actor   ON audit (actor, id);
CREATE INDEX audit_by_action  ON audit (action, id);
CREATE INDEX audit_by_subject ON audit (subject, id);

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is only added to'); END;

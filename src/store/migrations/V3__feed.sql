-- The feed: every change of a session gives it the next number, so that a reader who knows a number finds what changed
-- after it. `last_seen` alone is no change. Triggers do it, because nobody can forget them.
ALTER TABLE sessions ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
-- Counted here, because lists tell it and a session may have a great many.
ALTER TABLE sessions ADD COLUMN events_total INTEGER NOT NULL DEFAULT 0;
UPDATE sessions SET changed = seq, events_total = (SELECT count(*) FROM events WHERE session = seq);
INSERT INTO counts (what, n) SELECT 'changes', coalesce(max(seq), 0) FROM sessions;

CREATE UNIQUE INDEX sessions_by_change ON sessions (changed);
CREATE UNIQUE INDEX sessions_of_person_by_change ON sessions (issuer, sub, changed);

CREATE TRIGGER session_opened AFTER INSERT ON sessions
BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'changes';
    UPDATE sessions SET changed = (SELECT n FROM counts WHERE what = 'changes') WHERE seq = NEW.seq;
END;
CREATE TRIGGER session_changed AFTER UPDATE OF
    end_time, user_email, name, picture, nickname, upstream, country_code, country, city, sshuser, audit_log, killed,
    result, outcome, end_reason, rule, durability, remaining ON sessions
BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'changes';
    UPDATE sessions SET changed = (SELECT n FROM counts WHERE what = 'changes') WHERE seq = NEW.seq;
END;
CREATE TRIGGER event_added AFTER INSERT ON events
BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'changes';
    UPDATE sessions SET changed = (SELECT n FROM counts WHERE what = 'changes'), events_total = events_total + 1
    WHERE seq = NEW.session;
END;
CREATE TRIGGER recording_added AFTER INSERT ON recordings
BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'changes';
    UPDATE sessions SET changed = (SELECT n FROM counts WHERE what = 'changes') WHERE seq = NEW.session;
END;
CREATE TRIGGER recording_changed AFTER UPDATE ON recordings
BEGIN
    UPDATE counts SET n = n + 1 WHERE what = 'changes';
    UPDATE sessions SET changed = (SELECT n FROM counts WHERE what = 'changes') WHERE seq = NEW.session;
END;

-- A person's own sessions; ends in the list's order as the other indexes do.
CREATE INDEX sessions_by_person ON sessions (issuer, sub, start_time, session_id);

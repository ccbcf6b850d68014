-- Orders to end something, by their sessions: each process looks for those that wait for it every second.
CREATE INDEX events_of_kills ON events (session, id) WHERE type = 'kill';

-- Sign-ins at the gateway itself (`gatescribe login`), and what they issued. What they issued counts for nothing once
-- they are revoked or over. Hashes are SHA-256 of secrets; the secrets themselves are nowhere.

CREATE TABLE sign_ins (
    sign_in_id BLOB    PRIMARY KEY CHECK (length(sign_in_id) = 16),
    issuer     TEXT    NOT NULL,
    sub        TEXT    NOT NULL,
    user_email TEXT    NOT NULL COLLATE NOCASE,
    identity   TEXT    NOT NULL,
    client_ip  TEXT    NOT NULL,
    software   TEXT,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    revoked    INTEGER,
    revoked_by TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_ins_by_person ON sign_ins (issuer, sub, created);
CREATE INDEX sign_ins_by_email ON sign_ins (user_email, created);
CREATE INDEX sign_ins_by_expiry ON sign_ins (expires);

-- SSH and X.509 certificates of people. A certificate that is not here is not accepted, whoever signed it.
CREATE TABLE certificates (
    serial      INTEGER PRIMARY KEY,
    sign_in_id  BLOB    NOT NULL REFERENCES sign_ins (sign_in_id) ON DELETE CASCADE,
    kind        TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL
) STRICT;
CREATE INDEX certificates_by_sign_in ON certificates (sign_in_id);
CREATE INDEX certificates_by_fingerprint ON certificates (fingerprint, kind);

-- Whose keys are forgotten when a person is revoked.
CREATE INDEX remembered_keys_by_email ON remembered_keys (identity ->> 'email' COLLATE NOCASE);

-- Tokens for one socket from one address (`gatescribe token`): what goes into a database password.
CREATE TABLE socket_tokens (
    hash        BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    sign_in_id  BLOB    NOT NULL REFERENCES sign_ins (sign_in_id) ON DELETE CASCADE,
    socket_name TEXT    NOT NULL,
    client_ip   TEXT    NOT NULL,
    created     INTEGER NOT NULL,
    expires     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX socket_tokens_by_sign_in ON socket_tokens (sign_in_id);
CREATE INDEX socket_tokens_by_expiry ON socket_tokens (expires);

-- API tokens again, with scopes: those of a sign-in act for its person with the role that their groups have now; others
-- have the scopes that they were made with.
DROP TABLE tokens;
CREATE TABLE tokens (
    hash       BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    token_id   BLOB    NOT NULL UNIQUE CHECK (length(token_id) = 16),
    label      TEXT    NOT NULL,
    email      TEXT    COLLATE NOCASE,
    sign_in_id BLOB    REFERENCES sign_ins (sign_in_id) ON DELETE CASCADE,
    scopes     TEXT    NOT NULL,
    networks   TEXT    NOT NULL,
    created_by TEXT,
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    last_used  INTEGER,
    last_ip    TEXT,
    revoked    INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_sign_in ON tokens (sign_in_id);
CREATE INDEX tokens_by_expiry ON tokens (expires);

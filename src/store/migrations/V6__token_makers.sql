-- Which token a token was made with: what a token that belongs to nobody made ends with it.
ALTER TABLE tokens ADD COLUMN maker BLOB;
CREATE INDEX tokens_by_maker ON tokens (maker) WHERE maker IS NOT NULL;
-- Whose tokens end when a person is revoked.
CREATE INDEX tokens_by_creator ON tokens (created_by COLLATE NOCASE) WHERE created_by IS NOT NULL;

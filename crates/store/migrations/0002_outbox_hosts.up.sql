-- What is due is taken host by host, so that many items for one that is slow hide nobody else's. The column is computed and takes no
-- room in the rows: the receiver up to the first slash after "https://".
ALTER TABLE outbox ADD COLUMN host TEXT GENERATED ALWAYS AS (substr(receiver, 1, 8 + instr(substr(receiver, 9) || '/', '/'))) VIRTUAL;
CREATE INDEX outbox_host ON outbox (host, next_at, sequence);

DROP INDEX outbox_host;
ALTER TABLE outbox DROP COLUMN host;

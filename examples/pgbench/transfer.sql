-- pgbench -n -f transfer.sql -c 8 -T 10
--
-- An account for each client, so that they do not wait for each other.  pgbench ends
-- a client at the first error other than a serialization failure or a deadlock, which
-- it tries again with --max-tries.
\set account :client_id + 1
BEGIN;
UPDATE account_berlin SET balance = balance - 1 WHERE id = :account;
UPDATE account_tokyo SET balance = balance + 1 WHERE id = :account;
INSERT INTO transfer (id, amount) VALUES ('pgbench-' || gen_random_uuid(), 1);
COMMIT;

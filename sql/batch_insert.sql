--
-- Inserts in batches.
--
CALL begin_test();
\set SHOW_CONTEXT never
ALTER SERVER one OPTIONS (ADD batch_size '7');
ALTER SERVER two OPTIONS (ADD batch_size '100');
BEGIN;
INSERT INTO acct1 SELECT i, i FROM generate_series(1001, 1100) i;
INSERT INTO acct2 SELECT i, i FROM generate_series(1001, 1250) i;
COMMIT;
SELECT * FROM counted();
SELECT (SELECT count(*) FROM acct1) AS one, (SELECT count(*) FROM acct2) AS two;
-- the last batch of the second fails
BEGIN;
INSERT INTO acct1 SELECT i, i FROM generate_series(2001, 2100) i;
INSERT INTO acct2 SELECT i, 150 - i % 1000 FROM generate_series(2001, 2151) i;
COMMIT;
SELECT * FROM counted();
SELECT (SELECT count(*) FROM acct1) AS one, (SELECT count(*) FROM acct2) AS two;
ALTER SERVER one OPTIONS (DROP batch_size);
ALTER SERVER two OPTIONS (DROP batch_size);
TABLE prepared;

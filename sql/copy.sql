--
-- COPY into foreign tables.
--
CALL begin_test();
\set SHOW_CONTEXT never
BEGIN;
COPY acct1 FROM stdin;
11	11
12	12
\.
COPY acct2 FROM stdin;
11	21
12	22
\.
COMMIT;
SELECT * FROM counted();
-- fails on the second server
BEGIN;
COPY acct1 FROM stdin;
13	13
\.
COPY acct2 FROM stdin;
13	23
1	1
\.
COMMIT;
SELECT * FROM counted();
-- the input is bad
BEGIN;
COPY acct1 FROM stdin;
14	14
\.
COPY acct2 FROM stdin;
14	x
\.
COMMIT;
SELECT * FROM counted();
-- a single one
COPY acct1 FROM stdin;
15	15
\.
SELECT * FROM counted();
-- and out of them
BEGIN;
COPY (SELECT * FROM acct1 WHERE id > 10 ORDER BY id) TO stdout;
DELETE FROM acct1 WHERE id = 15;
UPDATE acct0 SET bal = 15 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
TABLE balances;
TABLE prepared;

--
-- Partitions on several servers: single statements that write on all of them.
--
CALL begin_test();
\c dtx_one
CREATE TABLE part (region text, n int CHECK (n < 1000));
\c dtx_two
CREATE TABLE part (region text, n int CHECK (n < 1000));
\c contrib_regression
\set SHOW_CONTEXT never
CREATE TABLE parted (region text, n int) PARTITION BY LIST (region);
CREATE TABLE parted0 PARTITION OF parted FOR VALUES IN ('here');
CREATE FOREIGN TABLE parted1 PARTITION OF parted FOR VALUES IN ('one')
	SERVER one OPTIONS (table_name 'part');
CREATE FOREIGN TABLE parted2 PARTITION OF parted FOR VALUES IN ('two')
	SERVER two OPTIONS (table_name 'part');
-- routed to three nodes
INSERT INTO parted VALUES ('here', 1), ('one', 1), ('two', 1);
SELECT * FROM counted();
-- to one node
INSERT INTO parted VALUES ('one', 2), ('one', 3);
SELECT * FROM counted();
-- fails on the last
INSERT INTO parted VALUES ('here', 4), ('one', 4), ('two', 1000);
SELECT * FROM counted();
-- COPY
COPY parted FROM stdin;
here	5
one	5
two	5
\.
SELECT * FROM counted();
-- UPDATE and DELETE of all of them
UPDATE parted SET n = n + 10;
SELECT * FROM counted();
DELETE FROM parted WHERE n = 15;
SELECT * FROM counted();
-- a row that moves from here to a server
UPDATE parted SET region = 'one' WHERE region = 'here';
SELECT * FROM counted();
SELECT * FROM parted ORDER BY region, n;
TABLE prepared;
DROP TABLE parted;

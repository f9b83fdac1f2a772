-- pgbench -n -f saga.sql -c 8 -t 10
\set n random(1, 9000000000000000000)
SELECT dtx.start_saga('transfer', jsonb_build_object('key', 'pgbench-saga-' || :n, 'amount', 1), 'pgbench-saga-' || :n) AS saga \gset
SELECT dtx.wait_saga(:saga);

-- pgbench -n -f saga.sql -c 8 -t 10
SELECT 'pgbench-saga-' || gen_random_uuid() AS key \gset
SELECT dtx.start_saga('transfer', jsonb_build_object('key', :'key', 'amount', 1), :'key') AS saga \gset
SELECT dtx.wait_saga(:saga);

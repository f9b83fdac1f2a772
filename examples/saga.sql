-- For the coordinator, after schema.sql: a transfer that holds no locks between
-- its steps.  Each step has what undoes it.
SELECT dtx.define_saga('transfer',
  dtx.step('take', 'berlin',
    $$UPDATE account SET balance = balance - ($1->>'amount')::int WHERE id = 1$$,
    $$UPDATE account SET balance = balance + ($1->>'amount')::int WHERE id = 1$$, min_rows => 1),
  dtx.step('give', 'tokyo',
    $$UPDATE account SET balance = balance + ($1->>'amount')::int WHERE id = 1$$,
    $$UPDATE account SET balance = balance - ($1->>'amount')::int WHERE id = 1$$, min_rows => 1),
  dtx.step('record', NULL,
    $$INSERT INTO transfer (id, amount) VALUES ($1->>'key', ($1->>'amount')::int)$$));

-- An order: reserve the goods here, charge the card by one service, ship by another one.
CREATE TABLE item (id int PRIMARY KEY, qty int NOT NULL CHECK (qty >= 0));
INSERT INTO item VALUES (7, 100);
CREATE ROLE relay LOGIN;
SELECT dtx.grant_relay('relay');
GRANT EXECUTE ON FUNCTION dtx.define_saga, dtx.start_saga TO relay;
GRANT SELECT, UPDATE ON item TO relay;
SET ROLE relay;
SELECT dtx.define_saga('order',
  dtx.step('reserve', min_rows => 1,
      execute    => $$UPDATE item SET qty = qty - 1 WHERE id = ($1->>'item')::int AND qty > 0 RETURNING id$$,
      compensate => $$UPDATE item SET qty = qty + 1 WHERE id = ($1->>'item')::int$$),
  dtx.step_external('charge', 'payments', compensate_queue => 'payments', timeout => '1 hour'),
  dtx.step_external('ship', 'shipping', kind => 'pivot', timeout => '1 day', max_attempts => 3, backoff => '100 ms'));
RESET ROLE;
-- what happens to orders is published
ALTER ROLE relay SET pg_dtx.publish_saga_events = on;

-- The order service: what it needs on the coordinator of ../quickstart.sh, and on berlin (the
-- stock) and tokyo (the accounts).
SELECT dtx.exec('berlin', $$
  CREATE TABLE stock (item text PRIMARY KEY, quantity int NOT NULL CHECK (quantity >= 0));
  INSERT INTO stock VALUES ('book', 100), ('lamp', 1)$$);
SELECT dtx.exec('tokyo', $$
  CREATE TABLE charge (idempotency_key text PRIMARY KEY, saga bigint NOT NULL, amount int NOT NULL)$$);
CREATE FOREIGN TABLE charge (idempotency_key text, saga bigint, amount int) SERVER tokyo;

-- Reserve in the warehouse, have the card charged by the payment service, and have the parcel
-- sent by the shipping service.  What was done is undone if one of them refuses.
SELECT dtx.define_saga('order service',
  dtx.step('reserve', server => 'berlin', min_rows => 1,
      execute    => $$UPDATE stock SET quantity = quantity - 1 WHERE item = $1->>'item' AND quantity > 0$$,
      compensate => $$UPDATE stock SET quantity = quantity + 1 WHERE item = $1->>'item'$$),
  dtx.step_external('charge', queue => 'charges', compensate_queue => 'refunds'),
  dtx.step_external('ship', queue => 'parcels', compensate_queue => 'recalls'));

-- For the coordinator, which has servers "berlin" and "tokyo" of postgres_fdw.
-- Each of them has a table account (id int PRIMARY KEY, balance int NOT NULL).
CREATE FOREIGN TABLE account_berlin (id int, balance int) SERVER berlin OPTIONS (table_name 'account');
CREATE FOREIGN TABLE account_tokyo (id int, balance int) SERVER tokyo OPTIONS (table_name 'account');
CREATE TABLE transfer (id text PRIMARY KEY, amount int NOT NULL, at timestamptz NOT NULL DEFAULT now());

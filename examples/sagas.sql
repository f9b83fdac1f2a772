-- The databases stock, bank, depot and airline of docs/sagas.md, on this server, and foreign
-- servers of those names that lead to them, for the user who runs this.  To be run in the
-- database that the sagas are to be in, for example on the coordinator that
-- examples/quickstart.sh has made:
--
--	psql -h /tmp/pg_dtx.… -p 5501 -U me -f examples/sagas.sql postgres
--
-- This server is a participant, too, then: its max_prepared_transactions has to be above 0.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS pg_dtx CASCADE;
CREATE DATABASE stock;
CREATE DATABASE bank;
CREATE DATABASE depot;
CREATE DATABASE airline;
SELECT format('CREATE SERVER %I FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, port %L, dbname %L)',
              name, split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'), name),
       format('CREATE USER MAPPING FOR CURRENT_USER SERVER %I OPTIONS (user %L)', name, current_user)
  FROM unnest('{stock,bank,depot,airline}'::text[]) AS name \gexec
SELECT server, roles, "check", detail, hint FROM dtx.check() WHERE server IN ('stock', 'bank', 'depot', 'airline');

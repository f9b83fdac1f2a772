-- Makes foreign servers, user mappings and foreign tables for any number of servers, on
-- the coordinator; may be run again when servers or tables have been added.
--
--	psql -d bank -f setup.sql
--	psql -d bank -v servers='{"lima": {"host": "lima.example", "dbname": "bank"}}' -f setup.sql
--
-- servers  what is to be reached: names, and options of postgres_fdw for each
-- remote   the remote tables to be imported, of schema public; each server gets a local
--          schema of its name for them: berlin.account, tokyo.account
-- login    the role there; the password, if one is needed, comes from DTX_PASSWORD
\set ON_ERROR_STOP on
\if :{?servers}
\else
	\set servers '{"berlin": {"host": "berlin.example", "port": "5432", "dbname": "bank"}, "tokyo": {"host": "tokyo.example", "port": "5432", "dbname": "bank"}}'
\endif
\if :{?remote}
\else
	\set remote '{account}'
\endif
\if :{?login}
\else
	\set login :USER
\endif
\getenv password DTX_PASSWORD

CREATE EXTENSION IF NOT EXISTS pg_dtx CASCADE;

CREATE TEMPORARY TABLE wanted AS
SELECT s.name, s.options FROM jsonb_each(:'servers') AS s (name, options);

-- Servers.  format() quotes names (%I) and values (%L); \gexec runs each row.
SELECT format('CREATE SERVER IF NOT EXISTS %I FOREIGN DATA WRAPPER postgres_fdw OPTIONS (%s)', name,
              (SELECT string_agg(format('%I %L', o.key, o.value), ', ') FROM jsonb_each_text(options) AS o))
  FROM wanted ORDER BY name
\gexec

-- User mappings of the role that runs this.  A password is not printed.
\if :{?password}
	\set mapping_options 'user %L, password %L'
\else
	\set mapping_options 'user %L'
	\set password ''
\endif
SELECT format('CREATE USER MAPPING IF NOT EXISTS FOR CURRENT_USER SERVER %I OPTIONS (' || :'mapping_options' || ')',
              name, :'login', :'password')
  FROM wanted ORDER BY name
\gexec

-- Foreign tables, those that are not there yet.
SELECT format('CREATE SCHEMA IF NOT EXISTS %I', name) FROM wanted ORDER BY name
\gexec
SELECT format('IMPORT FOREIGN SCHEMA public LIMIT TO (%s) FROM SERVER %I INTO %I',
              string_agg(format('%I', t.name), ', ' ORDER BY t.name), w.name, w.name)
  FROM wanted AS w, unnest(:'remote'::text[]) AS t (name)
 WHERE to_regclass(format('%I.%I', w.name, t.name)) IS NULL
 GROUP BY w.name ORDER BY w.name
\gexec

DROP TABLE wanted;

-- What is not right, with what to do about it; no rows are good news.
SELECT server, roles, "check", detail, hint FROM dtx.check();

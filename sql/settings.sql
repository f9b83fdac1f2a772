--
-- Settings: defaults, units, ranges, contexts.
--
SELECT name, boot_val, unit, vartype, context, min_val, max_val
FROM pg_settings WHERE name LIKE 'pg\_dtx.%' ORDER BY name;
SELECT name, short_desc FROM pg_settings WHERE name LIKE 'pg\_dtx.%' ORDER BY name;
SELECT name, short_desc FROM pg_settings WHERE name LIKE 'pg\_dtx.%' AND short_desc !~ '^(Sets|Enables|Makes) .*\.$';
-- units
SET pg_dtx.prepare_timeout = '2min';
SHOW pg_dtx.prepare_timeout;
SET pg_dtx.prepare_timeout = 1500;
SHOW pg_dtx.prepare_timeout;
SET pg_dtx.commit_timeout = 0;
SHOW pg_dtx.commit_timeout;
-- ranges (only the SQLSTATE: the wording depends on the version)
\set VERBOSITY sqlstate
SET pg_dtx.prepare_timeout = 0;
SET pg_dtx.prepare_timeout = -1;
SET pg_dtx.commit_timeout = -1;
\set VERBOSITY default
SET pg_dtx.commit_wait = 'sometimes';
-- contexts
SET pg_dtx.resolver = off;
SET pg_dtx.resolve_interval = '1s';
SET pg_dtx.max_in_doubt = 100;
-- any user may change how his own transactions wait, but not whether they are atomic
CREATE ROLE regress_dtx_user;
SET ROLE regress_dtx_user;
SET pg_dtx.two_phase_commit = off;
SET pg_dtx.require = off;
SET pg_dtx.prepare_timeout = '1s';
SET pg_dtx.commit_timeout = '1s';
SET pg_dtx.commit_wait = off;
RESET ROLE;
DROP ROLE regress_dtx_user;
RESET ALL;
SHOW pg_dtx.two_phase_commit;
-- the prefix is reserved
SET pg_dtx.nonsense = 1;

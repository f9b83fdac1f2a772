--
-- gids are parsed strictly: they come back from other machines.
--
SELECT format('%s:%s', lpad(to_hex(id), 16, '0'), d.oid) AS here
FROM dtx_internal.coordinator, pg_database d WHERE datname = current_database() \gset
SELECT set_config('test.here', :'here', false) IS NOT NULL AS set;
\pset format unaligned
-- Nobody has any of these prepared.  Those that are wrong are refused as wrong,
-- the others as not there or not ours.
CREATE FUNCTION try(gid text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dtx.force_in_doubt(replace(gid, 'HERE', current_setting('test.here')), 'rollback', 'test');
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	RETURN CASE
		WHEN sqlerrm LIKE '%is not a global transaction identifier%' THEN 'malformed'
		WHEN sqlerrm LIKE '%belongs to another coordinator%' THEN 'of another coordinator'
		WHEN sqlerrm LIKE '%belongs to another database%' THEN 'of another database'
		WHEN sqlerrm LIKE '%must not be finished by this server%' THEN 'not ours'
		WHEN sqlerrm LIKE '%was not found on any server%' THEN 'not there'
		ELSE sqlstate || ' ' || replace(sqlerrm, current_setting('test.here'), 'HERE') END;
END
$$;
SELECT replace(left(gid, 90), split_part(current_setting('test.here'), ':', 1), 'ID') AS gid, try(gid) FROM (VALUES
	('dtx:HERE:0123456789abcdef:3:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:2:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:9223372036854775807:4294967295:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:9223372036854775811:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:7000000000000000001:1:745:00000000016b3f20:16385:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:7000000000000000001:1:745:00000000016b3f20:16385:1:0123456789abcdef:'),
	('dtx:HERE:0123456789abcdef:s0:7000000000000000001:1:745:00000000016b3f20:16385:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:0:1:745:00000000016b3f20:16385:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:18446744073709551615:4294967295:9223372036854775807:00000000016b3f20:4294967295:4294967295:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:18446744073709551616:1:745:00000000016b3f20:16385:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:7000000000000000001:0:745:00000000016b3f20:16385:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:7000000000000000001:1:2:00000000016b3f20:16385:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:7000000000000000001:1:745:00000000016b3f20:0:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:7000000000000000001:1:745:16385:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:7000000000000000001:1:745:0000000000000000:16385:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:s1:7000000000000000001:1:745:00000000016B3F20:16385:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:S1:7000000000000000001:1:745:00000000016b3f20:16385:1:0123456789abcdef'),
	('dtx:HERE:0000000000000000:0:1:0123456789abcdef'),
	(''),
	('dtx'),
	('dtx:'),
	('dtx:HERE'),
	('dtx:HERE:0123456789abcdef:3:1'),
	('dtx:HERE:0123456789abcdef:3:1:'),
	('dtx:HERE:0123456789abcdef:3:1:0123456789ABCDEF'),
	('dtx:HERE:0123456789abcdef:3:1:0123456789abcde'),
	('dtx:HERE:0123456789abcdef:3'),
	('dtx:HERE:0123456789abcdef:3:'),
	('dtx:HERE:0123456789abcdef:3:0:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:3:01:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:03:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:3:1:0123456789abcdef '),
	(' dtx:HERE:0123456789abcdef:3:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:3:1:0123456789abcdef:1'),
	('dtx:HERE:0123456789abcdef:+3:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:-3:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:3:4294967296:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:18446744073709551616:1:0123456789abcdef'),
	('dtx:HERE:0123456789ABCDEF:3:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcde:3:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef0:3:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdeg:3:1:0123456789abcdef'),
	('DTX:HERE:0123456789abcdef:3:1:0123456789abcdef'),
	('dtx:HERE::3:1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef::1:0123456789abcdef'),
	('dtx:HERE:0123456789abcdef:3:1:0123456789abcdef'''),
	('dtx:HERE:0123456789abcdef:3:1:0123456789abcdef''; DROP TABLE acct; --'),
	('regress_dtx'),
	(repeat('9', 500)),
	('dtx:HERE:0123456789abcdef:3:' || repeat('9', 500)),
	('dtx:0123456789abcdef:1:0123456789abcdef:3:1:0123456789abcdef'),
	(regexp_replace('dtx:HERE:0123456789abcdef:3:1:0123456789abcdef', 'HERE', split_part(current_setting('test.here'), ':', 1) || ':1'))) v (gid);
DROP FUNCTION try;
-- This is the last test: leave the cluster as it was.
ALTER SYSTEM RESET pg_dtx.resolve_interval;
SELECT pg_reload_conf();
-- what the tests of sagas have made
DROP FUNCTION done(bigint, text, jsonb), error(bigint, text, text, text);
-- (as soon as the resolver has found that all is done)
\set SHOW_CONTEXT never
DO $$
BEGIN
	FOR i IN 1 .. 600 LOOP
		BEGIN
			DROP EXTENSION pg_dtx;
			RETURN;
		EXCEPTION WHEN object_in_use OR object_not_in_prerequisite_state THEN
			PERFORM pg_sleep(0.1);
		END;
	END LOOP;
	RAISE 'the extension cannot be dropped';
END $$;
SET client_min_messages = warning;
DROP SERVER one CASCADE;
DROP SERVER two CASCADE;
RESET client_min_messages;
DROP DATABASE dtx_one;
DROP DATABASE dtx_two;

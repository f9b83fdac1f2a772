#!/bin/bash
#
# The part of "make test-upgrade" that runs servers, in an empty directory.
#
set -euo pipefail

old=/usr/lib/postgresql/15/bin
new=/usr/lib/postgresql/17/bin
dir=$PWD
export PGUSER=postgres PGDATABASE=postgres PGHOST=$dir LC_ALL=C.UTF-8
passed=0

die() {
	echo "failed: $*" >&2
	tail -n 30 "$dir"/*.log >&2 || true
	find "$dir" -name '*.log' -path '*pg_upgrade_output*' -exec tail -n 20 {} + >&2 || true
	exit 1
}
stop_all() {
	local data

	for data in "$dir"/*.data; do
		"$new/pg_ctl" -D "$data" -m immediate -s stop >/dev/null 2>&1 || true
	done
}
trap stop_all EXIT

value() { psql -XAtq -v ON_ERROR_STOP=1 -p "$1" -c "$2"; }
ok() { passed=$((passed + 1)); echo "ok $passed - $1"; }
is() { [ "$2" = "$3" ] || die "$1: got \"$2\", expected \"$3\""; ok "$1"; }
poll() {
	local deadline=$((SECONDS + 120))

	until [ "$(value "$1" "$2" 2>/dev/null)" = "$3" ]; do
		[ $SECONDS -lt $deadline ] || die "timed out waiting for: $2"
		sleep 0.1
	done
}
make_cluster() {
	"$1/initdb" -D "$2.data" -A trust -N -U postgres >initdb.log
	cat >>"$2.data/postgresql.conf" <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$dir'
		max_prepared_transactions = 20
		port = $3
		fsync = off
		$4
	CONF
}
start() { "$1/pg_ctl" -D "$2.data" -l "$2.log" -w -s start || die "$2 does not start"; }

# Two servers, and a coordinator on PostgreSQL 15.
coordinator="shared_preload_libraries = 'pg_dtx'
pg_dtx.resolve_interval = '500ms'
synchronous_standby_names = 'nobody'
synchronous_commit = local"
for n in 1 2; do
	make_cluster "$new" s$n 540$n ''
	start "$new" s$n
	value 540$n "CREATE TABLE account (id int PRIMARY KEY, balance int); INSERT INTO account VALUES (1, 100);
		CREATE TABLE step (name text)"
done
make_cluster "$old" old 5400 "$coordinator"
start "$old" old
value 5400 "CREATE EXTENSION pg_dtx CASCADE; CREATE TABLE log (i int);"
for n in 1 2; do
	value 5400 "CREATE SERVER s$n FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$dir', port '540$n', dbname 'postgres');
		CREATE USER MAPPING FOR CURRENT_USER SERVER s$n OPTIONS (user 'postgres');
		CREATE FOREIGN TABLE a$n (id int, balance int) SERVER s$n OPTIONS (table_name 'account');"
done
transfer='BEGIN; UPDATE a1 SET balance = balance - 1; UPDATE a2 SET balance = balance + 1; INSERT INTO log VALUES (1); COMMIT;'
value 5400 "$transfer"
value 5400 "INSERT INTO dtx_internal.forced_record VALUES ('dtx:1', 's1', 'commit', 'commit', false, 'test', 'me', now());
	INSERT INTO dtx_internal.damage_record VALUES ('dtx:2', 's1', 'commit', 'rollback', now(), '7', 1, 'test');"

# A saga in the middle: its second step waits for a signal.
value 5400 "SELECT dtx.define_saga('s',
	dtx.step('one', server => 's1', execute => \$\$INSERT INTO step VALUES ('one') RETURNING name\$\$),
	dtx.step_signal('go'),
	dtx.step('two', server => 's2', execute => \$\$INSERT INTO step SELECT 'after ' || (\$2->'one'->>'name')\$\$));
	SELECT dtx.start_saga('s', key => 'k')" >/dev/null
poll 5400 "SELECT state FROM dtx.saga_steps WHERE step = 'go'" waiting

# In doubt on both servers: decided, prepared, and the coordinator crashes.
value 5400 "SELECT pg_reload_conf()" >/dev/null
psql -XAtq -p 5400 -c "SET synchronous_commit = on" -c "$transfer" >psql.log 2>&1 &
poll 5400 "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'" 1
is "prepared on s1" "$(value 5401 'SELECT count(*) FROM pg_prepared_xacts')" 1
"$old/pg_ctl" -D old.data -m immediate -s stop
wait || true

# It is started once more, since pg_upgrade needs a clean shutdown; nothing is resolved.
cat >>old.data/postgresql.conf <<<"synchronous_standby_names = ''
pg_dtx.resolver = off"
start "$old" old
is "in doubt" "$(value 5400 "SELECT count(DISTINCT server) FROM dtx.in_doubt WHERE decision = 'commit'")" 2
id=$(value 5400 'SELECT id FROM dtx_internal.coordinator')
decisions=$(value 5400 'SELECT boot_id, xid FROM dtx_internal.decision ORDER BY xid')
"$old/pg_ctl" -D old.data -m fast -s stop

# The library has to be preloaded in the new cluster before pg_upgrade.
make_cluster "$new" new 5400 ''
"$new/pg_upgrade" -b "$old" -B "$new" -d old.data -D new.data -U postgres -p 5410 -P 5411 >upgrade.log 2>&1 &&
	die 'pg_upgrade did without the library'
grep -rqs 'pg_dtx must be loaded when the server starts' new.data/pg_upgrade_output.d ||
	die 'pg_upgrade does not say why it fails'
ok 'without shared_preload_libraries pg_upgrade refuses and says why'
rm -rf new.data/pg_upgrade_output.d
cat >>new.data/postgresql.conf <<<"$coordinator
synchronous_standby_names = ''"
"$new/pg_upgrade" -b "$old" -B "$new" -d old.data -D new.data -U postgres -p 5410 -P 5411 >upgrade.log 2>&1 ||
	die "pg_upgrade: $(cat upgrade.log)"
ok 'pg_upgrade from 15 to 17'
is "nothing was resolved meanwhile" "$(value 5401 'SELECT count(*) FROM pg_prepared_xacts')" 1

start "$new" new
is "version" "$(value 5400 'SELECT extversion FROM pg_extension WHERE extname = $$pg_dtx$$')" \
	"$(sed -n "s/^default_version = '\(.*\)'/\1/p" /source/pg_dtx.control)"
is "the identity is kept" "$(value 5400 'SELECT id FROM dtx_internal.coordinator')" "$id"
is "what was forced is kept" "$(value 5400 'SELECT count(*) FROM dtx.forced')" 1
is "damage is kept" "$(value 5400 'SELECT count(*) FROM dtx.damage')" 1
poll 5400 'SELECT passes > 2 FROM dtx.stat' t
is "the new cluster looks like a copy" "$(value 5400 'SELECT suspended FROM dtx_internal.boot ORDER BY ordinal DESC LIMIT 1')" \
	'the system identifier of the cluster has changed'
is "... and leaves alone what is in doubt" "$(value 5401 'SELECT count(*) FROM pg_prepared_xacts')" 1
value 5400 "SELECT dtx.adopt_identity('pg_upgrade')" >/dev/null
poll 5401 'SELECT count(*) FROM pg_prepared_xacts' 0
poll 5402 'SELECT count(*) FROM pg_prepared_xacts' 0
is "what was in doubt is committed on s1" "$(value 5401 'SELECT balance FROM account')" 98
is "... and on s2" "$(value 5402 'SELECT balance FROM account')" 102
is "... and here" "$(value 5400 'SELECT count(*) FROM log')" 2
value 5400 "$transfer"
is "transfers go on" "$(value 5402 'SELECT balance FROM account')" 103

# The saga goes on where it was, and its key is known.
is "the saga is kept" "$(value 5400 "SELECT dtx.start_saga('s', key => 'k')")" 1
value 5400 "SELECT dtx.signal_saga(1, 'go')" >/dev/null
is "... and is completed" "$(value 5400 "SELECT dtx.wait_saga(1, '60 s')")" completed
is "... with its first step done before" "$(value 5401 'SELECT name FROM step')" one
is "... and the others after, with its result" "$(value 5402 'SELECT name FROM step')" 'after one'

# The record of the decision names foreign servers by OID, and they have others now.
value 5400 'SELECT count(*) FROM dtx.resolve_in_doubt()' >/dev/null
echo "# decisions before: ${decisions//$'\n'/ }, now: $(value 5400 'SELECT boot_id, xid FROM dtx_internal.decision ORDER BY xid' | tr '\n' ' ')"
echo "# in doubt: $(value 5400 'SELECT server, decision, last_error FROM dtx.in_doubt' | tr '\n' ' ')"
echo "# servers: $(value 5400 'SELECT oid, srvname FROM pg_foreign_server' | tr '\n' ' ')"
echo "$passed passed, 0 failed"

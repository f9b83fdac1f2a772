#!/bin/bash
#
# The part of the demo that runs servers; called by dev/run as the user who
# runs them.  It makes its servers in the given directory and leaves it to
# dev/run to stop them.
#
set -euo pipefail
trap 'exit 130' INT
trap 'exit 143' TERM HUP

work=$1
PATH=$2:$PATH
export PATH LC_ALL=C PSQLRC=/dev/null PAGER=cat PGUSER=postgres
unset PGHOST PGPORT PGDATABASE PGSERVICE PGOPTIONS PGSSLMODE

bold='' dim='' green='' red='' plain=''
if [ "$COLOR" = 1 ]; then
	bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi

others=(berlin lima tokyo)

heading() {
	printf '\n%s%s%s\n' "$bold" "$*" "$plain"
}

say() {
	printf '  %s\n' "$*"
}

bad() {
	printf '  %s!!%s  %s\n' "$red" "$plain" "$*"
}

good() {
	printf '  %sok%s  %s\n' "$green" "$plain" "$*"
}

die() {
	printf '  %sfailed%s  %s\n' "$red" "$plain" "$*"
	for name in coordinator "${others[@]}"; do
		printf -- '---- log of %s\n' "$name"
		tail -n 15 "$work/$name/log" || true
	done
	exit 1
}

indent() {
	sed 's/^/    /'
}

# Show SQL, run it on a server, show the result.
show() {
	local server=$1 sql=$2

	printf '%s\n' "$sql" | sed "s/^/  ${dim}$server>${plain} /"
	psql -X -h "$work/$server" -d bank -c '\set VERBOSITY default' \
		-f - <<<"$sql" 2>&1 | sed 's/^psql:[^ ]* //' | indent
}

# The one value of a query, without a word about it.
value() {
	psql -XAtq -h "$work/$1" -d bank -c "$2"
}

quietly() {
	psql -Xq -v ON_ERROR_STOP=1 -h "$work/$1" -d "${3:-bank}" >/dev/null <<<"$2"
}

wait_until() {
	local server=$1 sql=$2 deadline=$((SECONDS + 30))

	until [ "$(value "$server" "$sql" 2>/dev/null)" = t ]; do
		[ $SECONDS -lt $deadline ] || die "timed out on $server waiting for: $sql"
		sleep 0.1
	done
}

start_server() {
	pg_ctl -D "$work/$1/data" -l "$work/$1/log" -w -s start || die "$1 does not start"
}

make_server() {
	local name=$1 settings=$2

	mkdir "$work/$name"
	initdb -D "$work/$name/data" -A trust -N -U postgres -E UTF8 --no-locale \
		>"$work/$name/initdb.log" 2>&1 ||
		{ cat "$work/$name/initdb.log"; exit 1; }
	cat >>"$work/$name/data/postgresql.conf" <<-CONF
		listen_addresses = ''
		unix_socket_directories = '$work/$name'
		fsync = off
		$settings
	CONF
	start_server "$name"
	quietly "$name" "CREATE DATABASE bank" postgres
}

balances() {
	show coordinator "SELECT city, balance, sum(balance) OVER () AS total FROM accounts ORDER BY city;"
}

# Check the balances of berlin, lima and tokyo.
expect() {
	local is

	is=$(value coordinator "SELECT string_agg(balance::text, ' ' ORDER BY city) FROM accounts")
	[ "$is" = "$1" ] || die "expected balances $1, found $is"
}

# ----------------------------------------------------------------
heading "One coordinator and three other servers"

say "Starting four PostgreSQL servers in $work"
starting=()
for name in "${others[@]}"; do
	# All that the other servers need is this one setting.
	make_server "$name" "max_prepared_transactions = 100" &
	starting+=($!)
done
# A commit with synchronous_commit = on will wait for a standby that does not
# exist: that is how this demo stops a transaction between its two phases.
make_server coordinator "
	shared_preload_libraries = 'pg_dtx'
	pg_dtx.resolve_interval = '2s'
	synchronous_standby_names = 'nobody'
	synchronous_commit = local"
for pid in "${starting[@]}"; do
	wait "$pid" || die "a server does not start"
done

for name in "${others[@]}"; do
	quietly "$name" "
		CREATE TABLE account (balance numeric NOT NULL CHECK (balance >= 0));
		INSERT INTO account VALUES (100);"
done
say "berlin, lima and tokyo have nothing but max_prepared_transactions = 100,"
say "and a table each: account (balance numeric CHECK (balance >= 0))."
setup="CREATE EXTENSION pg_dtx CASCADE;"
for name in "${others[@]}"; do
	setup="$setup
CREATE SERVER $name FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$work/$name', dbname 'bank');
CREATE USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS (user 'postgres');
CREATE FOREIGN TABLE $name (balance numeric) SERVER $name OPTIONS (table_name 'account');"
done
setup="$setup
CREATE TABLE transfers (made_at timestamptz DEFAULT now(), what text);
CREATE VIEW accounts AS
  SELECT 'berlin' AS city, balance FROM berlin UNION ALL
  SELECT 'lima', balance FROM lima UNION ALL
  SELECT 'tokyo', balance FROM tokyo;"
show coordinator "$setup"
expect "100 100 100"

# A check of one server's own, deferred to the end of the transaction: the last moment
# for a refusal.  postgres_fdw commits its servers in an order of its own; the one that
# refuses here is the later of the two.
limit_to_150() {
	quietly "$1" "
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN RAISE EXCEPTION ''not more than 150 here''; END';
		CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON account
			DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW WHEN (NEW.balance > 150) EXECUTE FUNCTION refuse();"
}
transfer_80() {
	echo "BEGIN;
UPDATE $giver SET balance = balance - 80;
UPDATE $refuser SET balance = balance + 80;
INSERT INTO transfers (what) VALUES ('80 from $giver to $refuser');
COMMIT;"
}
refuser=tokyo giver=lima
limit_to_150 tokyo
psql -Xq -h "$work/coordinator" -d bank -c "SET pg_dtx.two_phase_commit = off" -f - >/dev/null 2>&1 <<<"$(transfer_80)" || true
if [ "$(value coordinator "SELECT sum(balance) FROM accounts")" = 300 ]; then
	refuser=lima giver=tokyo
	quietly tokyo "DROP FUNCTION refuse CASCADE"
	limit_to_150 lima
fi
quietly coordinator "UPDATE berlin SET balance = 100; UPDATE lima SET balance = 100; UPDATE tokyo SET balance = 100;"
expect "100 100 100"
value coordinator "SELECT dtx.reset_stat()" >/dev/null

# ----------------------------------------------------------------
heading "1. Without pg_dtx: one server refuses at the end, and money is gone"

say "A check in $refuser, at the end of the transaction, allows no more than 150."
show coordinator "SET pg_dtx.two_phase_commit = off;   -- as if pg_dtx was not there
$(transfer_80)"
balances
[ "$(value coordinator "SELECT sum(balance) FROM accounts")" = 220 ] || die "no money is gone"
bad "$giver has committed before $refuser refused: 80 are gone"
say "(They are put back by hand.)"
quietly coordinator "UPDATE $giver SET balance = 100"
expect "100 100 100"

# ----------------------------------------------------------------
heading "2. With pg_dtx: the same transfer leaves nothing anywhere"

show coordinator "$(transfer_80)
SELECT count(*) AS transfers FROM transfers;"
balances
expect "100 100 100"
[ "$(value coordinator 'SELECT count(*) FROM transfers')" = 0 ] || die "a transfer too many"
good "rolled back on $giver, on $refuser and on the coordinator"

# ----------------------------------------------------------------
heading "3. A transfer that nobody refuses commits on all servers"

show coordinator "BEGIN;
UPDATE berlin SET balance = balance - 30;
UPDATE tokyo SET balance = balance + 30;
INSERT INTO transfers (what) VALUES ('30 from Berlin to Tokyo');
COMMIT;
SELECT two_phase, prepared FROM dtx.stat;"
balances
expect "70 100 130"
good "committed in two phases: two servers prepared, and the coordinator"

# ----------------------------------------------------------------
heading "4. A server is killed in the middle of a COMMIT"

say "This COMMIT is stopped right after its decision is on disk, with both"
say "servers prepared; then Lima is killed with SIGKILL."
transaction="BEGIN;
UPDATE tokyo SET balance = balance - 40;
UPDATE lima SET balance = balance + 40;
INSERT INTO transfers (what) VALUES ('40 from Tokyo to Lima');
COMMIT;"
printf '%s\n' "$transaction" | sed "s/^/  ${dim}coordinator>${plain} /"
psql -X -h "$work/coordinator" -d bank -f - >"$work/transfer.out" 2>&1 <<<"SET synchronous_commit = on;
$transaction" &
transfer=$!
wait_until coordinator "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
show lima "SELECT gid, owner, database FROM pg_prepared_xacts;"

pids=$(value lima "SELECT string_agg(pid::text, ' ') FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
postmaster=$(head -n 1 "$work/lima/data/postmaster.pid")
say "kill -9: Lima's postmaster and all its processes"
# shellcheck disable=SC2086
kill -9 $postmaster $pids || true
quietly coordinator "ALTER SYSTEM SET synchronous_standby_names = ''"
value coordinator "SELECT pg_reload_conf()" >/dev/null
wait "$transfer" || die "the COMMIT failed: $(cat "$work/transfer.out")"
say "The client is told the truth: committed, and what is still to be done."
sed -e 's/^psql:[^ ]* //' -e 1d "$work/transfer.out" | indent
grep -q '^COMMIT' "$work/transfer.out" || die "no COMMIT"
grep -q 'WARNING' "$work/transfer.out" || die "no WARNING"

wait_until coordinator "SELECT count(*) = 1 FROM dtx.in_doubt WHERE attempts > 0"
show coordinator "SELECT server, decision, attempts, last_error FROM dtx.in_doubt;
SELECT balance AS tokyo FROM tokyo;"
[ "$(value coordinator "SELECT server || ' ' || decision FROM dtx.in_doubt")" = "lima commit" ] ||
	die "the transaction is not in doubt on lima"
good "in doubt on Lima, decided: commit"

# ----------------------------------------------------------------
heading "5. The server comes back, the resolver finishes the transaction"

# Until the dead postmaster was reaped, its number is in use.
rm -f "$work/lima/data/postmaster.pid" "$work"/lima/.s.PGSQL.*.lock
say "Starting Lima"
start_server lima
wait_until coordinator "SELECT count(*) = 0 FROM dtx.in_doubt"
show coordinator "SELECT count(*) AS in_doubt FROM dtx.in_doubt;
SELECT handed_over, resolved_commit FROM dtx.stat;
SELECT what FROM transfers;"
balances
expect "70 140 90"
[ "$(value lima 'SELECT count(*) FROM pg_prepared_xacts')" = 0 ] || die "still prepared on lima"
good "committed everywhere, and every coin is accounted for"

# ----------------------------------------------------------------
heading "6. SQL on all servers, in one transaction"

show coordinator "SELECT * FROM dtx.exec_all('{berlin,lima,tokyo}', 'ALTER TABLE account ADD COLUMN note text');
SELECT * FROM dtx.query_all('{berlin,lima,tokyo}', 'SELECT balance, note FROM account') AS t(city name, balance numeric, note text);"
good "the column is on all of them"

# ----------------------------------------------------------------
heading "7. A saga: steps that commit one by one, undone if a later one fails"

show coordinator "SELECT dtx.define_saga('gift',
  dtx.step('take', server => 'berlin', execute    => 'UPDATE account SET balance = balance - 70',
                                       compensate => 'UPDATE account SET balance = balance + 70'),
  dtx.step('give', server => '$refuser', execute => 'UPDATE account SET balance = balance + 70', max_attempts => 1));
SELECT dtx.start_saga('gift') AS saga;"
show coordinator "SELECT dtx.wait_saga(max(id), '30 s') FROM dtx.sagas;
SELECT step, servers, state, attempts FROM dtx.saga_steps ORDER BY position;"
expect "70 140 90"
good "$refuser would not take it, so berlin has got it back"

if [ -n "$KEEP" ]; then
	heading "The servers are still running"
	say "Connect:  psql -h $work/coordinator -U postgres bank"
	for name in "${others[@]}"; do
		say "          psql -h $work/$name -U postgres bank"
	done
	say "Stop:     $STOP"
fi

heading "What next"
say "README.md, \"Use it\": on your own servers, step by step"
say "sh examples/quickstart.sh: two servers to play with"
say "docs/README.md: all pages"
echo

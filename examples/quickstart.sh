#!/bin/sh
#
# Two servers, berlin and tokyo, and a coordinator with pg_dtx that reaches both, in a
# new directory below $TMPDIR: throw-away servers, without a password, for the user who
# runs this (not root).  Prints how to connect, and how to get rid of them.
#
#   sh examples/quickstart.sh        PG_CONFIG=... chooses among several PostgreSQL
#
set -eu

unset PGHOST PGPORT PGUSER PGDATABASE PGSERVICE PGOPTIONS
PATH=$("${PG_CONFIG:-pg_config}" --bindir):$PATH
dir=$(mktemp -d "${TMPDIR:-/tmp}/pg_dtx.XXXXXX")
sql() {
	psql -XAtq -v ON_ERROR_STOP=1 -h "$dir" -p "$1" -U me postgres
}
port=5501
for name in coordinator berlin tokyo; do
	initdb -A trust -U me --no-sync -D "$dir/$name" >"$dir/initdb.log"
	cat >>"$dir/$name/postgresql.conf" <<-END
	listen_addresses = ''
	unix_socket_directories = '$dir'
	port = $port
	max_prepared_transactions = 100
	END
	[ $name != coordinator ] || echo "shared_preload_libraries = 'pg_dtx'" >>"$dir/$name/postgresql.conf"
	pg_ctl -D "$dir/$name" -l "$dir/$name.log" -w -s start
	port=$((port + 1))
done
for port in 5502 5503; do
	sql $port <<-'END'
	CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
	CREATE TABLE queue (id int PRIMARY KEY, account int, amount int);
	INSERT INTO queue VALUES (1, 5, 10), (2, 6, 20);
	CREATE FUNCTION quote(currency text, amount numeric, OUT rate numeric, OUT until timestamptz)
		RETURNS SETOF record LANGUAGE sql AS 'SELECT 0.93, now()';
	END
done
echo "INSERT INTO account SELECT i, 100 FROM generate_series(1, 100) i" | sql 5502
echo "INSERT INTO account SELECT i, 100 FROM generate_series(1, 200) i WHERE i <= 10 OR i > 100" | sql 5503
sql 5501 <<-END
CREATE EXTENSION pg_dtx CASCADE;
CREATE SERVER berlin FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$dir', port '5502', dbname 'postgres');
CREATE SERVER tokyo  FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$dir', port '5503', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER berlin OPTIONS (user 'me');
CREATE USER MAPPING FOR CURRENT_USER SERVER tokyo  OPTIONS (user 'me');
CREATE FOREIGN TABLE accounts_berlin (id int, balance int) SERVER berlin OPTIONS (table_name 'account');
CREATE FOREIGN TABLE accounts_tokyo  (id int, balance int) SERVER tokyo  OPTIONS (table_name 'account');
CREATE TABLE transfers (account int, amount int, at timestamptz);
END
echo "Connect:  psql -h $dir -p 5501 -U me postgres"
echo "Remove:   for d in $dir/*/; do pg_ctl -D \$d -m immediate stop; done; rm -r $dir"

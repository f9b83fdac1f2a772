#!/bin/bash
#
# The order saga over RabbitMQ, with a service in Python and one in Go: throw-away servers
# in a new directory, for the user who runs this (not root).  Nothing is left behind.
#
#   bash examples/broker/run.sh [ORDERS]
#
# PG_CONFIG=... chooses among several PostgreSQL; PG_DTX_RELAY=... names the relay, if it is
# not installed, and PG_DTX_RELAY_MODULES the directory of its modules.  On Debian, it needs
# rabbitmq-server, python3-pika, golang-go and golang-github-rabbitmq-amqp091-go-dev.
#
set -euo pipefail

orders=${1:-10}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
unset PGHOST PGPORT PGUSER PGDATABASE PGSERVICE PGOPTIONS
PATH=$("${PG_CONFIG:-pg_config}" --bindir):$PATH
relay=${PG_DTX_RELAY:-pg_dtx_relay}
dir=$(mktemp -d "${TMPDIR:-/tmp}/pg_dtx.XXXXXX")
pids=()

end() {
	local pid

	for pid in "${pids[@]}"; do
		kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null || true
	done
	sleep 1
	for pid in "${pids[@]}"; do
		kill -KILL -- "-$pid" 2>/dev/null || true
	done
	pg_ctl -D "$dir/data" -m immediate -s stop || true
	rm -rf "$dir"
}
trap end EXIT

# a process in a group of its own, with its output in a file
begin() {
	local name=$1

	shift
	setsid "$@" >"$dir/$name.log" 2>&1 </dev/null &
	pids+=($!)
	disown
}

free_port() {
	/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# PostgreSQL
initdb -A trust -U me --no-sync -D "$dir/data" >"$dir/initdb.log"
cat >>"$dir/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$dir'
port = 5501
shared_preload_libraries = 'pg_dtx'
END
pg_ctl -D "$dir/data" -l "$dir/postgresql.log" -w -s start
psql -XAtq -v ON_ERROR_STOP=1 -h "$dir" -p 5501 -U me postgres -c 'SET client_min_messages = warning' -c 'CREATE EXTENSION pg_dtx CASCADE' -f "$here/saga.sql" >"$dir/saga.log"

# RabbitMQ, with directory, ports, cookie and epmd of its own
port=$(free_port)
dist=$(free_port)
epmd_port=$(free_port)
mkdir "$dir/mnesia" "$dir/log"
echo '[].' >"$dir/plugins"
printf 'listeners.tcp.1 = 127.0.0.1:%s\nlog.console = false\n' "$port" >"$dir/rabbitmq.conf"
epmd=$(command -v epmd || ls /usr/lib/erlang/erts-*/bin/epmd | tail -1)
export HOME=$dir ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_NODENAME=example$port@localhost \
	RABBITMQ_DIST_PORT=$dist RABBITMQ_CONFIG_FILE=$dir/rabbitmq.conf RABBITMQ_MNESIA_BASE=$dir/mnesia \
	RABBITMQ_LOG_BASE=$dir/log RABBITMQ_ENABLED_PLUGINS_FILE=$dir/plugins RABBITMQ_PID_FILE=$dir/rabbitmq.pid \
	RABBITMQ_CONF_ENV_FILE=$dir/none RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}'
begin epmd "$epmd" -port "$epmd_port" -address 127.0.0.1
begin rabbitmq /usr/lib/rabbitmq/bin/rabbitmq-server
for i in $(seq 300); do
	/usr/bin/python3 "$here/orders.py" "$port" declare 2>/dev/null && break
	[ "$i" != 300 ] || { cat "$dir/rabbitmq.log" >&2; exit 1; }
	sleep 0.2
done

# the services, and the relay between them and the database
begin payments /usr/bin/python3 "$here/payments.py" "$port"
(cd "$dir" && GOCACHE=$dir/go GO111MODULE=off GOPATH=/usr/share/gocode GOFLAGS= go build -o "$dir/shipping" "$here/shipping.go")
begin shipping "$dir/shipping" "$port"
sed -e "s,@DIR@,$dir," -e "s,@PGPORT@,5501," -e "s,@PORT@,$port," "$here/relay.conf.in" >"$dir/relay.conf"
"$relay" -c "$dir/relay.conf" --check >"$dir/check.log" || { cat "$dir/check.log" >&2; exit 1; }
begin relay "$relay" -c "$dir/relay.conf"

/usr/bin/python3 "$here/orders.py" "$port" "$orders" || { cat "$dir/relay.log" "$dir/payments.log" "$dir/shipping.log" >&2; exit 1; }
echo "items that are left: $(psql -XAtq -h "$dir" -p 5501 -U me postgres -c 'SELECT qty FROM item')"

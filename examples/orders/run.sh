#!/bin/sh
#
# Build the three programs of the order service and run them until they are told to end.
# PGHOST and so on say where the coordinator is; ADDRESS is where orders are taken.
#
#   sh examples/orders/run.sh
#
set -eu

here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
mkdir "$dir/src"
cp -r "$here/../../clients/go/dtx" "$dir/src/"
export GO111MODULE=off GOPATH="$dir:/usr/share/gocode" GOCACHE="${GOCACHE:-$dir/cache}"
for program in order payment shipping; do
	go build -o "$dir/$program" "$here/$program.go"
done

pids=
trap 'kill $pids 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap 'exit 0' INT TERM
"$dir/order" "${ADDRESS:-localhost:8080}" &
pids="$pids $!"
"$dir/payment" &
pids="$pids $!"
"$dir/shipping" &
pids="$pids $!"
echo "The order service takes orders at ${ADDRESS:-localhost:8080}."
wait

#!/bin/bash
#
# Restore what dump_all.sh has dumped into empty databases:
#
#   bash examples/restore_all.sh DIRECTORY SERVER=CONNINFO ...
#
# The coordinator's is "coordinator=...".  The servers first: the foreign tables of the
# coordinator lead there.  Afterwards lead the foreign servers to where the databases are now
# (ALTER SERVER ... OPTIONS), and call dtx.adopt_identity() or dtx.change_identity() if
# dtx.overview() asks for it.
#
set -euo pipefail

dir=${1:?usage: restore_all.sh DIRECTORY SERVER=CONNINFO ...}
shift
coordinator=
pids=()
for target in "$@"; do
	server=${target%%=*} conninfo=${target#*=}
	if [ "$server" = coordinator ]; then
		coordinator=$conninfo
		continue
	fi
	pg_restore -e -d "$conninfo" "$dir/$server.dump" &
	pids+=($!)
done
for pid in ${pids[@]+"${pids[@]}"}; do
	wait "$pid"
done
[ -z "$coordinator" ] || pg_restore -e -d "$coordinator" "$dir/coordinator.dump"

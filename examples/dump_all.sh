#!/bin/bash
#
# Dump the coordinator's database and those of all its servers at one moment, in parallel,
# while everything goes on:
#
#   bash examples/dump_all.sh DIRECTORY [pg_dump's options ...]
#
# libpq's variables (PGHOST, PGDATABASE ...) say where the coordinator is; the user needs a
# user mapping for each server.  pg_dump connects to the servers with the options of
# the foreign servers and user mappings, so run it where these lead to the same places; a
# password comes from a password file.  Makes DIRECTORY/coordinator.dump and one file for
# each server.
#
set -euo pipefail

dir=${1:?usage: dump_all.sh DIRECTORY [options of pg_dump]}
shift
mkdir -p "$dir"

# The session that has exported the snapshots has to stay open until all dumps have begun.
coproc exporter { psql -XAtq -v ON_ERROR_STOP=1; }
exec {in}<&"${exporter[0]}" {out}>&"${exporter[1]}"
cat >&"$out" <<'END'
BEGIN;
SELECT coalesce(s.server, ''), s.snapshot,
       coalesce((SELECT string_agg(format('%s=''%s''', o.option_name, replace(replace(o.option_value, '\', '\\'), '''', '\''')), ' ')
          FROM pg_foreign_server f LEFT JOIN pg_user_mappings m ON m.srvid = f.oid AND m.usename IN (current_user, 'public'),
               LATERAL (SELECT * FROM pg_options_to_table(f.srvoptions)
                        UNION ALL SELECT * FROM pg_options_to_table(m.umoptions)) o
         WHERE f.srvname = s.server AND o.option_name IN ('host', 'hostaddr', 'port', 'dbname', 'user', 'sslmode')), '')
  FROM dtx.export_snapshot() AS s;
\echo end
END

pids=()
while IFS='|' read -r -u "$in" server snapshot conninfo && [ "$server" != end ]; do
	pg_dump -Fc -f "$dir/${server:-coordinator}.dump" --snapshot "$snapshot" "$@" -d "${conninfo:-${PGDATABASE:-}}" &
	pids+=($!)
done
[ ${#pids[@]} -gt 0 ] || exit 1
status=0
for pid in "${pids[@]}"; do
	wait "$pid" || status=1
done
echo 'COMMIT;' >&"$out"
exit $status

# shellcheck shell=bash
# The verbs of dev/run that work on the supported releases of Debian, and so on
# PostgreSQL 15, 17 and 18, in chroots; sourced by it.  Nothing of the machine changes
# but the cache.
#
# A release is a directory in the cache, made once with debootstrap and never
# changed.  On top of it come layers, directories with what was installed,
# and for each run a throw-away layer: overlay mounts in a mount namespace of the
# run's own.  It has its own processes and its own network (loopback only), too,
# so whatever it leaves behind is gone when it ends.
#
#   PG_DTX_CACHE=directory   default: pg_dtx in XDG_CACHE_HOME or /var/cache
#   MIRROR=url               where debootstrap gets its packages from, if not from
#                            where it does by default

cache=${PG_DTX_CACHE:-${XDG_CACHE_HOME:-/var/cache}/pg_dtx}

# Release and major version of PostgreSQL in it.
releases='bookworm:15 trixie:17 forky:18'

need_root() {
	[ "$(id -u)" = 0 ] || die "this makes chroots, and so needs root"
	case $cache in
	"$top" | "$top"/*) die "PG_DTX_CACHE must not be in the source tree" ;;
	esac
}

need_tools() {
	local tools=("$@") missing=()
	local tool

	for tool in "${tools[@]}"; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	[ ${#missing[@]} = 0 ] && return 0
	command -v apt-get >/dev/null || die "missing: ${missing[*]}"
	DEBIAN_FRONTEND=noninteractive apt-get update -qq
	# programs that are needed here are named like their packages, but one
	DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
		"${missing[@]/%unshare/util-linux}" debian-archive-keyring >/dev/null
}

# What "make setup" installs on a new system, as a script for the layer "test".
# The layer is made again when dev/setup has changed, so that is tested, too.
setup_script() {
	cat <<-END
	mkdir /setup; cat >/setup/setup <<'END_OF_FILE'
	$(cat "$top/dev/setup")
	END_OF_FILE
	bash /setup/setup
	END
}

release_version() {
	local pair

	for pair in $releases; do
		if [ "${pair%%:*}" = "$1" ]; then
			echo "${pair##*:}"
			return 0
		fi
	done
	die "unknown release \"$1\"; known are: $releases"
}

# The names of the releases asked for, by name or by version of PostgreSQL.
chosen_releases() {
	local wanted=$1 pair

	for pair in $releases; do
		if [ -z "$wanted" ] || grep -qwE "${pair%%:*}|${pair##*:}" <<<"$wanted"; then
			echo "${pair%%:*}"
		fi
	done
}

# Make the chroot of a release, if it is not there.
chroot_base() {
	local release=$1 mirror=${MIRROR:-} script=()

	[ ! -d "$cache/$release" ] || return 0
	need_tools debootstrap unshare
	mkdir -p "$cache"
	# A release that this debootstrap does not know yet is made like sid.  The script
	# comes after the mirror, so that must be given, too: the machine's own.
	if [ ! -e "/usr/share/debootstrap/scripts/$release" ]; then
		script=(/usr/share/debootstrap/scripts/sid)
		mirror=${mirror:-$(apt-get indextargets --format '$(REPO_URI)' | grep -v security | head -n 1)}
	fi
	echo "Making a chroot of $release in $cache" >&2
	rm -rf "$cache/$release.tmp"
	debootstrap --variant=minbase "$release" "$cache/$release.tmp" ${mirror:+"$mirror"} \
		${script[@]+"${script[@]}"} >"$cache/$release.log" 2>&1 ||
		{ tail "$cache/$release.log" >&2; die "debootstrap failed"; }
	# Packages of servers must make no clusters and start nothing.
	mkdir -p "$cache/$release.tmp/etc/postgresql-common/createcluster.d"
	echo 'create_main_cluster = false' \
		>"$cache/$release.tmp/etc/postgresql-common/createcluster.d/none.conf"
	printf '#!/bin/sh\nexit 101\n' >"$cache/$release.tmp/usr/sbin/policy-rc.d"
	chmod 755 "$cache/$release.tmp/usr/sbin/policy-rc.d"
	# The mirror may be a snapshot of some time ago.
	echo 'Acquire::Check-Valid-Until "false";' >"$cache/$release.tmp/etc/apt/apt.conf.d/90snapshot"
	mv "$cache/$release.tmp" "$cache/$release"
}

# Run a command in a release with all changes going to one directory.
#   chroot_run [--net] [--bind OUTSIDE INSIDE]... RELEASE LAYERS TOP COMMAND...
# LAYERS: names of layers, the upper ones first, separated by blanks.
chroot_run() {
	local namespaces=(--mount --pid --ipc --fork --kill-child) binds=() net=0

	while :; do
		case $1 in
		--net) net=1; shift ;;
		--bind) binds+=("$2" "$3"); shift 3 ;;
		*) break ;;
		esac
	done
	local release=$1 layers=$2 top_dir=$3 lower='' layer
	shift 3

	[ "$net" = 1 ] || namespaces+=(--net)
	for layer in $layers; do
		lower="$lower$cache/$release.$layer:"
	done
	mkdir -p "$top_dir/changes" "$top_dir/work" "$top_dir/root" "$cache/archives.$release"
	unshare "${namespaces[@]}" bash -c '
		set -eu
		top_dir=$1 lower=$2 archives=$3 net=$4 nbinds=$5
		shift 5
		mount -t overlay overlay -o "lowerdir=$lower,upperdir=$top_dir/changes,workdir=$top_dir/work" "$top_dir/root"
		mount -t proc proc "$top_dir/root/proc"
		mount --rbind /dev "$top_dir/root/dev"
		mount -t tmpfs tmpfs "$top_dir/root/dev/shm"
		mkdir -p "$top_dir/root/var/cache/apt/archives"
		mount --bind "$archives" "$top_dir/root/var/cache/apt/archives"
		cp /etc/resolv.conf "$top_dir/root/etc/resolv.conf" 2>/dev/null || true
		while [ "$nbinds" -gt 0 ]; do
			mkdir -p "$top_dir/root$2"
			mount --bind "$1" "$top_dir/root$2"
			shift 2
			nbinds=$((nbinds - 2))
		done
		# the loopback interface of a new network is down
		if [ "$net" = 0 ]; then
			perl -e "use Socket; socket(my \$s, AF_INET, SOCK_DGRAM, 0);
				my \$up = pack(q(Z16 s x22), q(lo), 0x1 | 0x40);
				ioctl(\$s, 0x8914, \$up) or die qq(loopback: \$!)"
		fi
		exec chroot "$top_dir/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
			LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive TERM="${TERM:-dumb}" \
			http_proxy="${http_proxy:-}" "$@"
	' bash "$top_dir" "$lower$cache/$release" "$cache/archives.$release" "$net" ${#binds[@]} \
		${binds[@]+"${binds[@]}"} "$@"
}

# Make a layer, if it is not there, or was made by other commands:
#   chroot_layer RELEASE NAME LAYERS SCRIPT
chroot_layer() {
	local release=$1 name=$2 layers=$3 script=$4
	local dir="$cache/$1.$2" key

	key=$(printf '%s\n%s\n' "$layers" "$script" | cksum)
	[ "$(cat "$dir.key" 2>/dev/null)" != "$key" ] || return 0
	echo "Installing the packages of \"$name\" in $release" >&2
	rm -rf "$dir" "$dir.key" "$dir.tmp"
	mkdir -p "$dir.tmp"
	chroot_run --net "$release" "$layers" "$dir.tmp" bash -euc "$script" >"$dir.log" 2>&1 ||
		{ tail -n 30 "$dir.log" >&2; die "installing in $release failed"; }
	mv "$dir.tmp/changes" "$dir"
	rm -rf "$dir.tmp"
	echo "$key" >"$dir.key"
}

# The whole test suite on each release, and in the end a table.  TESTS may be "readme":
# README.md, followed on a new system.
verb_test-matrix() {
need_root
keep_failed=1
make_work_dir
before_end() {
	rm -rf "$work"/*.run "$work/source"
}
failed=0

copy_source "$work/source"

# README.md as a new user follows it, copied and pasted, on a new system that has
# nothing but sudo: installation as root, the rest as an ordinary user.
readme='set -eu
apt-get update -qq
apt-get install -qq -y --no-install-recommends sudo
cp -r /source /srv/pg_dtx
cd /srv/pg_dtx
perl t/lib/Markdown.pm fresh README.md >/tmp/install.sh
perl t/lib/Markdown.pm other README.md >/tmp/quickstart.sh
bash -eux /tmp/install.sh
useradd -m somebody
setpriv --reuid=somebody --regid=somebody --clear-groups env HOME=/home/somebody bash -eu /tmp/quickstart.sh >/tmp/printed 2>&1 ||
	{ cat /tmp/printed; exit 1; }
cat /tmp/printed
if grep -E "ERROR|FATAL|could not" /tmp/printed; then exit 1; fi
connect=$(sed -n "s/^Connect: *//p" /tmp/printed)
perl t/lib/Markdown.pm sql README.md >/tmp/first.sql
setpriv --reuid=somebody --regid=somebody --clear-groups $connect -v ON_ERROR_STOP=1 -f /tmp/first.sql
test "$($connect -XAtc "SELECT two_phase, prepared FROM dtx.stat")" = "1|2"
echo "README works"'

table=()
for release in $(chosen_releases "${VERSIONS:-}"); do
	version=$(release_version "$release")
	if ! (chroot_base "$release" && chroot_layer "$release" test "" "$(setup_script)"); then
		failed=1
		table+=("$(printf '%-10s %-10s could not be made' "$release" "$version")")
		continue
	fi
	echo "Testing on PostgreSQL $version ($release)"
	log="$work/$release.log"
	started=$SECONDS
	status=0
	chroot_run --bind "$work/source" /source "$release" test "$work/$release.run" \
		env TESTS="${TESTS:-}" JOBS="${JOBS:-}" CI="${CI:-}" \
		PG_TEST_TIMEOUT_DEFAULT="${PG_TEST_TIMEOUT_DEFAULT:-180}" \
		make -C /source test >"$log" 2>&1 || status=1
	rm -rf "$work/$release.run"
	built=$(sed -n 's/^# postgres (PostgreSQL) \([0-9a-z.]*\).*/\1/p' "$log" | head -n 1)
	row=$(printf '%-10s %-10s' "$release" "${built:-$version}")
	for suite in regress isolation TAP; do
		row="$row $(printf '%-14s' "$(sed -n "s/^# $suite: \([0-9]*\) passed, \([0-9]*\) failed\$/\1 ok, \2 bad/p" "$log" |
			sed 's/, 0 bad$//')")"
	done
	if [ -z "${TESTS:-}" ] || [[ " ${TESTS:-} " == *" readme "* ]]; then
		if chroot_run --net --bind "$work/source" /source "$release" "" "$work/$release.readme.run" \
			bash -c "$readme" >"$work/$release.readme.log" 2>&1; then
			row="$row $(printf '%-7s' works)"
		else
			row="$row $(printf '%-7s' FAILS)"
			status=1
			tail -n 30 "$work/$release.readme.log"
		fi
		rm -rf "$work/$release.readme.run"
	else
		row="$row $(printf '%-7s' -)"
	fi
	row="$row $(printf '%5ss' $((SECONDS - started)))"
	if [ "$status" = 0 ]; then
		row="$row  passed"
	else
		row="$row  FAILED, see $log"
		failed=1
		tail -n 60 "$log"
	fi
	table+=("$row")
done

printf '\n%-10s %-10s %-14s %-14s %-14s %-7s %6s\n' release PostgreSQL regress isolation TAP README time
printf '%s\n' "${table[@]}"
return "$failed"
}

# Servers of different versions in one transaction: each supported version as the
# coordinator of all others.  Each server runs in a chroot of its own release, and
# is reached through a socket in a directory that all of them share.
verb_test-versions() {
need_root
make_work_dir
before_end() {
	touch "$shared/stop"
	if [ ${#running[@]} -gt 0 ]; then
		wait "${running[@]}" || true
	fi
	[ "$status" = 0 ] || tail -n 20 "$shared"/*/log "$work"/*.log || true
}
shared=$work/shared
running=()

# Run in each chroot: build, install, start a server, do what files ask for.
server='set -eu
cd /tmp
cp -r /source build
make -C build -s -j2 >build.log 2>&1 || { tail -n 20 build.log; exit 1; }
make -C build -s install >>build.log 2>&1
bin=$(pg_config --bindir)
id pgdtx >/dev/null 2>&1 || useradd --system --no-create-home pgdtx
dir=/shared/$1
mkdir data
chown pgdtx "$dir" data
as="setpriv --reuid=pgdtx --regid=$(id -g pgdtx) --clear-groups"
$as "$bin/initdb" -D data -A trust -N -U postgres >initdb.log
cat >>data/postgresql.conf <<CONF
listen_addresses = '"''"'
unix_socket_directories = '"'\$dir'"'
unix_socket_permissions = 0777
shared_preload_libraries = pg_dtx
max_prepared_transactions = 100
pg_dtx.resolve_interval = 500ms
synchronous_standby_names = nobody
synchronous_commit = local
pg_dtx.wait_for_standby = off
fsync = off
CONF
start() { $as "$bin/pg_ctl" -D data -l "$dir/log" -w -s start; touch "$dir/up"; }
start
while [ ! -e /shared/stop ]; do
	if [ -e "$dir/crash" ]; then
		$as "$bin/pg_ctl" -D data -m immediate -s stop
		rm "$dir/up" "$dir/crash"
		while [ ! -e "$dir/go" ] && [ ! -e /shared/stop ]; do sleep 0.1; done
		rm -f "$dir/go"
		start
	fi
	sleep 0.1
done
$as "$bin/pg_ctl" -D data -m fast -s stop'

run_psql() {
	PGHOST=$shared/$1 psql -XAtq -v ON_ERROR_STOP=1 -U postgres -d postgres
}

value() {
	run_psql "$1" <<<"$2"
}

wait_until() {
	local deadline=$((SECONDS + 120))

	until [ "$(value "$1" "$2" 2>/dev/null)" = t ]; do
		[ $SECONDS -lt $deadline ] || die "timed out on $1 waiting for: $2"
		sleep 0.1
	done
}

wait_file() {
	local deadline=$((SECONDS + 1200))

	until [ -e "$1" ]; do
		[ $SECONDS -lt $deadline ] || die "timed out waiting for $1"
		kill -0 "${running[@]}" 2>/dev/null || die "a server is not running"
		sleep 0.1
	done
}

expect() {
	[ "$2" = "$3" ] || die "$1: expected \"$3\", got \"$2\""
}

command -v psql >/dev/null || "$top/dev/setup"
mkdir "$shared"
chmod 755 "$work" "$shared"
copy_source "$work/source"
versions=()
for release in $(chosen_releases "${VERSIONS:-}"); do
	version=$(release_version "$release")
	chroot_base "$release"
	chroot_layer "$release" test "" "$(setup_script)"
	mkdir "$shared/$version"
	chroot_run --bind "$work/source" /source --bind "$shared" "$shared" \
		"$release" test "$work/$release.run" bash -c "ln -s '$shared' /shared; $server" bash "$version" \
		>"$work/$version.log" 2>&1 &
	running+=($!)
	versions+=("$version")
done
for version in "${versions[@]}"; do
	wait_file "$shared/$version/up"
	value "$version" "CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL, at timestamptz, f float8,
		CONSTRAINT enough CHECK (balance >= 0));
		INSERT INTO account SELECT i, 1000, '2026-01-01 12:00:00.123456+00', 1.0/3 FROM generate_series(1, 100) i;
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''refused at the end''; END';
		CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW WHEN (NEW.balance > 5000) EXECUTE FUNCTION refuse();"
done

balances() {
	local version

	for version in "${versions[@]}"; do
		printf '%s ' "$(value "$version" "SELECT balance FROM account WHERE id = $1")"
	done
}

# SQL that adds $2 to account $1 on all servers, in one transaction.
everywhere() {
	local version sql='BEGIN;'

	for version in "${versions[@]}"; do
		sql="$sql UPDATE $3$version SET balance = balance + $2 WHERE id = $1;"
	done
	echo "$sql COMMIT;"
}

printf '%-12s %-30s %s\n' coordinator participants result
account=0
for coordinator in "${versions[@]}"; do
	others=()
	sql='CREATE EXTENSION postgres_fdw; CREATE EXTENSION pg_dtx;'
	for version in "${versions[@]}"; do
		if [ "$version" = "$coordinator" ]; then
			sql="$sql CREATE VIEW a$version AS SELECT * FROM account;"
			continue
		fi
		others+=("v$version")
		sql="$sql CREATE SERVER v$version FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$shared/$version', dbname 'postgres');
			CREATE USER MAPPING FOR CURRENT_USER SERVER v$version OPTIONS (user 'postgres');
			CREATE FOREIGN TABLE a$version (id int, balance int, at timestamptz, f float8) SERVER v$version OPTIONS (table_name 'account');"
	done
	value "$coordinator" "$sql"
	account=$((account + 1))
	for version in "${others[@]}"; do
		expect "check_server" "$(value "$coordinator" "SELECT bool_and(ok) FROM dtx.check_server('$version')")" t
		expect "values" "$(value "$coordinator" "SELECT count(*) FROM account AS a JOIN a${version#v} AS b USING (id, at, f)")" 100
	done

	# committed
	everywhere $account 10 a | run_psql "$coordinator"
	expected=$(printf '1010 %.0s' "${versions[@]}")
	expect "a transfer" "$(balances $account)" "$expected"
	expect "two phases" "$(value "$coordinator" "SELECT two_phase || ' ' || prepared FROM dtx.stat")" "1 ${#others[@]}"

	# refused by one of them at the last moment, with its own words
	for version in "${others[@]}"; do
		error=$(everywhere $account 0 a |
			sed "s/a${version#v} SET balance = balance + 0/a${version#v} SET balance = 9000/" |
			run_psql "$coordinator" 2>&1) && die "$version did not refuse"
		[[ $error == *'refused at the end'* ]] || die "an error of $version: $error"
		[[ $error == *"$version"* ]] || die "does not name $version: $error"
		expect "after a refusal of $version" "$(balances $account)" "$expected"
	done

	# remote SQL
	list="{$(IFS=,; echo "${others[*]}")}"
	value "$coordinator" "BEGIN; SELECT * FROM dtx.exec_all('$list', 'CREATE TABLE made (i int)');
		SELECT sum(n) FROM dtx.query_all('$list', 'SELECT count(*) FROM made') AS t(server name, n bigint); COMMIT;" >/dev/null
	value "$coordinator" "SELECT count(*) FROM dtx.exec_all('$list', 'DROP TABLE made')" >/dev/null

	# in doubt: decided, and then a server is gone
	for version in "${others[@]}"; do
		{ echo "SET synchronous_commit = on;"; everywhere $account 1 a; } |
			run_psql "$coordinator" >"$work/psql.log" 2>&1 &
		psql_pid=$!
		wait_until "$coordinator" "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
		expect "prepared" "$(value "${version#v}" "SELECT count(*) FROM pg_prepared_xacts")" 1
		touch "$shared/${version#v}/crash"
		while [ -e "$shared/${version#v}/up" ]; do sleep 0.1; done
		value "$coordinator" "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'" >/dev/null
		wait "$psql_pid" || die "a COMMIT failed: $(cat "$work/psql.log")"
		grep -q "not every server has confirmed it yet: \"$version\"" "$work/psql.log" ||
			die "no warning: $(cat "$work/psql.log")"
		touch "$shared/${version#v}/go"
		wait_file "$shared/${version#v}/up"
		wait_until "$coordinator" "SELECT count(*) = 0 FROM dtx.in_doubt"
		expected=$(for b in $expected; do printf '%d ' $((b + 1)); done)
		expect "after a crash of $version" "$(balances $account)" "$expected"
	done
	for version in "${versions[@]}"; do
		wait_until "$version" "SELECT count(*) = 0 FROM pg_prepared_xacts"
	done
	expect "damage" "$(value "$coordinator" "SELECT count(*) FROM dtx.damage")" 0
	printf '%-12s %-30s %s\n' "$(value "$coordinator" "SHOW server_version" | cut -d' ' -f1)" \
		"$(value "$coordinator" "SELECT string_agg(version, ' ' ORDER BY server) FROM dtx.servers")" \
		"commit, refusal, remote SQL, crash in doubt: passed"
done
echo "${#versions[@]} passed, 0 failed"
}

# pg_upgrade of a coordinator from PostgreSQL 15 to 17, in a chroot of Debian 13 with
# the programs of Debian 12 beside its own: what is kept, and what is not.  See
# docs/upgrade.md.
verb_test-upgrade() {
need_root
make_work_dir

for release in bookworm trixie; do
	chroot_base "$release"
	chroot_layer "$release" test "" "$(setup_script)"
done
copy_source "$work/source"

# What PostgreSQL 15 consists of, and the libraries that only Debian 12 has.
mkdir "$work/old"
# shellcheck disable=SC2016
chroot_run --bind "$work/old" /old bookworm test "$work/bookworm.run" bash -euc '
	tar -C / -cf /old/files.tar usr/lib/postgresql/15 usr/share/postgresql/15 usr/include/postgresql/15
	cat /usr/lib/postgresql/15/bin/* /usr/lib/postgresql/15/lib/*.so >/dev/null
	for file in /usr/lib/postgresql/15/bin/* /usr/lib/postgresql/15/lib/*.so; do ldd "$file" 2>/dev/null || true; done |
		sed -n "s,.* => \(/[^ ]*\) .*,\1,p" | sort -u >/old/libraries
	mkdir /old/lib
	xargs -a /old/libraries cp -L -t /old/lib'

upgrade='set -euo pipefail
tar -C / -xf /old/files.tar
# what is here already is newer
cp -n /old/lib/* /usr/lib/x86_64-linux-gnu/ 2>/dev/null || true
for version in 15 17; do
	cp -r /source /tmp/build-$version
	make -C /tmp/build-$version -s -j2 PG_CONFIG=/usr/lib/postgresql/$version/bin/pg_config with_llvm=no >/tmp/build.log 2>&1 ||
		{ tail -n 20 /tmp/build.log; exit 1; }
	make -C /tmp/build-$version -s install PG_CONFIG=/usr/lib/postgresql/$version/bin/pg_config with_llvm=no >>/tmp/build.log 2>&1
done
id pgdtx >/dev/null 2>&1 || useradd --system --no-create-home pgdtx
mkdir /srv/test
cp /source/dev/upgrade.sh /srv/test/run
chown -R pgdtx /srv/test
cd /srv/test
setpriv --reuid=pgdtx --regid="$(id -g pgdtx)" --clear-groups env HOME=/srv/test bash run'

chroot_run --bind "$work/source" /source --bind "$work/old" /old trixie test "$work/trixie.run" bash -c "$upgrade"
}

# The programs in examples/, pgbouncer, and the files for Prometheus, with the
# drivers and programs of Debian against real servers; see docs/testing.md.
verb_test-examples() {
need_root
make_work_dir

copy_source "$work/source"
for release in $(chosen_releases "${VERSIONS:-17}"); do
	chroot_base "$release"
	chroot_layer "$release" test "" "$(setup_script)"
	chroot_layer "$release" examples test 'apt-get update
apt-get install -y --no-install-recommends \
	golang-go golang-github-lib-pq-dev golang-github-jackc-pgx-v4-dev python3-psycopg2 python3-psycopg default-jdk-headless \
	libpostgresql-jdbc-java pgbouncer prometheus-postgres-exporter prometheus curl'
	echo "Testing on $release"
	chroot_run --bind "$work/source" /source "$release" "examples test" "$work/$release.run" \
		env TESTS="${TESTS:-$(cd "$top" && echo t/examples/*.pl t/14[56]_*.pl)}" JOBS=1 \
		PG_TEST_TIMEOUT_DEFAULT="${PG_TEST_TIMEOUT_DEFAULT:-180}" make -C /source test
done
}

# Debian packages: built as sbuild does, with what Build-Depends names and nothing else;
# then lintian, piuparts (install, purge, compare) and autopkgtest (debian/tests).  RESULTS=
# directory is where they go (default: debs/ in the source tree).
verb_deb() {
need_root
keep_failed=1
make_work_dir
before_end() {
	rm -rf "$work"/*.run
}

results=${RESULTS:-$top/debs}
copy_source "$work/source"
rm -rf "$work/source/debs"

build='set -eu
mkdir /build
cp -r /source /build/pg-dtx
cd /build/pg-dtx
apt-get update
apt-get build-dep -y --no-install-recommends ./
pg_buildext updatecontrol
dpkg-buildpackage -us -uc
lintian --version
# what is not released yet says so
lintian --display-info --fail-on error,warning --suppress-tags unreleased-changes ../*.changes
cp ../*.deb ../*.dsc ../*.tar.* ../*.changes /out/
rm -f /out/*dbgsym*'

purge='set -eu
piuparts --existing-chroot=/base --keep-sources-list --distribution="$1" --no-eatmydata \
	--no-upgrade-test --install-purge-install --warn-on-others /out/*.deb'

# The tests run as a user, who may not write to the installed PostgreSQL.
check='set -eu
useradd -m tester
autopkgtest --no-built-binaries --user=tester --output-dir=/out/autopkgtest /out/*.deb /out/*.dsc -- null'

for release in $(chosen_releases "${VERSIONS:-}"); do
	version=$(release_version "$release")
	out=$work/out/$release
	chroot_base "$release"
	chroot_layer "$release" deb-build "" 'apt-get update
apt-get install -y --no-install-recommends build-essential debhelper fakeroot lintian'
	chroot_layer "$release" deb-purge "" 'apt-get update
apt-get install -y --no-install-recommends piuparts'
	chroot_layer "$release" deb-test "" 'apt-get update
apt-get install -y --no-install-recommends autopkgtest'
	mkdir -p "$out"

	# NAME LAYER SCRIPT: run a script in the release, with its output in a file.
	step() {
		chroot_run --net --bind "$work/source" /source --bind "$out" /out --bind "$cache/$release" /base \
			"$release" "$2" "$work/$release-$1.run" sh -c "$3" sh "$release" >"$work/$release-$1.log" 2>&1 ||
			{ tail -n 60 "$work/$release-$1.log"; die "$release: $1 failed"; }
		rm -rf "$work/$release-$1.run"
	}

	echo "Building for PostgreSQL $version ($release)"
	step build deb-build "$build"
	[ -n "$(find "$out" -name "postgresql-$version-pg-dtx_*.deb")" ] || die "no package for PostgreSQL $version"
	grep -E '^(E|W|I|N: [0-9]+ tag)' "$work/$release-build.log" || true
	echo "Installing and purging (piuparts)"
	step purge deb-purge "$purge"
	grep 'INFO: PASS' "$work/$release-purge.log"
	echo "Testing (autopkgtest)"
	step test deb-test "$check"
	cat "$out/autopkgtest/summary"
	mkdir -p "$results/$release"
	cp -r "$out"/* "$results/$release/"
	echo "Packages: $results/$release"
done
}

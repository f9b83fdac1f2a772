# shellcheck shell=bash
# shellcheck disable=SC2034
# Shared by the scripts in this directory; sourced, not run.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
PG_CONFIG=${PG_CONFIG:-pg_config}
unset MAKEFLAGS MFLAGS MAKELEVEL
umask 022

die() {
	echo "$(basename "$0"): $*" >&2
	exit 1
}

# Run something as root: directly, or with sudo.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "this needs root: $*"
	fi
}

# The user who runs the servers, which refuse to run as root.  Root makes a
# system user for that; everybody else runs them as himself.
test_user=$(id -un)
if [ "$(id -u)" = 0 ]; then
	test_user=pgdtx
fi

make_test_user() {
	[ "$(id -u)" = 0 ] || return 0
	id "$test_user" >/dev/null 2>&1 && return 0
	useradd --system --user-group --no-create-home --home-dir /nonexistent \
		--shell /usr/sbin/nologin "$test_user"
}

# Run something as that user, in the current directory.
as_test_user() {
	if [ "$(id -u)" = 0 ]; then
		setpriv --reuid="$test_user" --regid="$test_user" --clear-groups \
			env HOME="$work" USER="$test_user" LOGNAME="$test_user" "$@"
	else
		"$@"
	fi
}

# A private directory for one run, with a path short enough for sockets.  Only
# its owner and root can reach the servers in it, which ask for no password.
make_work_dir() {
	local base=${TMPDIR:-/tmp}

	[ ${#base} -le 40 ] || base=/tmp
	work=$(mktemp -d "$base/pg_dtx.XXXXXX")
}

# A copy of the source tree, without what was built in it, in a new directory.
copy_source() {
	mkdir "$1"
	(cd "$top" && tar -cf - --exclude=./.git --exclude='*.o' --exclude='*.bc' \
		--exclude='*.so' --exclude='./pg_dtx--*.sql' --exclude=./results --exclude=./tmp_check .) |
		tar -C "$1" -xf - --no-same-owner
}

# A PostgreSQL of one's own in $work/postgresql, and PG_CONFIG set to it: programs
# are copied, because they look for their files from where they really are, all
# other files are linked.  The installation that PG_CONFIG named is not changed.
make_private_tree() {
	local root=$work/postgresql bindir dir

	bindir=$("$PG_CONFIG" --bindir)
	mkdir -p "$root$bindir"
	cp -aL "$bindir/." "$root$bindir/"
	for dir in $("$PG_CONFIG" --pkglibdir) $("$PG_CONFIG" --sharedir); do
		mkdir -p "$root$dir"
		cp -rs "$dir/." "$root$dir/"
		find "$root$dir" \( -name 'pg_dtx*' -o -path '*/bitcode/pg_dtx' \) \
			-prune -exec rm -rf {} +
	done
	for dir in $("$PG_CONFIG" --libdir) $("$PG_CONFIG" --includedir); do
		[ -e "$root$dir" ] && continue
		mkdir -p "$(dirname "$root$dir")"
		ln -s "$dir" "$root$dir"
	done
	PG_CONFIG=$root$bindir/pg_config
}

# Build a copy of the source tree in $work/build, whoever owns the original, and
# install it into a private copy of PostgreSQL.
build_and_install() {
	local log=$work/build.log

	make_private_tree
	copy_source "$work/build"
	if [ "$(id -u)" = 0 ]; then
		chown -R "$test_user:" "$work"
	fi
	if ! as_test_user make -C "$work/build" -j2 PG_CONFIG="$PG_CONFIG" >"$log" 2>&1; then
		cat "$log" >&2
		die "the build failed"
	fi
	as_test_user make -C "$work/build" install PG_CONFIG="$PG_CONFIG" >>"$log" 2>&1 ||
		{ cat "$log" >&2; die "the installation failed"; }
}

# shellcheck shell=bash
# Debian releases in chroots, for dev/test-matrix and its like; sourced after
# dev/lib.sh, not run.
#
# A release is a directory in the cache, made once with debootstrap and never
# changed.  On top of it come layers, directories with what somebody has installed,
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
	mkdir /setup; cat >/setup/lib.sh <<'END_OF_FILE'
	$(cat "$top/dev/lib.sh")
	END_OF_FILE
	cat >/setup/setup <<'END_OF_FILE'
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

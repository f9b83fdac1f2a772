# A PostgreSQL of one's own: programs copied, everything else linked, with this
# extension built and installed into it.  PostgreSQL finds its files relative to
# its programs, so the original is neither needed nor changed.
#
#	my $bindir = PrivateTree::make(dir => $dir, flags => ['COPT=-O0']);
#	$ENV{PATH} = "$bindir:$ENV{PATH}";
#
# Tests that need a library with fault points have one together:
#
#	$ENV{PATH} = PrivateTree::with_faults() . ":$ENV{PATH}";
package PrivateTree;

use strict;
use warnings FATAL => 'all';

use Carp;
use Cwd qw(abs_path getcwd);
use Fcntl qw(LOCK_EX);
use File::Basename qw(basename dirname);
use File::Copy qw(copy);
use File::Find;
use File::Path qw(make_path);

sub _config
{
	my $what = shift;
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	chomp(my $dir = `$pg_config --$what`);
	croak "$pg_config --$what does not work" if $?;
	return $dir;
}

# Build the source tree at $source in $dir/build; returns that directory.
sub build
{
	my (%params) = @_;
	my $source = $params{source} // getcwd();
	my $build = "$params{dir}/build";
	my $log = "$params{dir}/build.log";
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';

	make_path($build);
	_run($log, "cp -r '$source/src' '$source/schema' '$source/updates' '$source/Makefile' '$source/pg_dtx.control' '$build/'");
	unlink glob("$build/src/*.o $build/src/*/*.o"), glob("$build/src/*.bc $build/src/*/*.bc");
	_run($log,
		    "make -C '$build' -j2 with_llvm=no PG_CONFIG='$pg_config' "
		  . join(' ', @{ $params{flags} // [] }));
	return $build;
}

# Returns the directory of the programs.
sub make
{
	my (%params) = @_;
	my $build = build(%params);
	my $root = "$params{dir}/root";
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	my $bindir = _config('bindir');

	make_path("$root$bindir");
	# Programs look for their files from where they really are, so these are copied.
	for my $program (glob("$bindir/*"))
	{
		next unless -f $program && -x _;
		my $copy = "$root$bindir/" . basename($program);
		copy($program, $copy) or croak "$program: $!";
		chmod 0755, $copy;
	}

	my @seen;
	for my $dir (_config('pkglibdir'), _config('sharedir'), _config('libdir'))
	{
		next if grep { index("$dir/", "$_/") == 0 } @seen;

		# The system's libraries are found without us.
		next if $dir =~ m{^/(?:usr/)?lib(?:64)?(?:/[^/]*-linux-[^/]*)?/?$};
		push @seen, $dir;
		find(
			{
				no_chdir => 1,
				follow_skip => 2,
				wanted => sub {
					my $name = $File::Find::name;
					if (-d $name && !-l $name)
					{
						if ($name =~ m{/(?:bitcode|man)$})
						{
							$File::Find::prune = 1;
							return;
						}
						make_path("$root$name");
						return;
					}
					return if $name =~ m{/pg_dtx[^/]*$};

					# one directory may lie in another
					return if -l "$root$name";
					symlink $name, "$root$name" or croak "$root$name: $!";
				},
			},
			$dir);
	}
	# Headers, and libraries that are not in one of the above, to build with it.
	for my $dir (_config('includedir'), _config('libdir'))
	{
		next if -e "$root$dir";
		make_path(dirname("$root$dir"));
		symlink $dir, "$root$dir" or croak "$root$dir: $!";
	}
	_run("$params{dir}/build.log",
		"make -C '$build' install with_llvm=no PG_CONFIG='$pg_config' DESTDIR='$root' "
		  . join(' ', @{ $params{flags} // [] }));
	return "$root$bindir";
}

# The directory of the programs of a tree whose library has fault points.  The first
# test of a run that asks for it makes it, among the files of that run.
sub with_faults
{
	my $dir = abs_path($ENV{TESTDATADIR} || 'tmp_check') . '/with_faults';
	my $made = "$dir/bindir";

	make_path($dir);
	open my $lock, '>>', "$dir/lock" or croak "$dir/lock: $!";
	flock $lock, LOCK_EX or croak "$dir/lock: $!";
	if (!-e $made)
	{
		# (-O0: it is built faster than it runs slower)
		my $bindir = make(dir => $dir, flags => [ 'FAULTS=1', 'COPT=-O0' ]);
		symlink $bindir, $made or croak "$made: $!";
	}
	return readlink $made;
}

sub _run
{
	my ($log, $command) = @_;

	# Not part of a make that called us.
	delete local @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL)};
	return if system("{ $command; } >>'$log' 2>&1") == 0;
	open my $fh, '<', $log or croak "$log: $!";
	local $/;
	croak "\"$command\" failed:\n" . <$fh>;
}

1;

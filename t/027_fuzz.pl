# Two seconds of what "make fuzz" does for as long as one likes, without
# libFuzzer, which not every machine has.
use strict;
use warnings FATAL => 'all';

use Cwd qw(getcwd);
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $cc = `$pg_config --cc`);
$cc = 'cc' if system("$cc --version >/dev/null 2>&1") != 0;
chomp(my ($server, $include, $libdir, $pkglibdir) =
	map { `$pg_config --$_` } qw(includedir-server includedir libdir pkglibdir));
my ($port) = grep { -r $_ } "$libdir/libpgport.a", "$pkglibdir/libpgport.a";
plan skip_all => 'no libpgport.a' unless $port;

my $top = "$FindBin::RealBin/..";
my $program = PostgreSQL::Test::Utils::tempdir() . '/fuzz_gid';
my @command = (split(' ', $cc), '-g', '-O1', '-DSTANDALONE', "-I$top/src", "-I$server", "-I$include",
	"$top/t/programs/fuzz_gid.c", "$top/src/base/gid.c", $port, '-o', $program);

# with sanitizers, if the compiler has them
my $built = system("@command -fsanitize=address,undefined -fno-sanitize-recover=all >/dev/null 2>&1") == 0
  || system("@command") == 0;
ok($built, 'it is built');
my $output = `$program 2 2>&1`;
is($?, 0, 'what passes is what it seems') or diag($output);
note $output;
done_testing();

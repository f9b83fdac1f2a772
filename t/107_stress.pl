# Thousands of foreign servers of one cluster, a hundred that do not answer, eight with
# names that nobody answers, all of which had something prepared once: what is in
# doubt on a healthy one is finished in seconds, and a fast shutdown takes seconds.
# "make load" does it with 3,000 servers.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxPreload;
use DtxTest;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# Programs with this extension that are not those of PG_CONFIG.

my $servers = $ENV{DTX_STRESS_SERVERS} || 200;
my $nsilent = $servers < 1000 ? 6 : 100;
my $nnames = 8;
my $nmany = $servers - $nsilent - $nnames - 2;
my $patience = $ENV{DTX_CHECKER} ? 1000 : 20;
my $say = sub { $ENV{DTX_LOAD_LOUD} ? diag($_[0]) : note($_[0]) };

my $preload = DtxPreload->new;
my $dtx = DtxTest->new(
	servers => 2,
	participant_conf => "max_connections = 50\n",
	conf => "pg_dtx.resolve_interval = '5s'\n");
my ($coord, $p1) = ($dtx->coord, $dtx->p(1));
my ($host, $port) = ($p1->host, $p1->port);

# Each at an address of its own.
my $silent = PostgreSQL::Test::Utils::tempdir_short();
my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM(), Local => "$silent/.s.PGSQL.4321", Listen => 2000)
  or die "could not listen: $!";
chmod 0777, "$silent/.s.PGSQL.4321";
for my $i (2 .. $nsilent)
{
	link "$silent/.s.PGSQL.4321", "$silent/.s.PGSQL." . (4320 + $i) or die "could not link: $!";
}

$dtx->sql(q{ALTER SYSTEM SET pg_dtx.resolver = off});
$coord->reload;

sub servers
{
	my ($name, $n, $options) = @_;
	$dtx->sql(join '', "BEGIN;\n", (map { sprintf q{
CREATE SERVER %1$s%2$d FOREIGN DATA WRAPPER postgres_fdw OPTIONS (%3$s, dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER %1$s%2$d;
SELECT dtx.confirm_server('%1$s%2$d', all_mappings => true);}, $name, $_, $options->($_) } 1 .. $n), "COMMIT;\n");
	return;
}
servers('many', $nmany, sub { "host '$host', port '$port'" });
servers('silent', $nsilent, sub { "host '$silent', port '" . (4320 + $_[0]) . "'" });
servers('name', $nnames, sub { "host 'name$_[0].test'" });
$preload->name("name$_.test", '-') for 1 .. $nnames;
is($dtx->sql('SELECT count(*) FROM pg_foreign_server'), $servers, "$servers servers, $nsilent do not answer, $nnames have no answer to their names");
$coord->stop;
$preload->start($coord);

# After a crash a resolver does not know where something may be prepared.
$dtx->arm;
my $s = $dtx->session;
$s->run($dtx->hold);
$s->start($dtx->transfer(1, 1, 2));
$dtx->wait_held($s);
$dtx->prepared_is($_, 1) for 1, 2;
$dtx->crash($coord);
$s->finish;
$s->close;
$coord->append_conf('postgresql.auto.conf', "synchronous_standby_names = ''\npg_dtx.resolver = on");
$preload->start($coord);
my $start = time;
my $took;

sub took
{
	my $what = shift;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$took = time - $start;
	$say->(sprintf '%s: %.1f seconds', $what, $took);
	cmp_ok($took, '<', $patience, "$what: in seconds");
	return;
}
$dtx->prepared_is($_, 0, "after a crash: s$_ is finished") for 1, 2;
took('in doubt after a crash');

# Handed over while all of them are visited for the first time.
sub hand_over
{
	my $what = shift;
	$s = $dtx->session;
	$s->run(q{SET pg_dtx.commit_timeout = 0});
	$start = time;
	for my $try (1 .. 3)
	{
		$s->run($dtx->transfer(1, 2, 1));
		$dtx->prepared_is($_, 0) for 1, 2;
	}
	$dtx->poll($coord, q{SELECT count(*) FROM dtx.in_doubt WHERE server IN ('s1', 's2')}, '0', "$what: nothing is in doubt any more");
	$s->close;
	took($what);
	return;
}
hand_over('handed over meanwhile');
my $pid = $dtx->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'});
$start = time;
my $all = $dtx->poll($coord, q{SELECT count(*) FROM dtx.servers WHERE reachable}, $nmany + 2, 'all that can be reached are visited');
$say->(sprintf 'all others visited: %.1f seconds', time - $start);
$dtx->poll($coord, qq{SELECT count(*) FROM dtx.servers WHERE last_error LIKE '%could not translate host name "name_.test"%'}, $nnames, 'names that do not exist');
hand_over('handed over afterwards');

$start = time;
$coord->stop('fast');
took('a fast shutdown');
is(join(' ', $preload->lookups($pid)), '', 'the resolver has not called getaddrinfo()');

done_testing();

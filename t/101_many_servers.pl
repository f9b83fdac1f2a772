# Many foreign servers, most of them of one cluster and idle, some that do not
# answer: few connections at a time, visits where there is something to do, and that
# first.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $many = 150;
my $dtx = DtxTest->new(
	servers => 2,
	participant_conf => "log_connections = on\nlog_disconnections = on\n");
my ($coord, $p1) = ($dtx->coord, $dtx->p(1));
my ($host, $port) = ($p1->host, $p1->port);

# Connections of resolvers in the log of s1: their number, and how many there were at
# the same time.
sub connections
{
	my $offset = shift;
	my ($n, $most, %open) = (0, 0);
	for my $line (split /\n/, slurp_file($p1->logfile, $offset))
	{
		my ($pid) = $line =~ /\[(\d+)\]/ or next;
		if ($line =~ /connection authorized:.*application_name=pg_dtx/)
		{
			$open{$pid} = 1;
			$n++;
			$most = keys %open if keys %open > $most;
		}
		delete $open{$pid} if $line =~ /disconnection:/;
	}
	return ($n, $most);
}

$dtx->sql(join '', map { qq{
CREATE SERVER many$_ FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER many$_;} } 1 .. $many);
my $log = -s $p1->logfile;
$dtx->wait_passes(3);
my ($n) = connections($log);
is($n, 0, "$many servers, nothing prepared on any of them: no visits");
is($dtx->sql('SELECT count(*), count(checked_at), count(reachable) FROM dtx.servers'), $many + 2 . '|0|0', '... which shows');

# Once they may be visited they are, in the next pass.
$log = -s $p1->logfile;
$dtx->sql(join '', map { "SELECT dtx.confirm_server('many$_', all_mappings => true);" } 1 .. $many);
$dtx->poll($coord, q{SELECT count(*) FROM dtx.servers WHERE reachable}, $many, 'all of them are visited');
($n, my $most) = connections($log);
cmp_ok($n, '>=', $many, '... with a connection each');

# (the servers log the end of a connection a moment after the resolver has gone on)
cmp_ok($most, '<=', 12, '... but few at a time');
$dtx->wait_passes(1);
$log = -s $p1->logfile;
$dtx->wait_passes(4);
($n) = connections($log);
cmp_ok($n, '<', $many, "... and not in each pass: $n visits in four");

# Neither does dtx.resolve_in_doubt() overwhelm a server.
$log = -s $p1->logfile;
$dtx->sql('SELECT count(*) FROM dtx.resolve_in_doubt()');
($n, $most) = connections($log);
cmp_ok($n, '>=', $many, 'dtx.resolve_in_doubt() visits all of them');
cmp_ok($most, '<=', 12, '... few at a time');

# A hundred that do not answer, and a transaction in doubt on one that does.
my $silent = PostgreSQL::Test::Utils::tempdir_short();
my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM(), Local => "$silent/.s.PGSQL.4321", Listen => 2000)
  or die "could not listen: $!";
chmod 0777, "$silent/.s.PGSQL.4321";
for my $i (1 .. 99)
{
	# each at an address of its own
	link "$silent/.s.PGSQL.4321", "$silent/.s.PGSQL." . (4321 + $i) or die "could not link: $!";
}
$dtx->sql(q{ALTER SYSTEM SET pg_dtx.resolver = off});
$coord->reload;
$dtx->poll($coord, q{SELECT state = 'idle' FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'}, 't', 'the resolver rests');
$dtx->sql(join '', map { sprintf q{
CREATE SERVER silent%d FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%d');
CREATE USER MAPPING FOR CURRENT_USER SERVER silent%d;
SELECT dtx.confirm_server('silent%d', all_mappings => true);}, $_, $silent, 4320 + $_, $_, $_ } 1 .. 100);
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
$coord->start;
my $start = time;
$dtx->prepared_is($_, 0, "the first pass after a crash: s$_ is finished") for 1, 2;

# those who wait for the silent ones waits for ten seconds and more
cmp_ok(time - $start, '<', 8, '... in seconds') unless $ENV{DTX_CHECKER};
$dtx->balances_are('100 99 101', '... committed');

# Likewise what is handed over while they are tried again and again.
$s = $dtx->session;
$s->run(q{SET pg_dtx.commit_timeout = 0});
$start = time;
for my $try (1 .. 3)
{
	$s->run($dtx->transfer(1, 2, 1));
	$dtx->prepared_is($_, 0) for 1, 2;
}
$dtx->poll($coord, q{SELECT count(*) FROM dtx.in_doubt}, '0', 'handed over: nothing is in doubt any more');
cmp_ok(time - $start, '<', 8, '... in seconds') unless $ENV{DTX_CHECKER};
$start = time;
$coord->stop('fast');
cmp_ok(time - $start, '<', 8, 'a fast shutdown takes seconds') unless $ENV{DTX_CHECKER};

done_testing();

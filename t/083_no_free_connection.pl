# Sessions that wait for what an in-doubt transaction has locked take all connections of
# a server: the resolver has kept one.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	conf => "pg_dtx.deadlock_detection = off\n",		# which would have one, too
	participant_conf => "max_connections = 12\nsuperuser_reserved_connections = 3\n");
my $p1 = $dtx->p(1);
my $kept = q{FROM pg_stat_activity WHERE application_name = 'pg_dtx' AND state = 'idle' AND usename = 'app'
	AND now() - backend_start > '1 s'};

$p1->safe_psql('postgres', 'CREATE ROLE app LOGIN; CREATE ROLE app2 LOGIN; GRANT ALL ON acct TO app, app2');
$dtx->sql(q{ALTER USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (user 'app', password_required 'false')});

# Nothing is kept where nothing is prepared.
$dtx->wait_passes(2);
is($p1->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dtx' AND now() - backend_start > '1 s'}),
	'0', 'no connection is kept to a server that is not used');

my $s = $dtx->session;
$s->run($dtx->transfer(10, 1, 0, 2));
$dtx->poll($p1, "SELECT count(*) $kept", '1', 'one connection is kept');
my $pid = $p1->safe_psql('postgres', "SELECT pid $kept");
$dtx->wait_passes(3);
is($p1->safe_psql('postgres', "SELECT pid $kept"), $pid, '... and used again');

# It is replaced when it is lost, ...
$p1->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
$dtx->poll($p1, "SELECT count(*) $kept AND pid <> $pid", '1', '... replaced when it is lost');
is($dtx->sql(q{SELECT reachable FROM dtx.servers WHERE server = 's1'}), 't', '... which is no failure');

# ... and when it would not be what a new one is.
$dtx->sql(q{ALTER USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (SET user 'app2')});
$dtx->poll($p1, "SELECT count(*) " . ($kept =~ s/'app'/'app2'/r), '1', '... replaced when the mapping has changed');
$dtx->poll($p1, "SELECT count(*) $kept", '0', '... and closed then');
$dtx->sql(q{ALTER USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (SET user 'app')});
$dtx->poll($p1, "SELECT count(*) $kept", '1', 'one connection is kept');

# Prepared on s1; nobody else can get in there.
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s->start($dtx->transfer(10, 1, 0, 2));
$dtx->proxy(2)->wait_for('hold');
$dtx->prepared_is(1, 1);
my @clients;
my $connstr = $p1->connstr('postgres') . ' user=app';
for my $i (1 .. 14)
{
	my %c = (in => '', out => '', err => '');
	$c{ipc} = IPC::Run::start(
		[ $p1->installed_command('psql'), '-XAtq', '-d', $connstr, '-c', 'UPDATE acct SET bal = bal + 100 WHERE id = 1' ],
		'<', \$c{in}, '>', \$c{out}, '2>', \$c{err});
	push @clients, \%c;
}
# nine connections, of which postgres_fdw and the resolver have one each
$dtx->poll($p1, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'},
	'7', 'clients wait for the row');
$p1->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'});
$dtx->poll($p1, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'}, '0', 'the session has lost its connection');
my %last = (in => '', out => '', err => '');

# (the slot of a backend is free a moment after it is not shown any more)
$last{ipc} = IPC::Run::start(
	[ 'sh', '-c', 'until "$0" -XAtq -d "$1" -c "UPDATE acct SET bal = bal + 100 WHERE id = 1"; do sleep 0.1; done',
		$p1->installed_command('psql'), $connstr ],
	'<', \$last{in}, '>', \$last{out}, '2>', \$last{err});
push @clients, \%last;
$dtx->poll($p1, q{SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'},
	'8', '... which another client has taken');
my ($ret, undef, $err) = $p1->psql('postgres', 'SELECT 1', extra_params => [ '-U', 'app' ]);
like($err, qr/too many|remaining connection slots/, 'there is no connection left for the role');
$dtx->proxy(2)->clear;
$s->finish;
is($s->stderr, '', 'the resolver gets in, before the client is warned');
$dtx->prepared_is(1, 0, '... and has finished it');
$_->{ipc}->finish for @clients;
$dtx->clean('in the end');
is($p1->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '880', '... and everybody has what he wanted');
$s->close;

done_testing();

# pgbouncer in front of the coordinator, in transaction mode, and between the
# coordinator and a server: session mode works, other modes are found out.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use DtxTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $dir = PostgreSQL::Test::Utils::tempdir_short;
my $user = (getpwuid $<)[0];
my %bouncer;

# Poolers have a socket in $dir, and ports that nobody else has there.
sub start_bouncer
{
	my ($name, $port, $node, $mode) = @_;
	append_to_file("$dir/users", qq{"$user" ""\n}) unless -e "$dir/users";
	append_to_file("$dir/$name.ini", '
[databases]
postgres = host=' . $node->host . ' port=' . $node->port . " dbname=postgres user=$user
[pgbouncer]
unix_socket_dir = $dir
listen_port = $port
auth_type = any
auth_file = $dir/users
pool_mode = $mode
default_pool_size = 4
ignore_startup_parameters = extra_float_digits, options
logfile = $dir/$name.log
pidfile = $dir/$name.pid
");
	system('pgbouncer', '-q', '-d', "$dir/$name.ini") == 0 or die "pgbouncer: " . slurp_file("$dir/$name.log");
	$bouncer{$name} = 1;
	return;
}

END
{
	local $?;
	for my $name (keys %bouncer)
	{
		my $pid = -e "$dir/$name.pid" ? slurp_file("$dir/$name.pid") : next;
		kill 'INT', $pid;
	}
}

# ---- in front of the coordinator, transaction mode
start_bouncer('front', 6001, $dtx->coord, 'transaction');
{
	my $sql = $dtx->transfer(1, 1, 0, 2);
	my ($out, $err) = ('', '');

	# more clients than connections, so that these change hands
	append_to_file("$dir/t.sql", $sql =~ s/id = 1/id = :client_id + 1/gr);
	for my $i (0 .. 2)
	{
		($i ? $dtx->p($i) : $dtx->coord)->safe_psql('postgres',
			'INSERT INTO acct' . ($i ? '' : '0') . ' SELECT i, 100 FROM generate_series(2, 12) i');
	}
	my $ok = IPC::Run::run(
		[ 'pgbench', '-n', '-h', $dir, '-p', 6001, '-f', "$dir/t.sql", '-c', 12, '-j', 2, '-t', 8, 'postgres' ],
		'>', \$out, '2>', \$err);
	ok($ok, 'transaction mode in front of the coordinator: transfers') or diag($err);
	is($dtx->sql('SELECT two_phase FROM dtx.stat'), 96, '... in two phases');
	is($dtx->p(1)->safe_psql('postgres', 'SELECT sum(bal) FROM acct'), 12 * 100 - 96, '... gone from s1');
	is($dtx->p(2)->safe_psql('postgres', 'SELECT sum(bal) FROM acct'), 12 * 100 + 96, '... come to s2');
	$dtx->clean('pooled clients');

	# one that goes away in the middle of a transaction
	($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtq', '-h', $dir, '-p', 6001, 'postgres' ],
		'<', \"BEGIN; UPDATE acct1 SET bal = 0; UPDATE acct2 SET bal = 0;\n", '>', \$out, '2>', \$err);
	$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx.transactions', '0', 'a client that goes away: rolled back');
	is($dtx->p(1)->safe_psql('postgres', 'SELECT sum(bal) FROM acct'), 12 * 100 - 96, '... on s1');
}

# ---- before a server, session mode
my ($host, $port) = ($dtx->p(2)->host, $dtx->p(2)->port);
is($dtx->sql(q{SELECT ok FROM dtx.check_server('s2') WHERE "check" = 'direct connection'}), 't', 's2 is reached directly');
start_bouncer('session', 6002, $dtx->p(2), 'session');
$dtx->sql("ALTER SERVER s2 OPTIONS (SET host '$dir', SET port '6002')");
is($dtx->sql(q{SELECT ok IS NULL, detail, hint LIKE '%session mode only%' FROM dtx.check_server('s2') WHERE "check" = 'direct connection'}),
	't|a connection pooler is in between|t', 'a pooler is found, and it is said in which mode it works');
is($dtx->sql(q{SELECT ok FROM dtx.check_server('s2') WHERE "check" = 'reachable'}), 't', '... the server is reachable');
for my $i (1 .. 5)
{
	$dtx->sql($dtx->transfer(1, 1, 0, 2));
}
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), 100 + 8 + 5, 'session mode: transfers');
is($dtx->sql(q{SELECT * FROM dtx.query('s2', 'SELECT count(*) FROM acct') AS t(n bigint)}), 12, '... remote SQL');
$dtx->clean('session mode');

# something in doubt is finished through it
{
	my $s = $dtx->session;
	$dtx->arm;
	$s->run($dtx->hold);
	$s->start($dtx->transfer(1, 1, 0, 2));
	$dtx->wait_held($s);
	$dtx->prepared_is(2, 1);
	$dtx->p(2)->stop('immediate');
	$dtx->release;
	$s->finish;
	like($s->stderr, qr/not every server has confirmed it yet: "s2"/, 'session mode, server killed: a warning');
	$dtx->p(2)->start;
	$dtx->clean('session mode, in doubt');
	is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), 100 + 8 + 6, '... committed');
	$s->close;
}

done_testing();

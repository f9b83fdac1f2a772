# Host names: one that no name server answers delays nobody but its own server, and
# the resolver never calls what would wait for it.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxPreload;
use DtxTest;
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $preload = DtxPreload->new;
my $dtx = DtxTest->new(
	servers => 2,
	participant_conf => "listen_addresses = '127.0.0.1'\n",
	conf => "pg_dtx.commit_timeout = '1s'\n");
my $coord = $dtx->coord;
my $resolver = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'};

$preload->name($_, '127.0.0.1') for qw(good.test moving.test);
$preload->name('silent.test', '-');
$preload->name('two.test', '127.0.0.2', '127.0.0.1', '::1');

# A service file of the server's.
my $services = PostgreSQL::Test::Utils::tempdir() . '/services';
append_to_file($services, "[by_name]\nhost=good.test\nport=" . $dtx->p(2)->port . "\n");
$coord->stop;
$preload->start($coord, PGSERVICEFILE => $services);

# Leave what was written to s1 and s2 in doubt, committed.
sub leave_in_doubt
{
	$dtx->arm;
	my $s = $dtx->session;
	$s->run($dtx->hold . 'BEGIN; UPDATE acct1 SET bal = bal - 10; UPDATE acct2 SET bal = bal + 10;'
		  . 'UPDATE acct0 SET bal = bal + 1;');
	$s->start('COMMIT');
	$dtx->wait_held($s);
	$_[0]->();

	# What the resolver has been answered is good for a second, and then it has no
	# connection any more, either.
	usleep(1_200_000);
	$dtx->p($_)->safe_psql('postgres',
		q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name IN ('postgres_fdw', 'pg_dtx')}) for 1, 2;
	$dtx->release;
	$s->finish;
	like($s->stderr, qr/in doubt|dtx\.in_doubt/, 'the transaction is in doubt');
	$s->close;
	return;
}

my $port = $dtx->p(2)->port;
$dtx->sql("ALTER SERVER s2 OPTIONS (SET host 'moving.test')");

leave_in_doubt(sub { $preload->name('moving.test', '-') });
my $start = time;
$dtx->prepared_is(1, 0, 'what is in doubt on a healthy server is finished');
cmp_ok(time - $start, '<', 30, '... in seconds, though the name of another one is not answered');
$dtx->poll($coord,
	q{SELECT last_error LIKE '%could not translate host name "moving.test" to address: %' FROM dtx.in_doubt},
	't', '... whose entry says what is missing');
is($dtx->p(2)->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '1', '... and which waits');

# Nothing wrong with the name any more.
my $pid = $dtx->sql($resolver);
$preload->name('moving.test', '127.0.0.1');
$dtx->clean('when the name is answered again');
is($dtx->sql($resolver), $pid, 'it was the same resolver all the time');
is(join(' ', $preload->lookups($pid)), '', '... which never called getaddrinfo()');

# A fast shutdown while a name is not answered.
leave_in_doubt(sub { $preload->name('moving.test', '-') });
$dtx->prepared_is(1, 0);
my $asked = $preload->asked('moving.test');
my $deadline = time + 60;
select undef, undef, undef, 0.05 until $preload->asked('moving.test') > $asked || time > $deadline;
$start = time;
$coord->stop('fast');
cmp_ok(time - $start, '<', 25, 'a fast shutdown does not wait for names');
$preload->name('moving.test', '127.0.0.1');
$preload->start($coord, PGSERVICEFILE => $services);
$dtx->clean('after the restart');

# What a server's options may say.
my $own = $dtx->p(2)->host;
my $other = $dtx->p(1)->port;
my @good = (
	[ 'a name', "host 'good.test'" ],
	[ 'a number', "host '127.0.0.1'" ],
	[ 'a name with an address', "host 'silent.test', hostaddr '127.0.0.1'" ],
	[ 'an address', "hostaddr '127.0.0.1'" ],
	[ '/etc/hosts', "host 'localhost'" ],
	[ 'a directory', "host '$own'" ],
	[ 'several addresses', "host 'two.test'" ],
	[ 'a list', "host 'silent.test,none.test,good.test'" ],
	[ 'a list with ports', "host 'none.test,good.test'", "1,$port" ],
	[ 'a list of all kinds', "host 'none.test,$own/none,127.0.0.2,two.test'", "1,2,$port,$port" ],
	[ 'a list with addresses', "host 'none.test,good.test', hostaddr '127.0.0.2,'" ],
	[ 'a service', "service 'by_name'", '' ],
);
my @bad = (
	[ 'no answer', "host 'silent.test'", qr/could not translate host name "silent\.test" to address: (?:no name server has answered|Timeout)/ ],
	[ 'no such name', "host 'none.test'", qr/could not translate host name "none\.test" to address: Domain name not found/ ],
	[ 'no such service', "service 'nonsense'", qr/definition of service "nonsense" not found/ ],
	[ 'too few ports', "host 'good.test,good.test,good.test', port '1,2'", qr/could not match 2 port numbers to 3 hosts/ ],
	[ 'too few names', "host 'good.test', hostaddr '127.0.0.1,127.0.0.1'", qr/could not match 1 host names to 2 hostaddr values/ ],
	[ 'too long a name', 'host ' . ("'" . 'x' x 300 . "'"), qr/the name is too long/ ],
);

# (check_server() lets postgres_fdw connect in the end, which calls getaddrinfo().)
$preload->impatient;
my $session = $dtx->session;
$session->run('SET client_min_messages = warning');

sub check
{
	my ($options) = @_;
	$session->run(
		"DROP SERVER IF EXISTS x CASCADE; CREATE SERVER x FOREIGN DATA WRAPPER postgres_fdw OPTIONS ($options, dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER x;");
	return $session->run(q{SELECT ok, detail FROM dtx.check_server('x') WHERE "check" = 'reachable'});
}

for my $case (@good)
{
	my ($name, $options, $ports) = @$case;
	$ports //= $port;
	like(check($options . ($ports eq '' ? '' : ", port '$ports'")), qr/^t/, "$name leads there");
}
my $looked_up = join ' ', $preload->lookups($session->pid);
$start = time;
for my $case (@bad)
{
	my ($name, $options, $expected) = @$case;
	like(check($options), $expected, "$name: what is said");
}
cmp_ok(time - $start, '<', 40, '... soon enough');
is(join(' ', $preload->lookups($session->pid)), $looked_up, '... and none of these was given to getaddrinfo()');

# Thousands of names at once, some for the second time.
$session->run(q{DO $$ BEGIN
	FOR i IN 1 .. 270 LOOP
		EXECUTE format('CREATE SERVER many_%s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L, dbname %L)', i,
			(SELECT string_agg(format('n%s.test', i * 20 + j), ',') FROM generate_series(1, 20) j) || ',n1.test', 'postgres');
		EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER many_%s', i);
	END LOOP;
END $$});
$session->run(q{SELECT sum(dtx.confirm_server(srvname, all_mappings => true)) FROM pg_catalog.pg_foreign_server WHERE srvname LIKE 'many%'});
for my $time (1, 2)
{
	is($session->run(q{SELECT count(*) > 250, bool_and(error ~ 'could not translate host name "n|too many names') FROM dtx.resolve_in_doubt() WHERE server LIKE 'many_%'}),
		't|t', "thousands of names, time $time");
}
$session->run(q{DO $$ DECLARE s name; BEGIN
	FOR s IN SELECT srvname FROM pg_catalog.pg_foreign_server WHERE srvname LIKE 'many%' LOOP EXECUTE format('DROP SERVER %I CASCADE', s); END LOOP;
END $$});

# A cancel.
$session->run("DROP SERVER IF EXISTS x CASCADE; CREATE SERVER x FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'silent2.test');
CREATE USER MAPPING FOR CURRENT_USER SERVER x;");
$preload->name('silent2.test', '-');
$session->start(q{SELECT * FROM dtx.check_server('x')});
$deadline = time + 60;
select undef, undef, undef, 0.05 until $preload->asked('silent2.test') || time > $deadline;
$start = time;
$dtx->sql('SELECT pg_cancel_backend(' . $session->pid . ')');
$session->finish;
like($session->stderr, qr/canceling statement due to user request/, 'a lookup can be canceled');
$session->run('DROP SERVER x CASCADE');

# Kerberos' libraries look up the name of a server that asks for a ticket.
my $listener = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1') or die "socket: $!";
my $gss = fork // die "fork: $!";
if ($gss == 0)
{
	while (my $client = $listener->accept)
	{
		while (sysread($client, my $packet, 4096))
		{
			my (undef, $code) = unpack 'NN', $packet;
			syswrite $client, $code == 80877103 || $code == 80877104 ? 'N' : 'R' . pack('NN', 8, 7);
		}
		append_to_file("$services.gss", "served\n");
	}
	POSIX::_exit(0);
}
my $gss_port = $listener->sockport;
$session->run(qq{CREATE ROLE usual LOGIN; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO usual; GRANT CREATE ON DATABASE postgres TO usual;
GRANT USAGE ON SCHEMA dtx TO usual;
SET SESSION AUTHORIZATION usual;
CREATE SERVER kerberos FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'kerberos.test', hostaddr '127.0.0.1', port '$gss_port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER kerberos OPTIONS (user 'me', password 'secret');});
my $said = $session->run(q{SELECT ok, detail FROM dtx.check_server('kerberos') WHERE "check" = 'reachable'});
like($said, qr/^f\|/, 'a server that wants a ticket does not get one');
is(scalar(grep { $_ eq 'kerberos.test' } $preload->lookups($session->pid)), 0, '... and Kerberos does not look up its name');
$session->close;
kill 'KILL', $gss;
waitpid $gss, 0;
ok(-s "$services.gss", '... though it was asked for one');

$pid = $dtx->sql($resolver);
is(join(' ', grep { length $_ < 256 } $preload->lookups($pid)),
	'', 'the resolver has never called getaddrinfo() with anything that could be asked for');

done_testing();

# A participant that is not what it seems.  Whatever it sends, the resolver and
# the sessions stay alive and small, say what is wrong, and other servers notice
# nothing.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use HostileServer;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $dtx = DtxTest->new(
	servers => 1,
	conf => q{
pg_dtx.resolve_interval = '100ms'
pg_dtx.prepare_timeout = '5s'
pg_dtx.commit_timeout = '30s'
});
my $evil = HostileServer->new($dtx->p(1)->port + 1);
$dtx->sql(sprintf q{
CREATE SERVER evil FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'db', connect_timeout '3');
CREATE USER MAPPING FOR CURRENT_USER SERVER evil OPTIONS (user 'me');
CREATE FOREIGN TABLE there (id int) SERVER evil;
SELECT dtx.confirm_server('evil', all_mappings => true), dtx.confirm_server('s1', all_mappings => true)}, $evil->host, $evil->port);

my $n = 0;

# Something to roll back on the honest server.
sub orphan
{
	my ($gid) = $dtx->orphan_gids(1);
	$n++;
	$dtx->p(1)->safe_psql('postgres', "BEGIN; CREATE TABLE orphan (); PREPARE TRANSACTION '$gid'");
	return $gid;
}

sub resolver
{
	my $pid;
	$dtx->coord->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'});
	return $dtx->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'});
}

sub memory
{
	my $pid = shift;
	return 0 unless -r "/proc/$pid/status";
	my ($rss) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
	return $rss // 0;
}

my $pid = resolver();
my $start = memory($pid);

# What the resolver meets, and what it has to say about the server.
my %complaint = (
	'wrong columns' => qr/unexpected|answer|not/,
	'drip' => undef,
	'notifications' => undef,
	'too much' => undef,
	'too many gids' => undef,
	'in a transaction' => undef,
	'odd ready' => undef,
	'strange gids' => undef,
	'wrong types' => undef,
	'nulls' => undef,
	'endless columns' => undef,
	'no version' => undef,
);
my ($good) = $dtx->orphan_gids(1);
$evil->gids(
	$good, $good, $good =~ s/:1:/:01:/r, "$good'", $good =~ s/^dtx:/dtx:0/r,
	$good =~ s/^dtx:\w+/dtx:ffffffffffffffff/r, $good =~ s/^(dtx:\w+):\d+/$1:4294967296/r, $good =~ s/\w$/x/r);
for my $mode ('closed', 'closed in a row', 'garbage', 'wrong columns', 'nulls', 'wrong types', 'no result', 'empty query',
	'error', 'error in the middle', 'endless error', 'bad sqlstate', 'huge row', 'endless rows', 'endless gids',
	'notifications', 'too much', 'too many gids', 'endless notices', 'endless parameters', 'endless columns', 'copy out', 'copy in', 'copy both', 'drip',
	'in a transaction', 'odd ready', 'strange gids', 'password', 'md5', 'strange authentication', 'no version', 'silent')
{
	$evil->mode('polite');
	$dtx->sql(q{SELECT dtx.resolve_in_doubt()});
	$evil->mode($mode);
	$dtx->sql(q{SELECT pg_reload_conf()}) if $n % 5 == 0;
	my $gid = orphan();
	ok($dtx->p(1)->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_prepared_xacts WHERE gid = '$gid'"),
		"$mode: the honest server is served");

	# and in a session of one's own, where the answer can be waited for
	my ($ret, $out, $err) = $dtx->coord->psql('postgres',
		q{SELECT server, coalesce(error, '') FROM dtx.resolve_in_doubt()}, timeout => 60);
	is($ret, 0, "$mode: dtx.resolve_in_doubt() ends") or diag($err);
	if (!exists $complaint{$mode})
	{
		like($dtx->sql(q{SELECT coalesce(last_error, '') FROM dtx.servers WHERE server = 'evil' AND NOT reachable}) . $out,
			qr/\w/, "$mode: it is said what is wrong");
	}
	my $grown = memory($pid) - $start;
	# a message of 900 MB is refused when 16 kB of it are there, or one fast read
	# later; and a sanitizer keeps what was freed
	cmp_ok($grown, '<', 100_000, "$mode: the resolver stays small") unless $ENV{DTX_CHECKER};
}
is(resolver(), $pid, 'it is still the same resolver');
is($dtx->sql('SELECT count(*) FROM acct0'), '1', 'nothing was executed that came as a gid');

# dtx.check_server() and dtx.force_in_doubt().
for my $mode ('closed', 'garbage', 'wrong columns', 'nulls', 'wrong types', 'endless rows', 'error', 'copy out', 'no version')
{
	$evil->mode($mode);
	my ($ret, $out, $err) = $dtx->coord->psql('postgres', q{SELECT "check", ok FROM dtx.check_server('evil')}, timeout => 60);
	is($ret, 0, "$mode: dtx.check_server() ends") or diag($err);
}

# A session: phase one.
$evil->mode('polite');
my $s = $dtx->session;
my $transfer = q{BEGIN; UPDATE acct1 SET bal = bal + 1; SELECT dtx.exec('evil', 'UPDATE something'); COMMIT};
$s->run($transfer);
is($s->stderr, '', 'polite: it can commit');
$dtx->balances_are('100 101', '... with the honest one');
my $balance = 101;
for my $mode ('prepare: rollback', 'prepare: wrong tag', 'prepare: rows', 'prepare: closed', 'prepare: copy', 'prepare: nothing', 'prepare: garbage')
{
	$evil->mode($mode);
	$s->run($transfer);
	if ($mode eq 'prepare: rows')
	{
		# a strange way to say it, but it says so
		$balance++ if $s->stderr !~ /ERROR/;
	}
	else
	{
		like($s->stderr, qr/ERROR:.*"evil"/, "$mode: an error that names the server");
	}
	$evil->mode('polite');
	$dtx->balances_are("100 $balance", "$mode: all or nothing");
	$dtx->prepared_is(1, 0, "$mode: nothing stays prepared");
}
# START TRANSACTION, which is sent alone where the first command is very long.
my $long = q{BEGIN; UPDATE acct1 SET bal = bal + 1; UPDATE there SET id = 1 WHERE id IN (} . join(', ', 1 .. 8000) . '); COMMIT';
for my $mode ('start: error', 'start: copy', 'start: closed')
{
	$evil->mode($mode);
	$s->run($long);
	like($s->stderr, qr/ERROR:  \w+: could not begin transaction on server "evil"/, "$mode: an error");
	$evil->mode('polite');
	$dtx->balances_are("100 $balance", "$mode: nothing is committed");
}
$s->run($long);
is($s->stderr, '', 'polite: it can commit');
$balance++;
$dtx->balances_are("100 $balance", '... with the honest one');
# Phase two.
for my $mode ('commit: wrong tag', 'commit: error', 'commit: rows')
{
	$evil->mode($mode);
	$s->run($transfer);
	unlike($s->stderr, qr/ERROR|FATAL/, "$mode: committed");
	$balance++;
	$dtx->balances_are("100 $balance", "$mode: the honest server has it");
	$dtx->prepared_is(1, 0, "$mode: nothing stays prepared there");
	$evil->mode('polite');

	# (this one does not use the server before it has confirmed, and it never does)
	$s->close;
	$s = $dtx->session;
}
# Who are you?
for my $mode ('identity', 'identity fails')
{
	$s->run(q{SELECT postgres_fdw_disconnect('evil')});
	$evil->mode($mode);
	$s->run($transfer);
	is($s->stderr, '', "$mode: it can commit");
	$balance++;
	$dtx->balances_are("100 $balance", "$mode: with the honest one");
}
# Remote SQL.
for my $mode ('exec: wrong order', 'exec: copy', 'exec: two results', 'exec: no end', 'exec: transaction', 'exec: bad text',
	'exec: changing columns', 'exec: count')
{
	$evil->mode($mode);
	for my $sql (q{SELECT dtx.exec('evil', 'the command')},
		q{SELECT * FROM dtx.query('evil', 'the command') AS t(a text)},
		q{SELECT * FROM dtx.query_json('evil', 'the command')})
	{
		$s->run("BEGIN; UPDATE acct1 SET bal = 0; $sql; ROLLBACK");

		# what exec() does not look at does no harm; any text is good in SQL_ASCII
		like($s->stderr, qr/ERROR/, "$mode: $sql: an error")
		  unless $sql =~ /dtx.exec/ && $mode =~ /count|order|two results|changing/
		  || $mode =~ /bad text/;
		$evil->mode('polite');
		is($s->run(q{SELECT 1}), '1', '... the session lives');
		$evil->mode($mode);
	}
	$evil->mode('polite');
	$s->run($transfer);
	is($s->stderr, '', "$mode: and goes on");
	$balance++;
	$dtx->balances_are("100 $balance", "$mode: nothing of it was committed");
}

$dtx->sql('DROP SERVER evil CASCADE');
$evil->stop;
$dtx->sql('SELECT dtx.resolve_in_doubt()');
is($dtx->p(1)->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '0', 'nothing is prepared in the end');
my $log = slurp_file($dtx->coord->logfile);
unlike($log, qr/PANIC|TRAP|terminated by signal/, 'and nobody crashed');
$s->close;
done_testing();

# A session sees what it has committed, also if COMMIT has returned with a warning:
# it waits for the resolver, once, and then gets an error rather than an old row.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	conf => "synchronous_standby_names = ''\npg_dtx.max_in_doubt = 16\n",
	participant_conf => "max_prepared_transactions = 40\n");
my $proxy = $dtx->proxy(2);
my $s = $dtx->session;
my $waits = q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event IN ('Extension', 'DtxSettle') AND pid = };

# COMMIT warns, because its connection is lost; the resolver is kept from its visit.
sub unconfirmed
{
	$proxy->rule(cut => 'COMMIT PREPARED', hold => 'current_database');
	$s->run($dtx->transfer(1, 1, 2));
	like($s->stderr, qr/WARNING:.*not every server has confirmed it yet: "s2"/, 'COMMIT warns');
	return;
}

# A server closes the connection of a session that idles between PREPARE and COMMIT
# PREPARED: what the resolver does at once is nothing to warn about.
$dtx->p(1)->append_conf('postgresql.conf', q{idle_session_timeout = '200ms'});
$dtx->p(1)->reload;
$s->run('SELECT count(*) FROM acct1');
for my $try (1 .. 2)
{
	$proxy->rule(hold => q{PREPARE TRANSACTION 'dtx});
	$s->start($dtx->transfer(0, 1, 2));
	$proxy->wait_for('hold');
	$dtx->prepared_is(1, 1);
	$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'}, 0,
		'a server has closed a connection between PREPARE and COMMIT PREPARED');
	$proxy->clear;
	$s->finish;
	is($s->stderr, '', '... which is nothing to warn about');
	$dtx->prepared_is(1, 0, '... because the resolver has done it');
	$dtx->clean('idle session');
}

# Nobody waits for a resolver that is switched off.
$dtx->sql($_) for 'ALTER SYSTEM SET pg_dtx.resolver = off', 'SELECT pg_reload_conf()';
$dtx->poll($dtx->coord, 'SHOW pg_dtx.resolver', 'off', 'the resolver is off');
$proxy->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s->start($dtx->transfer(0, 1, 2));
$proxy->wait_for('hold');
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'}, 0, 'closed again');
$proxy->clear;
$s->finish;
like($s->stderr, qr/WARNING:.*not every server has confirmed it yet: "s1"/, 'without a resolver COMMIT warns');
$dtx->sql($_) for 'ALTER SYSTEM RESET pg_dtx.resolver', 'SELECT pg_reload_conf()';
$dtx->clean('resolver is back');
$dtx->p(1)->append_conf('postgresql.conf', q{idle_session_timeout = 0});
$dtx->p(1)->reload;

unconfirmed();
$s->start('SELECT bal FROM acct2');
$dtx->poll($dtx->coord, $waits . $s->pid, 1, 'a read waits for the resolver');
is($s->finished, 0, '... and does not return');
$proxy->clear;
is($s->finish, 101, '... before it sees what the session has committed');
is($s->stderr, '', '... without a word');
$dtx->clean('read');

unconfirmed();
$s->start('UPDATE acct2 SET bal = bal + 1 RETURNING bal');
$dtx->poll($dtx->coord, $waits . $s->pid, 1, 'a write waits');
$dtx->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
$s->finish;
like($s->stderr, qr/ERROR:  57014/, '... and can be canceled');
is($s->run('SELECT bal FROM acct1'), 98, '... and another server be used');
is($s->stderr, '', '... without a word');
$proxy->clear;
is($s->run('UPDATE acct2 SET bal = bal + 1 RETURNING bal'), 103, '... and it sees what was committed');
$dtx->clean('write');

# Many sessions, none of which is held up by anything but the resolver.
my $old = 0;
for my $i (1 .. 15)
{
	my $t = $dtx->session;
	my $before = $t->run('SELECT bal FROM acct2');
	$proxy->rule(cut => 'COMMIT PREPARED');
	$t->start($dtx->transfer(1, 1, 2));
	$proxy->wait_for('cut');
	$proxy->clear;
	$t->finish;
	$old++ if $t->run('SELECT bal FROM acct2') ne $before + 1;
	$t->close;
}
is($old, 0, '15 sessions see what they have committed');
$dtx->clean('15 sessions');

# It does not help: an error, and no further wait.
$s->run(q{SET pg_dtx.commit_timeout = '2s'});
unconfirmed();
my $late = qr/ERROR:  40001: server "s2" has not confirmed an earlier transaction of this session yet\nDETAIL:.*\nHINT:  Try again later\./;
my $start = time;
$s->run('SELECT bal FROM acct2');
like($s->stderr, $late, 'the resolver does not come: an error');
cmp_ok(time - $start, '>=', 1.9, '... after pg_dtx.commit_timeout');
my $fastest = 1e9;
for (1 .. 5)
{
	$start = time;
	$s->run('SELECT bal FROM acct2');
	like($s->stderr, $late, '... again');
	$fastest = time - $start if time - $start < $fastest;
}
cmp_ok($fastest, '<', 1, '... and at once');
is($s->run('SELECT bal FROM acct1'), 82, '... but not on another server');
is($s->stderr, '', '... without a word');

# An operator commits it: the server itself is asked, and knows.
$dtx->p(2)->safe_psql('postgres', "COMMIT PREPARED '" . $dtx->gid(2) . "'");
is($s->run('SELECT bal FROM acct2'), 119, 'the server says that it is finished');
is($s->stderr, '', '... without a word');
$proxy->clear;
$dtx->clean('not confirmed in time');

# There is no room for what is in doubt: nobody but the server knows of it.
$proxy->rule(hold => 'COMMIT PREPARED');
$dtx->p($_)->safe_psql('postgres', 'INSERT INTO acct SELECT i, 100 FROM generate_series(2, 20) i') for 1, 2;
for my $i (2 .. 20)
{
	$dtx->sql("SET pg_dtx.commit_timeout = 0; BEGIN; UPDATE acct1 SET bal = 90 WHERE id = $i; UPDATE acct2 SET bal = 110 WHERE id = $i; COMMIT");
}
cmp_ok($dtx->sql('SELECT not_remembered FROM dtx.stat'), '>', 0, 'no room for what is in doubt');
$s->run(q{SET pg_dtx.commit_timeout = '1s'; BEGIN; UPDATE acct1 SET bal = 0 WHERE id = 1; UPDATE acct2 SET bal = 1000 WHERE id = 1; COMMIT});
like($s->stderr, qr/WARNING/, '... and one more');
$s->run('SELECT bal FROM acct2 WHERE id = 1');
like($s->stderr, $late, '... is waited for');
$proxy->clear;
$dtx->clean('no room');
is($s->run('SELECT bal FROM acct2 WHERE id = 1'), 1000, '... until it is finished');
is($s->stderr, '', '... without a word');

# COMMIT does not wait: likewise.
$s->run(q{SET pg_dtx.commit_wait = off; UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100});
$proxy->rule(cut => 'COMMIT PREPARED', hold => 'current_database');
$s->run('BEGIN; UPDATE acct1 SET bal = 99 WHERE id = 1; UPDATE acct2 SET bal = 101 WHERE id = 1; COMMIT');
is($s->stderr, '', 'commit_wait = off');
$proxy->wait_for('cut');
$s->run('SELECT bal FROM acct2 WHERE id = 1');
like($s->stderr, qr/ERROR:/, '... the server does not confirm');
$s->run('SELECT bal FROM acct2 WHERE id = 1');
like($s->stderr, $late, '... an error');
$proxy->clear;
$dtx->clean('commit_wait = off');
is($s->run('SELECT bal FROM acct2 WHERE id = 1'), 101, '... until it has');
is($s->stderr, '', '... without a word');
$s->close;
done_testing();

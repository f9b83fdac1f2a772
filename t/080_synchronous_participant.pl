# A participant with a synchronous standby: what it answers without having waited for
# that standby is not relied upon, and nothing of ours cuts the wait short.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	participant_conf => "wal_level = replica\nmax_wal_senders = 5\n",
	conf => "pg_dtx.commit_timeout = '500ms'\npg_dtx.prepare_timeout = '10s'\n");
my $p1 = $dtx->p(1);

$p1->safe_psql('postgres', q{
CREATE ROLE app LOGIN;
GRANT ALL ON acct TO app;
ALTER ROLE app SET statement_timeout = '2s';
ALTER ROLE app SET client_min_messages = error;
CREATE FUNCTION settings() RETURNS text LANGUAGE sql AS
	$$ SELECT current_setting('statement_timeout') || ' ' || current_setting('client_min_messages') $$;
});
$dtx->sql(q{
ALTER USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (user 'app', password_required 'false');
CREATE FOREIGN TABLE settings (v text) SERVER s1 OPTIONS (table_name 'v_settings');
});
$p1->safe_psql('postgres', 'CREATE VIEW v_settings AS SELECT settings() AS v; GRANT ALL ON v_settings TO app');

# From now on: nothing that s1 commits is confirmed by its standby, or all is.
sub standbys
{
	my $names = shift;
	$p1->safe_psql('postgres',
		"SET synchronous_commit = local; ALTER SYSTEM SET synchronous_standby_names = '$names'");
	$p1->reload;
	$p1->poll_query_until('postgres', "SELECT current_setting('synchronous_standby_names')", $names)
	  or die 'no reload';
	return if $names ne 'nobody';

	# The server's processes learn of it some time after the reload.
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (time < $deadline)
	{
		my ($ret, $out, $err) = $p1->psql('postgres',
			q{SET statement_timeout = '300ms';
DO $$ BEGIN PERFORM pg_logical_emit_message(true, 'x', ''); COMMIT; END $$});
		last if $err =~ /canceling/;
	}
	return;
}

sub waiting
{
	my $like = shift;
	return $p1->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%$like%'");
}

sub poll_waiting
{
	my ($like, $n) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$dtx->poll($p1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%$like%'", $n,
		"$n waiting in $like");
	return;
}

# ----------------------------------------------------------------
# PREPARE: what is not replicated is refused.
# ----------------------------------------------------------------
for my $how ('prepare_timeout', 'cancel')
{
	standbys('nobody');
	my $s = $dtx->session;
	$s->run("SET pg_dtx.prepare_timeout = '500ms'") if $how ne 'cancel';
	$s->start($dtx->transfer(10, 1, 0, 2));
	if ($how eq 'cancel')
	{
		poll_waiting('; PREPARE TRANSACTION', 1);
		$p1->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
	}
	$s->finish;
	like($s->stderr,
		$how eq 'cancel' ?
		qr/ERROR:  40000: could not prepare transaction on server "s1": it is prepared, but the server has not waited/ :
		qr/ERROR:  57014: canceling COMMIT due to timeout waiting for servers: "s1"/,
		"PREPARE, $how: refused");

	# The rollback does not wait for the standby either.
	$dtx->clean("PREPARE, $how");
	$dtx->balances_are('100 100 100', '... rolled back everywhere');
	poll_waiting('', 0);
	is($s->run('SELECT v FROM settings'), '2s error', '... the session has the settings of its role');
	$s->close;
	standbys('');
}

# ----------------------------------------------------------------
# COMMIT PREPARED: a time-out of the role does not strike, a cancel is noticed.
# ----------------------------------------------------------------
$p1->safe_psql('postgres', q{ALTER ROLE app SET statement_timeout = '300ms'});
my $s = $dtx->session;

# Prepared on s1, which has lost its standby when COMMIT PREPARED comes.
sub commit_alone
{
	my $name = shift;
	$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
	$s->start($dtx->transfer(10, 1, 0, 2));
	$dtx->proxy(2)->wait_for('hold');
	$dtx->prepared_is(1, 1, "$name: prepared on s1");
	standbys('nobody');
	$dtx->proxy(2)->clear;
	return;
}

my $offset = -s $p1->logfile;
commit_alone('time-out of the role');
$s->finish;
like($s->stderr, qr/WARNING:.*not every server has confirmed it yet: "s1"/, '... the client is warned');
usleep(400_000);    # the time-out would have struck
is(waiting('COMMIT PREPARED'), '1', '... the server goes on waiting');
unlike(slurp_file($p1->logfile, $offset), qr/canceling.*synchronous replication.*\n.*\n.*STATEMENT:  COMMIT PREPARED/,
	'... nobody has cut that short');
$dtx->poll($dtx->coord, q{SELECT last_error FROM dtx.in_doubt WHERE server = 's1'},
	'the server waits for a synchronous standby that does not confirm', '... dtx.in_doubt names the cause');
is(waiting('COMMIT PREPARED'), '1', '... and the resolver has left no session behind');
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision WHERE NOT (xid IS NULL)'), '1', '... the decision is kept');
standbys('');
$dtx->clean('when the standby confirms');
$dtx->balances_are('100 90 110', '... committed everywhere');
$s->close;

$s = $dtx->session;
commit_alone('cancel');
poll_waiting('COMMIT PREPARED', 1);
$p1->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'COMMIT PREPARED%'");
$s->finish;
like($s->stderr, qr/WARNING:.*not every server has confirmed it yet: "s1"/, '... the client is warned');
$dtx->prepared_is(1, 0, '... nothing is prepared any more');
$dtx->poll($dtx->coord, q{SELECT last_error FROM dtx.in_doubt WHERE server = 's1'},
	'the server waits for a synchronous standby that does not confirm', '... it is not confirmed');
$dtx->wait_passes(2);
is($dtx->sql('SELECT count(*) FROM dtx.in_doubt'), '1', '... for as long as the standby is away');
is(waiting('COMMIT PREPARED'), '0', '... no session waits for ever meanwhile');
standbys('');
$dtx->clean('when the standby confirms');
$dtx->balances_are('100 80 120', '... committed everywhere');
is($dtx->sql('SELECT count(*) FROM dtx.damage'), '0', '... without damage');
$s->close;

# Not only its own session: the resolver's COMMIT PREPARED is canceled.
$s = $dtx->session;
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s->start($dtx->transfer(10, 1, 0, 2));
$dtx->proxy(2)->wait_for('hold');
$dtx->prepared_is(1, 1);
$p1->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'");
standbys('nobody');
$dtx->proxy(2)->clear;
$s->finish;
poll_waiting('COMMIT PREPARED', 1);
$p1->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'COMMIT PREPARED%'");
$dtx->prepared_is(1, 0, 'the resolver was canceled: nothing is prepared any more');
$dtx->poll($dtx->coord, q{SELECT last_error FROM dtx.in_doubt WHERE server = 's1'},
	'the server waits for a synchronous standby that does not confirm', '... it is not confirmed');
standbys('');
$dtx->clean('when the standby confirms');
$dtx->balances_are('100 70 130', '... committed everywhere');
$s->close;

# ----------------------------------------------------------------
# The server fails over to a standby that has the PREPARE only.
# ----------------------------------------------------------------
$p1->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby1');
$standby->init_from_backup($p1, 'backup', has_streaming => 1);
$standby->start;
standbys('standby1');
$dtx->poll($p1, q{SELECT sync_state FROM pg_stat_replication}, 'sync', 'a synchronous standby');

$s = $dtx->session;
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s->start($dtx->transfer(10, 1, 0, 2));
$dtx->proxy(2)->wait_for('hold');
$dtx->prepared_is(1, 1);
$dtx->poll($p1, 'SELECT replay_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication', 't', 'the standby has the PREPARE');
$standby->stop('immediate');
$dtx->proxy(2)->clear;
poll_waiting('COMMIT PREPARED', 1);
$p1->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
$s->finish;
$s->close;
$dtx->poll($dtx->coord, q{SELECT count(*) FROM dtx.in_doubt WHERE last_error LIKE 'the server waits for a synchronous standby%'},
	'1', 'committed there, and not confirmed');
$dtx->crash($p1);
$standby->start;
$standby->promote;
$standby->safe_psql('postgres', "SET synchronous_commit = local; ALTER SYSTEM SET synchronous_standby_names = ''");
$standby->reload;
is($standby->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '1', 'after the failover it is prepared');
$dtx->sql(sprintf q{ALTER SERVER s1 OPTIONS (SET host '%s', SET port '%s')}, $standby->host, $standby->port);
$standby->poll_query_until('postgres', 'SELECT count(*) FROM pg_prepared_xacts', '0') or die;
is($standby->safe_psql('postgres', 'SELECT bal FROM acct'), '60', '... and is committed');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx.in_doubt', '0', '... and confirmed');
is($dtx->sql('SELECT count(*) FROM dtx.damage'), '0', '... without damage');

done_testing();

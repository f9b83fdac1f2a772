# A server is the commit point: its commit is the decision, and all others follow it,
# whatever crashes, and whatever coordinator asks.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# s2 decides, and does so if its WAL is flushed in the middle of the transaction.
my $dtx = DtxTest->new(
	servers => 2,
	proxy => [ 1, 2 ],
	participant_conf => "wal_level = replica\nmax_wal_senders = 5\nlog_statement = all\nlisten_addresses = '127.0.0.1'\n",
	conf => "pg_dtx.commit_point = server\npg_dtx.commit_timeout = '3s'\n");
my ($other, $point) = ($dtx->p(1), $dtx->p(2));
$dtx->only_decides(2);
my $transfer = $dtx->decided(10, 1, 2);
my $commit = 'COMMIT TRANSACTION';

sub stat_of
{
	return $dtx->sql("SELECT $_[0] FROM dtx.stat");
}

# ----------------------------------------------------------------
# Nothing is written here.
# ----------------------------------------------------------------
$dtx->sql($transfer);
my $before = $dtx->sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');
my $prepared = stat_of('prepared');
$dtx->sql($dtx->decided(1, 1, 2) x 10);
is(stat_of('prepared'), $prepared + 10, 'one of two is prepared');
cmp_ok($dtx->sql('SELECT pg_snapshot_xmax(pg_current_snapshot())'), '<', $before + 5,
	'no transaction ids of the coordinator are used');
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '0', 'no decision is recorded');
$dtx->balances_are('100 80 120', 'committed');
$dtx->clean('committed');

# A local write: the coordinator decides.
$dtx->sql($dtx->transfer(10, 2, 0, 1));
is(stat_of('prepared'), $prepared + 12, 'with a local write all are prepared');
$dtx->balances_are('100 90 110', 'committed, too');
$dtx->sql($dtx->transfer(20, 1, 2));

# ----------------------------------------------------------------
# Refused by the server that decides, at the last moment.
# ----------------------------------------------------------------
$point->safe_psql('postgres', q{
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RAISE EXCEPTION 'not that much' USING ERRCODE = 'P0042', HINT = 'less'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal > 500) EXECUTE FUNCTION refuse();
CREATE FUNCTION async() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM set_config('synchronous_commit', 'off', false); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER async AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION async();
});
my $s = $dtx->session;
$s->run("BEGIN; UPDATE acct1 SET bal = bal - 1; UPDATE acct2 SET bal = 1000; SELECT FROM flush2; COMMIT");
like($s->stderr, qr/ERROR:  P0042: could not commit transaction on server "s2": not that much\nHINT:  less/,
	'refused, with its own words');
$dtx->clean('refused');
$dtx->balances_are('100 70 130', '... and rolled back on the other');
is($s->run('SELECT sum(bal) FROM (TABLE acct1 UNION ALL TABLE acct2) AS a'), '200',
	'... and the session goes on');
$s->close;

# ----------------------------------------------------------------
# What it decides is on disk, whatever synchronous_commit a trigger of its has set.
# ----------------------------------------------------------------
$point->safe_psql('postgres', "ALTER SYSTEM SET wal_writer_delay = '10s'");
$point->reload;
$dtx->sql($transfer);
$dtx->crash($point);
$point->start;
$dtx->clean('crash of the server that has decided');
$dtx->balances_are('100 60 140', 'its commit has survived');
$point->safe_psql('postgres', 'DROP TRIGGER async ON acct');

# $s makes a transfer, and a message of it to a server is held.
sub start_held
{
	my ($i, $message) = @_;
	$dtx->proxy($i)->rule(hold => $message);
	$s = $dtx->session;
	$s->start($transfer);
	$dtx->proxy($i)->wait_for('hold');
	return;
}

# ----------------------------------------------------------------
# The reply does not come.
# ----------------------------------------------------------------
sub run_cut
{
	my ($name, $rule, $expected, $balances, %more) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s = $dtx->session;
	$s->run($_) for @{ $more{set} // [] };
	$s->run('SELECT count(*) FROM acct2');
	$dtx->proxy(2)->rule(@$rule);
	$s->start($transfer);
	$more{meanwhile}->() if $more{meanwhile};
	$s->finish;
	like($s->stderr, $expected, "$name: what the client is told");
	$dtx->proxy(2)->clear unless $more{keep};
	unless ($more{keep})
	{
		$dtx->clean($name);
		$dtx->balances_are($balances, "$name: all or nothing");
		is($s->run('SELECT sum(bal) FROM (TABLE acct1 UNION ALL TABLE acct2) AS a'), '200',
			"$name: the session goes on");
	}
	$s->close;
	return;
}
run_cut('COMMIT is lost', [ cut_once => $commit ],
	qr/ERROR:  08006: connection to server "s2" was lost during COMMIT\nDETAIL:  The transaction was rolled back there/,
	'100 60 140');
run_cut('the reply is lost', [ cut_reply_once => $commit ],
	qr/WARNING:  01000: connection to server "s2" was lost during COMMIT, and the transaction has committed there/,
	'100 50 150');
run_cut('COMMIT is late', [ hold => $commit ],
	qr/ERROR:  08006: connection to server "s2" was lost during COMMIT/,
	'100 50 150', set => [ "SET pg_dtx.prepare_timeout = '500ms'" ]);
$s = undef;
run_cut('canceled while it is late', [ hold => $commit ],
	qr/ERROR:  08006: connection to server "s2" was lost during COMMIT/,
	'100 50 150',
	meanwhile => sub {
		$dtx->proxy(2)->wait_for('hold');
		$dtx->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
	});

# An error about connections or a shutdown, such as a pooler's, is no refusal: it is asked.
$point->safe_psql('postgres', q{
CREATE FUNCTION pooler() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RAISE EXCEPTION 'server is gone' USING ERRCODE = TG_ARGV[0]; END $$;
CREATE CONSTRAINT TRIGGER pooler_08 AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal = 408) EXECUTE FUNCTION pooler('08006');
CREATE CONSTRAINT TRIGGER pooler_57 AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal = 457) EXECUTE FUNCTION pooler('57P01');
});
$s = $dtx->session;
for my $bal (408, 457)
{
	$s->run("BEGIN; UPDATE acct1 SET bal = bal - 1; UPDATE acct2 SET bal = $bal; SELECT FROM flush2; COMMIT");
	like($s->stderr, qr/ERROR:  08006: connection to server "s2" was lost during COMMIT\nDETAIL:  The transaction was rolled back there/,
		"an error about connections ($bal): it is asked");
}
$s->close;
$dtx->clean('an error about connections');
$dtx->balances_are('100 50 150', 'an error about connections: rolled back');
$point->safe_psql('postgres', 'DROP FUNCTION pooler CASCADE');

# It has said that it has committed: nothing that comes after that undoes it, and it is not
# asked.
$dtx->proxy(2)->rule(split => 'COMMIT');
$s = $dtx->session;
$s->start($transfer);
$dtx->proxy(2)->wait_for('split');
$dtx->crash($point);
$s->finish;
is($s->stderr, '', 'lost after it has said that it has committed: committed');
$s->close;
$dtx->proxy(2)->clear;
$dtx->prepared_is(1, 0, '... also on the other');
$point->start;
$dtx->clean('lost after it has said that it has committed');
$dtx->sql($dtx->decided(10, 2, 1));

# The time for statements is over while it is asked, in a procedure.
$dtx->proxy(2)->rule(cut_once => $commit, hold => 'txid_status');
$s = $dtx->session;
$s->run("SET statement_timeout = '1s'; SET pg_dtx.commit_timeout = '1h'");
$s->run('DO $$ BEGIN ' . $transfer =~ s/^BEGIN;//r =~ s/SELECT FROM flush2/PERFORM FROM flush2/r . 'END $$');
like($s->stderr, qr/ERROR:  08007: could not find out whether .*\nDETAIL:  .*canceling statement due to statement timeout/,
	'statement_timeout while it is asked: not known');
$s->close;
$dtx->proxy(2)->clear;
$dtx->clean('statement_timeout while it is asked');
$dtx->balances_are('100 50 150', '... rolled back');

# ----------------------------------------------------------------
# It cannot be found out: the others follow later.
# ----------------------------------------------------------------
for my $committed (0, 1)
{
	my $name = $committed ? 'committed, not known' : 'aborted, not known';
	$dtx->proxy(2)->rule(hold => 'txid_status');
	$s = $dtx->session;
	$s->run("SET pg_dtx.commit_timeout = '500ms'");
	$dtx->proxy(2)->rule(($committed ? 'cut_reply_once' : 'cut_once') => $commit,
		hold => 'txid_status');
	$s->run($transfer);
	like($s->stderr,
		qr/ERROR:  08007: could not find out whether the transaction has committed on server "s2"/,
		"$name: the client is told");
	$dtx->prepared_is(1, 1, "$name: the other stays prepared");
	$dtx->poll($dtx->coord, "SELECT server, decision FROM dtx.in_doubt", 's1|asked',
		"$name: in doubt, and the server is asked");
	my $gid = $dtx->gid(1);
	my ($ret, $out, $err) = $dtx->coord->psql('postgres',
		"SELECT dtx.force_in_doubt('$gid', 'rollback', 'impatient')");
	like($err, qr/server "s2" decides about prepared transaction .* and has not said how/,
		"$name: nothing is presumed");
	$dtx->proxy(2)->clear;
	$dtx->clean($name);
	$dtx->balances_are($committed ? '100 40 160' : '100 50 150', "$name: it follows");
	is($dtx->sql(q{SELECT server, decided, found, gid, detail FROM dtx.damage}), q{}, "$name: no damage");
	$s->close;
}

# ----------------------------------------------------------------
# The coordinator crashes.
# ----------------------------------------------------------------
# What a proxy holds is delivered even if its client is gone: not if the server has
# closed that connection.
sub lose_held
{
	my $i = shift;
	my $sql = q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'};
	$dtx->poll($dtx->p($i), $sql, '0', "what was on its way to s$i is lost");
	$dtx->proxy($i)->clear;
	return;
}

sub crash_coordinator
{
	my ($name, $i, $rule, $balances, %more) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	start_held($i, $rule);
	$dtx->prepared_is(1, 1, "$name: prepared");
	$dtx->crash($dtx->coord);
	eval { $s->close };
	lose_held($i) unless $more{keep};
	$more{before_start}->() if $more{before_start};
	$dtx->coord->start;
	$more{after_start}->() if $more{after_start};
	$dtx->clean($name);
	$dtx->proxy($i)->clear;
	$dtx->balances_are($balances, "$name: all or nothing");
	is($dtx->sql('SELECT server, decided, found FROM dtx.damage'), $more{damage} // '', "$name: no other damage");
	return;
}
crash_coordinator('crash after the decision', 1, q{COMMIT PREPARED 'dtx}, '100 30 170');
crash_coordinator('crash before the decision', 2, $commit, '100 30 170', keep => 1);

# ... and the server that decides is away for longer.
crash_coordinator('crash after the decision, and the server that decides is stopped', 1,
	q{COMMIT PREPARED 'dtx}, '100 20 180',
	before_start => sub { $point->stop },
	after_start => sub {
		$dtx->poll($dtx->coord,
			q{SELECT server, decision, decided_by, last_error LIKE 'server "s2", which decides about it, can''t be asked: %' FROM dtx.in_doubt},
			's1|asked|s2|t', 'the other waits for it');
		$point->start;
	});

# ... and the session was told before: the resolver need not ask.
start_held(1, q{COMMIT PREPARED 'dtx});
$point->stop('immediate');
$dtx->p(1)->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'});
$s->finish;
lose_held(1);
$dtx->prepared_is(1, 0, 'the server that decides is stopped, and the session was told: committed');
$s->close;
$point->start;
$dtx->sql($dtx->decided(10, 2, 1));

# ... and its foreign server leads elsewhere now: another one that leads there is asked.
my ($host, $port) = ($point->host, $point->port);
$dtx->sql(qq{
CREATE SERVER t2 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER t2;
CREATE FOREIGN TABLE acct22 (id int, bal int) SERVER t2 OPTIONS (table_name 'acct');
SET pg_dtx.commit_point = coordinator;
BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct22 SET bal = bal; COMMIT});
sub lead_to
{
	my ($host, $port) = @_;
	return $dtx->sql("ALTER SERVER s2 OPTIONS (SET host '$host', SET port '$port')");
}
crash_coordinator('the server that decides leads elsewhere now', 1, q{COMMIT PREPARED 'dtx}, '100 10 190',
	before_start => sub { $point->stop },
	after_start => sub {
		lead_to($dtx->coord->host, $dtx->coord->port);
		$dtx->poll($dtx->coord,
			q{SELECT server, decision, last_error FROM dtx.in_doubt WHERE server = 's1'},
			's1|asked|server "s2", which decides about it, leads to another cluster now', 'it is not asked there');
		$point->start;
	});
lead_to($dtx->proxy(2)->host, $port);
$dtx->sql('DROP SERVER t2 CASCADE');
$dtx->sql($dtx->decided(10, 2, 1));

# ... and the other is finished by hand meanwhile: whether rightly is told later.
foreach my $hand ('COMMIT', 'ROLLBACK')
{
	crash_coordinator("$hand by hand, and the server that decides is stopped", 1,
		q{COMMIT PREPARED 'dtx}, $hand eq 'COMMIT' ? '100 10 190' : '100 20 190',
		before_start => sub { $point->stop },
		after_start => sub {
			$dtx->poll($dtx->coord, q{SELECT server, decision, last_error LIKE 'server "s2", which%' FROM dtx.in_doubt},
				's1|asked|t', "$hand by hand: the other waits for it");
			$dtx->p(1)->safe_psql('postgres', "$hand PREPARED '" . $dtx->gid(1) . q{'});
			$dtx->poll($dtx->coord, q{SELECT server, decision, last_error LIKE 'it is not prepared any more, %' FROM dtx.in_doubt},
				's1|asked|t', "$hand by hand: it is kept until that is known");
			$point->start;
		},
		damage => $hand eq 'COMMIT' ? '' : 's1|commit|rollback');
	$dtx->sql($dtx->decided(10, 2, 1));
}
$dtx->sql(q{SELECT dtx.acknowledge_damage(gid, 'put right') FROM dtx.damage});
$dtx->p(1)->safe_psql('postgres', 'UPDATE acct SET bal = bal - 10');

# ... or crashes: what it says of that id is the truth, since it was on its disk.
start_held(1, q{COMMIT PREPARED 'dtx});
$dtx->crash($dtx->coord);
eval { $s->close };
lose_held(1);
$dtx->crash($point);
$point->start;
$dtx->coord->start;
$dtx->clean('both crash after the decision');
$dtx->balances_are('100 10 190', 'both crash after the decision: committed');

# Strangers do not get it.
$dtx->sql($dtx->decided(60, 2, 1));
$point->safe_psql('postgres', 'CREATE TABLE strange (i int)');
start_held(2, $commit);
like($dtx->gid(1), qr/^dtx:\w+:\d+:\w+:s/, 'before the decision: the server decides');
$dtx->crash($dtx->coord);
eval { $s->close };
$dtx->crash($point);
$dtx->proxy(2)->clear;
$point->start;
$point->safe_psql('postgres', 'INSERT INTO strange VALUES (1);' x 30);
$dtx->coord->start;
$dtx->clean('both crash before the decision');
$dtx->balances_are('100 70 130', 'both crash before the decision: rolled back');

# Not flushed: the coordinator decides, and a stranger has the id.
$dtx->sql(q{ALTER SYSTEM SET pg_dtx.commit_point = auto});
$dtx->coord->reload;
$dtx->poll($dtx->coord, 'SHOW pg_dtx.commit_point', 'auto', 'auto');
$point->safe_psql('postgres', 'CHECKPOINT');
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s = $dtx->session;
$s->start($dtx->transfer(10, 1, 2));
$dtx->proxy(2)->wait_for('hold');
$dtx->prepared_is(1, 1, 'not flushed: prepared');
my $xid = $point->safe_psql('postgres', q{SELECT backend_xid FROM pg_stat_activity WHERE application_name = 'postgres_fdw' AND backend_xid IS NOT NULL});
unlike($dtx->gid(1), qr/^dtx:\w+:\d+:\w+:s/, 'not flushed: the coordinator decides');
$dtx->crash($dtx->coord);
eval { $s->close };
$dtx->crash($point);
$dtx->proxy(2)->clear;
$point->start;
$point->safe_psql('postgres', 'INSERT INTO strange VALUES (2);' x 30);
is($point->safe_psql('postgres', "SELECT count(*) FROM strange WHERE i = 2 AND xmin::text = '$xid'"), '1',
	'not flushed: a stranger gets the id');
$dtx->coord->start;
$dtx->clean('a stranger has the id');
$dtx->balances_are('100 70 130', 'a stranger has the id: rolled back');

# What one session is told counts for another one; and not, when the server has crashed.
my $slow;
sub decided_by_server
{
	my ($name, $expected, @meanwhile) = @_;

	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $decided = stat_of('decided_by_server');
	$s = $dtx->session;
	$s->run($slow) if $slow;
	$s->run('BEGIN; UPDATE acct1 SET bal = bal - 10 WHERE id = 1; UPDATE acct2 SET bal = bal + 10 WHERE id = 1');
	$dtx->sql($_) for @meanwhile;
	$s->run('COMMIT');
	is($s->stderr, '', "$name: committed");
	$s->close;
	is(stat_of('decided_by_server') - $decided, $expected, $name);
	return;
}
$_->safe_psql('postgres', 'INSERT INTO acct VALUES (2, 100)') for $other, $point;
my $beside = $dtx->transfer(10, 1, 2) =~ s/id = 1/id = 2/gr;
decided_by_server('nobody has told', 0);
decided_by_server('another session has told', 1, $beside);
$dtx->crash($point);
$point->start;
decided_by_server('nobody has told since the crash', 0);
decided_by_server('another session has told again', 1, $beside);

# By TCP: the network is near, however long commands take.  (The kernel takes the time to a
# reply for a round trip, because the acknowledgment comes with it.)
$dtx->sql("ALTER SERVER s2 OPTIONS (SET host '127.0.0.1')");
$slow = "SELECT FROM dtx.query('s2', 'SELECT 1 FROM pg_sleep(0.02)') AS (i int);" x 30;
decided_by_server('slow commands are no long round trip', 1, $beside);
$dtx->sql("ALTER SERVER s2 OPTIONS (SET host '@{[ $dtx->proxy(2)->host ]}')");
$slow = undef;
$_->safe_psql('postgres', 'DELETE FROM acct WHERE id = 2') for $other, $point;
$dtx->clean('auto');
$dtx->sql(q{ALTER SYSTEM RESET pg_dtx.commit_point});
$dtx->coord->reload;
$dtx->poll($dtx->coord, 'SHOW pg_dtx.commit_point', 'server', 'server');
$dtx->sql($dtx->transfer(50, 2, 1));

# ... in a session that lives: it was not committed.
start_held(2, $commit);
$dtx->crash($point);
$dtx->proxy(2)->clear;
$point->start;
$s->finish;
like($s->stderr, qr/ERROR:  08006: connection to server "s2" was lost during COMMIT/, 'crash, without a stranger');
$dtx->clean('crash, without a stranger');
$dtx->balances_are('100 70 130', '... rolled back');
$s->close;

# ... or it was: it crashes when it has, and before the session has heard of it.
$dtx->proxy(2)->rule(cut_reply_once => $commit, hold => 'txid_status');
$s = $dtx->session;
$s->run("SET pg_dtx.commit_timeout = '60s'");
$s->start($transfer);
$dtx->proxy(2)->wait_for('hold');
$dtx->crash($point);
$point->start;
$dtx->proxy(2)->clear;
$s->finish;
like($s->stderr, qr/WARNING:  01000: connection to server "s2" was lost during COMMIT, and the transaction has committed there/,
	'crash after the decision, in a session that lives');
$dtx->clean('crash after the decision, in a session that lives');
$dtx->balances_are('100 60 140', '... committed');
$s->close;
$dtx->sql($dtx->decided(40, 1, 2));

# ----------------------------------------------------------------
# Its synchronous standby has not got the decision.
# ----------------------------------------------------------------
sub standbys
{
	my $names = shift;
	$point->safe_psql('postgres',
		"SET synchronous_commit = local; ALTER SYSTEM SET synchronous_standby_names = '$names'");
	$point->reload;
	return if $names eq '';
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (time < $deadline)
	{
		my ($ret, $out, $err) = $point->psql('postgres',
			q{SET statement_timeout = '300ms';
DO $$ BEGIN PERFORM pg_logical_emit_message(true, 'x', ''); COMMIT; END $$});
		last if $err =~ /canceling/;
	}
	return;
}
standbys('nobody');
$s = $dtx->session;
$s->start($transfer);
$dtx->poll($point, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%$commit'",
	1, 'its COMMIT waits for its standby');
$point->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
$s->finish;
like($s->stderr, qr/WARNING:  01000: transaction has committed, but not every server has confirmed it yet: "s1"/,
	'cut short: the client is warned');
$dtx->wait_passes;
$dtx->prepared_is(1, 1, '... and the other stays prepared');
$dtx->poll($dtx->coord, q{SELECT decision, last_error LIKE '%standby%' FROM dtx.in_doubt}, 'commit|t',
	'... which can be seen');
cmp_ok($dtx->sql('SELECT attempts FROM dtx.in_doubt'), '<', 20, '... and nobody is in a hurry');
standbys('');
$dtx->clean('its standby is not waited for any more');
$dtx->balances_are('100 10 190', '... and it follows');
$s->close;

# ----------------------------------------------------------------
# It fails over.
# ----------------------------------------------------------------
$dtx->sql($dtx->decided(60, 2, 1));

# The transfer is prepared on s1, and the coordinator is lost: "decided" when s2 has
# committed, else before that.
sub lose_coordinator
{
	my $decided = shift;
	start_held($decided ? (1, q{COMMIT PREPARED 'dtx}) : (2, $commit));
	$dtx->crash($dtx->coord);
	eval { $s->close };
	if ($decided)
	{
		lose_held(1);
		return;
	}

	# (it is not to get what is held)
	$dtx->crash($point);
	$dtx->proxy(2)->clear;
	$point->start;
	return;
}

sub history
{
	return $point->data_dir . sprintf '/pg_wal/%08X.history', $_[0];
}

sub fail_over
{
	$point->stop;
	$point->append_conf('standby.signal', '');
	$point->start;
	$point->promote;
	$point->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
	return;
}

# What it has received nobody knows who may not see its history.
lose_coordinator(1);
fail_over();
rename history(2), history(2) . '.away' or die "history of timeline 2: $!";
$dtx->coord->start;
$dtx->poll($dtx->coord,
	q{SELECT server, decision, last_error LIKE '%has failed over since, or was restored (timeline 1, now 2)%: it has no file for that' FROM dtx.in_doubt},
	's1|asked|t', 'another timeline without a history: left alone');
my $gid = $dtx->gid(1);
$dtx->wait_passes(2);
$dtx->prepared_is(1, 1, '... and not touched');
$dtx->sql("SELECT dtx.force_in_doubt('$gid', 'commit', 'I have looked', override => true)");
$dtx->clean('a human has looked');
$dtx->balances_are('100 60 140', '... and it follows');
rename history(2) . '.away', history(2) or die "history of timeline 2: $!";

# The history says that it has got everything up to the id: its word counts.
lose_coordinator(1);
fail_over();
$dtx->coord->start;
$dtx->clean('it has failed over when it had committed');
$dtx->balances_are('100 50 150', '... as its history proves');
lose_coordinator(0);
fail_over();
$dtx->coord->start;
$dtx->clean('it has failed over before it committed');
$dtx->balances_are('100 50 150', '... as its history proves, too');

# It has not: it goes on from a moment before that, and strangers have got the id.
$point->stop;
system_or_bail('cp', '-a', $point->data_dir, $point->data_dir . '.older');
$point->start;
lose_coordinator(1);
is($point->safe_psql('postgres', 'SELECT bal FROM acct'), '160', 'the server has committed');
$point->stop;
rename $point->data_dir, $point->data_dir . '.lost' or die "data of s2: $!";
rename $point->data_dir . '.older', $point->data_dir or die "data of s2: $!";
$point->start;
fail_over();
$point->safe_psql('postgres', 'INSERT INTO strange VALUES (1);' x 30);
$dtx->coord->start;
$dtx->clean('a failover has lost its commit');
$dtx->balances_are('100 50 150', '... so the other one is rolled back');

# The new timeline is as good as the old one.
$dtx->sql($transfer);
$dtx->clean('after the failover');
$dtx->balances_are('100 40 160', 'it decides again');

# ----------------------------------------------------------------
# A coordinator that was restored to an earlier moment, and one that is lost for ever.
# ----------------------------------------------------------------
my $id = $dtx->sql(q{SELECT lpad(to_hex(id), 16, '0') FROM dtx_internal.coordinator});
$dtx->coord->stop;
$dtx->coord->backup_fs_cold('earlier');
$dtx->coord->start;

# Left behind: one that a server decides, and one that the coordinator does.
sub leave_behind
{
	my $name = shift;
	$dtx->proxy(1)->rule(hold => q{COMMIT PREPARED 'dtx});
	my @sessions = map { $dtx->session } 1 .. 2;
	$sessions[0]->start($dtx->decided(10, 1, 2));
	$dtx->prepared_is(1, 1, "$name: prepared");
	$dtx->proxy(1)->wait_for('hold');
	$sessions[1]->start("BEGIN; INSERT INTO acct0 VALUES ($_[0], 1); INSERT INTO acct1 VALUES ($_[0], 1); COMMIT");
	$dtx->prepared_is(1, 2, "$name: and another one");
	$dtx->crash($dtx->coord);
	eval { $_->close } for @sessions;
	lose_held(1);
	return;
}
leave_behind('restored', 3);
my $lost = $dtx->coord;
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($lost, 'earlier');
$restored->start;
$dtx->set_coord($restored);
$dtx->prepared_is(1, 1, 'a restored coordinator finishes what a server decides');
is($dtx->p(1)->safe_psql('postgres', q{SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'dtx:%:s%'}), '0',
	'... and not what only it can decide');
is($other->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '30', '... as that has decided');
is($dtx->sql(q{SELECT server, decided, found, gid, detail FROM dtx.damage}), q{}, '... without damage');
$restored->stop('immediate');

$lost->start;
$dtx->set_coord($lost);
$dtx->clean('the original is back');
leave_behind('lost', 4);
my $heir = PostgreSQL::Test::Cluster->new('heir');
$heir->init;
$heir->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_dtx'\nautovacuum = off\n");
$heir->start;
$heir->safe_psql('postgres', 'CREATE EXTENSION pg_dtx CASCADE; CREATE ROLE nobody_special LOGIN;');
for my $i (1, 2)
{
	my ($host, $port) = ($dtx->p($i)->host, $dtx->p($i)->port);
	$heir->safe_psql('postgres', qq{
CREATE SERVER b$i FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER b$i;
CREATE SERVER c$i FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER c$i;});
}
my $adopt = "SELECT server, decided_by, decision, done, problem FROM dtx.adopt_coordinator('$id') ORDER BY done";
my ($ret, $out, $err) = $heir->psql('postgres', "SET ROLE nobody_special; $adopt");
like($err, qr/permission denied for function adopt_coordinator/, 'not for everybody');
($ret, $out, $err) = $heir->psql('postgres', $adopt =~ s/$id/xyz/r);
like($err, qr/invalid identifier of a coordinator: "xyz"/, 'an identifier that is none');
is($heir->safe_psql('postgres', $adopt),
	"b1|||f|only the coordinator that is lost can decide about it\nb1|c2|commit|t|",
	'a stranger finishes what a server decides, and lists the rest');
is($other->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '20', '... as that has decided');
is($heir->safe_psql('postgres', $adopt), 'b1|||f|only the coordinator that is lost can decide about it',
	'... once');
$heir->stop;
$lost->start;
$dtx->clean('it was not lost after all');
is($dtx->sql(q{SELECT server, decided, found, gid, detail FROM dtx.damage}), q{}, '... and finds no damage');
$dtx->sql('DELETE FROM acct0 WHERE id > 1; DELETE FROM acct1 WHERE id > 1');
$dtx->sql($dtx->decided(20, 2, 1));

# ----------------------------------------------------------------
# A forged name.
# ----------------------------------------------------------------
start_held(1, q{COMMIT PREPARED 'dtx});
($gid = $dtx->gid(1)) =~ s/^(.*):(\d+):(\d+):([0-9a-f]{16})$/$1:$2:7:$4/;
$other->safe_psql('postgres', "BEGIN; UPDATE acct SET bal = 7 WHERE id = 2; PREPARE TRANSACTION '$gid'");
$dtx->proxy(1)->clear;
$s->finish;
$dtx->poll($dtx->coord, "SELECT last_error FROM dtx.in_doubt WHERE gid = '$gid'",
	'this coordinator has not given that name: it was forged', 'a forged name is seen');
$other->safe_psql('postgres', "ROLLBACK PREPARED '$gid'");
$dtx->clean('forged');
$dtx->balances_are('100 30 170', 'the real one has committed');
$s->close;

done_testing();

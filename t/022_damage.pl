# An operator finishes prepared transactions by hand, wrongly or rightly: what was
# done wrongly is found and stays visible, nothing else is reported.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	participant_conf => "log_statement = all\nlog_line_prefix = '%m [%p] %q%a '\n");
my $what = 'SELECT server, decided, found FROM dtx.damage ORDER BY since';
my ($s, $gid, $offset);

sub damage_is
{
	my ($expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$dtx->clean($name);
	is($dtx->sql($what), $expected, $name);
	$dtx->sql(q{SELECT dtx.acknowledge_damage(gid, 'repaired') FROM dtx.damage});
	return;
}

sub resolver
{
	my $to = shift;
	$dtx->sql("ALTER SYSTEM SET pg_dtx.resolver = $to");
	$dtx->coord->reload;
	$dtx->coord->poll_query_until('postgres',
		"SELECT current_setting('pg_dtx.resolver') = '$to'");
	return;
}

# The same balances everywhere again.
sub repair
{
	$dtx->p($_)->safe_psql('postgres', 'UPDATE acct SET bal = 100') for 1, 2;
	$dtx->sql('UPDATE acct0 SET bal = 100');
	return;
}

# A commit in the middle of which the coordinator loses power, both
# participants prepared.  It comes back with its resolver switched off.
sub make_doubt
{
	$s = $dtx->session;
	$dtx->arm;
	$s->run($dtx->hold);
	$s->start($dtx->transfer(10, 1, 0, 2));
	$dtx->wait_held($s);
	$dtx->prepared_is($_, 1) for 1, 2;
	$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
	$dtx->crash($dtx->coord);
	$s->finish;
	$dtx->coord->append_conf('postgresql.auto.conf',
		"synchronous_standby_names = ''");
	$dtx->coord->start;
	return;
}

# The normal way costs no message more than it must.
$offset = -s $dtx->p(1)->logfile;
$s = $dtx->session;
$s->run($dtx->transfer(10, 1, 0, 2));
my @statements =
  slurp_file($dtx->p(1)->logfile, $offset) =~ /postgres_fdw LOG:  statement: (.*)/g;
s/'dtx:[^']*'/GID/, s/ dtx:\S*/ GID/ for @statements;
is( join("\n", grep { /GID/ } @statements),
	"SET CONSTRAINTS ALL IMMEDIATE /* GID */; EXECUTE dtx_prepare; PREPARE TRANSACTION GID\nCOMMIT PREPARED GID",
	'two messages for two phases');
is(scalar(grep { /xid/ } @statements), 1, '... and no other question');
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision WHERE remote_xids[1] > 0 AND remote_xids[2] > 0'),
	'1', 'the decision knows the transactions on the servers');
$s->close;
repair();

# Committed; while the session waits for its standby, an operator rolls back.  What
# is the default of others in this database does not bind the resolver.
$s = $dtx->session;
$dtx->arm;
$dtx->sql('ALTER DATABASE postgres SET default_transaction_read_only = on');
$dtx->sql(q{SET default_transaction_read_only = off;
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'});
$s->run($dtx->hold);
$offset = -s $dtx->coord->logfile;
$s->start($dtx->transfer(10, 1, 0, 2));
$dtx->wait_held($s);
$gid = $dtx->gid(2);
like(($dtx->coord->psql('postgres', "SET default_transaction_read_only = off; SELECT dtx.force_in_doubt('$gid', 'rollback', 'test')"))[2],
	qr/ERROR:  prepared transaction "\Q$gid\E" is still being taken care of by its session/, 'what its session takes care of is not for others');
$dtx->p(2)->safe_psql('postgres', "ROLLBACK PREPARED '$gid'");
$dtx->release;
$s->finish;
like($s->stderr, qr/WARNING:.*not every server has confirmed/, 'the session is warned');
$s->close;
$dtx->clean('rolled back before COMMIT PREPARED');
is($dtx->sql($what), 's2|commit|rollback', '... and it is found');
$dtx->sql('SET default_transaction_read_only = off; ALTER DATABASE postgres RESET default_transaction_read_only');
is($dtx->sql("SELECT gid = '$gid' AND since <= now() AND remote_xid <> '0' FROM dtx.damage"),
	't', '... by its name');
$dtx->wait_passes(2);
my @warnings = slurp_file($dtx->coord->logfile, $offset) =~
  /(WARNING:.*was rolled back on server "s2", although its transaction has committed)/g;
is(scalar(@warnings), 1, '... and logged once');
$dtx->balances_are('100 90 100', '... a part of the transaction is lost');

# It survives a crash, until it is acknowledged.
$dtx->crash($dtx->coord);
$dtx->coord->start;
$dtx->wait_passes(2);
is($dtx->sql($what), 's2|commit|rollback', 'damage survives a crash');
$dtx->sql("SELECT dtx.acknowledge_damage('$gid', 'ticket 12: booked again')");
is($dtx->sql($what), '', 'acknowledged: not shown any more');
is( $dtx->sql('SELECT acknowledged_by = session_user, reason FROM dtx_internal.damage_record'),
	't|ticket 12: booked again', '... but on record');
repair();

# The coordinator is down, the locks hurt, and an operator guesses: once wrongly,
# once rightly.
make_doubt();
$dtx->p(1)->safe_psql('postgres', "ROLLBACK PREPARED '" . $dtx->gid(1) . "'");
$dtx->p(2)->safe_psql('postgres', "COMMIT PREPARED '" . $dtx->gid(2) . "'");
resolver('on');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0',
	'the decision goes');
damage_is('s1|commit|rollback', 'finished while the coordinator was down');
repair();

# The same, and it crashes again before the resolver has seen anything.
make_doubt();
$dtx->p(1)->safe_psql('postgres', "ROLLBACK PREPARED '" . $dtx->gid(1) . "'");
$dtx->crash($dtx->coord);
$dtx->coord->start;
resolver('on');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0',
	'the decision goes');
damage_is('s1|commit|rollback', 'two crashes');
repair();

# dtx.resolve_in_doubt() in a session finds it missing: the worker says why.
make_doubt();
$dtx->p(1)->safe_psql('postgres', "ROLLBACK PREPARED '" . $dtx->gid(1) . "'");
resolver('on');
$dtx->sql('SELECT * FROM dtx.resolve_in_doubt()');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0',
	'the decision goes');
damage_is('s1|commit|rollback', 'dtx.resolve_in_doubt() hides nothing');
repair();

# By dtx.force_in_doubt(), against the decision and on purpose: that is on record.
make_doubt();
$gid = $dtx->gid(1);
$dtx->sql("SELECT dtx.force_in_doubt('$gid', 'rollback', 'I know', override => true)");
resolver('on');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0',
	'the decision goes');
damage_is('', 'forced: no damage');
is($dtx->sql('SELECT contradicted FROM dtx.forced'), 't', '... but on record');
repair();

# To be rolled back, and an operator commits: COMMIT waits for s2 in phase one.
for my $how ('COMMIT', 'ROLLBACK')
{
	$s = $dtx->session;
	$s->run('BEGIN; UPDATE acct1 SET bal = 90; UPDATE acct2 SET bal = 110;');
	$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
	$s->start('COMMIT');
	$dtx->prepared_is(1, 1);
	$dtx->proxy(2)->wait_for('hold');
	$dtx->p(1)->safe_psql('postgres', "$how PREPARED '" . $dtx->gid(1) . "'");
	$dtx->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
	$s->finish;
	like($s->stderr, qr/ERROR/, "$how by hand in phase one: canceled");
	$s->close;
	$dtx->proxy(2)->clear;
	damage_is($how eq 'COMMIT' ? 's1|rollback|commit' : '', "$how by hand in phase one");
	repair();
}

# A server that was set back to an earlier time: prepared, and never heard of.
{
	my $backup;

	$s = $dtx->session;
	$dtx->arm;
	$s->run($dtx->hold);
	$dtx->p(1)->stop;
	$backup = $dtx->p(1)->data_dir . '.then';
	system('cp', '-a', $dtx->p(1)->data_dir, $backup) == 0 or die 'cp';
	$dtx->p(1)->start;
	$dtx->p(1)->safe_psql('postgres', 'SELECT txid_current()') for 1 .. 30;
	$s->start($dtx->transfer(10, 1, 0, 2));
	$dtx->wait_held($s);
	$dtx->p(1)->stop('immediate');
	rename $dtx->p(1)->data_dir, $dtx->p(1)->data_dir . '.now' or die $!;
	rename $backup, $dtx->p(1)->data_dir or die $!;
	$dtx->p(1)->start;
	$dtx->release;
	$s->finish;
	$s->close;
	damage_is('s1|commit|lost', 'a server that was restored');
	repair();
}

# A server that refuses to tell its transaction id refuses to prepare, and the
# session goes on with another connection.
$dtx->p(1)->safe_psql('postgres', q{
CREATE ROLE plain LOGIN;
GRANT ALL ON acct TO plain;
REVOKE EXECUTE ON FUNCTION pg_catalog.txid_current() FROM PUBLIC;
});
$dtx->sql(q{ALTER USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (user 'plain', password_required 'false')});
$s = $dtx->session;
$s->run($dtx->transfer(10, 1, 0, 2));
like($s->stderr, qr/ERROR:  42501: could not prepare transaction on server "s1"/,
	'a server that does not tell its transaction id');
$dtx->balances_are('100 100 100', '... nothing is done');
$dtx->p(1)->safe_psql('postgres',
	'GRANT EXECUTE ON FUNCTION pg_catalog.txid_current() TO PUBLIC');
$s->run($dtx->transfer(10, 1, 0, 2));
is($s->stderr, '', '... and the session goes on');
$s->close;
damage_is('', '... without damage');
repair();

# What nobody touched is no damage.
$dtx->p(1)->stop('immediate');
$dtx->p(1)->start;
$dtx->sql($dtx->transfer(10, 1, 0, 2));
$dtx->wait_passes(2);
damage_is('', 'no damage where nothing was done wrong');
$dtx->balances_are('100 90 110', '... and all is well');
repair();

# Damage that can't be recorded, as on a full disk, keeps no other server waiting.
$dtx->sql(q{
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RAISE disk_full USING MESSAGE = 'no room for damage'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON dtx_internal.damage_record EXECUTE FUNCTION refuse();
});
make_doubt();
$dtx->p(1)->safe_psql('postgres', 'ROLLBACK PREPARED $$' . $dtx->gid(1) . '$$');
$dtx->proxy(2)->rule(hold => 'FROM pg_catalog.pg_prepared_xacts');
$offset = -s $dtx->coord->logfile;
resolver('on');
$dtx->proxy(2)->wait_for('hold');
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
my $failures = 0;
while ($failures < 3 && time < $deadline)
{
	usleep(50_000);
	$failures = () = slurp_file($dtx->coord->logfile, $offset) =~ /ERROR:  no room for damage/g;
}
cmp_ok($failures, '>=', 3, 'damage that cannot be recorded: it is tried again');
is($dtx->proxy(2)->happened('orphan'), 0, '... the visit of another server goes on');
is($dtx->sql(q{SELECT last_error FROM dtx.in_doubt WHERE server = 's1'}),
	'it was finished against its decision, which could not be recorded yet',
	'... dtx.in_doubt tells why');
$dtx->proxy(2)->clear;
$dtx->prepared_is(2, 0, '... and finishes what is in doubt there');
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '1', '... the decision is kept');
$dtx->sql('DROP FUNCTION refuse() CASCADE');
$s->close;
damage_is('s1|commit|rollback', '... and it is recorded at last');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0', '... and the decision forgotten');

done_testing();

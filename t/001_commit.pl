# Commit and abort on separate clusters: all servers or none.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(servers => 3);
my $s = $dtx->session;

# Between two servers.
$s->run($dtx->transfer(10, 1, 2));
is($s->stderr, '', 'a transfer between two servers commits silently');
$dtx->balances_are('100 90 110 100', '... on both');
is($dtx->sql('SELECT two_phase FROM dtx.stat'), '1', '... in two phases');
$dtx->clean('after a commit');

# Between the coordinator and a server.
$s->run($dtx->transfer(10, 0, 1));
$dtx->balances_are('90 100 110 100', 'a transfer with a local table');
is($dtx->sql('SELECT two_phase FROM dtx.stat'), '2', '... in two phases');

# All of them.
$s->run($dtx->transfer(10, 2, 3, 1, 0));
$dtx->balances_are('100 100 100 100', 'a transfer over all servers');
is( $dtx->sql('SELECT two_phase, prepared FROM dtx.stat'),
	'3|6', '... with one participant per server');

# ROLLBACK prepares nothing.
$s->run('BEGIN; UPDATE acct1 SET bal = 0; UPDATE acct2 SET bal = 0; ROLLBACK');
is($s->stderr, '', 'ROLLBACK');
$dtx->balances_are('100 100 100 100', 'ROLLBACK leaves nothing');
is($dtx->sql('SELECT prepared FROM dtx.stat'),
	'6', '... and prepared nothing');

# A statement fails.
$s->run($dtx->transfer(1000, 1, 2));
like($s->stderr, qr/ERROR:  23514:.*acct_bal_check/, 'a failing statement');
$dtx->balances_are('100 100 100 100', '... leaves nothing');

# A constraint fails in the PREPARE of one server, the others are prepared.
$dtx->p(2)->safe_psql(
	'postgres', q{
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN
	RAISE EXCEPTION 'balance % is refused', NEW.bal
		USING ERRCODE = 'ZX001', DETAIL = 'in detail', HINT = 'try less';
END$$;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acct
	DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal > 150) EXECUTE FUNCTION refuse();
});
$s->run($dtx->transfer(60, 1, 3, 0, 2));
like($s->stderr, qr/ERROR:  ZX001: .*"s2".*balance 160 is refused/,
	'a failing PREPARE is an error with server, SQLSTATE and message');
like($s->stderr, qr/DETAIL:  in detail/, '... with detail');
like($s->stderr, qr/HINT:  try less/, '... with hint');
$dtx->balances_are('100 100 100 100', '... leaves nothing');
is($dtx->sql('SELECT prepare_failed FROM dtx.stat'), '1', '... is counted');
$dtx->clean('after a failing PREPARE');

# The same session goes on.
$s->run($dtx->transfer(10, 1, 0, 2));
is($s->stderr, '', 'the session goes on after the error');
$dtx->balances_are('100 90 110 100', '... and commits');

# A server without prepared transactions: the hint names it.
$dtx->p(3)->append_conf('postgresql.conf', 'max_prepared_transactions = 0');
$dtx->p(3)->restart;
$s->close;
$s = $dtx->session;
$s->run($dtx->transfer(10, 1, 3));
like($s->stderr, qr/ERROR:  55000: .*"s3"/,
	'max_prepared_transactions = 0 is an error');
like(
	$s->stderr,
	qr/HINT: .*server.*"s3".*set "max_prepared_transactions" to at least its "max_connections"/,
	'... whose hint names the setting and the server');
$dtx->balances_are('100 90 110 100', '... leaves nothing');
is( $dtx->sql(
		q{SELECT count(*) > 0 FROM dtx.check_server('s3') WHERE NOT ok AND hint LIKE '%max_prepared_transactions%'}
	),
	't',
	'check_server() finds it before');

# It is no obstacle to a single writer, or to reading.
$s->run('UPDATE acct3 SET bal = bal + 5');
is($s->stderr, '', 'a single writer needs no prepared transactions');
$s->run('BEGIN; SELECT bal FROM acct3; UPDATE acct1 SET bal = bal - 5; COMMIT');
is($s->stderr, '', 'neither does a reader');
$dtx->balances_are('100 85 110 105', 'both committed');

# Too few slots.
$dtx->p(3)->append_conf('postgresql.conf', 'max_prepared_transactions = 1');
$dtx->p(3)->restart;
$dtx->p(3)->safe_psql('postgres',
	q{BEGIN; CREATE TABLE x (); PREPARE TRANSACTION 'not ours'});
$s->close;
$s = $dtx->session;
$s->run($dtx->transfer(10, 1, 3));
like($s->stderr, qr/ERROR:  53200: .*"s3"/, 'no free slot is an error');
like($s->stderr, qr/max_prepared_transactions/, '... that names the setting');
like($dtx->sql(q{SELECT detail, hint FROM dtx.check() WHERE server = 's3' AND "check" = 'max_prepared_transactions'}),
	qr/^1, and "max_connections" is \d+\|Set "max_prepared_transactions" on server "s3" .* to at least its "max_connections"/, '... dtx.check() finds it too small');
$dtx->balances_are('100 85 110 105', '... leaves nothing');
$dtx->p(3)->safe_psql('postgres', q{ROLLBACK PREPARED 'not ours'});
$s->run($dtx->transfer(5, 3, 1));
is($s->stderr, '', 'works once the slot is free');
$dtx->balances_are('100 90 110 100', '... and commits');
$dtx->clean('at the end');
$s->close;

# The counters are kept across a clean restart.
my $counters = $dtx->sql('SELECT two_phase, prepared, prepare_failed FROM dtx.stat');
$dtx->coord->restart;
is($dtx->sql('SELECT two_phase, prepared, prepare_failed FROM dtx.stat'),
	$counters, 'statistics survive a clean restart');

done_testing();

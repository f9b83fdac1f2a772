# Statements that postgres_fdw sends again and again are prepared on the server,
# and nobody notices.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, participant_conf => 'log_statement = all');
my $s = $dtx->session;

# Names under which server $i was sent UPDATEs and DELETEs while $sql ran.
sub names
{
	my ($i, $sql) = @_;
	my $offset = -s $dtx->p($i)->logfile;
	$s->run($sql);
	my $log = slurp_file($dtx->p($i)->logfile, $offset);
	return join ' ', $log =~ /postgres_fdw LOG:  execute ([^:]*): (?:UPDATE|DELETE)/g;
}

my $update = 'EXECUTE u(1, 0);';
$s->run('PREPARE u (int, int) AS UPDATE acct1 SET bal = bal + $2 WHERE id = $1');
$s->run('SET plan_cache_mode = force_generic_plan');
is(names(1, $update x 5), '<unnamed> <unnamed> dtx_s1 dtx_s1 dtx_s1', 'prepared at its third use');
is(names(1, "BEGIN; $update SAVEPOINT a; $update ROLLBACK TO a; $update COMMIT"), 'dtx_s1 dtx_s1 dtx_s1', '... and used from then on');
is($s->stderr, '', '... without a word');
is(names(1, "BEGIN; EXECUTE u(1, -30); UPDATE acct2 SET bal = bal + 30; COMMIT"), 'dtx_s1', 'in two phases');
$dtx->balances_are('100 70 130', '... it does what it says');
is($s->run('EXECUTE u(4711, 1)'), '', 'no row');

# Errors are those of the statement, and no reason to prepare it anew.
$s->run('EXECUTE u(1, -1000)');
like($s->stderr, qr/ERROR:  23514: .*acct_bal_check/, 'an error');
$s->run("BEGIN; UPDATE acct2 SET bal = bal - 30; SAVEPOINT a; EXECUTE u(1, -1000); ROLLBACK TO a; EXECUTE u(1, 30); COMMIT");
like($s->stderr, qr/^[^\n]*ERROR:  23514: (?!.*ERROR)/s, 'an error in a savepoint');
$dtx->balances_are('100 100 100', '... the rest is done');
is(names(1, $update), 'dtx_s1', '... the name is still good');

# Prepared by a transaction that fails, and where START TRANSACTION goes first.
$s->run('PREPARE d (int) AS DELETE FROM acct1 WHERE id = $1');
is(names(1, 'EXECUTE d(2); EXECUTE d(3); BEGIN; EXECUTE d(4); SELECT 1/0; ROLLBACK; EXECUTE d(5)'), '<unnamed> <unnamed> dtx_s2 dtx_s2', 'prepared in a transaction that fails');
$s->run('SET pg_dtx.fold_start = off; PREPARE v AS UPDATE acct1 SET bal = 100');
is(names(1, 'EXECUTE v; EXECUTE v; EXECUTE v; EXECUTE v'), '<unnamed> <unnamed> dtx_s3 dtx_s3', 'without pg_dtx.fold_start');
$s->run('RESET pg_dtx.fold_start');

# What changes on the server does not matter.
$dtx->p(1)->safe_psql('postgres', 'ALTER TABLE acct ALTER bal TYPE bigint, ADD note text');
is(names(1, $update), 'dtx_s1', 'the table is altered');
is($s->stderr, '', '... no error');
$dtx->p(1)->safe_psql('postgres', 'ALTER TABLE acct RENAME TO hidden');
$s->run($update);
like($s->stderr, qr/ERROR:  42P01/, 'the table is gone: an error');
$dtx->p(1)->safe_psql('postgres', 'ALTER TABLE hidden RENAME TO acct');
is(names(1, $update x 3), '<unnamed> <unnamed> dtx_s4', '... after which it is prepared anew');
is($s->stderr, '', '... when it is there again');
$dtx->p(1)->safe_psql('postgres', 'ALTER TABLE acct DROP note, ALTER bal TYPE int');

# An error while it is prepared: nobody knows whether it was.
$s->run('PREPARE w (int) AS UPDATE acct1 SET bal = $1 WHERE id = 1; EXECUTE w(100); EXECUTE w(100); EXECUTE w(-1)');
like($s->stderr, qr/ERROR:  23514/, 'an error at its third use');
is(names(1, 'EXECUTE w(100);' x 4), '<unnamed> <unnamed> dtx_s6 dtx_s6', '... it gets another name');

# postgres_fdw forgets its own prepared statements after an error, and all others
# with them.
$s->run(q{BEGIN; INSERT INTO acct1 VALUES (7, 7); INSERT INTO acct1 VALUES (7, 7); ROLLBACK});
like($s->stderr, qr/ERROR:  23505/, 'an error that makes postgres_fdw say DEALLOCATE ALL');
is(names(1, $update x 3), '<unnamed> <unnamed> dtx_s7', '... and all names are forgotten');
is($s->stderr, '', '... by us, too');
$s->run(q{BEGIN; UPDATE acct2 SET bal = bal; EXECUTE w(100); SAVEPOINT a; INSERT INTO acct1 VALUES (1, 7); ROLLBACK TO a; EXECUTE u(1, 0); COMMIT;});
is(names(1, $update x 3), '<unnamed> <unnamed> dtx_s8', '... also after two phases');

# A canceled one.
my $blocker = $dtx->session;
$blocker->run('BEGIN; UPDATE acct1 SET bal = bal');
$s->run("SET statement_timeout = '200ms'; $update RESET statement_timeout");
like($s->stderr, qr/ERROR:  57014/, 'canceled');
$blocker->run('ROLLBACK');
$blocker->close;
is(names(1, $update), 'dtx_s8', '... the name is still good');
is($s->stderr, '', '... and so is the connection');

# Statements that are never the same, and those that return something.
my $many = join ';', map { "UPDATE acct1 SET bal = bal + $_ WHERE id = 1; UPDATE acct1 SET bal = bal - $_ WHERE id = 1" } 1 .. 150;
unlike(names(1, $many), qr/dtx_s/, 'no statement is used again');
is($s->stderr, '', '... without a word');
is(names(1, $update), 'dtx_s8', '... what is prepared stays');
$s->run('PREPARE r (int) AS UPDATE acct1 SET bal = bal + $1 RETURNING bal');
is(names(1, 'EXECUTE r(0);' x 4), '<unnamed> <unnamed> <unnamed> <unnamed>', 'not with RETURNING');

# A new connection.
$dtx->p(1)->restart;
is(names(1, $update x 3), '<unnamed> <unnamed> dtx_s1', 'the server is restarted');
is($s->stderr, '', '... without a word');

# Switched off.
$s->run('SET pg_dtx.prepare_statements = off');
is(names(1, $update), '<unnamed>', 'switched off');
$s->run('RESET pg_dtx.prepare_statements; SET pg_dtx.two_phase_commit = off');
is(names(1, $update), '<unnamed>', '... with all of pg_dtx');
$s->run('RESET pg_dtx.two_phase_commit');
is(names(1, $update), 'dtx_s1', 'switched on');

$dtx->balances_are('100 100 100', 'in the end');
$dtx->clean('in the end');
$s->close;
done_testing();

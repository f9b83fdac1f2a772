# dtx.self_test(): what it finds where COMMIT is not atomic, or cannot be.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2], conf => "pg_dtx.commit_timeout = '100ms'\n");
my $coord = $dtx->coord;
my $atomic = 'COMMIT is atomic over "s1", "s2" and this database';

sub self_test
{
	my (%params) = @_;
	my ($status, $out, $err) = $coord->psql('postgres', 'CALL dtx.self_test()', %params);
	return $status == 0 ? $out : $err;
}

is(self_test(), $atomic, 'it is');
$dtx->clean('it is');

# Confirmations are lost.
$dtx->proxy(2)->rule(cut => 'COMMIT PREPARED');
like(self_test(), qr/ERROR:  server "s2" has not confirmed an earlier transaction/, 'a part is not committed in time');
$dtx->proxy(2)->clear;
$dtx->clean('committed late');

# PREPARE is not possible.
$dtx->p(2)->append_conf('postgresql.conf', 'max_prepared_transactions = 0');
$dtx->p(2)->restart;
like(self_test(), qr/ERROR: .*server "s2".*HINT: .*max_prepared_transactions.*CONTEXT: .*self-test of pg_dtx: the transaction that is to be committed/s,
	'a server has no prepared transactions');
$dtx->p(2)->append_conf('postgresql.conf', 'max_prepared_transactions = 20');
$dtx->p(2)->stop;
like(self_test(), qr/ERROR: .*could not connect to server "s2"/, 'a server is down');
$dtx->p(2)->start;
$dtx->clean('a server is back');

# Switched off.
$coord->append_conf('postgresql.conf', "pg_dtx.require = 'off'");
$coord->reload;
$dtx->poll($coord, 'SHOW pg_dtx.require', 'off', 'no warnings');
$dtx->sql(q{ALTER ROLE CURRENT_USER SET pg_dtx.two_phase_commit = off});
like(self_test(), qr/ERROR:  COMMIT is not atomic here\n.*DETAIL:  "pg_dtx.two_phase_commit" is off/, 'switched off for a role');
$dtx->sql(q{ALTER ROLE CURRENT_USER RESET pg_dtx.two_phase_commit});
is(self_test(), $atomic, 'switched on again');
$dtx->clean('at the end');

done_testing();

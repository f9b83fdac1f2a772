# DROP DATABASE asks the decision table of the database, not only shared memory; and
# what is in doubt is resolved also in a database to which nobody may connect.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2]);
my $coord = $dtx->coord;
$coord->safe_psql('postgres', 'CREATE DATABASE other');
$dtx->install('other');

# Leave something in doubt in the other database, whose resolver can't finish it.
sub leave
{
	$dtx->proxy(2)->rule(hold => 'COMMIT PREPARED');
	my $session = $dtx->session(dbname => 'other');
	$session->run('SET pg_dtx.commit_timeout = 0;' . $dtx->transfer(1, 1, 2));
	like($session->stderr, qr/WARNING.*not every server has confirmed it yet: .*"s2"/, 'in doubt on s2');
	$session->close;
	$dtx->prepared_is(2, 1);
	return;
}

# After a restart with the resolver off nobody has told shared memory.
leave();
$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
$coord->restart;
my ($ret, $out, $err) = $coord->psql('postgres', 'DROP DATABASE other');
like($err, qr/cannot drop database "other"\n.*DETAIL:  Transactions of pg_dtx may be in doubt.*HINT.*FORCE/s,
	'resolver off after a restart: refused');
$coord->safe_psql('postgres', 'ALTER DATABASE other ALLOW_CONNECTIONS false');
($ret, $out, $err) = $coord->psql('postgres', 'DROP DATABASE other');
like($err, qr/cannot drop database "other"\n.*DETAIL:  Transactions of pg_dtx may be in doubt/,
	'... also where nobody may connect');
is($coord->safe_psql('postgres', 'SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE $$%drop guard$$'),
	'0', 'the process that has looked is gone');

# It is resolved all the same.
$dtx->proxy(2)->clear;
$dtx->sql('ALTER SYSTEM RESET pg_dtx.resolver');
$coord->reload;
$dtx->prepared_is(2, 0, 'committed by a resolver where nobody may connect');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct'), '101', '... not rolled back');
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
do
{
	($ret, $out, $err) = $coord->psql('postgres', 'DROP DATABASE other');
} while ($ret != 0 && $err =~ /in doubt/ && time < $deadline);
is($err, '', 'then it can be dropped');

# No worker can look: not known is not "nothing".  A database without the extension
# is not different, because nobody knows that.
$coord->safe_psql('postgres', 'CREATE DATABASE other');
$dtx->sql('ALTER SYSTEM SET max_worker_processes = 2');
$coord->restart;
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx launcher'}, '1',
	'PostgreSQL\'s own launcher and ours take all workers');
($ret, $out, $err) = $coord->psql('postgres', 'DROP DATABASE other');
like($err, qr/cannot drop database "other"\n.*DETAIL:  It is not known whether transactions of pg_dtx are in doubt.*HINT.*max_worker_processes/s,
	'no worker: refused');
($ret, $out, $err) = $coord->psql('postgres', 'DROP DATABASE other WITH (FORCE)');
is($err, '', '... unless it is forced');

# An undecided one may be dropped by force, too.
$dtx->sql('ALTER SYSTEM RESET max_worker_processes');
$coord->restart;
$coord->safe_psql('postgres', 'CREATE DATABASE other');
$dtx->install('other');
leave();
$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
$coord->restart;
($ret, $out, $err) = $coord->psql('postgres', 'DROP DATABASE other WITH (FORCE)');
is($err, '', 'dropped by force');

done_testing();

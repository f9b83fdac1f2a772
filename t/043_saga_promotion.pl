# A standby of the coordinator is promoted: it goes on with the sagas.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SagaBooks;
use Test::More;

my $books = SagaBooks->new(conf => "pg_dtx.saga_workers = 4\n");
my $dtx = $books->dtx;
my $primary = $dtx->coord;

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

# What is acknowledged is on the standby, too.
$primary->append_conf('postgresql.conf', "synchronous_standby_names = 'standby'");
$primary->reload;
$dtx->poll($primary, 'SELECT count(*) FROM pg_stat_replication WHERE sync_state = $$sync$$', 1,
	'a standby streams');

# One saga has ended; one is in the middle of a step, of which a lock on the
# server keeps it; one waits for its time.
my $ended = $books->start('move');
$books->ended($ended, 'completed', 'before');
my $lock = $dtx->session(node => $dtx->p(1));
$lock->run('BEGIN; LOCK TABLE acct');
my @running = map { $books->start($_) } qw(move refused);
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_locks WHERE relation = 'acct'::regclass AND NOT granted},
	2, 'steps are being executed');
my $next = ++$books->{started};
my $later = $dtx->sql(
	"SELECT dtx.start_saga('move', '{\"id\": $next, \"n\": 1}', run_at => clock_timestamp() + '5 s')");
$books->{number}{$later} = $next;
$primary->wait_for_catchup('standby', 'replay');

# The standby reads, and does nothing.
is($standby->safe_psql('postgres', 'SELECT count(*) FROM dtx.sagas'), 4, 'the views work on a standby');
is( $standby->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_dtx saga%'}),
	0,
	'... where nothing executes sagas');
my ($ret, $out, $err) = $standby->psql('postgres', "SELECT dtx.wait_saga($ended, '1 s')");
is("$ret $out", '0 completed', 'dtx.wait_saga() on a standby');
($ret, $out, $err) = $standby->psql('postgres', "SELECT dtx.start_saga('move')");
isnt($ret, 0, 'dtx.start_saga() on a standby is an error');
like($err, qr/read-only transaction/, '... which says why');

$dtx->crash($primary);
$lock->run('COMMIT');
$lock->close;
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->reload;
$standby->promote;
$dtx->set_coord($standby);

$books->ended($ended, 'completed', 'what had ended stays so');
$books->ended($running[0], 'completed', 'what was under way');
$books->ended($running[1], 'compensated', 'what was under way, and fails');
$books->ended($later, 'completed', 'what was scheduled');
$books->ended($books->start('move'), 'completed', 'a new one');
$books->balanced('at last');
$dtx->clean('at last');

done_testing();

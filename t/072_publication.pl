# A publication FOR ALL TABLES does not carry the decisions of this coordinator, and
# its subscriber goes on at distributed commits.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, conf => "wal_level = logical\n");
my $coord = $dtx->coord;
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init;
$subscriber->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pg_dtx'\nautovacuum = off\n");
$subscriber->start;
$subscriber->safe_psql(
	'postgres', q{
CREATE EXTENSION pg_dtx CASCADE;
CREATE TABLE acct0 (id int PRIMARY KEY, bal int NOT NULL);
INSERT INTO acct0 VALUES (1, 100);
CREATE TABLE probe (i int);
});
$dtx->sql('CREATE PUBLICATION everything FOR ALL TABLES');
my $connstr = $coord->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres', qq{
CREATE SUBSCRIPTION sub CONNECTION '$connstr' PUBLICATION everything
	WITH (copy_data = off)});

# rows are inserted, overwritten, left to the resolver, and deleted
my $session = $dtx->session;
$session->run($dtx->transfer(10, 0, 1, 2));
$session->run($dtx->transfer(10, 0, 1));
$session->run("SET pg_dtx.commit_timeout = 0;\n" . $dtx->transfer(10, 0, 2));
$session->close;
$dtx->clean('all');
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.decision', '0', 'the decisions are forgotten');
$dtx->sql('UPDATE acct0 SET bal = bal - 1');
$dtx->balances_are('69 110 120', 'all have committed');
$coord->wait_for_catchup('sub');
is($subscriber->safe_psql('postgres', 'SELECT bal FROM acct0'),
	'69', 'the subscriber has all of it');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM dtx_internal.decision'),
	'0', 'and no decision of another coordinator');

# a restart is recorded, and the identity changes
my $id = $subscriber->safe_psql('postgres', 'SELECT id FROM dtx_internal.coordinator');
$coord->restart;
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.boot', '2', 'a second run of the publisher');
$dtx->sql(q{SELECT dtx.change_identity('test'); UPDATE acct0 SET bal = bal - 1});
$coord->wait_for_catchup('sub');
is($subscriber->safe_psql('postgres', 'SELECT bal FROM acct0'), '68', 'the subscriber goes on');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM dtx_internal.boot'), '1', '... with a run of its own');
is($subscriber->safe_psql('postgres', 'SELECT id FROM dtx_internal.coordinator'), $id, '... and its own identity');
$dtx->sql($dtx->transfer(1, 1, 2));
$dtx->clean('the publisher commits');
unlike(slurp_file($subscriber->logfile), qr/ERROR:  (?!.*could not (?:send|receive|connect))/, 'no error but of the connection');

done_testing();

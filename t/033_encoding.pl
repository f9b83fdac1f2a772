# The warning after a commit names servers, and the client can't take every name: an
# error there would come after the commit, and bring the whole server down.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, participant_conf => "max_connections = 60\n", conf => "pg_dtx.max_in_doubt = 100\n");
$dtx->sql(q{CREATE DATABASE utf8 ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0});
$dtx->install('utf8');
my $coord = $dtx->coord;
my $s = $dtx->session(dbname => 'utf8');
my $transfer = 'BEGIN; UPDATE acct1 SET bal = bal - 1; UPDATE acct2 SET bal = bal + 1; COMMIT;';

sub finished
{
	my $name = shift;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $good = 1;
	$good &&= $dtx->p($_)->poll_query_until('postgres', 'SELECT count(*) FROM pg_prepared_xacts', '0') for 1, 2;
	return ok($good, $name);
}

# Run a transaction, of which no server confirms its part.
sub unconfirmed
{
	my $sql = shift;
	$dtx->arm;
	$s->run($dtx->hold);
	$s->start($sql);
	$dtx->wait_held($s);
	$dtx->freeze($dtx->p($_)) for 1, 2;
	$dtx->release;
	$s->finish;
	$dtx->thaw($dtx->p($_)) for 1, 2;
	return;
}

# In the letters of another alphabet.
$s->run(q{ALTER SERVER s2 RENAME TO U&"\043C\043E\0441\043A\0432\0430"; SET pg_dtx.commit_timeout = 0});
unconfirmed("SET client_encoding = latin1; $transfer");
like($s->stderr, qr/WARNING:  01000: transaction has committed, but not every server has confirmed it yet: "s1", "\?{12}"\n/,
	'a name that the client can not take');
is($s->run('SELECT 1'), '1', '... the session is alive');
finished('... and the transaction is finished');
unconfirmed("SET client_encoding = utf8; $transfer");
like($s->stderr, qr/confirmed it yet: "s1", "\xd0\xbc\xd0\xbe\xd1\x81\xd0\xba\xd0\xb2\xd0\xb0"\n/, 'a name that it can take');
finished('... and the transaction is finished');

# So many names that they don't fit, each of letters of several bytes.
$s->run(join '', map {
	my $port = $dtx->p(2)->port;
	my $host = $dtx->p(2)->host;
	my $name = sprintf(q{U&"n%02d}, $_) . '\00E4' x 30 . '"';
	"CREATE SERVER $name FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');"
	  . "CREATE USER MAPPING FOR CURRENT_USER SERVER $name;"
	  . "CREATE FOREIGN TABLE many$_ (id int, bal int) SERVER $name OPTIONS (table_name 'acct');"
} 1 .. 18);
is($s->stderr, '', 'eighteen servers with long names');
for my $encoding ('latin1', 'utf8')
{
	unconfirmed("SET client_encoding = $encoding; BEGIN; "
		  . join('', map { "INSERT INTO many$_ VALUES (" . (1000 + $_) . ', 0);' } 1 .. 18) . 'COMMIT');
	like($s->stderr, qr/WARNING:  01000: .*"n01[^"]*", .*", \.\.\.\n/, "$encoding: the list of names is cut between two names");
	is($s->run('SELECT 1'), '1', '... the session is alive');
	finished('... and the transaction is finished');
	is($dtx->p(2)->safe_psql('postgres', 'WITH d AS (DELETE FROM acct WHERE id > 1000 RETURNING 1) SELECT count(*) FROM d'),
		'18', '... on all servers');
}
unlike(slurp_file($coord->logfile), qr/PANIC/, 'no PANIC');

done_testing();

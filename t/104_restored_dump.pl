# A coordinator is lost in the middle of COMMITs, and there is only a dump of it: what it
# has left prepared is found, and finished by hand, with the queries of docs/upgrade.md.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Markdown;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($find, $adopt, $finish) = map { $_->{text} } grep { $_->{text} =~ /pg_prepared_xacts|adopt_coordinator/ }
  @{ Markdown->new("$FindBin::RealBin/../docs/upgrade.md")->{blocks} };
like($find // '', qr/query_all/, 'the page has a query that finds them');
like($adopt // '', qr/adopt_coordinator/, '... one that finishes what a server decides');
like($finish // '', qr/gexec/, '... and one that finishes the others');

my $dtx = DtxTest->new(servers => 2);
my $lost = $dtx->coord;
$_->safe_psql('postgres', 'INSERT INTO acct VALUES (2, 100)') for map { $dtx->p($_) } 1, 2;

# Both have their decision.  One was committed on s1 already.
$dtx->arm;
my @sessions = map { $dtx->session } 1, 2;
$sessions[0]->start($dtx->hold . $dtx->transfer(1, 1, 2));
$dtx->wait_held($sessions[0]);
my $undecided = $dtx->gid(1);
$sessions[1]->start($dtx->hold . $dtx->transfer(7, 1, 2) =~ s/id = 1/id = 2/gr);
$dtx->prepared_is(2, 2, 'two transactions are prepared');
$dtx->prepared_is(1, 2);
my $dump = "$PostgreSQL::Test::Utils::tmp_check/104.sql";
$lost->command_ok([ 'pg_dump', '-d', $lost->connstr('postgres'), '-f', $dump ], 'a dump');
my $begun = $dtx->p(1)->safe_psql('postgres', "SELECT gid FROM pg_prepared_xacts WHERE gid <> '$undecided'");
$dtx->p(1)->safe_psql('postgres', "COMMIT PREPARED '$begun'");
$lost->stop('immediate');
$_->close for @sessions;

my $coord = PostgreSQL::Test::Cluster->new('restored');
$coord->init;
$coord->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_dtx'\npg_dtx.resolve_interval = '500ms'\n");
$coord->start;
$coord->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $coord->connstr('postgres'), '-f', $dump ], 'it is restored');

# What is prepared on them.
sub found
{
	return { map { my ($transaction, undef, $servers) = split /\|/; $transaction => $servers } split /\n/, $coord->safe_psql('postgres', $find) };
}
my $transaction = sub { $_[0] =~ s/:\d+:[0-9a-f]+$//r };
is_deeply(found(), { $transaction->($undecided) => '{s1,s2}', $transaction->($begun) => '{s2}' },
	'the transactions are found, with their servers');
my (undef, undef, $error) = $coord->psql('postgres', "SELECT dtx.force_in_doubt('$undecided', 'rollback', 'lost')");
like($error, qr/belongs to another coordinator/, '... which the restored one does not touch');

my ($identity) = $undecided =~ /^dtx:([0-9a-f]{16}):/;
is($coord->safe_psql('postgres', "\\set identity $identity\n" . $adopt =~ s/\*/string_agg(format('%s %s %s', server, done, problem), ', ' ORDER BY server)/r),
	join(', ', map { "$_ f only the coordinator that is lost can decide about it" } qw(s1 s2 s2)), 'no server decides about them');

sub finish
{
	my ($command, $gid) = @_;
	for my $i (1, 2)
	{
		$dtx->p($i)->safe_psql('postgres',
			'\set transaction ' . $transaction->($gid) . "\n" . $finish =~ s/ROLLBACK PREPARED/$command/r);
	}
	return;
}
finish('ROLLBACK PREPARED', $undecided);
finish('COMMIT PREPARED', $begun);
is_deeply(found(), {}, 'nothing is left');
is($dtx->p($_)->safe_psql('postgres', 'SELECT string_agg(bal::text, $$ $$ ORDER BY id) FROM acct'), '100 ' . ($_ == 1 ? 93 : 107), "s$_: all of it, or nothing")
  for 1, 2;

# It goes on as a coordinator of its own.
$dtx->set_coord($coord);
is($dtx->sql($dtx->transfer(5, 1, 2)), '', 'the restored one commits');
$dtx->clean('... and leaves nothing behind');

done_testing();

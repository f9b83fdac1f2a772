# Why a connection failed tells where a user mapping leads, and as whom: that is for
# superusers and for its user.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2]);
my ($coord, $p1) = ($dtx->coord, $dtx->p(1));

sub as
{
	my ($user, $sql) = @_;
	return $coord->safe_psql('postgres', $sql, extra_params => [ '-U', $user ]);
}

$p1->safe_psql('postgres', "CREATE ROLE $_ LOGIN; GRANT ALL ON acct TO $_") for qw(eve_there alice_there);
$dtx->p(2)->safe_psql('postgres', "CREATE ROLE $_ LOGIN; GRANT ALL ON acct TO $_") for qw(eve_there alice_there);
for my $user (qw(eve alice))
{
	$dtx->sql(qq{CREATE ROLE $user LOGIN; GRANT ALL ON acct1, acct2 TO $user;
CREATE USER MAPPING FOR $user SERVER s1 OPTIONS (user '${user}_there', password_required 'false');
CREATE USER MAPPING FOR $user SERVER s2 OPTIONS (user '${user}_there', password_required 'false')});
	as($user, 'BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct2 SET bal = bal; COMMIT');
}
$dtx->sql('CREATE ROLE watcher LOGIN IN ROLE pg_monitor');

# Eve's transaction is in doubt on s1, where nobody gets in any more.
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
my $s = $dtx->session(user => 'eve');
$s->run(q{SET pg_dtx.commit_timeout = '10ms'});
$s->start('BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct2 SET bal = bal; COMMIT');
$dtx->proxy(2)->wait_for('hold');
$dtx->prepared_is(1, 1);
$p1->safe_psql('postgres', 'ALTER ROLE eve_there NOLOGIN; ALTER ROLE alice_there NOLOGIN');
$p1->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('eve_there', 'alice_there')");
$dtx->proxy(2)->clear;
$s->finish;
$dtx->sql('ALTER SERVER s1 OPTIONS (ADD application_name $$x$$)');

my %seen;
$dtx->poll($coord, q{SELECT count(*) > 0 FROM dtx.in_doubt WHERE last_error ~ 'alice_there'}, 't',
	'a superuser sees which connection failed, and why');
$dtx->poll($coord, q{SELECT last_error ~ '_there' FROM dtx.servers WHERE server = 's1'}, 't', '... also after the server was changed');
my $in_doubt = q{SELECT DISTINCT last_error FROM dtx.in_doubt WHERE server = 's1'};
my $hidden = 'a connection failed; superusers, and the user of the user mapping, see why';
$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
$coord->reload;
$dtx->poll($coord, 'SHOW pg_dtx.resolver', 'off', 'the resolver stops');
my $last = $dtx->sql($in_doubt);
my ($who, $other) = $last =~ /alice_there/ ? qw(alice eve) : qw(eve alice);
SKIP:
{
	skip 'the last refusal was another one', 1 if $who ne 'alice';
	is(as('eve', $in_doubt), $hidden, "whose transaction it is sees nothing of others' user mappings");
}
is(as('watcher', $in_doubt), $hidden, 'nor does a member of pg_monitor');
like($dtx->sql(q{SELECT last_error FROM dtx.servers WHERE server = 's1'}), qr/_there/, 'the view of servers: a superuser');
is(as('watcher', q{SELECT last_error FROM dtx.servers WHERE server = 's1'}), $hidden, '... and others');
$dtx->sql('ALTER SYSTEM RESET pg_dtx.resolver');
$coord->reload;
$p1->safe_psql('postgres', 'ALTER ROLE eve_there LOGIN; ALTER ROLE alice_there LOGIN');
$dtx->clean('in the end');
$s->close;

done_testing();

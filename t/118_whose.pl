# Whose is what is in doubt, and what does it lock?
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Markdown;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $coord = $dtx->coord;

$_->safe_psql('postgres', 'CREATE ROLE clerk LOGIN; GRANT ALL ON acct TO clerk; INSERT INTO acct VALUES (2, 100)')
  for $dtx->p(1), $dtx->p(2);
$dtx->sql(q{CREATE ROLE clerk LOGIN; CREATE ROLE other LOGIN; GRANT ALL ON acct1, acct2, acct0 TO clerk});
$dtx->sql(qq{CREATE USER MAPPING FOR clerk SERVER s$_ OPTIONS (user 'clerk', password_required 'false')}) for 1, 2;

# Two transactions of different sessions are about to commit on both servers.
sub begin_two
{
	my @s = ($dtx->session(user => 'clerk'), $dtx->session);
	$s[0]->run($dtx->hold . "SET application_name = 'billing';" . ($dtx->transfer(10, 1, 2) =~ s/COMMIT;//r));
	$s[1]->run($dtx->hold . q{SET application_name = 'payroll'; BEGIN; UPDATE acct2 SET bal = bal + 1 WHERE id = 2;
		UPDATE acct1 SET bal = bal + 1 WHERE id = 2});
	for my $s (@s)
	{
		$s->start('COMMIT');
		$dtx->wait_held($s);
	}
	return @s;
}

# What there is to see of them.
my $rows = q{SELECT dense_rank() OVER (ORDER BY split_part(transaction, ':', 5)::bigint),
	split_part(gid, ':', 6), gid LIKE transaction || ':%', server, coalesce(remote_user, role) = role, role, application_name, database,
	started < since AND started > now() - interval '1 hour', decision FROM dtx.in_doubt};
sub in_doubt
{
	my $me = $dtx->sql('SELECT current_user');
	return join "\n", '1|1|t|s1|t|clerk|billing|postgres|t|commit', '1|2|t|s2|t|clerk|billing|postgres|t|commit',
	  "2|1|t|s2|t|$me|payroll|postgres|t|commit", "2|2|t|s1|t|$me|payroll|postgres|t|commit";
}

# ----------------------------------------------------------------
# The dangerous window
# ----------------------------------------------------------------

my @s = begin_two();
$dtx->prepared_is($_, 2) for 1, 2;
$dtx->poll($coord, q{SELECT string_agg(usename || ' ' || state, ', ' ORDER BY usename <> 'clerk') FROM dtx.transactions},
	'clerk deciding, ' . $dtx->sql('SELECT current_user') . ' deciding', 'all are prepared, and the outcome is not known: deciding');
is($dtx->sql(q{SELECT count(DISTINCT transaction) FROM dtx.transactions}), '2', '... each has an id');
my @ids = split /\n/, $dtx->sql('SELECT transaction FROM dtx.transactions ORDER BY xid');

# ----------------------------------------------------------------
# What they lock: the queries of the runbook
# ----------------------------------------------------------------

my @queries = map { $_->{text} } grep { ($_->{check}{on} // '') eq 'tokyo' }
  @{ Markdown->new("$FindBin::RealBin/../docs/operations.md")->{blocks} };
is(scalar @queries, 2, 'docs/operations.md has two queries for a server');
my $blocked = $dtx->session(node => $dtx->p(1));
$blocked->start('UPDATE acct SET bal = 0 WHERE id = 1');
my $locks = sub {
	my $out = $dtx->p(1)->safe_psql('postgres', $queries[0]);
	return join ', ', sort map { /^(dtx:\w+:\d+:\w+:\d+):.*\|(acct\|\w+)$/ ? "$1 $2" : () } split /\n/, $out;
};
is($locks->(), join(', ', map { "$_ acct|RowExclusiveLock" } @ids), 'the tables that they lock');
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_locks WHERE NOT granted}, '1', 'a session waits for one of them');
my $waits = sub {
	return join ', ', map { /^(\d+)\|.*UPDATE acct SET bal = 0/ ? $1 : () } split /\n/,
	  $dtx->p(1)->safe_psql('postgres', $queries[1]);
};
is($waits->(), $blocked->pid, 'those who wait for them');

# ----------------------------------------------------------------
# In doubt
# ----------------------------------------------------------------

$dtx->crash($dtx->p($_)) for 1, 2;
$dtx->release;
$_->finish for @s;
is($dtx->sql($rows), in_doubt(), 'servers have died: whose it is, in the order of the transactions');
is(join(' ', split /\n/, $dtx->sql('SELECT DISTINCT transaction FROM dtx.in_doubt ORDER BY 1')), join(' ', sort @ids), '... by the same ids');
is($coord->safe_psql('postgres', 'SELECT count(*), min(application_name) FROM dtx.in_doubt', extra_params => [ '-U', 'clerk' ]),
	'2|billing', 'a role sees its own');
is($coord->safe_psql('postgres', 'SELECT count(*) FROM dtx.in_doubt', extra_params => [ '-U', 'other' ]),
	'0', '... and no others');

# What a restart leaves is known from the decisions, also where nobody looks.
$dtx->crash($coord);
$coord->append_conf('postgresql.conf', 'pg_dtx.resolver = off');
$coord->start;
is($dtx->sql($rows), in_doubt(), 'the coordinator has died, too, and the resolver is off');
$coord->append_conf('postgresql.conf', 'pg_dtx.resolver = on');
$coord->reload;
$dtx->poll($coord, 'SELECT bool_and(attempts > 0) FROM dtx.in_doubt', 't', 'the resolver has tried');
is($dtx->sql($rows), in_doubt(), '... the same');

# After a restart, a prepared transaction is not the one of a session any more.
$dtx->p(1)->start;
undef $blocked;
$dtx->p(2)->start;
$dtx->clean('servers are back');

# Nobody has handed it over: the visit that sees it knows nothing but its name, and may
# not finish it before the coordinator's standby has the decision.
$coord->append_conf('postgresql.conf', "pg_dtx.wait_for_standby = on\nsynchronous_commit = on");
$coord->append_conf('postgresql.auto.conf', "synchronous_standby_names = 'nobody'");
$coord->restart;
@s = begin_two();
$dtx->crash($coord);
$_->finish for @s;
is($dtx->p(1)->safe_psql('postgres', q{SELECT count(*) FROM pg_prepared_xacts}), '2', 'both are prepared');
$dtx->p(1)->restart;
@ids = map { s/:\d+:\w+$//r } split /\n/,
  $dtx->p(1)->safe_psql('postgres', q{SELECT gid FROM pg_prepared_xacts ORDER BY split_part(gid, ':', 5)::bigint});
is($locks->(), join(', ', map { "$_ acct|RowExclusiveLock" } @ids), 'after a restart of the server: the tables that they lock');
$coord->start;
$dtx->poll($coord, q{SELECT count(*) FROM dtx.in_doubt WHERE last_error LIKE '%synchronous standby%'}, '4', 'seen on their servers');
is($dtx->sql($rows), in_doubt(), '... and whose they are');
$dtx->sql("ALTER SYSTEM SET synchronous_standby_names = ''");
$coord->reload;
$dtx->clean('at the end');

done_testing();

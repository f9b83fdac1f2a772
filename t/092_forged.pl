# Names of prepared transactions that the coordinator has not given: of a past, a
# running and a coming transaction, by a role that may do nothing but log in.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $p1 = $dtx->p(1);
$p1->safe_psql('postgres', 'CREATE ROLE mallory LOGIN');

sub forge
{
	my @gids = @_;
	$p1->safe_psql('postgres', join('', map { "BEGIN; PREPARE TRANSACTION '$_';" } @gids),
		extra_params => [ '-U', 'mallory' ]);
	return;
}

# All that mallory can know: the name of something that is prepared.
$dtx->arm;
my $s = $dtx->session;
$s->run($dtx->hold);
$s->start($dtx->transfer(10, 1, 2));
$dtx->wait_held($s);
my $seen = $p1->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts', extra_params => [ '-U', 'mallory' ]);
my ($stem, $xid, $n, $seal) = $seen =~ /^(dtx:\w+:\d+:\w+):(\d+):(\d+):(\w+)$/;
ok(defined $seal, "a name is seen: $seen");

# Those of the next transactions, with every seal that is known; that of another
# participant of the running one; and of past ones.
my @coming = map { "$stem:" . ($xid + $_) . ":1:$seal" } 1 .. 31;
my @running = ("$stem:$xid:3:$seal", "$stem:$xid:1:0123456789abcdef");
my @forged = (@coming, "$stem:3:1:$seal");
# s1 has room for 20
for my $some ([ @forged[ 0 .. 9 ] ], [ @forged[ 10 .. 18 ] ], [ @forged[ 19 .. 27 ] ], [ @forged[ 28 .. $#forged ] ])
{
	my $offset = -s $dtx->coord->logfile;
	forge(@$some);
	$dtx->wait_passes(2);
	$dtx->prepared_is(1, @$some + 1, 'none of the forged ones is touched');
	is($dtx->sql(q{SELECT count(*), count(decision), bool_and(last_error LIKE '%forged%') FROM dtx.in_doubt}),
		@$some . '|0|t', '... and they are shown');
	my $log = slurp_file($dtx->coord->logfile, $offset);
	is(scalar(() = $log =~ /is left alone: this coordinator has not given that name/g), scalar(@$some),
		'... and logged once each');
	my ($ret, $out, $err) = $dtx->coord->psql('postgres', "SELECT dtx.force_in_doubt('$some->[0]', 'commit', 'test')");
	like($err, qr/must not be finished by this server.*forged/s, 'dtx.force_in_doubt() wants to be told twice');
	$p1->safe_psql('postgres', join(';', map { "ROLLBACK PREPARED '$_'" } @$some), extra_params => [ '-U', 'mallory' ]);
	$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx.in_doubt', '0', 'taken away, forgotten');
}
forge(@running);
$dtx->wait_passes(2);
$dtx->prepared_is(1, 3, 'nor are those of the running transaction');
$dtx->release;
$s->finish;
is($s->stderr, '', 'the running transaction commits');
$dtx->poll($dtx->coord, q{SELECT count(*), bool_and(last_error LIKE '%forged%') FROM dtx.in_doubt}, '2|t',
	'... and then they are shown, too');
$dtx->prepared_is(1, 2, '... and not touched');
$p1->safe_psql('postgres', join(';', map { "ROLLBACK PREPARED '$_'" } @running), extra_params => [ '-U', 'mallory' ]);
$dtx->balances_are('100 90 110', '... everywhere');

# The names of those to come do not stop them.
forge(@coming[ 0 .. 15 ]);
for my $i (1 .. 5)
{
	$s->run($dtx->transfer(1, 1, 2));
	is($s->stderr, '', "commit $i, whose name was to be taken");
}
$dtx->balances_are('100 85 115', 'all of them have committed');
$dtx->wait_passes(1);
$p1->safe_psql('postgres', join(';', map { "ROLLBACK PREPARED '$_'" } @coming[ 0 .. 15 ]), extra_params => [ '-U', 'mallory' ]);
$dtx->clean('no harm done');
is($dtx->sql('SELECT count(*) FROM dtx.damage'), '0', '... and no damage');

# A name that was given: prepared once more by another user it is finished as its
# transaction was, which takes nothing from anybody.
forge($seen);
$dtx->prepared_is(1, 0, 'the name of a transaction that has committed');
is($dtx->sql('SELECT found, decided FROM dtx.damage'), 'reappeared|commit', '... is noticed');
$dtx->balances_are('100 85 115', '... nothing has changed');
$s->close;

# Where no user mapping leads to a superuser it cannot be finished, and readers of one moment
# cannot tell it from what may be committed in part, until somebody takes it away.
my $moment = q{SET pg_dtx.snapshot_timeout = '300ms'; BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = on; SELECT 'a moment'; COMMIT};
$p1->safe_psql('postgres', 'CREATE ROLE teller LOGIN; GRANT ALL ON acct TO teller');
$dtx->sql(q{ALTER USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (ADD user 'teller')});
$dtx->sql($dtx->transfer(1, 1, 2));
forge($seen);
$dtx->poll($dtx->coord, q{SELECT server, remote_user, last_error LIKE '%no user mapping leads to its owner "mallory"%' FROM dtx.in_doubt},
	's1|mallory|t', 'a name that was given, prepared by another user: dtx.in_doubt shows whose it is');
my ($ret, $out, $err) = $dtx->coord->psql('postgres', $moment);
like($err, qr/could not take a consistent snapshot on server "s1"\nDETAIL:  Prepared transaction "\Q$seen\E"/,
	'... and holds up readers of one moment');
$dtx->sql($dtx->transfer(1, 1, 2));
$dtx->balances_are('100 83 117', '... but no transaction');
$p1->safe_psql('postgres', "ROLLBACK PREPARED '$seen'");
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx.in_doubt', '0', 'rolled back there by a superuser, it is forgotten');
is($dtx->sql($moment), 'a moment', '... and read again');

# Others need not see the names.
$p1->safe_psql('postgres', q{REVOKE EXECUTE ON FUNCTION pg_prepared_xact() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pg_prepared_xact() TO teller});
($ret, $out, $err) = $p1->psql('postgres', 'SELECT gid FROM pg_prepared_xacts', extra_params => [ '-U', 'mallory' ]);
like($err, qr/permission denied for function pg_prepared_xact/, 'names of prepared transactions are hidden from others');
$dtx->sql($dtx->transfer(1, 1, 2));
is($dtx->sql($moment), 'a moment', '... and those who need them have them');
$dtx->wait_passes(2);
is($dtx->sql(q{SELECT last_error FROM dtx.servers WHERE server = 's1'}), '', '... the resolver, too');
done_testing();

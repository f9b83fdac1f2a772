# Decision rows are kept until every participant has confirmed, and not longer.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2]);

# SQL that writes the account $id on some nodes.
sub insert
{
	my ($id, @nodes) = @_;
	return 'BEGIN; '
	  . join('', map { "INSERT INTO acct$_ VALUES ($id, 0); " } @nodes) . 'COMMIT;';
}

# The nodes that have the account.
sub nodes
{
	my $id = shift;
	return join ' ', grep {
		my $table = $_ == 0 ? 'acct0' : 'acct';
		$dtx->{nodes}[$_]
		  ->safe_psql('postgres', "SELECT count(*) FROM $table WHERE id = $id")
	} 0 .. 2;
}

sub row_is
{
	my ($xid, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($dtx->sql("SELECT count(*) FROM dtx_internal.decision WHERE xid = $xid"),
		$expected, $name);
}

# The decision row of a transaction that is prepared on s2.
sub xid_on_s2
{
	$dtx->prepared_is(2, 1);
	return (split /:/, $dtx->gid(2))[4];
}

# The coordinator loses all that it does not have on disk.
sub crash
{
	$dtx->crash($dtx->coord);
	$dtx->coord->append_conf('postgresql.auto.conf',
		"synchronous_standby_names = ''");
	$dtx->coord->start;
	return;
}

# Two transactions in doubt; one can be confirmed in the pass in which the other
# can not, because s2 is down.
my ($one, $two) = ($dtx->session, $dtx->session);
$_->run($dtx->hold) for $one, $two;
$one->start(insert(2, 1, 0));
$dtx->wait_held($one);
$two->start(insert(3, 1, 2, 0));
$dtx->wait_held($two);
my $xid = xid_on_s2();
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '0', 'both are not visible yet');
$dtx->p(2)->stop('fast');
crash();
$_->finish for $one, $two;
$dtx->prepared_is(1, 0, 's1 has committed both');
$dtx->poll($dtx->coord, "SELECT count(*) FROM dtx_internal.decision WHERE xid <> $xid",
	'0', 'the decision that everybody has confirmed is forgotten');
row_is($xid, 1, '... and that of the other one, which s2 has not confirmed, is kept');

# Likewise when there is nothing else to be deleted in a pass.
crash();
$dtx->wait_passes(3);
row_is($xid, 1, '... also by a pass that can forget nothing');
is($dtx->sql("SELECT server FROM dtx.in_doubt"), 's2', '... and s2 is in doubt');
$dtx->p(2)->start;
$dtx->clean('s2 is back');
is(nodes(2), '0 1', 'the first one is committed');
is(nodes(3), '0 1 2', 'the second one is committed');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0',
	'everything is forgotten in the end');

# A session goes on while something of it is in doubt: it must not overwrite the
# decision.  It learns of it at COMMIT, when it uses the connection again, or
# when it commits the next transaction.
my $id = 10;
for my $how ('at COMMIT', 'with the connection', 'with the next transaction')
{
	my $s = $dtx->session;
	my $first = $id++;

	# it has a row to use again
	$s->run(insert($id++, 1, 0));
	$s->run(q{SET pg_dtx.commit_wait = off}) if $how ne 'at COMMIT';
	$dtx->proxy(2)->rule(cut => q{COMMIT PREPARED 'dtx});
	$s->run(insert($first, 1, 2));
	$dtx->proxy(2)->wait_for('cut');
	$xid = xid_on_s2();
	if ($how eq 'at COMMIT')
	{
		like($s->stderr, qr/WARNING/, "$how: it is told");
	}
	else
	{
		is($s->stderr, '', "$how: it is not told");
	}
	$s->run('SELECT count(*) FROM acct2') if $how eq 'with the connection';
	$s->run(insert($id++, 1, 0)) for 1 .. 3;
	is($s->stderr, '', '... it goes on');
	row_is($xid, 1, '... the decision is still there');
	$dtx->wait_passes(2);
	row_is($xid, 1, '... and after some passes');
	crash();
	$s->close;
	row_is($xid, 1, '... and after a crash');
	$dtx->proxy(2)->clear;
	$dtx->clean($how);
	is(nodes($first), '1 2', '... committed');
}

# The confirmation is still under way when the next transaction is committed.
{
	my $s = $dtx->session;
	$s->run(insert($id++, 1, 0));
	$s->run(q{SET pg_dtx.commit_wait = off});
	$dtx->proxy(2)->rule(hold => q{COMMIT PREPARED 'dtx});
	$s->run(insert(99, 1, 2));
	$dtx->proxy(2)->wait_for('hold');
	$xid = xid_on_s2();
	$s->run(insert($id++, 1, 0)) for 1 .. 3;
	row_is($xid, 1, 'not confirmed yet: the decision is still there');
	$dtx->proxy(2)->clear;
	$dtx->clean('not confirmed yet');
	is(nodes(99), '1 2', '... committed');
	$dtx->poll($dtx->coord, "SELECT count(*) FROM dtx_internal.decision WHERE xid = $xid",
		'0', '... and forgotten');
	$s->close;
}

# Confirmed by all, the row waits for its session's next transaction, but not
# after the end of the session: nobody could confirm it again if a server is
# dropped then.
my ($host, $port) = ($dtx->p(1)->host, $dtx->p(1)->port);
$dtx->sql(qq{
CREATE SERVER sx FOREIGN DATA WRAPPER postgres_fdw
	OPTIONS (host '$host', port '$port', dbname 'postgres', keepalives_idle '60');
CREATE USER MAPPING FOR CURRENT_USER SERVER sx;
CREATE FOREIGN TABLE acctx (id int, bal int) SERVER sx OPTIONS (table_name 'acct');
});
my $rows = q{SELECT count(*) FROM dtx_internal.decision
WHERE (SELECT oid FROM pg_foreign_server WHERE srvname = 'sx') = ANY (serverids)};
my $s = $dtx->session;
$s->run(insert($id++, 'x', 0));
is($s->stderr, '', 'a transaction on a server to be dropped');
$dtx->wait_passes(2);
is($dtx->sql($rows), '1', 'its decision stays while the session lasts');
$s->close;
$dtx->poll($dtx->coord, $rows, '0', '... and is forgotten after its end');
$dtx->sql('DROP SERVER sx CASCADE');
$dtx->coord->restart;
$dtx->wait_passes(2);
is($dtx->sql('SELECT count(*) FROM dtx.in_doubt'), '0',
	'after DROP SERVER and a restart nothing is in doubt');

done_testing();

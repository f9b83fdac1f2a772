# The examples of docs/sagas.md and docs/sagas-howto.md do what is said there.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 1);
my $coord = $dtx->coord;
my $text = join "\n", map { slurp_file("$FindBin::RealBin/../docs/$_.md") } 'sagas', 'sagas-howto';

# The servers of the examples: databases of their own.
my %node;
for my $server (qw(stock bank depot airline tokyo berlin))
{
	my $node = $dtx->p(1);
	$node->safe_psql('postgres', "CREATE DATABASE $server");
	$dtx->sql(sprintf "CREATE SERVER %s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname '%s'); "
		  . 'CREATE USER MAPPING FOR CURRENT_USER SERVER %s', $server, $node->host, $node->port, $server, $server);
	$node{$server} = $node;
}

sub wait_for
{
	my ($query) = @_;
	$coord->poll_query_until('postgres', $query) or die "timed out waiting for: $query\n";
	return;
}

# What has to be true before a block of that kind is run.
my %before = (
	'worker' => q{SELECT EXISTS (SELECT FROM dtx.saga_steps WHERE queue = 'hotels')},
	'canceler' => q{SELECT EXISTS (SELECT FROM dtx.saga_steps WHERE queue = 'hotel cancellations')},
	'when asleep' => q{SELECT EXISTS (SELECT FROM dtx.saga_steps WHERE action = 'sleep' AND state = 'waiting')});

my $blocks = 0;
while ($text =~ /^```sql\n-- ([^\n]*)\n(.*?)^```/gms)
{
	my ($where, $sql) = ($1, $2);
	if ($where =~ /^on (\w+)$/)
	{
		$node{$1}->safe_psql($1, $sql);
	}
	else
	{
		wait_for($before{$where}) if $before{$where};
		my $out = $dtx->sql($sql);
		like($out, qr/^order-41\|compensated\norder-42\|completed$/m, 'two orders') if $sql =~ /SELECT key, dtx.wait_saga/;
		like($out, qr/^completed$/m, 'the trip is booked') if $sql =~ /wait_saga.*'t1'/;
		like($out, qr/^compensated$/m, 'the trip is canceled') if $sql =~ /wait_saga.*'t2'/;
		like($out, qr/^completed$/m, 'the customer has moved') if $sql =~ /wait_saga.*'move to berlin'/;
	}
	$blocks++;
}
is($blocks, () = $text =~ /^```sql$/mg, 'all blocks of SQL say where they are to be run');

sub on
{
	my ($server, $query, $expected, $name) = @_;
	return is($node{$server}->safe_psql($server, $query), $expected, $name);
}

on('stock', 'SELECT qty FROM item', '4', 'one item is gone');
on('bank', 'SELECT count(*) FROM payment', '1', 'one payment');
on('depot', 'SELECT count(*) FROM shipment', '1', 'one shipment');
on('airline', 'SELECT seat, passenger, ticket FROM seat ORDER BY seat', "1|eva|t\n2||f\n3||f", 'one seat is taken');
on('bank', 'SELECT * FROM account ORDER BY who', "agency|500\neva|500", 'paid once');
is($dtx->sql('SELECT saga_key, state FROM trip ORDER BY 1'), "t1|booked\nt2|canceled", 'both trips');
on('tokyo', 'SELECT * FROM customer', '6|Bob|f', 'gone from Tokyo');
on('berlin', 'SELECT * FROM customer', '5|Ann|f', 'arrived in Paris');
is($dtx->sql('SELECT * FROM place ORDER BY 1'), "5|berlin\n6|tokyo", 'and everybody can find him');
is($dtx->sql(q{SELECT count(*) FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated')}), '0', 'all have ended');

done_testing();

# The examples of docs/sagas.md and docs/sagas-howto.md do what is said there; and pictures
# of sagas show their names, whatever they are.
use strict;
use utf8;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Encode ();
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 1, conf => "max_prepared_transactions = 30\n");
my $coord = $dtx->coord;
my $text = join "\n", map { slurp_file("$FindBin::RealBin/../docs/$_.md") } 'sagas', 'sagas-howto';

# The servers of the examples: databases of their own; those of the script are here.
IPC::Run::run([ 'psql', '-XAtq', '-d', $coord->connstr('postgres'), '-f', "$FindBin::RealBin/../examples/sagas.sql" ],
	'>', \my $made, '2>', \my $errors);
is($made . $errors, '', 'examples/sagas.sql makes databases and servers, and all is right with them');
my %node = map { $_ => $coord } qw(stock bank depot airline);
for my $server (qw(tokyo berlin))
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

# Pictures, as those draw them who are to draw them: dot, and Mermaid's own parser where
# DTX_MERMAID is a directory with the packages mermaid and jsdom of npm.
my @names = ('say "hi"', '[x] (y) {z}', "new\nline", 'back\\nslash\\', '<b>bold</b> &quot; #35;', '; %% --> |x| end',
	'`code` *b* _i_ ~s~', '#quot;#semi; $1', '1. list', '- list', '`md`', 'Überweisung 日本 ✈');
$dtx->sql(qq{SELECT dtx.define_saga('aw"k & \\ <ward>', VARIADIC ARRAY[} . join(', ', map
	{ "dtx.step('$_', execute => 'SELECT 1', kind => 'retriable')" } @names) . '])');
my $picture_of = $dtx->sql(q{SELECT dtx.start_saga('aw"k & \ <ward>')});
is($dtx->sql("SELECT dtx.wait_saga($picture_of, '30 s')"), 'completed', 'a saga with such names');
my $dir = PostgreSQL::Test::Utils::tempdir();

sub picture
{
	my ($what, $format) = @_;
	my $file = "$dir/saga.$format";
	open my $fh, '>', $file or die "$file: $!";
	print {$fh} $dtx->sql("SELECT dtx.explain_saga($what, '$format')"), "\n";
	close $fh or die "$file: $!";
	return $file;
}

sub drawn_by
{
	my ($program, @arguments) = @_;
	my ($out, $err) = ('', '');
	my $ok = IPC::Run::run([ $program, @arguments ], '>', \$out, '2>', \$err);
	ok($ok && $err !~ /Error/, "$program can read it") or diag($err);
	utf8::decode($out) if !utf8::is_utf8($out);
	return $out;
}

for my $what ([ q{'aw"k & \ <ward>'}, '' ], [ $picture_of, "\ncompleted" ])
{
	my @expected = map { "$_\n(here)$what->[1]" } @names;
  SKIP:
	{
		skip 'dot is not installed', 2 if !grep { -x "$_/dot" } split /:/, $ENV{PATH};
		my %entity = (lt => '<', gt => '>', amp => '&', quot => '"', nbsp => ' ');
		my @drawn;
		for my $node (drawn_by('dot', '-Tsvg', picture($what->[0], 'dot')) =~ /class="node">(.*?)<\/g>/gs)
		{
			my $label = join "\n", $node =~ /<text [^>]*>(.*?)<\/text>/gs;
			$label =~ s/&(?:#(\d+)|(\w+));/$1 ? chr $1 : $entity{$2} \/\/ "&$2;"/ge;
			push @drawn, $label =~ tr/\x{a0}/ /r;
		}
		is_deeply(\@drawn, \@expected, 'dot shows the steps as they are called');
	}
  SKIP:
	{
		skip 'DTX_MERMAID is not set', 2 if !$ENV{DTX_MERMAID};
		my $file = picture($what->[0], 'mermaid');
		my $json = drawn_by('sh', '-c', 'cd "$DTX_MERMAID" && cp "$0" mermaid-parse.mjs && node mermaid-parse.mjs "$1"',
			"$FindBin::RealBin/programs/mermaid.mjs", $file);
		is_deeply([ map { decode_json("[" . Encode::encode('UTF-8', $_) . "]")->[0] } split /\n/, $json ], \@expected,
			'Mermaid shows the steps as they are called');
	}
}

done_testing();

# The order service of examples/orders, three Go programs, while they, the coordinator and
# servers are killed: every order ends, and stock, charges and refunds are right.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use HTTP::Tiny;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $orders = "$FindBin::RealBin/../examples/orders";
my $timeout = $PostgreSQL::Test::Utils::timeout_default;
my $seconds = $ENV{DTX_WORKER_SECONDS} || 6;
my $dir = PostgreSQL::Test::Utils::tempdir();

plan skip_all => 'Go with lib/pq is not installed'
  if !(grep { -x "$_/go" } split /:/, $ENV{PATH}) || !-d '/usr/share/gocode/src/github.com/lib/pq';

system('mkdir', '-p', "$dir/src") == 0 && system('cp', '-r', "$FindBin::RealBin/../clients/go/dtx", "$dir/src/") == 0 or die;
{
	local %ENV = (%ENV, GO111MODULE => 'off', GOPATH => "$dir:/usr/share/gocode", GOCACHE => "$dir/cache", HOME => $dir);
	is(system('go', 'build', '-o', "$dir/$_", "$orders/$_.go"), 0, "$_ is built") for qw(order payment shipping);
	is(`gofmt -l $orders`, '', 'gofmt has nothing to say');
}
my $dtx = DtxTest->new(
	servers => 2,
	conf => "synchronous_standby_names = ''\nlog_statement = none\n",
	participant_conf => "log_statement = none\n");
$dtx->sql('ALTER SERVER s1 RENAME TO berlin; ALTER SERVER s2 RENAME TO tokyo');
$dtx->sql(slurp_file("$orders/orders.sql"));

my (%running, %program);
my $address = '127.0.0.1:' . PostgreSQL::Test::Cluster::get_free_port();

END
{
	local $?;
	kill 'KILL', keys %running if %running;
}

sub start
{
	my ($name) = @_;
	my $pid = fork // die;
	if ($pid == 0)
	{
		@ENV{qw(PGHOST PGPORT PGDATABASE)} = ($dtx->coord->host, $dtx->coord->port, 'postgres');
		open STDOUT, '>>', "$PostgreSQL::Test::Utils::log_path/146_$name.log" or die;
		open STDERR, '>&', \*STDOUT;
		{ exec "$dir/$name", $address; }
		POSIX::_exit(1);
	}
	$running{$pid} = 1;
	$program{$name} = $pid;
	return;
}

sub end
{
	my ($name, $signal) = @_;
	my $pid = delete $program{$name};
	kill $signal, $pid;
	waitpid $pid, 0;
	delete $running{$pid};
	return;
}

# What the order service answers, once it does.
sub ask
{
	my ($path, $order) = @_;
	my $deadline = time + $timeout;
	my $http = HTTP::Tiny->new(timeout => 40);
	while (time < $deadline)
	{
		my $response = $order
		  ? $http->post("http://$address$path", { content => encode_json($order) })
		  : $http->get("http://$address$path");
		return decode_json($response->{content}) if $response->{success};
		usleep(50_000);
	}
	die "no answer: $path";
}

start($_) for qw(order payment shipping);
my ($n, $round, %state) = (0, 0);
my $end = time + $seconds;
while (time < $end)
{
	for my $i (1 .. 5)
	{
		$n++;
		my $should = $n % 5 == 0 ? 'card' : $n % 7 == 0 ? 'address' : '';
		ask('/orders', {
			id => "$n", item => 'book',
			card => $should eq 'card' ? '0000' : '4111',
			address => $should eq 'address' ? '' : 'Main Street' });
		$state{$n} = $should ? 'compensated' : 'completed';
	}
	usleep(200_000);    # (a rhythm, not a wait)
	my $victim = (qw(payment shipping order))[ ++$round % 3 ];
	end($victim, 'KILL');
	start($victim);
	$dtx->crash($dtx->coord), $dtx->coord->start if $round == 6;
	$dtx->crash($dtx->p(2)), $dtx->p(2)->start if $round == 9;
	last if $n >= 95;
}
my %is = map { $_ => ask("/orders/$_?wait")->{state} } keys %state;

# (a lease of a minute may have to end before)
my $deadline = time + 2 * $timeout;
while ((grep { !/^comp.*d$/ } values %is) && time < $deadline)
{
	$is{$_} = ask("/orders/$_?wait")->{state} for grep { $is{$_} !~ /^comp.*d$/ } keys %is;
}
diag($dtx->sql(q{SELECT * FROM dtx.saga_steps WHERE state NOT IN ('completed', 'compensated')})) if grep { !/^comp.*d$/ } values %is;
is_deeply(\%is, \%state, "$n orders have ended as they should");
my $sold = grep { $_ eq 'completed' } values %state;
is($dtx->p(1)->safe_psql('postgres', q{SELECT quantity FROM stock WHERE item = 'book'}), 100 - $sold, 'the stock is right');
is($dtx->p(2)->safe_psql('postgres', 'SELECT sum(amount) FROM charge'), 20 * $sold, '... and what was charged');
end($_, 'TERM') for qw(payment shipping order);
$dtx->clean('orders');

done_testing();

# Many events through RabbitMQ and back, while relays and the broker are killed
# ("make test-broker"; DTX_BROKER_EVENTS).
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use RabbitMQ;
use Relay;
use Test::More;
use Time::HiRes qw(time usleep);

my $events = $ENV{DTX_BROKER_EVENTS} or plan skip_all => 'only in "make test-broker"';
my $relay = Relay->new('rabbitmq') or plan skip_all => $Relay::why;
my $rabbit = RabbitMQ->new or plan skip_all => $RabbitMQ::why;
my $aggregates = 1000;
my $each = int($events / $aggregates);
$PostgreSQL::Test::Utils::timeout_default = 1200;

sub say_it
{
	my $text = shift;
	note $text;
	diag $text if $ENV{DTX_BROKER_LOUD};
	return;
}

$relay->broker(host => '127.0.0.1', port => $rabbit->port);
$rabbit->declare(queues => { back => {}, 'back.dead' => {} });
$relay->sql(q{
CREATE TABLE got (seq bigserial, key int, n int);
CREATE FUNCTION take(jsonb) RETURNS void LANGUAGE sql AS $$
	INSERT INTO got (key, n) VALUES (($1->'headers'->>'key')::int, ($1->'data'->>'n')::int) $$;
GRANT INSERT ON got TO relay;
GRANT USAGE ON got_seq_seq TO relay;
CREATE PROCEDURE events(n int, aggregates int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		FOR a IN 1 .. aggregates BY 100 LOOP
			PERFORM dtx.publish('order', k::text, 'changed', jsonb_build_object('n', i), jsonb_build_object('key', k::text))
			FROM generate_series(a, a + 99) k;
			COMMIT;
		END LOOP;
	END LOOP;
END $$;
});
my %out = ('out.orders' => { aggregatetype => 'order', routing_key => 'back' });
my %in = ('in.back' => { queue => 'back', function => 'take' });
$relay->configure('out', %out, relay => { confirm_timeout => '30s' });
$relay->configure('in', %in);

# how fast: out, and back
my $writing = time;
$relay->sql("CALL events($each, $aggregates)");
say_it(sprintf('%d events written in %.1f s', $events, time - $writing));
my $begin = time;
is($relay->run('out', '--drain'), 0, 'all are published');
my $took = time - $begin;
say_it(sprintf('%d events of %d aggregates published in %.1f s: %.0f a second', $events, $aggregates, $took, $events / $took));
$begin = time;
is($relay->run('in', '--once'), 0, 'all come back');
$took = time - $begin - 2;
say_it(sprintf('%d messages with an effect each in %.1f s: %.0f a second', $events, $took, $events / $took));
is($relay->sql('SELECT count(*), count(DISTINCT (key, n)) FROM got'), ($each * $aggregates) . '|' . ($each * $aggregates), '... once');

# how late, with little to do
$relay->sql('TRUNCATE got');
my $pid = $relay->start('out');
$relay->poll(q{SELECT count(*) = 1 FROM dtx.relays});
my @latency;
for my $i (1 .. 50)
{
	my $at = time;
	$relay->sql(qq{SELECT dtx.publish('order', '1', 'changed', '{"n": 1}', '{"key": "1"}')});
	usleep(500) while $relay->sql('SELECT count(*) FROM dtx.outbox') != 0;
	push @latency, 1000 * (time - $at);
}
@latency = sort { $a <=> $b } @latency;
say_it(sprintf('from publish to confirmed and marked, with two psql: median %.0f ms, p95 %.0f ms', @latency[ 25, 47 ]));
# one aggregate: each waits for the confirm of the one before it
$relay->sql(q{SELECT dtx.publish('order', '1', 'changed', '{"n": 1}', '{"key": "1"}') FROM generate_series(1, 1000)});
$begin = time;
$relay->poll('SELECT waiting = 0 FROM dtx.outbox_stat');
say_it(sprintf('1000 events of one aggregate: %.0f a second', 1000 / (time - $begin)));
$relay->kill($pid, 'TERM');
$relay->ended($pid);
$rabbit->must('purge', queue => 'back');

# everything dies
my $n = int($each / 4) || 1;
$relay->configure($_, %out, %in) for qw(a b c);
my %pid = map { $_ => $relay->start($_) } qw(a b c);
my $session = $relay->node->background_psql('postgres', on_error_stop => 0);
$session->query_until(qr/begun/, "\\echo begun\nCALL events($n, $aggregates);\n\\echo written\n");
my ($kills, $broker_kills) = (0, 0);
my $end = time + 600;
while (time < $end && $relay->sql('SELECT count(*) FROM got') < $n * $aggregates)
{
	my $name = (qw(a b c))[ rand 3 ];
	usleep(200_000 + rand 600_000);
	$relay->kill($pid{$name});
	$relay->ended($pid{$name});
	$pid{$name} = $relay->start($name);
	$kills++;
	if ($kills % 8 == 0)
	{
		$rabbit->kill;
		$rabbit->start;
		$broker_kills++;
	}
}
$session->quit;
say_it("$kills relays and $broker_kills brokers were killed");
ok($relay->poll("SELECT count(*) >= " . $n * $aggregates . ' FROM got'), 'all have come');
is($relay->sql('SELECT count(*), count(DISTINCT (key, n)) FROM got'), ($n * $aggregates) . '|' . ($n * $aggregates), '... and had their effect once');
is($relay->sql('SELECT waiting, dead FROM dtx.outbox_stat'), '0|0', 'nothing is left');
is($rabbit->depth('back.dead'), 0, '... and nothing was given up');
$relay->kill($_, 'TERM') for values %pid;
$relay->ended($_) for values %pid;

done_testing();

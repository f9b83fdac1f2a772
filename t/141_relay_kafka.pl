# pg_dtx_relay and Kafka (librdkafka's mock cluster): nothing is lost, the order of each key
# holds, and each message has its effect once, whatever dies.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP;
use KafkaMock;
use PostgreSQL::Test::Utils;
use Relay;
use Test::More;

my $relay = Relay->new('kafka') or plan skip_all => $Relay::why;
my $kafka = KafkaMock->new('orders:4', 'in:2', 'in.dead:1', 'small:1');
my $long = $ENV{DTX_BROKER_LONG};

$relay->broker('bootstrap.servers' => $kafka->servers, 'session.timeout.ms' => 6000, 'heartbeat.interval.ms' => 500, 'reconnect.backoff.max.ms' => 500);
$relay->sql(q{
CREATE TABLE got (n int, what jsonb);
CREATE FUNCTION take(jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF $1->'data'->>'n' = '-1' THEN RAISE 'no such number' USING ERRCODE = '22023'; END IF;
	INSERT INTO got VALUES (($1->'data'->>'n')::int, $1);
END $$;
GRANT INSERT ON got TO relay;
CREATE PROCEDURE events(n int, aggregates int, kind text DEFAULT 'order') LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		FOR a IN 1 .. aggregates LOOP
			PERFORM dtx.publish(kind, a::text, 'changed', jsonb_build_object('key', a::text, 'n', i));
		END LOOP;
		COMMIT;
	END LOOP;
END $$;
});
my %out = ('out.orders' => { aggregatetype => 'order%', topic => 'orders' });
my %in = ('in.numbers' => { topic => 'in', function => 'take', attempts => 2 });
$relay->configure('out', %out);
$relay->configure('in', %in);
$relay->configure('both', %out, %in);

# What is new in the topic, as { key, n }.
my %seen;
sub drain
{
	my ($topic) = @_;
	my @new = grep { !$seen{"$topic/$_->{partition}/$_->{offset}"}++ } $kafka->consume($topic);
	return [ map { decode_json($_->{body}) } @new ];
}

is($relay->run('both', '--check'), 0, '--check: all is well') or diag $relay->out_text('both'), $relay->log_text('both');
$relay->configure('wrong', %out, kafka => { acks => 0 });
is($relay->run('wrong', '--check'), 3, 'what promises hang on cannot be set');
$relay->configure('wrong', %out, kafka => { 'bootstrap.servers' => '127.0.0.1:1' }, relay => { confirm_timeout => '1s' });
is($relay->run('wrong', '--check'), 5, '--check: no Kafka');

# forms
$relay->sql(q{SELECT dtx.publish('order', '7', 'created', '{"n": 1}', '{"trace": "abc"}')});
is($relay->run('out', '--once'), 0, '--once');
my ($m) = $kafka->consume('orders');
is_deeply([ $m->{key}, @{ $m->{headers} }{qw(type trace content-type)}, $m->{body} ], [ '7', 'created', 'abc', 'application/json', '{"n": 1}' ],
	'a message: key, headers, body');
like($m->{headers}{id}, qr/^[0-9a-f-]{36}$/, '... and id');
is($relay->sql('SELECT count(*) FROM dtx.outbox'), 0, 'what was confirmed is gone');
drain('orders');
for my $form ([ 'cloudevents', 'ce_type' ], [ 'debezium', 'eventType' ])
{
	$relay->configure('form', 'out.orders' => { topic => 'orders', envelope => $form->[0] });
	$relay->sql(q{SELECT dtx.publish('order', '7', 'paid', '{"n": 2}')});
	is($relay->run('form', '--once'), 0, $form->[0]);
	is((grep { ($_->{headers}{ $form->[1] } // '') eq 'paid' } $kafka->consume('orders')), 1, "... has the header $form->[1]");
}
drain('orders');
$relay->sql('CALL events(20, 10)');
is($relay->run('out', '--drain', '--timeout=60'), 0, '--drain');
is($relay->disorder(drain('orders'), 20, 1 .. 10), '', 'all is there, and in order');

# errors of the broker: NOT_ENOUGH_REPLICAS and then more time than there is
$relay->configure('short', %out, relay => { confirm_timeout => '1s' });
$relay->sql('CALL events(5, 4)');
$kafka->ask('fail 0 100 19');
isnt($relay->run('short', '--once'), 0, 'Kafka does not take it: it waits');
$kafka->ask('fail 0 1 6');
is($relay->run('short', '--drain', '--timeout=60'), 0, 'until it does') or diag $relay->log_text('short');
is($relay->disorder(drain('orders'), 5, 1 .. 4), '', '... in order');

# too large: its own fault
$relay->configure('poison', 'out.small' => { aggregatetype => 'small', topic => 'small', on_poison => 'skip' }, kafka => { 'message.max.bytes' => 2000 });
$relay->sql(q{
SELECT dtx.publish('small', i::text, 'x', jsonb_build_object('key', i::text, 'n', 1, 'text', repeat('x', CASE i WHEN 3 THEN 5000 ELSE 1 END))) FROM generate_series(1, 6) i});
is($relay->run('poison', '--once'), 0, 'one that is too large');
is($relay->sql(q{SELECT string_agg(aggregateid, ' '), bool_and(reason ~ 'large') FROM dtx.outbox_dead}), '3|t', '... is given up');
is(join(' ', sort map { $_->{key} } @{ drain('small') }), '1 2 4 5 6', '... and no other');

# messages that come
$kafka->ask(qq(produce in k$_ - {"n": $_})) for 1 .. 5;
$kafka->ask(qq(produce in k$_ id$_ {"n": $_})) for 6 .. 10, 10;
$kafka->ask('produce in k id-x {"n": -1}');
$kafka->ask('produce in k id-y {"n": 11}');
my $pid = $relay->start('in');
ok($relay->poll('SELECT count(*) >= 11 FROM got'), 'messages') or diag $relay->log_text('in');
is($relay->sql('SELECT count(*), count(DISTINCT n), sum(n) FROM got'), '11|11|66', '... have their effect once');
ok($relay->log_has('in', qr/dead letter/), 'poison is a dead letter');
($m) = $kafka->consume('in.dead');
is_deeply([ $m->{key}, @{ $m->{headers} }{qw(id dtx-sqlstate dtx-rule)}, $m->{body} ], [ 'k', 'id-x', '22023', 'numbers', '{"n": -1}' ], '... with all that it had, and why');

# another one: partitions are shared; then one is killed
my $other = $relay->start('both');
ok($relay->log_has('both', qr/in: connected/), 'a second one');
$kafka->ask(qq(produce in k$_ - {"n": $_})) for 100 .. 129;
$relay->kill($pid);
is($relay->ended($pid), -9, 'the first one is killed');
$kafka->ask(qq(produce in k$_ - {"n": $_})) for 130 .. 159;
ok($relay->poll('SELECT count(*) >= 60 FROM got WHERE n >= 100'), 'the other one has its partitions') or diag $relay->log_text('both');
is($relay->sql('SELECT count(*), count(DISTINCT n) FROM got WHERE n >= 100'), '60|60', '... each has its effect once');

# the broker goes, the database goes
$kafka->ask('down');
$relay->sql('CALL events(10, 4)');
ok($relay->poll(q{SELECT bool_or(error IS NOT NULL) FROM dtx.relays WHERE direction = 'out'}), 'Kafka is gone: dtx.relays shows that');
$relay->node->stop('immediate');
$kafka->ask('up');
$relay->node->start;
ok($relay->poll('SELECT waiting = 0 FROM dtx.outbox_stat'), 'both are back: all is published') or diag $relay->log_text('both');
is($relay->disorder(drain('orders'), 10, 1 .. 4), '', '... in order');
$kafka->ask(qq(produce in k$_ - {"n": $_})) for 200 .. 209;
ok($relay->poll('SELECT count(*) = 10 FROM got WHERE n >= 200'), 'messages have their effect again');
$relay->kill($other, 'TERM');
is($relay->ended($other), 0, 'SIGTERM ends it');

# the relay dies at any call
my ($died, $wrong, $n) = (0, '', 1);
for ($n = 1 + $$ % 2; ; $n += $long ? 1 : 2)
{
	$relay->sql('CALL events(2, 2)');
	my $status = $relay->run('out', '--once', { die => $n });
	my $again = $status == 0 ? 0 : $relay->run('out', '--drain', '--timeout=60');
	$died++ if $status == -9;
	$wrong ||= "call $n: exit status $again" if $again;
	$wrong ||= $relay->disorder(drain('orders'), 2, 1, 2);
	last if $status == 0 || $wrong;
}
is($wrong, '', 'it dies at any call');
cmp_ok($died, '>', 4, "... $died of them");

done_testing();

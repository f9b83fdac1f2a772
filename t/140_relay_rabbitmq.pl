# pg_dtx_relay and RabbitMQ: nothing is lost, the order of each key holds, and each message
# has its effect once, whatever dies.  "make test-broker" does more of it.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use CutProxy;
use IO::Socket::INET;
use JSON::PP;
use PostgreSQL::Test::Utils;
use RabbitMQ;
use Relay;
use Test::More;
use Time::HiRes qw(time usleep);

my $relay = Relay->new('rabbitmq') or plan skip_all => $Relay::why;
my $rabbit = RabbitMQ->new or plan skip_all => $RabbitMQ::why;
my $long = $ENV{DTX_BROKER_LONG};

$relay->broker(host => '127.0.0.1', port => $rabbit->port);
$rabbit->declare(
	exchanges => { orders => 'topic', nowhere => 'direct' },
	queues => { all => {}, in => {}, 'in.dead' => {}, replies => {}, 'replies.dead' => {}, hotels => {},
		full => { 'x-max-length' => 2, 'x-overflow' => 'reject-publish' } },
	bindings => [ [ 'orders', '#', 'all' ] ]);
$relay->sql(q{
CREATE TABLE got (n int, what jsonb);
CREATE FUNCTION take(jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF $1->'data'->>'n' = '-1' THEN RAISE 'no such number' USING ERRCODE = '22023'; END IF;
	IF $1->'data'->>'n' = '-2' AND nextval('later') <= 6 THEN
		RAISE 'not yet' USING ERRCODE = (ARRAY['40001', '40001', '25006', '25006', '55P03', '55P03'])[currval('later')];
	END IF;
	INSERT INTO got VALUES (($1->'data'->>'n')::int, $1);
END $$;
CREATE SEQUENCE later;
GRANT INSERT ON got TO relay;
GRANT USAGE ON SEQUENCE later TO relay;
-- n events of each of some aggregates, one in each transaction
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

my %out = ('out.orders' => { aggregatetype => 'order%', exchange => 'orders', routing_key => '{aggregatetype}.{aggregateid}.{type}' });
my %in = ('in.numbers' => { queue => 'in', function => 'public.take', attempts => 2 });
$relay->configure('out', %out);
$relay->configure('in', %in);
$relay->configure('both', %out, %in);

sub bodies
{
	my @messages = @_;
	return map { decode_json($_->{body}) } @messages;
}

# What is in a queue now, as { key, n }.
sub drain
{
	my ($queue) = @_;
	return [ bodies($rabbit->consume($queue, 1000000, 0)) ];
}

sub all_published
{
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($relay->poll('SELECT waiting = 0 FROM dtx.outbox_stat'), 'all events were published');
}

# ----------------------------------------------------------------
# Configuration, and --check
# ----------------------------------------------------------------

is($relay->run('both', '--check'), 0, '--check: all is well');
like($relay->out_text('both'), qr/^ok +database "postgres"\n.*^ok +broker "rabbitmq"\n.*^ok +out\.orders "orders"\n.*^ok +in\.numbers "in\.dead"\n/ms, '... and says so');
$relay->configure('wrong', 'out.x' => { exchange => 'no such' }, 'in.x' => { queue => 'none', function => 'taken' });
is($relay->run('wrong', '--check'), 4, '--check: a function that is not found');
like($relay->out_text('wrong'), qr/not ok rule "in\.x": there is no function taken\(jsonb\)/, '... says so');
like($relay->out_text('wrong'), qr/not ok out\.x "no such": .*NOT_FOUND/, '... and of the broker, too');
$relay->configure('wrong', %out, rabbitmq => { password => 'wrong' });
is($relay->run('wrong', '--check'), 5, '--check: the password is wrong');
like($relay->out_text('wrong'), qr/not ok broker "rabbitmq": could not log in: ACCESS_REFUSED/, '... says so');
is($relay->run('wrong', '--once'), 6, '--once: likewise');
$relay->configure('wrong', %out, database => { conninfo => 'host=/nowhere' });
is($relay->run('wrong', '--check'), 4, '--check: no database');
for ([ { relay => { nam => 'x' } }, qr/line \d+: there is no setting "nam" in \[relay\]/ ],
	[ { rabbitmq => { hots => 'x' } }, qr/there is no setting "hots" in \[rabbitmq\]/ ],
	[ { kafka => { 'bootstrap.servers' => 'x' } }, qr/a relay is for one broker/ ],
	[ { 'out.x' => { on_poison => 'maybe' } }, qr/must be stop or skip/ ],
	[ { 'in.x' => { queue => 'in', action => 'start_saga' } }, qr/\[in\.x\] has no saga/ ],
	[ { relay => { poll => '5 years' } }, qr/must be a time like/ ],
	[ { rabbitmq => { password_file => '/nowhere' } }, qr/could not open "\/nowhere"/ ])
{
	my ($sections, $message) = @$_;
	unlink $relay->log_file('wrong');
	$relay->configure('wrong', %out, %$sections);
	is($relay->run('wrong'), 3, 'configuration is refused');
	like($relay->log_text('wrong'), $message, '... and it is said why');
}
is($relay->run('out', '--nonsense'), 2, 'unknown option');

# ----------------------------------------------------------------
# TLS
# ----------------------------------------------------------------

my %tls = (host => 'localhost', port => $rabbit->tls_port, tls => 'on', ca_file => $rabbit->pem('ca.crt'));
SKIP:
{
	skip 'openssl is not installed', 1 if !$rabbit->tls_port;
	my @cases = (
		[ {}, 0, qr/^ok +broker/m, 'a server of that CA and name' ],
		[ { cert_file => $rabbit->pem('client.crt'), key_file => $rabbit->pem('client.key') }, 0, qr/^ok +broker/m, 'with a certificate of the client' ],
		[ { cert_file => $rabbit->pem('stranger.crt'), key_file => $rabbit->pem('stranger.key') }, 5, qr/not ok broker "rabbitmq": could not log in: /, 'with one of another CA' ],
		[ { cert_file => $rabbit->pem('client.crt'), key_file => $rabbit->pem('stranger.key') }, 5, qr/not ok broker "rabbitmq": could not read cert_file and key_file/, 'with the key of another one' ],
		[ { ca_file => $rabbit->pem('other.crt') }, 5, qr/not ok broker "rabbitmq": could not connect to "localhost", port \d+: SSL peer cert verification failed/, 'a server of another CA' ],
		[ { ca_file => undef }, 5, qr/not ok broker "rabbitmq": could not connect to "localhost", port \d+: SSL peer cert verification failed/, 'a server of no CA of this machine' ],
		[ { ca_file => $rabbit->pem('none') }, 5, qr/not ok broker "rabbitmq": could not read ca_file/, 'a CA that is not there' ],
		[ { host => '127.0.0.1' }, 5, qr/not ok broker "rabbitmq": could not connect to "127\.0\.0\.1", port \d+: SSL hostname verification failed/, 'a server of another name' ],
		[ { host => '127.0.0.1', ca_file => undef, verify => 'off' }, 0, qr/^ok +broker/m, 'whatever server it is' ],
		[ { password => 'wrong' }, 5, qr/not ok broker "rabbitmq": could not log in: ACCESS_REFUSED/, 'the password is wrong' ],
		[ { port => $rabbit->port }, 5, qr/not ok broker "rabbitmq": could not connect to "localhost", port \d+: /, 'a port without TLS' ],
		[ { host => '127.0.0.1', tls => 'off' }, 5, qr/not ok broker "rabbitmq": could not log in: /, 'no TLS, at a port with it' ]);
	for (@cases)
	{
		my ($settings, $status, $message, $what) = @$_;
		$relay->configure('tls', %out, rabbitmq => { %tls, %$settings });
		is($relay->run('tls', '--check'), $status, "TLS: $what") or diag $relay->out_text('tls');
		like($relay->out_text('tls'), $message, '... says so');
	}
}

# ----------------------------------------------------------------
# What is published, and in which form
# ----------------------------------------------------------------

$relay->sql(q{SELECT dtx.publish('order', '7', 'created', '{"n": 1}', '{"trace": "abc"}')});
is($relay->run('out', '--once'), 0, '--once');
my ($m) = $rabbit->consume('all', 1);
my $id = $m->{id};
like($id, qr/^[0-9a-f-]{36}$/, 'a message has an id');
is_deeply([ @$m{qw(key type content_type persistent)}, $m->{headers}{trace}, decode_json($m->{body}) ],
	[ 'order.7.created', 'created', 'application/json', JSON::PP::true, 'abc', { n => 1 } ], '... type, routing key, headers, and is persistent');
is($relay->sql('SELECT count(*) FROM dtx.outbox'), 0, 'what was confirmed is gone');
$relay->configure('ce', 'out.orders' => { exchange => 'orders', envelope => 'cloudevents' }, relay => { source => '/shop' });
$relay->sql(q{SELECT dtx.publish('order', '7', 'paid', '{"n": 2}')});
is($relay->run('ce', '--once'), 0, 'CloudEvents');
($m) = $rabbit->consume('all', 1);
is_deeply([ @{ $m->{headers} }{ map { "cloudEvents:$_" } qw(specversion id source type subject) } ],
	[ '1.0', $m->{id}, '/shop', 'paid', '7' ], '... have their attributes as headers');

# The order is not that of xid: B has got an xid before A, and its event comes after A's.
{
	my $b = $relay->node->background_psql('postgres');
	my $c = $relay->node->background_psql('postgres');
	$relay->sql('CREATE TABLE thing (i int); INSERT INTO thing VALUES (1)');
	$b->query_safe('BEGIN; SELECT pg_current_xact_id()');
	$c->query_safe('BEGIN; SELECT pg_current_xact_id()');
	$relay->sql(q{BEGIN; UPDATE thing SET i = 2; SELECT dtx.publish('order', 'x', 'changed', '{"key": "x", "n": 1}'); COMMIT});
	$b->query_safe(q{UPDATE thing SET i = 3});
	$b->query_safe(q{SELECT dtx.publish('order', 'x', 'changed', '{"key": "x", "n": 2}')});
	$b->query_safe('COMMIT');
	is($relay->run('out', '--once'), 0, 'two transactions that changed the same, while a third one is open');
	is($relay->disorder(drain('all'), 2, 'x'), '', '... in the order in which they did');
	$c->query_safe(q{SELECT dtx.publish('order', 'x', 'changed', '{"key": "x", "n": 3}')});
	$c->query_safe('COMMIT');
	is($relay->run('out', '--once'), 0, 'what is committed late');
	is_deeply(drain('all'), [ { key => 'x', n => 3 } ], '... is not lost');
	$_->quit for $b, $c;
}

# ----------------------------------------------------------------
# What the broker does not take
# ----------------------------------------------------------------

# a queue that is full: the order holds, though there is room for a later one meanwhile
$relay->configure('full', 'out.full' => { aggregatetype => 'full', routing_key => 'full' });
$relay->sql(q{CALL events(6, 1, 'full')});
is($relay->run('full', '--once'), 6, 'a queue that is full: events wait');
like($relay->log_text('full'), qr/refused by the broker/, '... and it is said why');
is($relay->sql('SELECT waiting FROM dtx.outbox_stat'), 4, '... those that had no room');
my $pid = $relay->start('full');
my @got;
push @got, bodies($rabbit->consume('full', 1)) while @got < 6;
is($relay->disorder(\@got, 6, '1'), '', 'all of them come, in their order, as there is room');
all_published();
$relay->kill($pid, 'TERM');
is($relay->ended($pid), 0, 'SIGTERM ends it');

# no queue is bound
$relay->configure('lost', 'out.lost' => { aggregatetype => 'lost', exchange => 'nowhere', routing_key => 'x' });
$relay->sql(q{CALL events(2, 1, 'lost')});
is($relay->run('lost', '--once'), 6, 'no queue takes it: it waits');
like($relay->log_text('lost'), qr/returned by exchange "nowhere" with routing key "x": NO_ROUTE/, '... and it is said why');
$rabbit->declare(queues => { found => {} }, bindings => [ [ 'nowhere', 'x', 'found' ] ]);
is($relay->run('lost', '--drain', '--timeout=60'), 0, 'until one does');
is($relay->disorder(drain('found'), 2, '1'), '', '... in order');

# one that no queue takes: those behind it of the same aggregate, which one would, are not sent
$rabbit->declare(queues => { mixed => {} }, bindings => [ [ 'nowhere', 'b', 'mixed' ] ]);
$relay->configure('mixed', 'out.mixed' => { aggregatetype => 'mixed', exchange => 'nowhere', routing_key => '{type}' });
$relay->sql(q{
SELECT dtx.publish('mixed', '1', 'a', '{"key": "1", "n": 1}');
SELECT dtx.publish('mixed', '1', 'b', '{"key": "1", "n": 2}')});
is($relay->run('mixed', '--once'), 6, 'no queue takes the first of two');
is($rabbit->depth('mixed'), 0, '... the second one is not sent before it');
$rabbit->declare(bindings => [ [ 'nowhere', 'a', 'mixed' ] ]);
is($relay->run('mixed', '--drain', '--timeout=60'), 0, '... but after it');
is($relay->disorder(drain('mixed'), 2, 1), '', '... in order');

# no such exchange: it is the message's own fault
$relay->configure('poison', 'out.poison' => { aggregatetype => 'poison', exchange => 'x.{aggregateid}', routing_key => 'x' });
$rabbit->declare(exchanges => { 'x.1' => 'fanout', 'x.3' => 'fanout' }, bindings => [ [ 'x.1', '', 'found' ], [ 'x.3', '', 'found' ] ]);
$relay->sql(q{CALL events(2, 3, 'poison')});
is($relay->run('poison', '--once'), 6, 'an exchange that there is not: stops');
is($relay->sql('SELECT waiting, dead FROM dtx.outbox_stat'), '2|0', '... and holds up nothing else');
like($relay->log_text('poison'), qr/cannot be published, and stops its bucket: NOT_FOUND/, '... and it is said why');
is($relay->disorder(drain('found'), 2, 1, 3), '', '... others are in order');
$relay->configure('poison', 'out.poison' => { aggregatetype => 'poison', exchange => 'x.{aggregateid}', routing_key => 'x', on_poison => 'skip' });
is($relay->run('poison', '--once'), 0, 'or is skipped');
is($relay->sql(q{SELECT count(*), bool_and(reason ~ 'NOT_FOUND'), min(relay) FROM dtx.outbox_dead}), '2|t|poison', '... and kept with the reason');
$rabbit->declare(exchanges => { 'x.2' => 'fanout' }, bindings => [ [ 'x.2', '', 'found' ] ]);
$relay->sql('SELECT dtx.republish(id) FROM dtx.outbox_dead ORDER BY at');
is($relay->run('poison', '--once'), 0, 'published after all');
is($relay->disorder(drain('found'), 2, 2), '', '... all of them');

# ----------------------------------------------------------------
# Messages that come
# ----------------------------------------------------------------

my $json = 'application/json';
$rabbit->publish((map { { key => 'in', id => "m$_", content_type => $json, body => qq({"n": $_}) } } 1 .. 20),
	{ key => 'in', id => 'm7', content_type => $json, body => '{"n": 7}' });
is($relay->run('in', '--once'), 0, 'messages');
is($relay->sql('SELECT count(*), count(DISTINCT n), sum(n) FROM got'), '20|20|210', '... have their effect once');
is($rabbit->depth('in'), 0, '... and are acknowledged');
$relay->sql('TRUNCATE got');
$rabbit->publish(
	{ key => 'in', id => 'p1', content_type => $json, body => '{"n": 1}' },
	{ key => 'in', id => 'p2', content_type => $json, body => '{"n": -1}', headers => { trace => 'abc' } },
	{ key => 'in', id => 'p3', content_type => $json, body => 'no json' },
	{ key => 'in', content_type => $json, body => '{"n": 4}' },
	{ key => 'in', id => 'p5', content_type => $json, body => "\0" },
	{ key => 'in', id => 'p6', content_type => $json, body => '{"n": -2}' },
	{ key => 'in', id => 'p7', content_type => $json, body => '{"n": 7}' });
is($relay->run('in', '--once'), 0, 'poison');
is($relay->sql(q{SELECT string_agg(n::text, ' ' ORDER BY n) FROM got}), '-2 1 7', '... holds up nothing, and what goes away by itself is tried again');
my @dead = $rabbit->consume('in.dead', 10, 0);
is(join(' ', map { ($_->{id} // '-') . ':' . $_->{headers}{'dtx-sqlstate'} } @dead), 'p2:22023 p3:22P02 -:22004 p5:22021', '... and is among the dead letters, with the SQLSTATE');
is_deeply([ @{ $dead[0]{headers} }{qw(trace dtx-error dtx-rule)}, $dead[0]{body} ], [ 'abc', 'no such number (22023)', 'numbers', '{"n": -1}' ],
	'... the error, and all that it had');

# sagas
$relay->sql(q{
GRANT EXECUTE ON FUNCTION dtx.define_saga, dtx.start_saga, dtx.signal_saga(text, text, text, jsonb) TO relay;
SET ROLE relay;
SELECT dtx.define_saga('order', dtx.step_signal('paid'), dtx.step_external('hotel', 'hotels', '{"stars": 3}', compensate_queue => 'hotels'));
RESET ROLE;
});
$relay->configure('sagas',
	'in.starts' => { queue => 'in', action => 'start_saga', saga => 'order', key => 'data.order' },
	'in.replies' => { queue => 'replies', action => 'reply' },
	'step.hotels' => { routing_key => 'hotels', reply_to => 'replies' });
is($relay->run('sagas', '--check'), 0, 'rules for sagas') or diag $relay->out_text('sagas');
$rabbit->publish(map { { key => 'in', id => "s$_", content_type => $json, body => '{"order": "o1"}' } } 1 .. 2);
is($relay->run('sagas', '--once'), 0, 'a message starts a saga');
is($relay->sql(q{SELECT count(*), min(key), min(role::text) FROM dtx.sagas}), '1|o1|relay', '... once, by its key, as the role of the relay');
$relay->configure('signals', 'in.signals' => { queue => 'in', action => 'signal_saga', saga => 'order', signal => 'paid', key => 'header.order' });
$rabbit->publish({ key => 'in', id => 's3', content_type => $json, headers => { order => 'o1' }, body => '{"amount": 3}' });
is($relay->run('signals', '--once'), 0, 'a message is a signal');
$pid = $relay->start('sagas');
($m) = $rabbit->consume('hotels', 1, 60);
is_deeply([ @$m{qw(type reply_to)}, @{ $m->{headers} }{qw(step action attempt)} ], [ 'execute', 'replies', 'hotel', 'execute', '1' ], 'an external step is a command');
$rabbit->publish({ key => 'replies', id => 'r1', correlation_id => $m->{correlation_id}, headers => { status => 'ok' }, content_type => $json, body => '{"result": {"booking": "H1"}}' });
ok($relay->poll(q{SELECT state = 'completed' FROM dtx.sagas}), 'its reply ends it');
is($relay->sql(q{SELECT result->>'booking', attempts FROM dtx.saga_steps WHERE step = 'hotel'}), 'H1|1', '... with its result');
$relay->kill($pid, 'TERM');
is($relay->ended($pid), 0, 'SIGTERM ends it');

# ----------------------------------------------------------------
# The relay dies at any call
# ----------------------------------------------------------------

sub dies_everywhere
{
	my ($name, $begin, $check) = @_;
	my ($n, $died, $wrong) = (0, 0, '');
	my $step = $long ? 1 : 2;
	for ($n = 1 + ($long ? 0 : $$ % 2); ; $n += $step)
	{
		$begin->($n);
		my $status = $relay->run($name, '--once', { die => $n });
		$died++ if $status == -9;
		my $again = $status == 0 ? 0 : $relay->run($name, '--once');
		$wrong ||= "call $n: exit status $again" if $again != 0;
		my $result = $check->($n);
		$wrong ||= "call $n: $result" if $result ne '';
		last if $status == 0 || $wrong;
	}
	is($wrong, '', "$name dies at any call");
	cmp_ok($died, '>', $long ? 15 : 7, "... $died of them");
	return;
}

dies_everywhere('out', sub { $relay->sql('CALL events(2, 2)') },
	sub {
		my $left = $relay->sql('SELECT count(*) FROM dtx.outbox');
		return $left ? "$left events are left" : $relay->disorder(drain('all'), 2, 1, 2);
	});
$relay->sql('TRUNCATE got');
dies_everywhere('in', sub { my $n = shift; $rabbit->publish(map { { key => 'in', id => "d$n-$_", content_type => $json, body => qq({"n": $n}) } } 1 .. 2) },
	sub {
		my $n = shift;
		my $count = $relay->sql("SELECT count(*) FROM got WHERE n = $n");
		return $count == 2 && $rabbit->depth('in') == 0 ? '' : "$count effects, " . $rabbit->depth('in') . ' left';
	}) if 1;

# ----------------------------------------------------------------
# Relays come and go; the broker and the database, too
# ----------------------------------------------------------------

my ($socket) = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1');
my $metrics_port = $socket->sockport;
close $socket;
$relay->configure('one', %out, %in, relay => { metrics => "127.0.0.1:$metrics_port" });
$relay->configure('two', %out, %in, $rabbit->tls_port ? (rabbitmq => \%tls) : ());
sub http
{
	my $path = shift;
	my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $metrics_port, Timeout => 10) or return '';
	print $s "GET $path HTTP/1.0\r\n\r\n";
	local $/;
	return <$s> // '';
}
my $one = $relay->start('one');
my $two = $relay->start('two');
ok($relay->poll(q{SELECT count(*) = 2 AND min(buckets) = 32 FROM dtx.relays WHERE direction = 'out'}), 'two relays share the outbox');
like(http('/readyz'), qr/^HTTP\/1\.\d 200/, 'it says when it is ready');
my $n = $long ? 200 : 30;
my $events = $relay->node->background_psql('postgres');
$events->query_until(qr/begun/, "\\echo begun\nCALL events($n, 8);\n");
$relay->kill($one);
$relay->ended($one);
ok($relay->poll(q{SELECT count(*) = 1 AND min(buckets) = 64 FROM dtx.relays WHERE direction = 'out'}), 'what a dead one had is taken over');
$events->query_safe('SELECT 1');
all_published();
is($relay->disorder(drain('all'), $n, 1 .. 8), '', 'nothing was lost, and the order holds, with two of them');

# the broker
$one = $relay->start('one');
$events->query_until(qr/begun/, "\\echo begun\nCALL events($n, 8);\n");
$rabbit->kill;
$events->query_safe('SELECT 1');
ok($relay->poll(q{SELECT bool_and(error IS NOT NULL) FROM dtx.relays WHERE direction = 'out'}), 'the broker is killed: dtx.relays shows that');
like(http('/readyz'), qr/^HTTP\/1\.\d 503/, '... and it is not ready');
like(http('/metrics'), qr/^pg_dtx_relay_connected\{direction="out",to="broker"\} 0$/m, '... and metrics do');
$rabbit->start;
all_published();
is($relay->disorder(drain('all'), $n, 1 .. 8), '', 'it comes back: nothing was lost, and the order holds');
like(http('/metrics'), qr/^pg_dtx_relay_latency_seconds_count [1-9]/m, 'metrics');

# the database, while messages come
$events->quit;
$relay->sql('TRUNCATE got');
$rabbit->must('many', queue => 'in', n => 500, prefix => 'c');
$relay->node->stop('immediate');
$relay->node->start;
ok($relay->poll('SELECT count(*) >= 500 FROM got'), 'the database crashes while messages come');
is($relay->sql('SELECT count(*), count(DISTINCT n) FROM got'), '500|500', '... each has its effect once');

# the network: connections are reset at any byte, to the broker and to the database
$relay->kill($_, 'TERM') for $one, $two;
$relay->ended($_) for $one, $two;
my $to_broker = CutProxy->new($rabbit->tls_port // $rabbit->port);
my $to_database = CutProxy->new($relay->node->host . '/.s.PGSQL.' . $relay->node->port);
$relay->configure('far', %out, %in,
	rabbitmq => { ($rabbit->tls_port ? %tls : ()), port => $to_broker->port },
	database => { conninfo => 'host=127.0.0.1 port=' . $to_database->port . ' user=relay dbname=postgres sslmode=disable' });
$relay->configure('near', %out, %in);
my $far = $relay->start('far');
my $near = $relay->start('near');
ok($relay->poll(q{SELECT count(*) = 2 AND min(buckets) = 32 FROM dtx.relays WHERE direction = 'out'}), 'a relay far away and a near one');
$relay->sql('TRUNCATE got');
$events = $relay->node->background_psql('postgres');
$events->query_until(qr/begun/, "\\echo begun\nCALL events(4 * $n, 8);\n");
$rabbit->must('many', queue => 'in', n => 500, prefix => 'n');
for my $i (1 .. ($long ? 40 : 12))
{
	my $net = $i % 2 ? $to_broker : $to_database;
	my $before = $net->cuts;
	$net->cut_after(int rand 8_000);
	# (there may be so little to pass on that it is never cut)
	for (1 .. 40) { last if $net->cuts > $before; usleep(50_000); }
	$net->cut if $net->cuts == $before;
	usleep(100_000);
	$net->mend;
}
cmp_ok($to_broker->cuts, '>=', 3, 'connections to the broker were cut');
cmp_ok($to_database->cuts, '>=', 3, '... and to the database');
$events->query_safe('SELECT 1');
$events->quit;
all_published();
is($relay->disorder(drain('all'), 4 * $n, 1 .. 8), '', '... nothing was lost, and the order holds');
ok($relay->poll('SELECT count(*) >= 500 FROM got'), '... all messages have their effect');
is($relay->sql('SELECT count(*), count(DISTINCT n) FROM got'), '500|500', '... once');
ok($relay->poll(q{SELECT count(*) = 2 AND min(buckets) = 32 FROM dtx.relays WHERE direction = 'out'}), '... and the relays share the outbox as before');

# three of them, and two again
$two = $relay->start('two');
ok($relay->poll(q{SELECT count(*) = 3 AND min(buckets) >= 20 AND sum(buckets) = 64 FROM dtx.relays WHERE direction = 'out'}), 'a third one gets its share');
$events = $relay->node->background_psql('postgres');
$events->query_until(qr/begun/, "\\echo begun\nCALL events($n, 16);\n");
$relay->kill($two, 'TERM');
is($relay->ended($two), 0, '... and leaves');
ok($relay->poll(q{SELECT count(*) = 2 AND min(buckets) = 32 FROM dtx.relays WHERE direction = 'out'}), '... which the others have again');
$events->query_safe('SELECT 1');
$events->quit;
all_published();
is($relay->disorder(drain('all'), $n, 1 .. 16), '', '... and the order holds while buckets move');

# nothing is passed on, and nobody says so
$relay->kill($near, 'TERM');
$relay->ended($near);
$to_broker->hang;
$relay->sql('CALL events(2, 2)');
ok($relay->poll(q{SELECT bool_and(error IS NOT NULL) FROM dtx.relays WHERE direction = 'out'}), 'the broker cannot be heard: dtx.relays shows that');
$to_broker->mend;
all_published();
$to_database->hang;
$relay->sql('CALL events(2, 2)');
usleep(300_000);
$to_database->mend;
all_published();
is($relay->disorder(drain('all'), 2, 1, 2), '', '... events wait, and keep their order');
$relay->kill($far, 'TERM');
is($relay->ended($far), 0, 'SIGTERM ends it');
$one = $relay->start('one');
$two = $relay->start('two');
ok($relay->poll(q{SELECT count(*) = 2 FROM dtx.relays WHERE direction = 'out'}), 'both are there again');

# credentials, and reload
$relay->configure('two', %out, rabbitmq => { password => 'wrong' });
$relay->kill($one, 'TERM');
$relay->ended($one);
$relay->kill($two, 'HUP');
ok($relay->log_has('two', qr/beginning anew.*ACCESS_REFUSED/s), 'SIGHUP: with what the configuration says now');
$relay->sql('CALL events(2, 2)');
ok($relay->poll(q{SELECT error ~ 'ACCESS_REFUSED' FROM dtx.relays}), 'the password is wrong: events wait');
$relay->configure('two', 'out.x' => { exchang => 'x' });
$relay->kill($two, 'HUP');
ok($relay->log_has('two', qr/configuration is not used: .*exchang/), 'a configuration with a mistake is not used');
$relay->configure('two', %out);
$relay->kill($two, 'HUP');
all_published();
is($relay->disorder(drain('all'), 2, 1, 2), '', '... and come when it is right');
unlike($relay->log_text('two'), qr/guest/, 'no password is logged');

# it does not answer
$rabbit->pause;
$relay->sql('CALL events(2, 2)');
ok($relay->log_has('two', qr/no confirm of \d+ messages within|could not (?:log in|connect)/), 'the broker does not answer');
$rabbit->continue;
all_published();
is($relay->disorder(drain('all'), 2, 1, 2), '', '... until it does');
$relay->kill($two, 'TERM');
is($relay->ended($two), 0, 'SIGTERM ends it');

done_testing();

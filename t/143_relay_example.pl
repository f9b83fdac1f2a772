# examples/broker: an order as a saga over RabbitMQ, with services in Python and Go.
use strict;
use warnings FATAL => 'all';

use FindBin;
use IPC::Run ();
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Relay;
use Test::More;

my $dir = Relay::build('rabbitmq') or plan skip_all => $Relay::why;
plan skip_all => 'rabbitmq-server is not installed' if !-x '/usr/lib/rabbitmq/bin/rabbitmq-server';
plan skip_all => 'python3-pika is not installed' if system("/usr/bin/python3 -c 'import pika' 2>/dev/null") != 0;
plan skip_all => 'Go, or its AMQP client, is not installed'
  if system('command -v go >/dev/null') != 0 || !-d '/usr/share/gocode/src/github.com/rabbitmq/amqp091-go';

$ENV{PG_DTX_RELAY} = "$dir/pg_dtx_relay";
$ENV{PG_DTX_RELAY_MODULES} = $dir;
my ($out, $err) = ('', '');
ok(IPC::Run::run([ 'bash', "$FindBin::RealBin/../examples/broker/run.sh", 10 ], '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(300)), 'the example runs')
  or diag "$out$err";
like($out, qr/^10 orders: 8 completed, 2 compensated$/m, '... and all orders end as they should');
like($out, qr/^items that are left: 92$/m, '... each of them once');
is($err, '', '... without a word');

done_testing();

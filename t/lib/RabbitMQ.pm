# A RabbitMQ of a test's own: Debian's, with its own directory, ports, cookie and epmd, run
# by who runs the test.  Nothing of it is left behind.
#
#	my $rabbit = RabbitMQ->new;			# undef, and $RabbitMQ::why, if there is none
#	$rabbit->declare(exchanges => { orders => 'topic' }, queues => { all => {} },
#		bindings => [ [ 'orders', '#', 'all' ] ]);
#	my @messages = $rabbit->consume('all', 10);
#
# With openssl it takes TLS, too, at $rabbit->tls_port, as "localhost"; $rabbit->pem('ca.crt')
# and the like are files.  It asks clients for certificates of its CA, but takes those without.
package RabbitMQ;

use strict;
use warnings FATAL => 'all';

use Carp;
use File::Path qw(make_path);
use IO::Socket::INET;
use IPC::Run ();
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX qw(:sys_wait_h setsid);
use Time::HiRes qw(time usleep);

our $why;
my @all;
my $python = '/usr/bin/python3';
(my $client = __FILE__) =~ s{lib/RabbitMQ\.pm$}{programs/amqp.py};

END
{
	local $?;
	$_->kill_all for @all;
}

sub new
{
	my ($class, %params) = @_;
	my $server = '/usr/lib/rabbitmq/bin/rabbitmq-server';

	if (!-x $server) { $why = 'rabbitmq-server is not installed'; return; }
	if (system("$python -c 'import pika' 2>/dev/null") != 0) { $why = 'python3-pika is not installed'; return; }
	my ($epmd) = grep { -x } '/usr/bin/epmd', glob('/usr/lib/erlang/erts-*/bin/epmd');
	if (!$epmd) { $why = 'epmd is not installed'; return; }

	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { dir => $dir, server => $server, port => free_port(), dist => free_port(), epmd_port => free_port() }, $class;
	$self->{user} = 'relay';
	$self->{password} = 'p ;#w"ord';
	make_path("$dir/mnesia", "$dir/log");
	write_file("$dir/plugins", "[].\n");
	my $tls = '';
	if ($self->make_certificates)
	{
		$self->{tls_port} = free_port();
		$tls = <<CONF;
listeners.ssl.1 = 127.0.0.1:$self->{tls_port}
ssl_options.cacertfile = $dir/ca.crt
ssl_options.certfile = $dir/server.crt
ssl_options.keyfile = $dir/server.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
CONF
	}
	write_file("$dir/rabbitmq.conf", <<CONF . ($params{conf} // ''));
listeners.tcp.1 = 127.0.0.1:$self->{port}
log.console = false
log.file.level = info
default_user = guest
default_pass = guest
loopback_users.guest = true
$tls
CONF

	# nothing but this machine can reach it
	$self->{env} = {
		HOME => $dir,
		ERL_EPMD_PORT => $self->{epmd_port},
		ERL_EPMD_ADDRESS => '127.0.0.1',
		RABBITMQ_NODENAME => "relay$self->{port}\@localhost",
		RABBITMQ_DIST_PORT => $self->{dist},
		RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS => '-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none',
		RABBITMQ_CONFIG_FILE => "$dir/rabbitmq.conf",
		RABBITMQ_MNESIA_BASE => "$dir/mnesia",
		RABBITMQ_LOG_BASE => "$dir/log",
		RABBITMQ_ENABLED_PLUGINS_FILE => "$dir/plugins",
		RABBITMQ_PID_FILE => "$dir/pid",
		RABBITMQ_CONF_ENV_FILE => "$dir/no-such-file",
		LANG => 'C.UTF-8',
	};
	push @all, $self;
	$self->{epmd} = $self->run_child($epmd, '-port', $self->{epmd_port}, '-address', '127.0.0.1');
	if (!$self->start) { $why = 'RabbitMQ does not start'; return; }
	return $self;
}

# (those that PostgreSQL::Test::Cluster gives away)
sub free_port
{
	return PostgreSQL::Test::Cluster::get_free_port();
}

sub write_file
{
	my ($file, $text) = @_;
	open(my $fh, '>', $file) or croak "$file: $!";
	print $fh $text;
	close $fh or croak "$file: $!";
	return;
}

# A process in a group of its own; returns its id.
sub run_child
{
	my ($self, @command) = @_;
	my $pid = fork // croak "fork: $!";
	return $pid if $pid;
	setsid();
	@ENV{ keys %{ $self->{env} } } = values %{ $self->{env} };
	chdir $self->{dir};
	open(STDIN, '<', '/dev/null');
	open(STDOUT, '>>', "$self->{dir}/out");
	open(STDERR, '>&', \*STDOUT);
	exec { $command[0] } @command or POSIX::_exit(127);
}

# Start it, and wait until it takes connections.
sub start
{
	my $self = shift;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	$self->{pid} = $self->run_child($self->{server});
	while (time < $deadline)
	{
		return 1 if $self->client('ping')->{ok};
		if (waitpid($self->{pid}, WNOHANG) == $self->{pid})
		{
			print STDERR "# RabbitMQ ended: ", slurp_file("$self->{dir}/out"), "\n";
			delete $self->{pid};
			return 0;
		}
		usleep(200_000);
	}
	return 0;
}

# kill -9 of all of it
sub kill
{
	my $self = shift;
	return if !$self->{pid};
	CORE::kill 'KILL', -$self->{pid};
	waitpid($self->{pid}, 0);
	delete $self->{pid};
	return;
}

# It does not answer, or goes on.
sub pause { CORE::kill 'STOP', -$_[0]->{pid}; return; }
sub continue { CORE::kill 'CONT', -$_[0]->{pid}; return; }

sub kill_all
{
	my $self = shift;
	$self->continue if $self->{pid};
	$self->kill;
	return if !$self->{epmd};
	CORE::kill 'KILL', $self->{epmd};
	waitpid($self->{epmd}, 0);
	delete $self->{epmd};
	return;
}

sub port { return $_[0]->{port}; }
sub tls_port { return $_[0]->{tls_port}; }
sub pem { return "$_[0]->{dir}/$_[1]"; }

# A CA that has signed the server's certificate and a client's, and another one, which has
# signed another client's.
sub make_certificates
{
	my $self = shift;
	my $dir = $self->{dir};

	return 0 if system('command -v openssl >/dev/null 2>&1') != 0;
	write_file("$dir/san", "subjectAltName=DNS:localhost\n");
	my $made = 1;
	my $openssl = sub { $made &&= system("cd '$dir' && openssl $_[0] >>openssl.log 2>&1") == 0; };
	for my $ca (qw(ca other))
	{
		$openssl->("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=$ca -keyout $ca.key -out $ca.crt");
	}
	for my $pair ([ server => 'ca', 'localhost', '-extfile san' ], [ client => 'ca', 'relay', '' ], [ stranger => 'other', 'relay', '' ])
	{
		my ($name, $ca, $cn, $options) = @$pair;
		$openssl->("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=$cn -keyout $name.key -out $name.csr");
		$openssl->("x509 -req -days 2 -in $name.csr -CA $ca.crt -CAkey $ca.key -CAcreateserial $options -out $name.crt");
	}
	return $made;
}

# What the test program says to a request: { ok => 1, ... }, or { error => ... }.
sub client
{
	my ($self, $what, %args) = @_;
	my ($out, $err) = ('', '');
	my $request = encode_json({ do => $what, port => $self->{port}, user => $args{user} // 'guest', password => $args{password} // 'guest', %args });

	eval { IPC::Run::run([ $python, $client ], '<', \$request, '>', \$out, '2>', \$err, IPC::Run::timeout(300)); };
	my $reply = eval { decode_json($out) };
	return $reply // { error => "$@ $err $out" };
}

sub must
{
	my ($self, @request) = @_;
	my $reply = $self->client(@request);
	croak "$request[0]: $reply->{error}" if !$reply->{ok};
	return $reply;
}

sub declare
{
	my ($self, %what) = @_;
	$self->must('declare', %what);
	return;
}

# Up to $n messages, acknowledged; those that come within $seconds.
sub consume
{
	my ($self, $queue, $n, $seconds) = @_;
	return @{ $self->must('consume', queue => $queue, n => $n, seconds => $seconds // 20)->{messages} };
}

sub publish
{
	my ($self, @messages) = @_;
	$self->must('publish', messages => \@messages);
	return;
}

# How many wait in a queue?
sub depth
{
	my ($self, $queue) = @_;
	return $self->must('depth', queue => $queue)->{depth};
}

1;

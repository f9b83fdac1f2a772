# A Kafka for tests: librdkafka's mock cluster, in a process of its own.
#
#	my $kafka = KafkaMock->new('orders:4', 'in:2');
#	$kafka->ask('produce in k1 id1 {"n": 1}');
#	my @messages = $kafka->consume('orders');	# { partition, offset, key, headers, body }
package KafkaMock;

use strict;
use warnings FATAL => 'all';

use Carp;
use FindBin;
use IPC::Open2;
use PostgreSQL::Test::Utils;

my %running;

END
{
	local $?;
	for my $pid (keys %running)
	{
		kill 'KILL', $pid;
		waitpid($pid, 0);
	}
}

sub new
{
	my ($class, @topics) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $log = `cc -D_GNU_SOURCE -o '$dir/kafka_mock' '$FindBin::RealBin/programs/kafka_mock.c' -lrdkafka 2>&1`;
	croak "could not build kafka_mock: $log" if $?;
	my $self = bless {}, $class;
	$self->{pid} = open2($self->{from}, $self->{to}, "$dir/kafka_mock", @topics);
	$running{ $self->{pid} } = 1;
	chomp($self->{servers} = readline($self->{from}));
	return $self;
}

sub servers { return $_[0]->{servers}; }

# Lines of the answer to a command.
sub ask
{
	my ($self, $command) = @_;
	my @lines;

	print { $self->{to} } "$command\n";
	$self->{to}->flush;
	while (defined(my $line = readline($self->{from})))
	{
		chomp $line;
		return @lines if $line eq '.';
		croak "$command: failed" if $line eq 'error';
		push @lines, $line;
	}
	croak "$command: it has ended";
}

sub consume
{
	my ($self, $topic) = @_;
	return map {
		my ($partition, $offset, $key, $headers, $body) = /^(\d+) (\d+) (\S*) (.*)\t(.*)$/ or croak "what is $_?";
		{ partition => $partition, offset => $offset, key => $key, body => $body,
			headers => { map { split /=/, $_, 2 } split /;/, $headers } };
	} $self->ask("consume $topic");
}

1;

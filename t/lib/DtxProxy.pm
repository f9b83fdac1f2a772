# A man in the middle between a coordinator and a participant, for what no
# signal can bring about: a message that is lost, or late, or whose reply is.
#
#	my $proxy = DtxProxy->new($node);	# listens at $proxy->host, $node->port
#	$proxy->rule(cut => q{PREPARE TRANSACTION 'dtx});
#	...
#	$proxy->wait_for('cut');
#	$proxy->clear;
#
# A rule is an action and a regular expression.  It applies to data on its way
# from a client to the server that match:
#
#	cut			close the connection on both sides, do not deliver
#	cut_reply	deliver, and close the connection instead of returning the reply
#	cut_once, cut_reply_once	likewise, but the rule applies to the first only
#	hold		keep this and all that follows until the rule is cleared; then
#				deliver, even if the client is gone meanwhile
#
# and one that applies to what a server sends:
#
#	split		deliver all but the final ReadyForQuery, and that when the rule is
#				cleared
#	pieces		deliver in pieces of 1000 bytes, with a pause after each
#
# The events of a rule have its name; "behind" is data that is kept behind what is
# held.
#
# What pg_dtx sends by the name under which it is prepared matches its text.
#
# The data of a simple query arrive in one piece, so matching pieces is enough.
# (The resolver looks for running PREPAREs; with the opening quote a rule matches
# the command only, not that query.)
package DtxProxy;

use strict;
use warnings FATAL => 'all';

use Carp;
use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use PostgreSQL::Test::Utils;
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(usleep);

sub new
{
	my ($class, $node) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $self = bless {
		dir => $dir,
		target => $node->host . '/.s.PGSQL.' . $node->port,
		listen => "$dir/.s.PGSQL." . $node->port,
		rules => "$dir/rules",
		events => "$dir/events",
		parent => $$,
	}, $class;

	$self->clear;
	PostgreSQL::Test::Utils::append_to_file($self->{events}, '');
	my $listener = IO::Socket::UNIX->new(
		Type => SOCK_STREAM,
		Local => $self->{listen},
		Listen => 50) or croak "could not listen on $self->{listen}: $!";

	my $pid = fork();
	croak "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		# Neither END blocks nor destructors of the test may run here.
		eval { $self->_serve($listener); };
		print STDERR "proxy: $@" if $@;
		POSIX::_exit(0);
	}
	$self->{pid} = $pid;
	close $listener;
	return $self;
}

sub host
{
	return $_[0]->{dir};
}

# Replace all rules by this one, or by several, of which the first that matches
# applies.
sub rule
{
	my ($self, @rules) = @_;
	my $text = '';
	while (my ($action, $regex) = splice @rules, 0, 2)
	{
		$text .= "$action $regex\n";
	}
	$self->{offset} = -s $self->{events};
	return $self->_write_rules($text);
}

sub clear
{
	my $self = shift;
	return $self->_write_rules('');
}

# Wait until the last rule was applied, and return the data it applied to.
sub wait_for
{
	my ($self, $what) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while (time < $deadline)
	{
		my $events =
		  PostgreSQL::Test::Utils::slurp_file($self->{events}, $self->{offset});
		return $1 if $events =~ /^\Q$what\E (.*)$/m;
		usleep(20_000);
	}
	croak "the proxy has seen no \"$what\"";
}

# Has something happened since the last rule?  An "orphan" is a connection that the
# client has closed while something was held.
sub happened
{
	my ($self, $what) = @_;
	my $events =
	  PostgreSQL::Test::Utils::slurp_file($self->{events}, $self->{offset});
	return $events =~ /^\Q$what\E /m ? 1 : 0;
}

sub stop
{
	my $self = shift;
	return unless $self->{pid} && $self->{parent} == $$;
	local $?;
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = undef;
	return;
}

sub DESTROY
{
	my $self = shift;
	$self->stop;
	return;
}

sub _write_rules
{
	my ($self, $text) = @_;
	open my $fh, '>', "$self->{rules}.new" or croak "$self->{rules}.new: $!";
	# (so that rules that are set again are new)
	print $fh '#', ++$self->{seq}, "\n$text";
	close $fh;
	rename "$self->{rules}.new", $self->{rules} or croak "$self->{rules}: $!";
	return;
}

# What pg_dtx has prepared in a session, and sends by name from then on
# (src/commit/put_off.c, point_question.c).
my %prepared = (
	dtx_start => 'START TRANSACTION ISOLATION LEVEL REPEATABLE READ',
	dtx_start_read_committed => 'START TRANSACTION ISOLATION LEVEL READ COMMITTED',
	dtx_constraints => 'SET CONSTRAINTS ALL IMMEDIATE',
	dtx_end => 'COMMIT TRANSACTION');

# Data with these commands where they are executed, and not where they are prepared.
sub in_full
{
	my $data = shift;
	my $names = join '|', keys %prepared;

	$data =~ s/P.{4}(?:$names)\0[^\0]*\0\0\0//gs;
	$data =~ s/\0($names)(?=\0)/\0$prepared{$1}/g;
	return $data;
}

sub _event
{
	my ($self, $what, $data) = @_;
	$data = in_full($data);
	$data =~ s/[^ -~]+/ /g;
	open my $fh, '>>', $self->{events} or die "$self->{events}: $!";
	print $fh "$what $data\n";
	close $fh;
	return;
}

# The child: forward until killed.
sub _serve
{
	my ($self, $listener) = @_;
	my $select = IO::Select->new($listener);
	my %peer;    # connections, by both of their sockets
	my @rules;
	my $last = '';
	my %used;    # rules that apply once, and have

	$SIG{PIPE} = 'IGNORE';
	$SIG{$_} = 'DEFAULT' for qw(TERM INT HUP);

	my $drop = sub {
		my $conn = shift;
		for my $side (grep { $_ } @{$conn}{qw(client server)})
		{
			$select->remove($side);
			delete $peer{$side};
			close $side;
		}
	};

	while (1)
	{
		my @ready = $select->can_read(0.02);

		# A test that died leaves no proxy behind.
		return if getppid() != $self->{parent};

		my $text = PostgreSQL::Test::Utils::slurp_file($self->{rules});
		@rules = map { [ split / /, $_, 2 ] } grep { !/^#/ } split /\n/, $text;
		%used = () if $text ne $last;
		$last = $text;

		# What was held and is not any more is delivered now.
		if (!grep { $_->[0] eq 'hold' } @rules)
		{
			my %seen;
			for my $conn (grep { !$seen{$_}++ } values %peer)
			{
				next unless defined $conn->{held};
				$self->_event('released', $conn->{held});
				syswrite $conn->{server}, $conn->{held};
				$conn->{held} = undef;
				if (!$conn->{client})
				{
					# The reply is read before the connection is closed,
					# so the server has done it.
					$conn->{close_after_reply} = 1;
				}
			}
		}

		if (!grep { $_->[0] eq 'split' } @rules)
		{
			my %seen;
			for my $conn (grep { !$seen{$_}++ } values %peer)
			{
				next unless defined $conn->{reply_held} && $conn->{client};
				syswrite $conn->{client}, $conn->{reply_held};
				$conn->{reply_held} = undef;
			}
		}

		for my $socket (@ready)
		{
			if ($socket == $listener)
			{
				my $client = $listener->accept or next;
				my $server = IO::Socket::UNIX->new(
					Type => SOCK_STREAM,
					Peer => $self->{target});
				if (!$server)
				{
					close $client;
					next;
				}
				my $conn = { client => $client, server => $server };
				$peer{$client} = $peer{$server} = $conn;
				$select->add($client, $server);
				next;
			}

			my $conn = $peer{$socket} or next;
			my $got = sysread $socket, my $data, 65536;
			if ($conn->{client} && $socket == $conn->{client})
			{
				if (!$got)
				{
					if (defined $conn->{held})
					{
						# the server does not learn of it yet
						$select->remove($socket);
						delete $peer{$socket};
						close $socket;
						$conn->{client} = undef;
						$self->_event('orphan', $conn->{held});
					}
					else
					{
						$drop->($conn);
					}
					next;
				}
				if (defined $conn->{held})
				{
					$conn->{held} .= $data;
					$self->_event('behind', $data);
					next;
				}
				my ($rule) = grep { in_full($data) =~ /$_->[1]/s } @rules;
				if ($rule && $rule->[0] eq 'hold')
				{
					$conn->{held} = $data;
					$self->_event('hold', $data);
					next;
				}
				if ($rule && $rule->[0] =~ /_once$/)
				{
					$rule = undef if $used{"@$rule"}++;
				}
				if ($rule && $rule->[0] =~ /^cut(_once)?$/)
				{
					$self->_event($rule->[0], $data);
					$drop->($conn);
					next;
				}
				$conn->{close_after_reply} = $rule->[0]
				  if $rule && $rule->[0] =~ /^cut_reply/;
				syswrite $conn->{server}, $data;
			}
			else
			{
				if (!$got)
				{
					$drop->($conn);
					next;
				}
				if ($conn->{close_after_reply})
				{
					$self->_event($conn->{close_after_reply}, $data);
					$drop->($conn);
					next;
				}
				if (defined $conn->{reply_held})
				{
					$conn->{reply_held} .= $data;
					next;
				}
				my ($split) =
				  grep { $_->[0] eq 'split' && $data =~ /$_->[1]/s } @rules;
				if ($split)
				{
					# of an error, ReadyForQuery may come by itself
					my ($now, $later) =
					  $data =~ /^(.+?)(Z\0\0\0\x05.*)$/s ? ($1, $2) : ($data, '');
					syswrite $conn->{client}, $now;
					$conn->{reply_held} = $later;
					$self->_event('split', $now);
					next;
				}
				if (grep { $_->[0] eq 'pieces' && $data =~ /$_->[1]/s } @rules)
				{
					for my $piece (unpack '(a1000)*', $data)
					{
						last unless $conn->{client};
						syswrite $conn->{client}, $piece;
						usleep(5_000);
					}
					$self->_event('pieces', length $data);
					next;
				}
				syswrite $conn->{client}, $data if $conn->{client};
			}
		}
	}
	return;
}

1;

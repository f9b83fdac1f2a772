# A psql on pipes, for tests that watch many of them, and in which it is usual
# that a connection breaks.  Nothing here waits, except query() and wait().
#
# What became of a COMMIT is told by the tag that psql prints and by the severity
# of a message, never by guessing: see outcome().
package AsyncPsql;

use strict;
use warnings FATAL => 'all';

use Carp;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use Fcntl;
use POSIX ();
use Time::HiRes qw(time usleep);

my $sequence = 0;

sub new
{
	my ($class, $psql, $connstr) = @_;
	my $self = bless {
		out => '', err => '', in => '', eof => 0, owner => $$,
		psql => $psql, connstr => $connstr
	}, $class;

	pipe(my $child_in, my $to) or croak "pipe: $!";
	pipe(my $from, my $child_out) or croak "pipe: $!";
	pipe(my $err, my $child_err) or croak "pipe: $!";

	my $pid = fork();
	croak "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		POSIX::dup2(fileno($child_in), 0);
		POSIX::dup2(fileno($child_out), 1);
		POSIX::dup2(fileno($child_err), 2);
		$SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
		no warnings 'exec';
		exec $psql, '-XAt', '-v', 'VERBOSITY=verbose', '-v', 'ON_ERROR_STOP=0',
		  '-d', $connstr;
		POSIX::_exit(127);
	}
	close $_ for $child_in, $child_out, $child_err;
	for my $fh ($to, $from, $err)
	{
		my $flags = fcntl($fh, F_GETFL, 0);
		fcntl($fh, F_SETFL, $flags | O_NONBLOCK);
		fcntl($fh, F_SETFD, FD_CLOEXEC);
	}
	@{$self}{qw(pid to from from_err)} = ($pid, $to, $from, $err);
	return $self;
}

# Handles to select on.
sub handles
{
	my $self = shift;
	return grep { defined } @{$self}{qw(from from_err)};
}

sub send
{
	my ($self, $text) = @_;
	$self->{in} .= $text;
	$self->_write;
	return;
}

sub _write
{
	my $self = shift;
	local $SIG{PIPE} = 'IGNORE';
	while (length $self->{in} && $self->{to})
	{
		my $n = syswrite $self->{to}, $self->{in};
		if (!defined $n)
		{
			return if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
			$self->{in} = '';
			return;
		}
		substr($self->{in}, 0, $n) = '';
	}
	return;
}

# Take what there is.
sub pump
{
	my $self = shift;
	$self->_write;
	for ([qw(from out)], [qw(from_err err)])
	{
		my ($handle, $buffer) = @$_;
		while ($self->{$handle})
		{
			my $n = sysread $self->{$handle}, my $data, 65536;
			if (!defined $n)
			{
				last if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
				$n = 0;
			}
			if ($n == 0)
			{
				close $self->{$handle};
				$self->{$handle} = undef;
				last;
			}
			$self->{$buffer} .= $data;
		}
	}
	if (!$self->{from} && !$self->{from_err} && !$self->{eof})
	{
		$self->{eof} = 1;
		local $?;
		waitpid $self->{pid}, 0;
		$self->{pid} = undef;
	}
	return $self->{eof};
}

# psql has ended, its connection was lost.
sub eof
{
	return $_[0]->{eof};
}

# Run a script that ends with a COMMIT, or another command, and do not wait.  The
# markers tell whether the COMMIT was sent.
sub commit
{
	my ($self, $id, $before, $command) = @_;
	$command //= 'COMMIT';
	@{$self}{qw(out err)} = ('', '');
	$self->{id} = $id;
	$self->send("$before\n\\echo [commit $id]\n\\warn [commit $id]\n$command;\n"
		  . "\\echo [done $id]\n\\warn [done $id]\n");
	return;
}

# Has psql got an answer to the COMMIT, or lost its connection?
sub answered
{
	my $self = shift;
	my $mark = qr/^\[done $self->{id}\]\n/m;
	$self->pump;
	return 1 if $self->{eof};
	return $self->{out} =~ $mark && $self->{err} =~ $mark;
}

# ack: COMMIT was acknowledged; refused: an error, or ROLLBACK; never: COMMIT was
# not even sent; unknown.
sub outcome
{
	my $self = shift;
	my $id = $self->{id};
	my ($out) = $self->{out} =~ /^\[commit $id\]\n(.*)/ms;
	my ($err) = $self->{err} =~ /^\[commit $id\]\n(.*)/ms;

	return 'never' unless defined $out || defined $err;
	$out //= '';
	$err //= '';
	my $done = $out =~ s/^\[done $id\]\n.*//ms;
	return 'ack' if $out =~ /^COMMIT$/m;
	return 'refused' if $out =~ /^ROLLBACK$/m;

	# One that says that it is not known, or that the servers have committed
	# all the same, is none.
	return 'unknown'
	  if $err =~ /could not find out whether the transaction has committed|transaction has committed on all servers/;

	# An error is a definite answer; FATAL means that the connection is gone
	# and may have come after a commit.
	return 'refused'
	  if $done && $err =~ /^ERROR: /m && $err !~ /^(?:FATAL|PANIC): /m;
	return 'unknown';
}

# Run a query and return its output, or undef if the connection was lost, or
# nothing has come back within so many seconds.
sub query
{
	my ($self, $sql, $timeout) = @_;
	my $n = ++$sequence;
	my $deadline = time + ($timeout // 60);

	@{$self}{qw(out err)} = ('', '');
	$self->send("$sql\n;\n\\echo [end $n]\n\\warn [end $n]\n");
	while (1)
	{
		my $eof = $self->pump;
		if (   $self->{out} =~ /^\[end $n\]\n/m
			&& $self->{err} =~ /^\[end $n\]\n/m)
		{
			my ($out) = $self->{out} =~ /(.*)^\[end $n\]\n/ms;
			chomp $out;
			return $out;
		}
		return undef if $eof || time > $deadline;
		$self->_select(0.2);
	}
}

sub _select
{
	my ($self, $timeout) = @_;
	my $bits = '';
	vec($bits, fileno($_), 1) = 1 for $self->handles;
	select $bits, undef, undef, $timeout;
	return;
}

# The client vanishes.
sub kill
{
	my $self = shift;
	return unless $self->{pid} && $self->{owner} == $$;
	local $?;
	CORE::kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = undef;
	$self->{eof} = 1;
	$self->{$_} = undef for qw(to from from_err);
	return;
}

sub DESTROY
{
	$_[0]->kill;
	return;
}

1;

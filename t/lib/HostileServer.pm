# A server that speaks PostgreSQL's protocol and means harm.
#
#	my $evil = HostileServer->new;			# listens at $evil->host, $evil->port
#	$evil->mode('endless rows');			# from the next message on
#	$evil->heard;							# who has come, and with which password
#
# In mode "polite" it answers what the coordinator, its resolver and postgres_fdw
# ask as an honest, empty server would, so a transaction can be led to the very
# place where the harm is to be done.  The other modes are in %modes below: each
# is a regular expression for the command that is answered in another way, and a
# function that returns the bytes of this answer.
package HostileServer;

use strict;
use warnings FATAL => 'all';

use Carp;
use IO::Socket::UNIX;
use POSIX ();
use PostgreSQL::Test::Utils;
use Socket qw(SOCK_STREAM);
use Time::HiRes qw(usleep);

# ----------------------------------------------------------------
# Messages
# ----------------------------------------------------------------

sub message { my ($type, $body) = @_; return $type . pack('N', length($body) + 4) . $body; }
sub tag { return message('C', "$_[0]\0"); }
sub ready { return message('Z', $_[0] // 'I'); }

# Columns of type text.
sub columns
{
	return message('T', pack('n', scalar @_)
		  . join('', map { "$_\0" . pack('NnNnNn', 0, 0, 25, 65535, 0xffffffff, 0) } @_));
}

sub row
{
	return message('D', pack('n', scalar @_)
		  . join('', map { defined $_ ? pack('N', length $_) . $_ : pack('N', 0xffffffff) } @_));
}

sub failure
{
	my ($state, $text, $more) = @_;
	return message('E', "SERROR\0VERROR\0C$state\0M$text\0" . ($more // '') . "\0");
}

sub notice { return message('N', "SNOTICE\0VNOTICE\0C00000\0M$_[0]\0\0"); }

# The answer to the resolver's first command, with gids given by the test.
sub list
{
	my ($info, $gids) = @_;
	return columns(map { "c$_" } 1 .. @$info) . row(@$info) . tag('SELECT 1')
	  . columns('pid', 'query', 'age') . tag('SELECT 0')
	  . columns('gid', 'owner', 'database', 'transaction', 'age')
	  . join('', map { row($_, 'me', 'db', '700', '0') } @$gids)
	  . tag('SELECT ' . @$gids);
}

my @info = ('me', 'db', 'false', 'true', 'true', '10', '0', '1000', '1', 'false');
my $resolver = qr/pg_prepared_xacts/;

# An answer that never ends: the connection decides when it is over.  Not as fast as
# possible, because one that has to be stopped after 30 seconds would keep two processors
# busy for that time; but 10 MB a second and more.
sub endless { my $chunk = shift; return sub { usleep(5_000); return $chunk; }; }

my %modes = (
	'polite' => [ qr/^(?!)/ ],

	# to the resolver
	'closed' => [ $resolver, sub { return undef } ],
	'closed in a row' => [ $resolver, sub { return (substr(list(\@info, ['x']), 0, 60), undef) } ],
	'garbage' => [ $resolver, sub { return ("\0\1\2\3garbage" x 50, undef) } ],
	'wrong columns' => [ $resolver, sub { return list([ 'a', 'b' ], []) . ready() } ],
	'nulls' => [ $resolver, sub { return list([ (undef) x 8 ], [undef]) . ready() } ],
	'wrong types' => [ $resolver, sub { return list([ ('x') x 5, '-5', '1e9999', '99999999999999999999999' ], []) . ready() } ],
	'no result' => [ $resolver, sub { return ready() } ],
	'empty query' => [ $resolver, sub { return message('I', '') . ready() } ],
	'error' => [ $resolver, sub { return failure('XX000', 'I am broken', "Ddetail\0Hhint\0") . ready() } ],
	'notifications' => [ $resolver, sub { my $n = message('A', pack('N', 5) . "channel\0text\0"); return $n . list(\@info, []) . $n . ready() . $n } ],
	'too many gids' => [ $resolver, sub { my ($gid) = _gids(); return list(\@info, [ map { $gid =~ s/:1:/:$_:/r } 1 .. 10_100 ]) . ready() } ],
	'too much' => [ $resolver, sub { return list(\@info, []) . tag('SELECT 0') x 3 . ready() } ],
	'error in the middle' => [ $resolver, sub { return columns(map { "c$_" } 1 .. 10) . row(@info) . failure('22012', "division\nby zero \xff\xfe") . ready() } ],
	'endless error' => [ $resolver, sub { return failure('XX000', 'x' x 3_000_000, 'D' . 'd' x 3_000_000 . "\0") . ready() } ],
	'bad sqlstate' => [ $resolver, sub { return failure("'\\", 'strange') . ready() } ],
	'huge row' => [ $resolver, sub { return columns('a') . 'D' . pack('N', 900_000_000) . pack('n', 1) . pack('N', 899_999_990), endless('x' x 65536) } ],
	'endless rows' => [ $resolver, sub { return columns('a') , endless(row('x' x 1000) x 50) } ],
	'endless gids' => [ $resolver, sub { return list(\@info, []) . columns('gid', 'owner', 'database', 'transaction'), endless(row('dtx:x', 'a', 'b', '1') x 1500) } ],
	'endless notices' => [ $resolver, sub { return endless(notice('n' x 1000) x 50) } ],
	'endless parameters' => [ $resolver, sub { return endless(message('S', "x\0y\0") x 5000) } ],
	'endless columns' => [ $resolver, sub { return columns(map { 'c' x 60 } 1 .. 1600) x 3 . ready() } ],
	'copy out' => [ $resolver, sub { return message('H', pack('Cn', 0, 0)), endless(message('d', 'x' x 1000) x 20) } ],
	'copy in' => [ $resolver, sub { return message('G', pack('Cn', 0, 0)) } ],
	'copy both' => [ $resolver, sub { return message('W', pack('Cn', 0, 0)) } ],
	'drip' => [ $resolver, sub { return list(\@info, []) . ready() }, 0.02 ],
	'in a transaction' => [ $resolver, sub { return list(\@info, []) . ready('T') } ],
	'odd ready' => [ $resolver, sub { return list(\@info, []) . ready('?') } ],
	'strange gids' => [
		$resolver,
		sub {
			return list(
				\@info,
				[
					'', "'", "dtx:'; DROP TABLE acct0; --", 'dtx:' . 'f' x 5000, "dtx:\xc3\x28", 'dtx:0:0:0:0:0',
					_gids()
				]) . ready();
		}
	],

	# while connecting
	'password' => [ 'startup', sub { return message('R', pack('N', 3)) } ],
	'md5' => [ 'startup', sub { return message('R', pack('Na4', 5, 'salt')) } ],
	'strange authentication' => [ 'startup', sub { return message('R', pack('N', 77)) } ],
	'no version' => [ 'startup', sub { return message('R', pack('N', 0)) . message('S', "server_version\0rubbish\0") . message('S', "client_encoding\0EBCDIC\0") . ready() } ],
	'silent' => [ 'startup', sub { return '' } ],

	# to a session
	'identity' => [ qr/system_identifier/, sub { return columns('a', 'b') . row("-1'", 'x') . row('x', 'y') . tag('SELECT 2') . ready() } ],
	'identity fails' => [ qr/system_identifier/, sub { return failure('42501', 'no') . ready() } ],
	'start: error' => [ qr/^START/, sub { return failure('25006', 'not here') . ready() } ],
	'start: copy' => [ qr/^START/, sub { return message('H', pack('Cn', 0, 0)) . ready() } ],
	'start: closed' => [ qr/^START/, sub { return undef } ],
	'prepare: rollback' => [ qr/PREPARE TRANSACTION/, sub { return tag('ROLLBACK') . ready() } ],
	'prepare: wrong tag' => [ qr/PREPARE TRANSACTION/, sub { return columns('x') . row('5') . tag('SELECT 1') . tag('COMMIT PREPARED') . ready() } ],
	'prepare: rows' => [ qr/PREPARE TRANSACTION/, sub { return columns('x') . row('PREPARE TRANSACTION') . tag('PREPARE TRANSACTION') . ready() } ],
	'prepare: closed' => [ qr/PREPARE TRANSACTION/, sub { return undef } ],
	'prepare: copy' => [ qr/PREPARE TRANSACTION/, sub { return message('H', pack('Cn', 0, 0)) . message('c', '') . tag('PREPARE TRANSACTION') . ready() } ],
	'prepare: nothing' => [ qr/PREPARE TRANSACTION/, sub { return ready() } ],
	'prepare: garbage' => [ qr/PREPARE TRANSACTION/, sub { return ('garbage' x 100, undef) } ],
	'commit: wrong tag' => [ qr/^COMMIT PREPARED/, sub { return tag('ROLLBACK PREPARED') . ready() } ],
	'commit: error' => [ qr/^COMMIT PREPARED/, sub { return failure('42704', "does not exist \xff", "Hhint\xfe\0") . ready() } ],
	'commit: rows' => [ qr/^COMMIT PREPARED/, sub { return columns('x') . row('y') x 1000 . tag('COMMIT PREPARED') . ready() } ],
	'exec: wrong order' => [ qr/the command/, sub { return message('2', '') . message('1', '') . tag('UPDATE 1') } ],
	'exec: copy' => [ qr/the command/, sub { return message('1', '') . message('2', '') . message('H', pack('Cn', 0, 0)) . tag('COPY 1') } ],
	'exec: two results' => [ qr/the command/, sub { return message('1', '') . message('2', '') . message('n', '') . tag('UPDATE 1') . tag('UPDATE 1') } ],
	'exec: no end' => [ qr/the command/, sub { return message('1', '') . message('2', '') . message('n', ''), undef } ],
	'exec: transaction' => [ qr/the command/, sub { return message('1', '') . message('2', '') . message('n', '') . tag('COMMIT') } ],
	'exec: bad text' => [ qr/the command/, sub { return message('1', '') . message('2', '') . columns("a\xff") . row("\xff\xfe") . tag('SELECT 1') } ],
	'exec: changing columns' => [ qr/the command/, sub { return message('1', '') . message('2', '') . columns('a') . row('1') . row('1', '2') . tag('SELECT 2') } ],
	'exec: count' => [ qr/the command/, sub { return message('1', '') . message('2', '') . message('n', '') . tag('UPDATE -99999999999999999999') } ],
);

my $gids_file;

sub _gids
{
	open my $fh, '<', $gids_file or return;
	chomp(my @gids = <$fh>);
	return @gids;
}

# ----------------------------------------------------------------
# For the test
# ----------------------------------------------------------------

sub new
{
	my ($class, $port) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $self = bless { dir => $dir, port => $port, parent => $$ }, $class;
	$gids_file = "$dir/gids";
	$self->mode('polite');

	my $listener = IO::Socket::UNIX->new(
		Type => SOCK_STREAM,
		Local => "$dir/.s.PGSQL.$port",
		Listen => 100) or croak "could not listen: $!";
	my $pid = fork();
	croak "could not fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		local $SIG{CHLD} = 'IGNORE';
		local $SIG{PIPE} = 'IGNORE';
		local $SIG{TERM} = 'DEFAULT';
		setpgrp(0, 0);
		while (1)
		{
			my $client = $listener->accept or next;
			my $child = fork();
			if (defined $child && $child == 0)
			{
				eval { $self->_session($client); };
				POSIX::_exit(0);
			}
			close $client;
		}
	}
	$self->{pid} = $pid;
	close $listener;
	return $self;
}

sub host { return $_[0]->{dir}; }
sub port { return $_[0]->{port}; }

sub mode
{
	my ($self, $mode) = @_;
	croak "no such mode: $mode" unless $modes{$mode};
	_write("$self->{dir}/mode", $mode);
	return;
}

# Gids for the mode "strange gids".
sub gids
{
	my ($self, @gids) = @_;
	_write("$self->{dir}/gids", join("\n", @gids) . "\n");
	return;
}

# What it has heard so far: a line "connect" per connection, "startup ..." with the
# parameters, and "password ..." with what was sent as one.
sub heard
{
	my $self = shift;
	return -e "$self->{dir}/heard" ? PostgreSQL::Test::Utils::slurp_file("$self->{dir}/heard") : '';
}

sub _hear
{
	my ($self, $line) = @_;
	$line =~ s/[^ -~]+/ /g;
	open my $fh, '>>', "$self->{dir}/heard" or return;
	syswrite $fh, "$line\n";
	close $fh;
	return;
}

sub _write
{
	my ($file, $content) = @_;
	open my $fh, '>', "$file.new" or croak "$!";
	print $fh $content;
	close $fh;
	rename "$file.new", $file or croak "$!";
	return;
}

sub stop
{
	my $self = shift;
	return unless $self->{pid} && $self->{parent} == $$;
	kill 'KILL', -$self->{pid}, $self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
	return;
}

sub DESTROY { local $?; return $_[0]->stop; }

# ----------------------------------------------------------------
# The server
# ----------------------------------------------------------------

sub _read
{
	my ($client, $n) = @_;
	my $data = '';
	while (length $data < $n)
	{
		my $got = sysread $client, $data, $n - length $data, length $data;
		POSIX::_exit(0) unless $got;
	}
	return $data;
}

sub _mode
{
	my $self = shift;
	open my $fh, '<', "$self->{dir}/mode" or return $modes{polite};
	my $mode = <$fh>;
	return $modes{$mode};
}

# Send an answer: text, functions that give text again and again, undef for the
# end of the connection.
sub _send
{
	my ($client, $delay, @parts) = @_;
	for my $part (@parts)
	{
		POSIX::_exit(0) unless defined $part;
		do
		{
			my $data = ref $part ? $part->() : $part;
			my $piece = $delay ? 1 : 1 << 20;
			while (length $data)
			{
				my $done = syswrite $client, $data, $piece;
				POSIX::_exit(0) unless $done;
				substr($data, 0, $done) = '';
				usleep($delay * 1e6) if $delay;
			}
		} while (ref $part);
	}
	return;
}

sub _session
{
	my ($self, $client) = @_;
	my $status = 'I';

	$self->_hear('connect');
	while (1)
	{
		my $length = unpack 'N', _read($client, 4);
		my $body = _read($client, $length - 4);
		my $code = unpack 'N', $body;
		if ($code == 80877103 || $code == 80877104) { syswrite $client, 'N'; next; }
		POSIX::_exit(0) if $code == 80877102;
		$self->_hear('startup ' . substr($body, 4));

		# A client of 19 may ask for a later version of the protocol, and options, as
		# betas of its libpq do to see whether servers can say that they have none.
		if ($code > 196608)
		{
			my @unknown = substr($body, 4) =~ /(?<![^\0])(_pq_\.[^\0]+)\0/g;
			_send($client, 0, message('v', pack('NN', 196608, scalar @unknown) . join('', map { "$_\0" } @unknown)));
		}
		last;
	}
	my $mode = $self->_mode;
	if (!ref $mode->[0] && $mode->[0] eq 'startup')
	{
		_send($client, 0, $mode->[1]->());
	}
	else
	{
		_send($client, 0, message('R', pack('N', 0))
			  . message('S', "server_version\00015.1\0")
			  . message('S', "client_encoding\0SQL_ASCII\0")
			  . message('S', "standard_conforming_strings\0on\0")
			  . message('K', pack('NN', 1, 2)) . ready());
	}

	my $sql = '';
	while (1)
	{
		my $type = _read($client, 1);
		my $body = _read($client, unpack('N', _read($client, 4)) - 4);
		POSIX::_exit(0) if $type eq 'X';
		$self->_hear("password $body") if $type eq 'p';
		($sql) = $body =~ /^[^\0]*\0([^\0]*)/s if $type eq 'P';
		($sql) = $body =~ /^([^\0]*)/s if $type eq 'Q';
		my $mode = $self->_mode;
		my $harm = ref $mode->[0] && $sql =~ $mode->[0];

		$status = 'T' if $sql =~ /^START/ && $type =~ /[QE]/;
		$status = 'I' if $sql =~ /^(?:COMMIT|ABORT|ROLLBACK T(?!O)|ROLLBACK$)|PREPARE TRANSACTION/ && $type =~ /[QE]/;

		if ($type eq 'Q')
		{
			_send($client, $mode->[2] // 0, $harm ? $mode->[1]->() : polite($sql) . ready($status));
		}
		elsif ($type eq 'S')
		{
			_send($client, 0, ready($status));
		}
		elsif ($harm)
		{
			# all of it at the Execute
			_send($client, 0, $mode->[1]->()) if $type eq 'E';
		}
		elsif ($type eq 'P') { _send($client, 0, message('1', '')); }
		elsif ($type eq 'B') { _send($client, 0, message('2', '')); }
		elsif ($type eq 'D')
		{
			_send($client, 0, $sql =~ /^SELECT/ ? columns('x') : message('n', ''));
		}
		elsif ($type eq 'E')
		{
			_send($client, 0, ($sql =~ /^SELECT/ ? row('1') : '') . polite_tag($sql));
		}
	}
	return;
}

sub polite_tag
{
	my $sql = shift;
	return tag($sql =~ /^(START TRANSACTION|PREPARE TRANSACTION|COMMIT PREPARED|ROLLBACK PREPARED)/ ? $1
		: $sql =~ /^(COMMIT|SAVEPOINT|RELEASE|SET)/ ? $1
		: $sql =~ /^(?:ABORT|ROLLBACK)/ ? 'ROLLBACK'
		: $sql =~ /^SELECT/ ? 'SELECT 1'
		: 'UPDATE 1');
}

# The answer of an honest server without anything in it.
sub polite
{
	my $sql = shift;
	return list(\@info, []) if $sql =~ /FROM pg_catalog\.pg_prepared_xacts WHERE gid/;
	return columns('x') . row('000000010000000000000001') . tag('SELECT 1')
	  . columns('x') . row('7000000000000000001') . tag('SELECT 1') if $sql =~ /system_identifier/;
	if ($sql =~ /txid_status.*'\{([\d,]+)\}/s)
	{
		my @xids = split /,/, $1;
		return columns('x', 'status') . join('', map { row($_, 'committed') } @xids) . tag('SELECT ' . @xids);
	}
	return join('', map { /^SELECT/ ? columns('x') . row('555') . tag('SELECT 1') : polite_tag($_) }
		  split /;\s*/, $sql);
}

1;

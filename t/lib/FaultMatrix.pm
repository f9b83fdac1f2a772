# Every step of the protocol, and everything that can go wrong there.
#
# A case is a transaction of one shape in which something happens at one point.
# Afterwards what died is restarted, and soon nothing may be prepared or in doubt
# any more, and the transaction must be on all of its nodes or on none, as its
# client was told.  The cases are made from the tables below.
package FaultMatrix;

use strict;
use warnings FATAL => 'all';

use AsyncPsql;
use Carp;
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $timeout = $PostgreSQL::Test::Utils::timeout_default;
$timeout = 60 if $timeout < 60;

# ----------------------------------------------------------------
# The tables
# ----------------------------------------------------------------

# Shapes of a transaction.  wrote: nodes that it leaves its number on, 0 is the
# coordinator; asked: servers that are asked whether they wrote; also: further
# servers that take part; two_phase: does it take two phases?  point: a server
# decides about it, which is the second that was written on.
my @shapes = (
	{ name => '1 server, reader', wrote => [1], asked => [2] },
	{
		name => '1 server, 2 readers, the writer last',
		wrote => [3],
		asked => [ 1, 2 ]
	},
	{ name => '1 server, local', wrote => [ 0, 1 ], two_phase => 1 },
	{
		name => '1 server, local, reader',
		wrote => [ 0, 1 ],
		asked => [2],
		two_phase => 1
	},
	{
		name => 'local, reader that wrote',
		wrote => [ 0, 1 ],
		asked => [1],
		view => 1,
		two_phase => 1
	},
	{ name => '2 servers', wrote => [ 1, 2 ], two_phase => 1 },
	{ name => '2 servers, local', wrote => [ 0, 1, 2 ], two_phase => 1 },
	{
		name => '2 servers, reader',
		wrote => [ 1, 2 ],
		asked => [3],
		two_phase => 1
	},
	{
		name => '2 servers, one a reader that wrote',
		wrote => [ 1, 2 ],
		asked => [2],
		view => 2,
		two_phase => 1
	},
	{ name => '3 servers', wrote => [ 1, 2, 3 ], two_phase => 1 },
	{ name => '3 servers, local', wrote => [ 0, 1, 2, 3 ], two_phase => 1 },
	{
		name => '3 servers, local, commit_wait off',
		wrote => [ 0, 1, 2, 3 ],
		two_phase => 1,
		no_wait => 1
	},
	{
		name => '2 servers, local, synchronous_commit off',
		wrote => [ 0, 1, 2 ],
		two_phase => 1,
		async => 1
	},
	{
		name => '3 servers, local, one in a savepoint',
		wrote => [ 0, 1, 2, 3 ],
		savepoint => 1,
		two_phase => 1
	},

	# A server decides.
	{ name => '2 servers, one decides', wrote => [ 1, 2 ], two_phase => 1, point => 1 },
	{ name => '3 servers, one decides', wrote => [ 1, 2, 3 ], two_phase => 1, point => 1 },
	{
		name => '2 servers, one decides, reader',
		wrote => [ 1, 2 ],
		asked => [3],
		two_phase => 1,
		point => 1
	},
	{
		name => '3 servers, one decides, one in a savepoint, commit_wait off',
		wrote => [ 1, 2, 3 ],
		savepoint => 1,
		no_wait => 1,
		two_phase => 1,
		point => 1
	},
	{
		name => '2 servers, the one that decides refuses',
		wrote => [ 1, 2 ],
		refused => 1,
		two_phase => 1,
		point => 1
	},
	{
		name => '3 servers, one decides, another one refuses',
		wrote => [ 1, 2, 3 ],
		refused => 1,
		two_phase => 1,
		point => 1
	},

	# The last server refuses to prepare, so the transaction is rolled back.
	{
		name => '1 server, local, refused',
		wrote => [ 0, 1 ],
		refused => 1,
		two_phase => 1
	},
	{
		name => '2 servers, local, refused',
		wrote => [ 0, 1, 2 ],
		refused => 1,
		two_phase => 1
	},
	{
		name => '3 servers, refused',
		wrote => [ 1, 2, 3 ],
		refused => 1,
		two_phase => 1
	},

	# The first server refuses while the others are still preparing, so these
	# are rolled back when they say that they are prepared.
	{
		name => '3 servers, refused early',
		wrote => [ 1, 2, 3 ],
		refused => 1,
		early => 1,
		two_phase => 1
	},

	# The connections are used again before the confirmations are in.
	{
		name => '3 servers, local, commit_wait off, then used again',
		wrote => [ 0, 1, 2, 3 ],
		two_phase => 1,
		no_wait => 1,
		again => 1
	});

# Points in the session that commits.  times: how often a transaction of a shape
# gets there; conn: is there a connection to drop?  before: before the local
# commit, which decides; abort, again: in the abort, or after the COMMIT.  Shapes
# that are made for those come nowhere else.
my @points = (
	{
		name => 'ask-sent',
		before => 1,
		conn => 1,
		times => sub { $_[0]{asked} ? servers($_[0]) : 0 }
	},
	{
		name => 'ask-reply',
		before => 1,
		conn => 1,
		times => sub {
			my $s = shift;
			my $asked = @{ $s->{asked} // [] };
			# the replies to COMMIT of readers, too
			return $s->{two_phase} ? $asked : 2 * $asked;
		}
	},
	{
		name => 'end-sent',
		before => 1,
		conn => 1,
		times => sub { $_[0]{asked} && !$_[0]{two_phase} ? servers($_[0]) : 0 }
	},
	{
		name => 'prepare-before',
		before => 1,
		conn => 1,
		times => sub { $_[0]{two_phase} && prepared($_[0]) }
	},
	{
		name => 'prepare-sent',
		before => 1,
		conn => 1,
		times => sub { $_[0]{two_phase} && prepared($_[0]) }
	},
	{
		# a refusal is the last reply that is awaited
		name => 'prepare-reply',
		before => 1,
		conn => 1,
		times => sub { $_[0]{two_phase} && servers($_[0]) - ($_[0]{point} ? 1 : 0) }
	},
	{
		name => 'decision-before',
		before => 1,
		times => sub { $_[0]{two_phase} && !$_[0]{refused} && !$_[0]{point} }
	},
	{
		name => 'decision-after',
		before => 1,
		times => sub { $_[0]{two_phase} && !$_[0]{refused} && !$_[0]{point} }
	},
	{
		name => 'gate-enter',
		before => 1,
		times => sub { $_[0]{two_phase} && (!$_[0]{refused} || decides($_[0])) }
	},
	{
		name => 'gate-inside',
		before => 1,
		times => sub { $_[0]{two_phase} && (!$_[0]{refused} || decides($_[0])) }
	},
	{
		name => 'prepared',
		before => 1,
		times => sub { $_[0]{two_phase} && !$_[0]{refused} && !$_[0]{point} }
	},
	{
		name => 'point-commit-before',
		before => 1,
		conn => 1,
		times => \&decides
	},
	{
		# what becomes of it, nobody can say in advance
		name => 'point-commit-sent',
		open => 1,
		conn => 1,
		times => \&decides
	},
	{
		name => 'point-commit-reply',
		conn => 1,
		times => \&decides
	},
	{
		# an error here comes too late
		name => 'point-decided',
		conn => 1,
		too_late => 1,
		times => sub { decides($_[0]) && !$_[0]{refused} }
	},
	{ name => 'local-commit', times => \&commits },
	{
		name => 'commit-before',
		conn => 1,
		times => sub { commits($_[0]) && prepared($_[0]) }
	},
	{
		name => 'commit-sent',
		conn => 1,
		times => sub { commits($_[0]) && prepared($_[0]) }
	},
	{
		name => 'commit-reply',
		conn => 1,
		times => sub { commits($_[0]) && !$_[0]{no_wait} && prepared($_[0]) }
	},
	{ name => 'commit-wait', times => \&commits },
	{ name => 'gate-leave', times => \&commits },
	{ name => 'committed', times => \&commits },
	{
		name => 'rollback-before',
		abort => 1,
		conn => 1,
		times => sub { $_[0]{refused} && !$_[0]{early} && rollbacks($_[0]) }
	},
	{
		name => 'rollback-late-before',
		abort => 1,
		conn => 1,
		times => sub { $_[0]{early} && writers($_[0]) - 1 }
	},
	{
		name => 'rollback-sent',
		abort => 1,
		conn => 1,
		times => sub { $_[0]{refused} && !$_[0]{early} && rollbacks($_[0]) }
	},
	{
		name => 'rollback-late-sent',
		abort => 1,
		conn => 1,
		times => sub { $_[0]{early} && writers($_[0]) - 1 }
	},
	{
		# of an early refusal, the replies to PREPARE, too
		name => 'rollback-reply',
		abort => 1,
		conn => 1,
		times => sub {
			$_[0]{refused} && rollbacks($_[0]) * ($_[0]{early} ? 2 : 1);
		}
	},
	{ name => 'abort-wait', abort => 1, times => sub { $_[0]{refused} } },
	{ name => 'aborted', abort => 1, times => sub { $_[0]{refused} } },
	{
		name => 'settle-wait',
		again => 1,
		conn => 1,
		times => sub { $_[0]{again} && writers($_[0]) }
	},
	{
		name => 'settled',
		again => 1,
		conn => 1,
		times => sub { $_[0]{again} && writers($_[0]) }
	});

# What happens there.  fault: the action of the fault point; then: what the test
# does while the session is stopped; every: at each time the point is reached, or
# at the first and the last one only.
my @actions = (
	{ name => 'crash', victim => 'coordinator', fault => 'crash', every => 1 },
	{ name => 'power failure', victim => 'coordinator', fault => 'hang' },
	{
		name => 'error',
		victim => 'coordinator',
		fault => 'error',
		before_only => 1,
		every => 1
	},
	{
		name => 'drop',
		victim => 'connection',
		fault => 'drop',
		conn_only => 1,
		every => 1
	},
	{ name => 'delay', victim => 'coordinator', fault => 'delay' },
	{ name => 'cancel', victim => 'coordinator', fault => 'hang' },
	{ name => 'terminate', victim => 'coordinator', fault => 'hang' },
	{ name => 'client gone', victim => 'client', fault => 'hang' },
	{ name => 'kill backend', victim => 'participant', fault => 'hang', every => 1 },
	{ name => 'down', victim => 'participant', fault => 'hang' },
	{ name => 'restart', victim => 'participant', fault => 'hang' },
	{ name => 'silent', victim => 'participant', fault => 'hang' },
	{ name => 'both down', victim => 'both', fault => 'hang' });

# Points in the resolver, of which a worker and dtx.resolve_in_doubt() both are made.
my @resolver_points =
  qw(resolver-listed resolver-snapshot resolver-decided resolver-sent resolver-finished);
my @resolver_actions = (
	{ name => 'crash', victim => 'coordinator', fault => 'crash' },
	{ name => 'power failure', victim => 'coordinator', fault => 'hang' },
	{ name => 'error', victim => 'coordinator', fault => 'error' },
	{ name => 'delay', victim => 'coordinator', fault => 'delay' },
	{ name => 'terminate', victim => 'coordinator', fault => 'hang' },
	{ name => 'cancel', victim => 'coordinator', fault => 'hang' },
	{ name => 'kill backend', victim => 'participant', fault => 'hang' },
	{ name => 'down', victim => 'participant', fault => 'hang' },
	{ name => 'restart', victim => 'participant', fault => 'hang' },
	{ name => 'silent', victim => 'participant', fault => 'hang' },
	{ name => 'both down', victim => 'both', fault => 'hang' });

sub remote { return grep { $_ > 0 } @{ $_[0]{wrote} }; }
sub writers { return scalar(my @w = remote($_[0])); }
sub commits { return $_[0]{two_phase} && !$_[0]{refused}; }
sub prepared { return writers($_[0]) - ($_[0]{point} ? 1 : 0); }

# Does it come to the COMMIT of the server that decides, which is the last to refuse?
sub decides { return $_[0]{point} && (!$_[0]{refused} || writers($_[0]) == 2); }

# Prepared ones that are rolled back: not the one that has refused.
sub rollbacks { return prepared($_[0]) - (decides($_[0]) ? 0 : 1); }

# Servers that take part.
sub servers
{
	my $shape = shift;
	my %all = map { $_ => 1 } remote($shape), @{ $shape->{asked} // [] };
	return scalar keys %all;
}

# All cases, in an order that does not change.
sub cases
{
	my @cases;
	for my $point (@points)
	{
		for my $shape (@shapes)
		{
			next if $shape->{early} && !$point->{abort};
			next if $shape->{again} && !$point->{again};
			my $times = $point->{times}->($shape) || 0;
			for my $action (@actions)
			{
				next if $action->{before_only} && !$point->{before} && !$point->{too_late};
				next if $action->{conn_only} && !$point->{conn};
				for my $n (1 .. $times)
				{
					next if $n > 1 && $n < $times && !$action->{every};
					push @cases,
					  {
						point => $point,
						shape => $shape,
						action => $action,
						n => $n
					  };
				}
			}
		}
	}
	for my $point (@resolver_points)
	{
		for my $by ('worker', 'dtx.resolve_in_doubt()')
		{
			for my $decision ('commit', 'rollback')
			{
				for my $action (@resolver_actions)
				{
					for my $n (1, 3)
					{
						push @cases,
						  {
							point => { name => $point, resolver => 1 },
							shape => { name => "$decision by $by" },
							action => $action,
							by => $by,
							decision => $decision,
							n => $n
						  };
					}
				}
			}
		}
	}
	my $number = 0;
	$_->{number} = ++$number for @cases;
	return @cases;
}

# All names of points, and of actions.
sub points
{
	return ((map { $_->{name} } @points), @resolver_points);
}

sub actions
{
	return map { $_->{name} } @actions;
}

# About one case in $every, but each pair of point and kind of victim.
sub sample
{
	my ($every, @cases) = @_;
	my (%seen, @some, @rest);

	# those that take long are few
	my %limit = (silent => 2, down => 2, 'both down' => 2, restart => 6);

	# a different shape and action each time
	for my $case (
		sort { ($a->{number} * 7919) % 10007 <=> ($b->{number} * 7919) % 10007 } @cases)
	{
		my $action = $case->{action}{name};
		my $key = "$case->{point}{name} $case->{action}{victim}";

		if (exists $limit{$action})
		{
			push @some, $case if $limit{$action}-- > 0;
		}
		elsif (!$seen{$key}++)
		{
			push @some, $case;
		}
		else
		{
			push @rest, $case;
		}
	}
	my $want = int(@cases / $every) - @some;
	push @some, splice(@rest, 0, $want) if $want > 0;
	return sort { $a->{number} <=> $b->{number} } @some;
}

sub name
{
	my $case = shift;
	return "$case->{number}: $case->{shape}{name}; $case->{point}{name}"
	  . ($case->{n} > 1 ? " the ${\ _ordinal($case->{n})} time" : '')
	  . "; $case->{action}{victim}: $case->{action}{name}";
}

sub _ordinal
{
	my $n = shift;
	return $n == 2 ? '2nd' : $n == 3 ? '3rd' : "${n}th";
}

# ----------------------------------------------------------------
# The servers
# ----------------------------------------------------------------

sub new
{
	my ($class) = @_;
	my $dtx = DtxTest->new(
		servers => 3,
		participant_conf => "restart_after_crash = on\nlog_statement = none\n",
		conf => q{
synchronous_standby_names = ''
synchronous_commit = on
restart_after_crash = on
log_statement = none
pg_dtx.resolve_interval = '200ms'
pg_dtx.prepare_timeout = '60s'
pg_dtx.commit_timeout = '60s'
pg_dtx.commit_point = coordinator
include_if_exists 'fault.conf'
});
	my $self = bless {
		dtx => $dtx, id => 0, expected => {}, failures => 0, table => {},
		checkers => [], started => time
	}, $class;

	for my $i (1 .. 3)
	{
		# A number in "next" is logged by those who read "put".  A row that is
		# to be refused is, when its transaction is prepared or committed; a
		# slow one takes longer for that.
		$dtx->p($i)->safe_psql(
			'postgres', q{
CREATE TABLE log (id int PRIMARY KEY, refuse boolean NOT NULL DEFAULT false,
	slow boolean NOT NULL DEFAULT false);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(0.1);
	RAISE EXCEPTION 'refused';
END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.refuse) EXECUTE FUNCTION refuse();
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_sleep(0.6);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.slow) EXECUTE FUNCTION slow();
CREATE TABLE next (id int NOT NULL);
INSERT INTO next VALUES (0);
CREATE FUNCTION put() RETURNS int LANGUAGE sql VOLATILE AS
	'INSERT INTO public.log SELECT id FROM public.next RETURNING id';
CREATE VIEW put AS SELECT put() AS id;
});
		$dtx->sql(
			qq{
CREATE FOREIGN TABLE log$i (id int, refuse boolean, slow boolean) SERVER s$i OPTIONS (table_name 'log');
CREATE FOREIGN TABLE put$i (id int) SERVER s$i OPTIONS (table_name 'put');
});
	}
	$dtx->sql('CREATE TABLE log0 (id int PRIMARY KEY)');
	$dtx->only_decides(2);
	return $self;
}

sub dtx { return $_[0]{dtx}; }

# A connection to a node that is there again if it was lost; undef if it can't be
# had within the deadline.
sub _query
{
	my ($self, $i, $sql) = @_;
	my $deadline = time + $timeout;
	while (time < $deadline)
	{
		my $psql = $self->{checkers}[$i] //= $self->_psql($i);
		my $result = $psql->query($sql, $deadline - time);
		return $result if defined $result;
		$self->{checkers}[$i] = undef;
		usleep(20_000);
	}
	croak "node $i does not answer: $sql";
}

sub _psql
{
	my ($self, $i) = @_;
	my $node = $self->{dtx}{nodes}[$i];
	return AsyncPsql->new($node->installed_command('psql'),
		$node->connstr('postgres'));
}

# The session under test: the same one as long as it lives.
sub _session
{
	my $self = shift;
	my $deadline = time + $timeout;
	while (time < $deadline)
	{
		my $s = $self->{session} //= $self->_psql(0);
		my $pid = $s->query('SELECT pg_backend_pid()', $deadline - time);
		if (defined $pid && $pid =~ /^\d+$/)
		{
			$self->{pid} = $pid;
			return $s;
		}
		$self->{session} = undef;
		usleep(20_000);
	}
	croak 'the coordinator accepts no connection';
}

# One more session on the coordinator, and its process.
sub _another
{
	my $self = shift;
	my $deadline = time + $timeout;
	while (time < $deadline)
	{
		my $s = $self->_psql(0);
		my $pid = $s->query('SELECT pg_backend_pid()', $deadline - time);
		return ($s, $pid) if defined $pid && $pid =~ /^\d+$/;
		usleep(20_000);
	}
	croak 'the coordinator accepts no connection';
}

# A session has crashed.  Its client may know that before the postmaster, under
# which others still work then.  Wait until the server has been started again.
sub _restarted
{
	my $self = shift;
	_wait_until(
		'the restart',
		sub {
			$self->_log =~ /reinitializing\n.*database system is ready to accept connections/s;
		}) or croak 'the coordinator does not start again after a crash';
	$self->{checkers}[0] = undef;
	return;
}

# Stop the resolver while it sleeps: anywhere else it may hold what others wait for,
# such as a page that it is just reading.
sub _stop_worker
{
	my ($self, $condition) = @_;
	my $deadline = time + $timeout;
	my $asleep = q{SELECT pid FROM pg_stat_activity
WHERE backend_type = 'pg_dtx resolver' AND wait_event_type = 'Extension' AND }
	  . ($condition // 'true');
	while (time < $deadline)
	{
		my $pid = $self->_query(0, $asleep);
		if ($pid =~ /^\d+$/ && eval { $self->{dtx}->stop_process($pid); 1 })
		{
			my $psql = $self->_psql(0);
			my $is = $psql->query($asleep, 3) // '';
			$psql->kill;
			return $pid if $is eq $pid;
			$self->{dtx}->continue_process($pid);
		}
		usleep(5_000);
	}
	croak 'the resolver does not sleep';
}

# What is in fault.conf of the coordinator from now on.
sub _configure
{
	my ($self, $text) = @_;
	my $coord = $self->{dtx}->coord;
	my $file = $coord->data_dir . '/fault.conf';
	open my $fh, '>', "$file.new" or croak "$file.new: $!";
	print $fh $text;
	close $fh;
	rename "$file.new", $file or croak "$file: $!";
	my ($postmaster) = split /\n/,
	  slurp_file($coord->data_dir . '/postmaster.pid');
	kill 'HUP', $postmaster;
	return;
}

# Output of the coordinator's log since the case began.
sub _log
{
	my $self = shift;
	return slurp_file($self->{dtx}->coord->logfile, $self->{log_offset});
}

# The process that reached a point.
sub _reached
{
	my ($self, $point) = @_;
	return $self->_log =~
	  /fault point "\Q$point\E" reached, action "\w+", process (\d+)/ ? $1 : undef;
}

# Is a process stopped?
sub _is_stopped
{
	my $pid = shift;
	if (open my $fh, '<', "/proc/$pid/stat")
	{
		my $line = <$fh>;
		close $fh;
		return defined $line && $line =~ /^\d+ \(.*\) T/s;
	}
	return `ps -o stat= -p $pid` =~ /^T/;
}

sub _wait_until
{
	my ($what, $condition, $seconds) = @_;
	my $deadline = time + ($seconds // $timeout);
	until ($condition->())
	{
		return 0 if time > $deadline;
		usleep(3_000);
	}
	return 1;
}

# ----------------------------------------------------------------
# One case
# ----------------------------------------------------------------

sub run
{
	my ($self, @cases) = @_;
	my $done = 0;
	my $told = time;
	for my $case (@cases)
	{
		my $begin = time;
		my $good = eval { $self->run_case($case) };
		my $took = time - $begin;
		$done++;
		if ($@)
		{
			fail(name($case));
			diag($@);
			diag($self->_log);
			BAIL_OUT('the servers are lost') if $self->{failures}++ > 3;

			# a new start
			DtxTest::thaw($self->{dtx}, $_)
			  for grep { $self->{dtx}{frozen}{ $_->name } } @{ $self->{dtx}{nodes} };
		}
		elsif (!$good)
		{
			last if $self->{failures}++ >= 10;
		}
		my $row = $self->{table}{ $case->{point}{name} }{ $case->{action}{name} } //=
		  [ 0, 0, 0 ];
		$row->[0]++;
		$row->[1]++ unless $good;
		$row->[2] += $took;

		# how it goes, for those who wait: each minute, and what takes long
		diag(sprintf '%s: %.0f s for %s', $0, $took, name($case)) if $took > 15;
		if (time - $told > 60)
		{
			diag(sprintf '%s: %d of %d cases, %d failed, %.0f s', $0,
				$done, scalar @cases, $self->{failures}, time - $self->{started});
			$told = time;
		}
	}
	return;
}

sub run_case
{
	my ($self, $case) = @_;
	my $id = ++$self->{id};

	$self->{log_offset} = -s $self->{dtx}->coord->logfile;
	note(name($case));
	my $got =
	  $case->{point}{resolver}
	  ? $self->_resolver_case($case, $id)
	  : $self->_session_case($case, $id);
	push @{ $got->{wrong} }, $self->_settle;
	push @{ $got->{wrong} }, $self->_check($id, $got);

	my $good = !@{ $got->{wrong} };
	ok($good, name($case) . " -> $got->{answer}");
	if (!$good)
	{
		diag("transaction $id: $_") for @{ $got->{wrong} };
		diag("client: $got->{messages}") if $got->{messages};
		diag($self->_log);
	}
	return $good;
}

# SQL of the transaction of a shape, without its COMMIT.
sub _statements
{
	my ($self, $shape, $id) = @_;
	my $view = $shape->{view} // 0;
	my @remote = remote($shape);
	my $sql = "BEGIN;\n";

	$sql .= "SET LOCAL pg_dtx.commit_point = server;\n" if $shape->{point};
	for my $i (@{ $shape->{wrote} })
	{
		my $refuse = $shape->{refused} && $i == $remote[ $shape->{early} ? 0 : -1 ];
		my $slow = $shape->{early} && !$refuse;
		my $insert =
		    $i == 0 ? "INSERT INTO log0 VALUES ($id);\n"
		  : $i == $view ? "SELECT id FROM put$i;\n"
		  : "INSERT INTO log$i VALUES ($id, "
		  . ($refuse ? 'true' : 'false') . ', ' . ($slow ? 'true' : 'false') . ");\n";
		$insert = "SAVEPOINT a;\n${insert}RELEASE a;\n"
		  if $shape->{savepoint} && $i == 2;
		$sql .= $insert;
	}
	for my $i (@{ $shape->{asked} // [] })
	{
		$sql .= "SELECT count(*) FROM log$i;\n" if $i != $view;
	}

	$sql .= "SELECT FROM flush2;\n" if $shape->{point};
	$sql .= "SET LOCAL synchronous_commit = off;\n" if $shape->{async};

	# A session that does not wait is helped when commit_timeout is over.
	$sql .= "SET LOCAL pg_dtx.commit_wait = off; SET LOCAL pg_dtx.commit_timeout = '500ms';\n"
	  if $shape->{no_wait};
	return $sql;
}

sub _session_case
{
	my ($self, $case, $id) = @_;
	my ($shape, $point, $action) = @{$case}{qw(shape point action)};
	my $fault = "$point->{name}:$action->{fault}:$case->{n}:20";
	my %got = (wrong => [], wrote => $shape->{wrote});
	my @remote = remote($shape);

	# Each server is a victim in turn.
	my @nodes =
	  sort keys %{ { map { $_ => 1 } @remote, @{ $shape->{asked} // [] } } };
	my $victim = $nodes[ $case->{number} % @nodes ];

	$self->_query($shape->{view}, "UPDATE next SET id = $id") if $shape->{view};
	my $session = $self->_session;
	my $pid = $self->{pid};
	my $sql = $self->_statements($shape, $id);
	$sql .= "SET LOCAL pg_dtx.prepare_timeout = '1500ms'; SET LOCAL pg_dtx.commit_timeout = '1500ms';\n"
	  if $action->{name} eq 'silent';
	if ($shape->{again})
	{
		$session->commit($id, $sql . "SET pg_dtx.fault = '$fault';\n",
			"COMMIT;\n"
			  . join('', map { "SELECT count(*) FROM log$_ WHERE id = 0;\n" } @remote)
			  . 'RESET pg_dtx.fault');
	}
	else
	{
		$session->commit($id, $sql . "SET LOCAL pg_dtx.fault = '$fault';\n");
	}

	if ($action->{fault} eq 'hang')
	{
		my $stopped = 0;
		_wait_until(
			'the point is reached',
			sub {
				$stopped =
				  defined $self->_reached($point->{name}) && _is_stopped($pid);
				return $stopped || $session->answered;
			});
		if ($stopped)
		{
			$self->{dtx}->stop_process($pid);    # so that it is continued in any case
			$self->_do($action, $pid, $victim, $session, \%got);
		}
	}
	_wait_until('an answer', sub { $session->answered })
	  or push @{ $got{wrong} }, 'the client got no answer';
	push @{ $got{wrong} }, 'the point was not reached'
	  unless defined $self->_reached($point->{name});

	$got{answer} = $action->{victim} eq 'client' ? 'unknown' : $session->outcome;
	$got{messages} = $session->{err};
	$self->_start_down;
	if ($session->eof || $action->{victim} eq 'client')
	{
		$self->{session} = undef;
		_wait_until(
			'the end of the session',
			sub {
				$self->_query(0,
					"SELECT count(*) FROM pg_stat_activity WHERE pid = $pid") eq '0';
			}) or push @{ $got{wrong} }, 'the session does not end';
	}

	# What must be so whatever the client was told.
	$got{may_be_there} = !$shape->{two_phase}
	  && $point->{name} =~ /^(?:ask-reply|end-sent)$/
	  && $action->{name} !~ /^(?:error|delay|drop)$/;
	if ($point->{open} && $action->{fault} ne 'delay')
	{
		$got{must} = 'absent' if $shape->{refused};
		return \%got;
	}
	if ($shape->{refused} || ($point->{before} && $action->{fault} =~ /^(?:crash|error)$/)
		|| ($point->{before} && $action->{name} =~ /^(?:power failure|both down)$/))
	{
		$got{must} = 'absent';
	}
	elsif ($action->{fault} eq 'delay' || !$point->{before})
	{
		$got{must} = 'present';
	}
	if ($point->{too_late} && $action->{fault} eq 'error')
	{
		push @{ $got{wrong} }, 'the client should have been told of an error that came too late'
		  if $got{answer} ne 'unknown';
		return \%got;
	}
	if ($action->{fault} eq 'delay'
		|| ($action->{name} =~ /^(?:drop|kill backend|down|restart|silent|cancel)$/ && !$point->{before}))
	{
		my $should = $shape->{refused} ? 'refused' : 'ack';
		push @{ $got{wrong} }, "the answer should have been $should"
		  if $got{answer} ne $should;
	}
	if ($action->{fault} eq 'error' && $got{answer} ne 'refused')
	{
		push @{ $got{wrong} }, 'the answer should have been refused';
	}
	return \%got;
}

# What the test does while the process is stopped, and after that.
sub _do
{
	my ($self, $action, $pid, $victim, $session, $got) = @_;
	my $dtx = $self->{dtx};
	my $name = $action->{name};
	my $node = $dtx->p($victim);

	if ($name =~ /^(?:power failure|both down)$/)
	{
		$dtx->crash($dtx->coord);
		$self->{down}{0} = 1;
		if ($name eq 'both down')
		{
			# The coordinator comes first, and does not find the other.
			$dtx->crash($node);
			$self->{down}{$victim} = 1;
		}
		return;
	}
	if ($name eq 'cancel')
	{
		$self->_query(0, "SELECT pg_cancel_backend($pid)");
	}
	elsif ($name eq 'terminate')
	{
		$self->_query(0, "SELECT pg_terminate_backend($pid)");
	}
	elsif ($name eq 'client gone')
	{
		$session->kill;
	}
	elsif ($name eq 'kill backend')
	{
		my $pids = $self->_query($victim,
			q{SELECT pid FROM pg_stat_activity WHERE application_name = 'postgres_fdw'});
		if ($pids =~ /\d/)
		{
			kill 'KILL', split /\n/, $pids;

			# all sessions of that server are lost
			_wait_until('the crash',
				sub { !defined $self->{checkers}[$victim]->query('SELECT 1') })
			  or push @{ $got->{wrong} }, 'the participant did not crash';
			$self->{checkers}[$victim] = undef;
		}
		$self->_query($victim, 'SELECT 1');
	}
	elsif ($name eq 'down')
	{
		$dtx->crash($node);
		$self->{down}{$victim} = 1;
	}
	elsif ($name eq 'restart')
	{
		$node->restart;
	}
	elsif ($name eq 'silent')
	{
		$dtx->freeze($node);
		$dtx->continue_process($pid);

		# With the session's own timeouts, or postgres_fdw's, which are long.
		_wait_until('an answer', sub { $session->answered }, 5);
		$dtx->thaw($node);
		return;
	}
	$dtx->continue_process($pid);
	return;
}

sub _start_down
{
	my $self = shift;
	for my $i (sort keys %{ $self->{down} // {} })
	{
		$self->{dtx}{nodes}[$i]->start;
		delete $self->{down}{$i};
	}
	return;
}

# Prepared transactions of three servers that are in doubt; then the resolver
# comes to the point.
sub _resolver_case
{
	my ($self, $case, $id) = @_;
	my ($point, $action) = @{$case}{qw(point action)};
	my %got = (
		wrong => [],
		wrote => [ 0, 1, 2, 3 ],
		must => $case->{decision} eq 'commit' ? 'present' : 'absent');
	my $victim = 1 + $case->{number} % 3;
	my $by_worker = $case->{by} eq 'worker';
	my $fault = "$point->{name}:$action->{fault}:$case->{n}:20";

	$self->_configure("pg_dtx.resolver = off\n");
	$self->_query(0, 'SELECT 1');
	_wait_until(
		'the resolver is off',
		sub { $self->_query(0, 'SHOW pg_dtx.resolver') eq 'off' });

	my $session = $self->_session;
	my $crash = $case->{decision} eq 'commit' ? 'local-commit' : 'prepared';
	$session->commit($id,
		$self->_statements({ wrote => [ 0, 1, 2, 3 ] }, $id)
		  . "SET LOCAL pg_dtx.fault = '$crash:crash';\n");
	_wait_until('the crash', sub { $session->answered })
	  or push @{ $got{wrong} }, 'the client got no answer';
	$got{answer} = $session->outcome;
	push @{ $got{wrong} }, "the answer was $got{answer}"
	  if $got{answer} ne 'unknown';
	$self->{session} = undef;
	$self->_restarted;
	for my $i (1 .. 3)
	{
		my $n = $self->_query($i, 'SELECT count(*) FROM pg_prepared_xacts');
		push @{ $got{wrong} }, "$n prepared on s$i instead of 1" if $n != 1;
	}

	my ($pid, $worker);
	if ($by_worker)
	{
		# From now on it may crash again and again, until it is told otherwise.
		$self->_configure("pg_dtx.fault = '$fault'\n");
		_wait_until('the point', sub { defined($pid = $self->_reached($point->{name})) })
		  or push @{ $got{wrong} }, 'the point was not reached';
		$self->_configure('');
		_wait_until('it stops', sub { _is_stopped($pid) })
		  if $action->{fault} eq 'hang' && defined $pid;
	}
	else
	{
		# A worker that sleeps, so that it is up to the session.
		$worker = $self->_stop_worker;
		$self->_configure('');
		_wait_until(
			'the resolver is on',
			sub { $self->_query(0, 'SHOW pg_dtx.resolver') eq 'on' });
		$session = $self->_session;
		$pid = $self->{pid};
		$session->commit('resolve',
			"SET pg_dtx.fault = '$fault';\nSELECT * FROM dtx.resolve_in_doubt();\nRESET pg_dtx.fault;\n");
		_wait_until(
			'the point',
			sub {
				my $reached = defined $self->_reached($point->{name});
				return $session->answered || ($reached
					&& ($action->{fault} ne 'hang' || _is_stopped($pid)));
			});
		push @{ $got{wrong} }, 'the point was not reached'
		  unless defined $self->_reached($point->{name});
	}
	if ($action->{fault} eq 'hang' && defined $pid && _is_stopped($pid))
	{
		$self->{dtx}->stop_process($pid);
		$self->_do($action, $pid, $victim, $session, \%got);
	}
	$self->{dtx}->continue_process($worker) if $worker;
	if (!$by_worker)
	{
		_wait_until('an answer', sub { $session->answered })
		  or push @{ $got{wrong} }, 'dtx.resolve_in_doubt() does not end';
		$got{messages} = $session->{err};
		$self->{session} = undef;
	}
	$self->_start_down;
	$self->_configure('');
	return \%got;
}

# Soon nothing is prepared and nothing in doubt.
sub _settle
{
	my $self = shift;
	my $deadline = time + $timeout;
	my $left;

	while (1)
	{
		$left = '';
		for my $i (1 .. 3)
		{
			my $gids = $self->_query($i,
				q{SELECT string_agg(gid, ' ') FROM pg_prepared_xacts});
			$left .= "prepared on s$i: $gids; " if $gids ne '';
		}
		my $in_doubt = $self->_query(0,
			q{SELECT string_agg(format('%s on %s (%s, %s)', gid, server, attempts, last_error), ' ') FROM dtx.in_doubt});
		$left .= "in doubt: $in_doubt" if $in_doubt ne '';
		return () if $left eq '';
		return ("not finished in time: $left") if time > $deadline;
		usleep(10_000);
	}
}

# Is the transaction where it should be?
sub _check
{
	my ($self, $id, $got) = @_;
	my %wrote = map { $_ => 1 } @{ $got->{wrote} };
	my @wrong;
	my (@there, @not_there);

	for my $i (0 .. 3)
	{
		my $log = $i == 0 ? 'log0' : 'log';
		my $n = $self->_query($i, "SELECT count(*) FROM $log WHERE id = $id");
		push @wrong, "it is on node $i, which had no part in it"
		  if $n && !$wrote{$i};
		push @{ $n ? \@there : \@not_there }, $i if $wrote{$i};
	}
	push @wrong, "it is on the nodes @there, but not on @not_there"
	  if @there && @not_there;
	my $is = @there ? 'present' : 'absent';
	push @wrong, 'the client was told of a COMMIT'
	  if $got->{answer} eq 'ack' && @not_there;

	# In one phase, after the COMMIT of the only writer was sent, an error says
	# nothing about it; that is postgres_fdw's.
	push @wrong, "the client was told of a failure ($got->{answer})"
	  if $got->{answer} =~ /^(?:refused|never)$/ && @there && !$got->{may_be_there};
	push @wrong, 'there is no moment on all servers'
	  if $self->_query(0, "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL pg_dtx.consistent_reads = on; SELECT 'taken'; COMMIT") !~ /taken/;
	push @wrong, "it should be $got->{must}"
	  if $got->{must} && $got->{must} ne $is;
	$self->{expected}{$id} = $is eq 'present' ? { map { $_ => 1 } @there } : {};
	$self->{outcomes}{"$got->{answer}, $is"}++;
	return @wrong;
}

# A transaction that wrote on one server only has nothing to do with all this:
# it passes no point.
sub one_phase
{
	my $self = shift;
	my @reached;

	for my $point (points())
	{
		my $id = ++$self->{id};
		$self->{log_offset} = -s $self->{dtx}->coord->logfile;
		my $session = $self->_session;
		$session->commit($id,
			$self->_statements({ wrote => [1] }, $id)
			  . "SET LOCAL pg_dtx.fault = '$point:crash';\n");
		_wait_until('an answer', sub { $session->answered });
		push @reached, $point
		  if $session->outcome ne 'ack' || defined $self->_reached($point);
		push @reached, $self->_check($id, { wrote => [1], answer => $session->outcome });
	}
	is("@reached", '', 'a transaction on one server passes no point');
	return;
}

# The order in which a resolver judges: a transaction commits, and leaves what its
# server has not confirmed, when the resolver has taken its snapshot.  What it knew
# before is that a backend takes care of this transaction; it must leave it alone.
sub order
{
	my $self = shift;
	my $dtx = $self->{dtx};
	my $id = ++$self->{id};
	my ($worker, $pid, $pid_resolve);

	# The worker sleeps, and is kept from helping.
	$self->{log_offset} = -s $dtx->coord->logfile;
	$self->_configure("pg_dtx.resolve_interval = '1h'\n");
	$worker = $self->_stop_worker(
		q{state = 'idle' AND current_setting('pg_dtx.resolve_interval') = '1h'});

	# Prepared everywhere, and stopped.
	my $session = $self->_session;
	$pid = $self->{pid};
	$session->commit($id,
		$self->_statements({ wrote => [ 0, 1, 2 ] }, $id)
		  . "SET LOCAL pg_dtx.commit_timeout = '100ms'; SET LOCAL pg_dtx.fault = 'prepared:hang';\n");
	_wait_until('it is prepared',
		sub { defined $self->_reached('prepared') && _is_stopped($pid) })
	  or croak 'the transaction is not prepared';
	$dtx->stop_process($pid);

	# Something else to judge, of a transaction that was rolled back.
	my $gid = $self->_query(1, 'SELECT gid FROM pg_prepared_xacts');
	my $xid = $dtx->sql('BEGIN; SELECT pg_current_xact_id(); ROLLBACK');
	my $earlier = $dtx->sql("SELECT dtx_internal.gid('$xid', 1)");
	$self->_query(1, "BEGIN; CREATE TABLE earlier (); PREPARE TRANSACTION '$earlier'");
	my $resolve;
	($resolve, $pid_resolve) = $self->_another;
	$resolve->commit('resolve',
		"SET pg_dtx.fault = 'resolver-snapshot:hang';\nSELECT gid, decision FROM dtx.resolve_in_doubt();\n");
	_wait_until('the snapshot',
		sub { defined $self->_reached('resolver-snapshot') && _is_stopped($pid_resolve) })
	  or croak 'the resolver takes no snapshot';
	$dtx->stop_process($pid_resolve);

	# It commits, but s1 does not answer.
	my @remote = split /\n/, $self->_query(1,
		q{SELECT pid FROM pg_stat_activity WHERE application_name = 'postgres_fdw'});
	$dtx->stop_process(@remote);
	$dtx->continue_process($pid);
	_wait_until('an answer', sub { $session->answered });
	is($session->outcome, 'ack', 'order: COMMIT does not wait for s1');

	$dtx->continue_process($pid_resolve);
	_wait_until('dtx.resolve_in_doubt() ends', sub { $resolve->answered });
	is($self->_query(1, "SELECT count(*) FROM pg_prepared_xacts WHERE gid = '$gid'"),
		'1', 'order: what was taken care of before the snapshot is left alone')
	  or diag("$resolve->{out}$resolve->{err}");
	$dtx->continue_process(@remote, $worker);
	$self->_configure('');
	my @wrong = $self->_settle;
	push @wrong, $self->_check($id,
		{ wrote => [ 0, 1, 2 ], answer => $session->outcome, must => 'present' });
	is("@wrong", '', 'order: it is committed everywhere');
	return;
}

# A resolver that has read what is prepared sleeps until another one has finished
# it and deleted its decision.  It concludes that it is to be rolled back, and finds
# it gone: that is no damage.
sub forgotten
{
	my $self = shift;
	my $dtx = $self->{dtx};
	my $id = ++$self->{id};

	$self->{log_offset} = -s $dtx->coord->logfile;
	$self->_configure("pg_dtx.resolver = off\n");
	my $session = $self->_session;
	$session->commit($id,
		$self->_statements({ wrote => [ 0, 1, 2 ] }, $id)
		  . "SET LOCAL pg_dtx.fault = 'local-commit:crash';\n");
	_wait_until('an answer', sub { $session->answered });
	$self->_restarted;
	my $gid = $self->_query(1, 'SELECT gid FROM pg_prepared_xacts');
	my $xid = (split /:/, $gid)[4];
	my $decisions = "SELECT count(*) FROM dtx_internal.decision WHERE xid = $xid";
	croak 'there is no decision' if $self->_query(0, $decisions) ne '1';

	# The worker is kept from helping until the other one has read its list.
	my $worker = $self->_stop_worker;
	$self->_configure('');
	my ($resolve, $pid) = $self->_another;
	_wait_until('resolution is possible',
		sub { ($resolve->query('SHOW pg_dtx.resolver') // '') eq 'on' })
	  or croak 'the configuration is not read';
	$resolve->commit('resolve',
		"SET pg_dtx.fault = 'resolver-listed:hang';\nSELECT gid, decision FROM dtx.resolve_in_doubt();\n");
	_wait_until('the list',
		sub { defined $self->_reached('resolver-listed') && _is_stopped($pid) })
	  or croak 'the resolver reads no list';
	$dtx->stop_process($pid);
	$dtx->continue_process($worker);

	_wait_until('the worker has finished it',
		sub { $self->_query(0, $decisions) eq '0' })
	  or croak 'the worker does not finish it';
	$dtx->continue_process($pid);
	_wait_until('dtx.resolve_in_doubt() ends', sub { $resolve->answered });
	my @wrong = $self->_settle;
	push @wrong, $self->_check($id,
		{ wrote => [ 0, 1, 2 ], answer => $session->outcome, must => 'present' });
	is("@wrong", '', 'forgotten: it is committed everywhere');
	is($self->_query(0, 'SELECT count(*) FROM dtx_internal.damage_record'), '0',
		'forgotten: and not taken for damage');
	return;
}

# What happens to who takes snapshots on all servers, with the gate closed or right behind
# it: others commit, and take snapshots.
sub gate
{
	my $self = shift;
	my $dtx = $self->{dtx};

	for my $point ('gate-closed', 'snapshot-opened')
	{
		for my $action ('crash', 'error', 'power failure', 'terminate', 'cancel')
		{
			my $id = ++$self->{id};
			my ($reader, $pid) = $self->_another;
			my $fault = $action =~ /^(?:crash|error)$/ ? $action : 'hang';
			$self->{log_offset} = -s $dtx->coord->logfile;
			$reader->commit('snapshot',
				"BEGIN ISOLATION LEVEL REPEATABLE READ;\nSET LOCAL pg_dtx.fault = '$point:$fault';\nSET LOCAL pg_dtx.consistent_reads = on;\n");
			if ($fault eq 'hang')
			{
				_wait_until($point, sub { defined $self->_reached($point) && _is_stopped($pid) })
				  or croak "$point is not reached";
				$dtx->stop_process($pid);
			}
			$dtx->crash($dtx->coord) if $action eq 'power failure';
			$dtx->coord->start if $action eq 'power failure';
			$self->_query(0, "SELECT pg_$1_backend($pid)") if $action =~ /^(terminate|cancel)$/;

			my $session;
			if ($action eq 'crash')
			{
				_wait_until('an answer', sub { $reader->answered });
				$self->_restarted;
			}
			else
			{
				my $begin = time;
				$session = $self->_session;
				$session->commit($id, $self->_statements({ wrote => [ 0, 1, 2 ] }, $id));
				_wait_until('an answer', sub { $session->answered });
				cmp_ok(time - $begin, '<', 20, "$point, $action: others commit");
			}
			$dtx->continue_process($pid) if $fault eq 'hang' && $action ne 'power failure';
			_wait_until('an answer', sub { $reader->answered });
			$reader->kill;
			my @wrong = $self->_settle;
			push @wrong, $self->_check($id, { wrote => [ 0, 1, 2 ], answer => $session->outcome })
			  if $session;
			is("@wrong", '', "$point, $action: all is well");
		}
	}
	return;
}

# Readers close the gate again and again.  Who enters it is let in all the same; one that
# waits there, and does not go on when it is opened, holds up nobody for long.
sub crowd
{
	my $self = shift;
	my $dtx = $self->{dtx};
	my @crowd;
	my $read = "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSET LOCAL pg_dtx.consistent_reads = on;\nCOMMIT;\n";

	$self->{log_offset} = -s $dtx->coord->logfile;
	for my $i (1 .. 6)
	{
		my ($reader, $pid) = $self->_another;
		$reader->commit("crowd $i", "SET pg_dtx.snapshot_timeout = '60s';\n" . $read x 2000);
		push @crowd, $reader;
	}

	# (they take in what they are sent little by little)
	my $busy = sub { $_->pump for @crowd; return 1 };
	my $commits = sub {
		my ($session, $n, $setting, $until) = @_;
		my $longest = 0;
		for (1 .. $n)
		{
			my $id = ++$self->{id};
			my $begin = time;
			$session->commit($id, $self->_statements({ wrote => [ 0, 1, 2 ] }, $id) . $setting);
			_wait_until('an answer', sub { $busy->() && ($until->() || $session->answered) });
			push @{ $self->{crowd} }, $id;
			return if $until->();
			$longest = time - $begin if time - $begin > $longest;
		}
		return $longest;
	};
	my $longest = $commits->($self->_session, 50, '', sub { 0 });
	cmp_ok($longest, '<', 5, sprintf 'crowd: commits beside readers that close the gate all the time (%.2f s the longest)', $longest);

	my ($stopped, $pid) = $self->_another;
	$commits->($stopped, 5000, "SET LOCAL pg_dtx.fault = 'gate-wait:hang';\n",
		sub { defined $self->_reached('gate-wait') && _is_stopped($pid) });
	ok(_is_stopped($pid), 'crowd: one waits at the gate, and is stopped');
	$dtx->stop_process($pid);
	my $begin = time;
	$longest = $commits->($self->_session, 20, '', sub { 0 });
	cmp_ok($longest, '<', 5, sprintf 'crowd: others go on (%.2f s the longest)', $longest);
	my ($reader, $other) = $self->_another;
	$begin = time;
	$reader->commit('reader', "SET pg_dtx.snapshot_timeout = '60s';\n" . $read x 20);
	_wait_until('an answer', sub { $busy->() && $reader->answered });
	cmp_ok(time - $begin, '<', 9, sprintf 'crowd: so do readers (%.2f s for twenty)', time - $begin);
	unlike($reader->{err}, qr/ERROR/, 'crowd: without errors');
	$_->kill for @crowd, $reader;

	$dtx->continue_process($pid);
	_wait_until('an answer', sub { $stopped->answered });
	is($stopped->outcome, 'ack', 'crowd: it goes on, and commits');
	my @wrong = $self->_settle;
	push @wrong, $self->_check($_, { wrote => [ 0, 1, 2 ], answer => 'ack' }) for @{ $self->{crowd} };
	is("@wrong", '', 'crowd: all is well');
	return;
}

# Who waits until all that was committed can be seen has found a live session responsible for
# what a server has prepared, and stops there.  The session hands that over to the resolver
# (the server does not confirm), and commits something else, so that the gate knows its next
# transaction, and not the one that was found.
sub judged
{
	my $self = shift;
	my $dtx = $self->{dtx};
	my ($id, $next) = ($self->{id} + 1, $self->{id} + 2);
	$self->{id} = $next;

	$self->{log_offset} = -s $dtx->coord->logfile;
	$self->_configure("pg_dtx.resolve_interval = '1h'\n");
	my $worker = $self->_stop_worker(
		q{state = 'idle' AND current_setting('pg_dtx.resolve_interval') = '1h'});
	my $session = $self->_session;
	my $pid = $self->{pid};
	$session->commit($id,
		$self->_statements({ wrote => [ 0, 1, 2 ] }, $id)
		  . "SET pg_dtx.commit_timeout = '100ms'; SET LOCAL pg_dtx.fault = 'gate-inside:hang';\n");
	_wait_until('it is prepared',
		sub { defined $self->_reached('gate-inside') && _is_stopped($pid) })
	  or croak 'the transaction is not prepared';
	$dtx->stop_process($pid);
	my @remote = split /\n/, $self->_query(1,
		q{SELECT pid FROM pg_stat_activity WHERE application_name = 'postgres_fdw'});

	my ($reader, $pid_reader) = $self->_another;
	$reader->commit('reader',
		"SET pg_dtx.snapshot_timeout = '500ms'; SET pg_dtx.fault = 'snapshot-judge:hang';\n",
		q{SELECT dtx.wait_until_visible('{s1}')});
	_wait_until('it is found',
		sub { defined $self->_reached('snapshot-judge') && _is_stopped($pid_reader) })
	  or croak 'nothing is judged';
	$dtx->stop_process($pid_reader);

	$dtx->stop_process(@remote);
	$dtx->continue_process($pid);
	_wait_until('an answer', sub { $session->answered });
	is($session->outcome, 'ack', 'judged: COMMIT does not wait for s1');
	$session->commit($next, $self->_statements({ wrote => [ 2, 3 ] }, $next));
	_wait_until('an answer', sub { $session->answered });
	is($session->outcome, 'ack', 'judged: the session commits something else');
	is($self->_query(1, "SELECT count(*) FROM log WHERE id = $id"), '0', 'judged: what s1 has not confirmed is not seen there');

	$dtx->continue_process($pid_reader);
	_wait_until('an answer', sub { $reader->answered });
	like($reader->{err}, qr/ERROR:  40001: could not see all that was committed on server "s1"/,
		'judged: and not taken for harmless');
	$reader->kill;
	$dtx->continue_process(@remote, $worker);
	$self->_configure('');
	my @wrong = $self->_settle;
	push @wrong, $self->_check($id, { wrote => [ 0, 1, 2 ], answer => 'ack' }),
	  $self->_check($next, { wrote => [ 2, 3 ], answer => 'ack' });
	is("@wrong", '', 'judged: both are committed everywhere');
	$session->query('RESET pg_dtx.commit_timeout');
	return;
}

# After all cases: row by row, once more.
sub finish
{
	my $self = shift;

	$self->one_phase;
	$self->order;
	$self->forgotten;
	$self->gate;
	$self->crowd;
	$self->judged;
	$self->{session}->kill if $self->{session};
	$self->{session} = undef;
	ok( _wait_until(
			'no transaction',
			sub { $self->_query(0, 'SELECT count(*) FROM dtx.transactions') eq '0' }),
		'no distributed transaction is left in shared memory');
	my @wrong = $self->_settle;
	is("@wrong", '', 'nothing is prepared, nothing in doubt');
	for my $i (0 .. 3)
	{
		my $log = $i == 0 ? 'log0' : 'log';
		my $expected = join "\n",
		  grep { $self->{expected}{$_}{$i} }
		  sort { $a <=> $b } keys %{ $self->{expected} };
		my $is = $self->_query($i, "SELECT id FROM $log ORDER BY id");
		ok($is eq $expected, "node $i has the rows that it had after each case");
	}

	my $rows = $self->_query(0, 'SELECT count(*) FROM dtx_internal.decision');
	my $few = _wait_until('few rows',
		sub { ($rows = $self->_query(0, 'SELECT count(*) FROM dtx_internal.decision')) < 60 });
	ok($few, "the decision table is small ($rows rows)");
	my $log = slurp_file($self->{dtx}->coord->logfile);
	unlike($log, qr/(?:PANIC|TRAP|was terminated by signal (?!9\b)\d+|segmentation)/,
		'nobody crashed who was not told to');
	unlike($log, qr/although (?:its|the) transaction (?:has committed|was rolled back)/,
		'nothing was finished against its decision');
	is($self->_query(0, 'SELECT count(*) FROM dtx_internal.damage_record'), '0',
		'and nothing is taken for it');
	return;
}

# Cases by point and action, as text.
sub table
{
	my $self = shift;
	my @names = map { $_->{name} } @actions;
	my $text = sprintf "%-18s", 'cases (failed)';
	my %short = (
		'power failure' => 'power', 'kill backend' => 'backend',
		'terminate' => 'termin.', 'client gone' => 'client', 'both down' => 'both');
	$text .= sprintf "%9s", $short{$_} // $_ for @names;
	$text .= "\n";
	for my $point ((map { $_->{name} } @points), @resolver_points)
	{
		my $row = $self->{table}{$point} or next;
		$text .= sprintf "%-18s", $point;
		for my $action (@names)
		{
			my $cell = $row->{$action};
			$text .= sprintf "%9s",
			  !$cell ? '' : $cell->[1] ? "$cell->[0]($cell->[1])" : $cell->[0];
		}
		$text .= "\n";
	}
	$text .= "client's answer, what became of it:\n";
	$text .= sprintf "%8d  %s\n", $self->{outcomes}{$_}, $_
	  for sort keys %{ $self->{outcomes} };
	my %spent;
	for my $row (values %{ $self->{table} })
	{
		$spent{$_} += $row->{$_}[2] for keys %$row;
	}
	$text .= 'seconds: '
	  . join(', ', map { sprintf '%s %.0f', $_, $spent{$_} } sort keys %spent)
	  . sprintf(', total %.0f', time - $self->{started}) . "\n";
	return $text;
}

1;

# Many sessions on many servers, and what becomes of each transaction.
#
# Each session is a psql on pipes, driven by a process of its own, which keeps a
# journal: for each transaction its number, its nodes, what the session was told.
# Each transaction writes its number on all its nodes.  While they run, all servers
# are asked again and again how many connections, prepared transactions, locks
# and decision rows there are.  After a run every transaction is checked:
# acknowledged, it is on all its nodes; refused, on none; not known to its client,
# on all or none.
package Load;

use strict;
use warnings FATAL => 'all';

use AsyncPsql;
use Carp;
use DtxTest;
use POSIX ();
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

my $timeout = $PostgreSQL::Test::Utils::timeout_default;

# Kinds of transactions, with their weights.
my @kinds = (
	[ 3, 'all servers, local' ],
	[ 2, 'all servers' ],
	[ 4, 'two servers' ],
	[ 3, 'one server, local' ],
	[ 1, 'one server' ],
	[ 2, 'two servers, reader' ],
	[ 2, 'two servers, commit_wait off' ],
	[ 2, 'refused at prepare' ]);

# Processes that are ours, to be ended whatever happens.
my %children;

END
{
	local $?;
	kill 'KILL', keys %children if %children;
}

# Options: sessions, servers; conf, participant_conf as for DtxTest; say => where
# to report to.
sub new
{
	my ($class, %params) = @_;
	my $n = $params{sessions};

	# One connection per session on each server, one of the resolver's, and
	# some for this test, and for processes that are just ending.
	my $connections = $n + 8;
	my $dtx = DtxTest->new(
		servers => $params{servers},
		participant_conf => "max_connections = $connections\n"
		  . "max_prepared_transactions = $n\n"
		  . "shared_buffers = 16MB\nlog_statement = none\ncheckpoint_timeout = 1h\n"
		  . ($params{participant_conf} // ''),
		conf => "max_connections = $connections\nshared_buffers = 16MB\n"
		  . "log_statement = none\ncheckpoint_timeout = 1h\n"
		  . ($params{conf} // ''));
	my $self = bless {
		dtx => $dtx,
		sessions => $n,
		servers => $params{servers},
		say => $params{say} // sub { },
		runs => 0,
		problems => [],
		samplers => [],
	}, $class;

	for my $i (1 .. $self->{servers})
	{
		# What is to be refused is, when its transaction is prepared; so is what
		# needs room then.
		$dtx->p($i)->safe_psql(
			'postgres', q{
CREATE TABLE log (id bigint PRIMARY KEY, refuse boolean NOT NULL, sleep float8 NOT NULL);
CREATE TABLE late (id bigint NOT NULL, filler text NOT NULL);
ALTER TABLE late ALTER filler SET STORAGE PLAIN;
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO public.late VALUES (NEW.id, repeat('x', 2000));
	PERFORM pg_sleep(NEW.sleep) WHERE NEW.sleep > 0;
	IF NEW.refuse THEN RAISE EXCEPTION 'refused'; END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION late();
});
		$dtx->sql(
			"CREATE FOREIGN TABLE log$i (id bigint, refuse boolean, sleep float8) SERVER s$i OPTIONS (table_name 'log')"
		);
	}
	$dtx->sql('CREATE TABLE log0 (id bigint PRIMARY KEY)');
	return $self;
}

sub dtx { return $_[0]{dtx}; }
sub problems { return @{ $_[0]{problems} }; }

sub _problem
{
	my ($self, $text) = @_;
	push @{ $self->{problems} }, $text if @{ $self->{problems} } < 50;
	return;
}

# ----------------------------------------------------------------
# Transactions
# ----------------------------------------------------------------

sub _draw
{
	my $sum = 0;
	$sum += $_->[0] for @_;
	my $n = int(rand $sum);
	for (@_)
	{
		return $_->[1] if ($n -= $_->[0]) < 0;
	}
	return;
}

# A transaction: kind, nodes, SQL without its COMMIT.
sub _transaction
{
	my ($id, $run) = @_;
	my $kind = $run->{kind} // _draw(@kinds);
	my @servers = @{ $run->{servers} };
	my $sql = "BEGIN;\n$run->{set}\n";
	my (@nodes, $reader);

	# in any order
	push @servers, splice(@servers, int(rand @servers), 1) for @servers;
	if ($kind =~ /^all servers/)
	{
		@nodes = @servers;
	}
	elsif ($kind =~ /^one server/)
	{
		@nodes = ($servers[0]);
	}
	else
	{
		@nodes = @servers[ 0, 1 ];
		$reader = $servers[2] if $kind =~ /reader/;
	}
	push @nodes, 0 if $kind =~ /local/;
	$sql .= "SET LOCAL pg_dtx.commit_wait = off;\n" if $kind =~ /commit_wait off/;
	for my $i (@nodes)
	{
		my $refuse = $kind =~ /^refused/ && $i == $nodes[-1] ? 'true' : 'false';
		my $sleep = $run->{slow}{$i} // 0;
		$sql .= $i ? "INSERT INTO log$i VALUES ($id, $refuse, $sleep);\n"
		  : "INSERT INTO log0 VALUES ($id);\n";
	}
	$sql .= "SELECT count(*) FROM log$reader WHERE id = 0;\n" if $reader;
	return ($kind, [ sort { $a <=> $b } @nodes ], $sql);
}

# A session: transactions until it is told to stop.  When its connection is lost
# it makes another one.
sub _session
{
	my ($self, $number, $run) = @_;
	my $coord = $self->{dtx}->coord;
	my ($psql, $stop, $done) = ($coord->installed_command('psql'), "$run->{dir}/stop", 0);
	my $parent = getppid();

	$SIG{$_} = 'DEFAULT' for qw(INT TERM);
	srand($number * 1000 + $run->{number});
	open my $journal, '>', "$run->{dir}/journal.$number" or die "$!";
	$journal->autoflush(1);
	until (-e $stop || getppid() != $parent)
	{
		my $client = AsyncPsql->new($psql, $coord->connstr('postgres'));
		if (!defined $client->query('SELECT 1', $timeout))
		{
			$client->kill;
			usleep(100_000);
			next;
		}
		print $journal "hello\n" unless $done;
		until (-e $stop || $client->eof || ($run->{each} && $done >= $run->{each}))
		{
			my $id = $run->{number} * 1_000_000_000 + $number * 1_000_000 + ++$done;
			my ($kind, $nodes, $sql) = _transaction($id, $run);
			my $deadline = time + $timeout;
			my $late = 0;

			$client->commit($id, $sql);
			until ($client->answered || $late)
			{
				$client->_select(0.5);
				$late = time > $deadline;
			}
			my $outcome = $late ? 'late' : $client->outcome;

			# the first message tells why, with what belongs to it
			my $said = $client->{err};
			$said =~ s/^\[.*\]\n//mg;
			$said =~ s/^(?:LOCATION|STATEMENT): .*\n//mg;
			$said =~ s/\n(?:WARNING|ERROR|FATAL|PANIC): .*//s;
			$said =~ s/\s+/ /g;
			$said =~ s/ $//;
			print $journal join("\t", $id, $kind, "@$nodes", $outcome, $said) . "\n";
			last if $late;
		}
		$client->kill;
		last if $run->{each} && $done >= $run->{each};
		usleep(50_000);
	}
	close $journal;
	return;
}

# ----------------------------------------------------------------
# Runs
# ----------------------------------------------------------------

# Start sessions; returns a run.  Options: name; servers => [those that take part]; kind => only
# these; set => SQL at the begin of each transaction; slow => { server => seconds that
# its PREPAREs take }; each => so many transactions per session, not until stop();
# sessions => how many.
sub start
{
	my ($self, %run) = @_;
	my $n = $run{sessions} // $self->{sessions};

	$run{servers} //= [ 1 .. $self->{servers} ];
	$run{set} //= '';
	$run{begin} = time;
	$run{number} = ++$self->{runs};
	$run{max} = {};
	$run{dir} = PostgreSQL::Test::Utils::tempdir();
	for my $number (1 .. $n)
	{
		my $pid = fork();
		croak "could not fork: $!" unless defined $pid;
		if ($pid == 0)
		{
			# Neither END blocks nor destructors of the test may run here.
			%children = ();
			eval { $self->_session($number, \%run); 1 } or print STDERR $@;
			POSIX::_exit($@ ? 1 : 0);
		}
		$children{$pid} = $run{pids}{$pid} = $number;
	}
	my $deadline = time + $timeout;
	until ((grep { -s "$run{dir}/journal.$_" } 1 .. $n) == $n)
	{
		croak 'not all sessions have a connection' if time > $deadline;
		usleep(50_000);
	}
	return \%run;
}

# Let them go on for so many seconds, and ask the servers meanwhile.
sub watch
{
	my ($self, $run, $seconds) = @_;
	my $end = time + $seconds;
	do
	{
		$self->sample($run);
		usleep(200_000);
	} while (time < $end);
	return;
}

# Until so many transactions more have an outcome; or one of them said something.
sub wait_for
{
	my ($self, $run, $n, $regex) = @_;
	my $deadline = time + $timeout;
	my $from = @{ _journal($run) };
	my @lines;
	do
	{
		croak 'the sessions get nowhere' if time > $deadline;
		$self->sample($run);
		usleep(100_000 + 2_000 * $self->{sessions});
		@lines = @{ _journal($run) };
		@lines = grep { $_->{said} =~ $regex } @lines if $regex;
		$from = 0 if $regex;
	} while (@lines - $from < $n);
	return;
}

# Ask all servers that answer.
my $participant_query = q{
SELECT 'connections of sessions', count(*) FROM pg_stat_activity
WHERE application_name = 'postgres_fdw'
UNION ALL SELECT 'connections of resolvers', count(*) FROM pg_stat_activity
WHERE application_name LIKE 'pg_dtx%'
UNION ALL SELECT 'prepared', count(*) FROM pg_prepared_xacts};
my $coordinator_query = q{
SELECT 'decision rows', count(*) FROM dtx_internal.decision
UNION ALL SELECT 'in doubt', count(*) FROM dtx.in_doubt
UNION ALL SELECT 'locks per session', coalesce(max(n), 0) FROM
	(SELECT count(*) AS n FROM pg_locks l JOIN pg_class c ON l.relation = c.oid
		JOIN pg_namespace s ON c.relnamespace = s.oid AND s.nspname LIKE 'dtx%'
		JOIN pg_stat_activity a ON l.pid = a.pid AND a.backend_type = 'client backend'
		WHERE l.pid <> pg_backend_pid() GROUP BY l.pid) x
UNION ALL SELECT 'workers', count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_dtx%'};

sub sample
{
	my ($self, $run) = @_;
	for my $i (0 .. $self->{servers})
	{
		my $node = $self->{dtx}{nodes}[$i];
		next if $self->{down}{$i};
		my $psql = $self->{samplers}[$i] //=
		  AsyncPsql->new($node->installed_command('psql'), $node->connstr('postgres'));
		my $answer = $psql->query($i ? $participant_query : $coordinator_query, 20);
		if (!defined $answer)
		{
			$psql->kill;
			$self->{samplers}[$i] = undef;
			next;
		}
		for my $line (split /\n/, $answer)
		{
			my ($what, $n) = split /\|/, $line;
			$run->{max}{$what} = $n if $n > ($run->{max}{$what} // 0);
		}
	}
	return;
}

sub _journal
{
	my $run = shift;
	my @all;
	for my $file (glob("$run->{dir}/journal.*"))
	{
		for my $line (split /\n/, slurp_file($file))
		{
			my ($id, $kind, $nodes, $outcome, $said) = split /\t/, $line, 5;
			push @all,
			  {
				id => $id, kind => $kind, nodes => $nodes,
				outcome => $outcome, said => $said // ''
			  } if $id =~ /^\d+$/;
		}
	}
	return \@all;
}

# Tell the sessions to stop, and wait for the end of all of them.
sub stop
{
	my ($self, $run) = @_;
	my $deadline = time + $timeout + 30;

	PostgreSQL::Test::Utils::append_to_file("$run->{dir}/stop", 'stop')
	  unless $run->{each};
	while (%{ $run->{pids} })
	{
		for my $pid (keys %{ $run->{pids} })
		{
			next unless waitpid($pid, POSIX::WNOHANG()) == $pid;
			$self->_problem("$run->{name}: session $run->{pids}{$pid} broke off") if $?;
			delete $run->{pids}{$pid};
			delete $children{$pid};
		}
		croak 'sessions do not end' if time > $deadline;
		usleep(50_000) if %{ $run->{pids} };
	}
	$run->{seconds} = time - $run->{begin};
	return;
}

# Everything runs: compare what was told and what is there.  Returns the journal.
sub check
{
	my ($self, $run) = @_;
	my $dtx = $self->{dtx};
	my $journal = _journal($run);
	my $name = $run->{name};
	my (%on, %count, %said);

	$self->_problem("$name: something stays prepared or in doubt")
	  unless $dtx->clean($name);
	for my $i (0 .. $self->{servers})
	{
		my $table = $i ? 'log' : 'log0';
		my $from = $run->{number} * 1_000_000_000;
		my $to = $from + 1_000_000_000;
		push @{ $on{$_} }, $i for split /\n/,
		  $dtx->{nodes}[$i]->safe_psql('postgres',
			"SELECT id FROM $table WHERE id > $from AND id < $to");
	}
	for my $t (@$journal)
	{
		my $is = join ' ', sort { $a <=> $b } @{ delete $on{ $t->{id} } // [] };
		my $what = "$name, transaction $t->{id} ($t->{kind}), nodes $t->{nodes}, $t->{outcome}, $t->{said}";

		# When only one server wrote, a lost connection says nothing of its COMMIT.
		$t->{outcome} = 'unknown'
		  if $t->{kind} eq 'one server' && $t->{outcome} eq 'refused'
		  && $t->{said} =~ /ERROR: +(?:08|57)/;
		$count{ $t->{outcome} }++;
		$said{"$1: $2"}++ if $t->{said} =~ /^(\w+): +(\w{5}):/;
		$self->_problem("$what: there was no answer") if $t->{outcome} eq 'late';
		$self->_problem("$what: it is on nodes $is") if $is ne '' && $is ne $t->{nodes};
		$self->_problem("$what: it is nowhere") if $t->{outcome} eq 'ack' && $is eq '';
		$self->_problem("$what: it is there")
		  if $t->{outcome} =~ /^(?:refused|never)$/ && $is ne '';
		$self->_problem("$what: it must not commit")
		  if $t->{kind} =~ /^refused/ && $is ne '';
	}
	$self->_problem("$name: transaction $_ is on nodes @{$on{$_}}, and nobody made it")
	  for sort keys %on;
	@{$run}{qw(count said)} = (\%count, \%said);
	$self->{say}->(sprintf "%-44s %4.0f s %6d transactions: %s",
		$name, $run->{seconds}, scalar @$journal,
		join ', ', map { "$count{$_} $_" } sort keys %count);
	$self->{say}->('    messages: ' . join ', ', map { "$said{$_} x $_" } sort keys %said)
	  if %said;
	$self->{say}->('    at most: ' . join ', ', map { "$run->{max}{$_} $_" } sort keys %{ $run->{max} })
	  if %{ $run->{max} };
	return $journal;
}

# What servers are down is not asked.
sub down
{
	my ($self, $i, $is_down) = @_;
	$self->{down}{$i} = $is_down;
	$self->{samplers}[$i]->kill if $self->{samplers}[$i];
	$self->{samplers}[$i] = undef;
	return;
}

1;

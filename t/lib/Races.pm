# Resolvers that look all the time, while transactions of all shapes commit.
#
# Clients write their transaction's number on every node it touches, and note what they
# were told.  The servers log each statement when it has succeeded, with its parameters,
# so their logs tell which transaction was prepared under which name, who finished it and
# how.  Half of the time a server is asked to decide; that one commits in one phase.  After each round
# all of it is compared: per gid one PREPARE and one outcome, the same outcome for
# all gids of a transaction, equal to what its client was told and to the rows;
# and what a live backend took care of was finished by nobody else.  Now and then a
# connection between the servers is closed, so that resolvers have work to do.
#
# An interleaving is a transaction and a look of a resolver at a server, such that
# the look (its list of prepared transactions) began before the transaction was
# finished on that server, and ended after its PREPARE had begun there, by the
# times in the server's log, which are exact to a millisecond.
package Races;

use strict;
use warnings FATAL => 'all';

use Carp;
use DtxTest;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

# An abort leaves to the resolver what its servers do not answer to within this
# many seconds (ABORT_WAIT_MS in commit/phase_two.c).
my $abort_wait = 2;

# Shapes.  wrote: nodes, 0 is the coordinator; before: SQL in the transaction,
# before COMMIT; session: SQL before it, undone after it; shared: may a resolver
# take part though the backend lives?
my @shapes = (
	{ name => '2 servers', wrote => [ 1, 2 ] },
	{ name => '2 servers, backwards', wrote => [ 3, 1 ] },
	{ name => '3 servers', wrote => [ 1, 2, 3 ] },
	{ name => '1 server, local', wrote => [ 0, 2 ] },
	{ name => '3 servers, local', wrote => [ 0, 1, 2, 3 ] },
	{
		name => '2 servers, reader',
		wrote => [ 2, 3 ],
		before => 'SELECT count(*) FROM w1 WHERE id = 0;'
	},
	{
		name => '2 servers, savepoint',
		wrote => [ 1, 3 ],
		before => 'SAVEPOINT a; INSERT INTO w3 VALUES (0); ROLLBACK TO a;'
	},
	{ name => '3 servers, rollback', wrote => [ 1, 2, 3 ], end => 'ROLLBACK' },
	{ name => '2 servers, refused', wrote => [ 1, 2 ], refused => 2 },
	{ name => '3 servers, local, refused', wrote => [ 0, 2, 3, 1 ], refused => 1 },

	# Many of these fail after everything is prepared.
	{
		name => '2 servers, write skew',
		wrote => [ 1, 2 ],
		begin => 'BEGIN ISOLATION LEVEL SERIALIZABLE',
		before =>
		  'SELECT sum(v) FROM skew; UPDATE skew SET v = v + 1 WHERE client = :client;'
	},
	{
		name => '2 servers, commit_wait off',
		wrote => [ 1, 2 ],
		before => 'SET LOCAL pg_dtx.commit_wait = off;',
		shared => 1
	},
	{
		name => '3 servers, local, commit_wait off',
		wrote => [ 0, 1, 2, 3 ],
		before => 'SET LOCAL pg_dtx.commit_wait = off;',
		shared => 1
	},
	{
		name => '2 servers, commit_timeout',
		wrote => [ 2, 3 ],
		before => 'SET LOCAL pg_dtx.commit_timeout = :few;',
		shared => 1
	},
	{
		name => '2 servers, prepare_timeout',
		wrote => [ 1, 3 ],
		before => 'SET LOCAL pg_dtx.prepare_timeout = :some;',
		shared => 1
	},
	{
		name => '3 servers, canceled',
		wrote => [ 1, 2, 3 ],
		before => 'SET LOCAL statement_timeout = :some;',
		shared => 1
	});

# clients, resolvers: numbers of sessions; say: where to report a round.
sub new
{
	my ($class, %params) = @_;
	my $dtx = DtxTest->new(
		servers => 3,
		participant_conf => q{
max_prepared_transactions = 100
log_statement = none
log_min_duration_statement = 0
log_line_prefix = '%n %p '
},
		conf => q{
max_connections = 60
synchronous_standby_names = ''
synchronous_commit = on
log_statement = none
log_min_messages = warning
autovacuum = on
autovacuum_naptime = 1s
pg_dtx.resolve_interval = 10
pg_dtx.prepare_timeout = '10min'
pg_dtx.commit_timeout = '10min'
});
	my $self = bless {
		dtx => $dtx,
		clients => $params{clients} // 24,
		resolvers => $params{resolvers} // 3,
		say => $params{say},
		dir => PostgreSQL::Test::Utils::tempdir(),
		ids => 0,
		problems => [],
		count => {},
		interleavings => 0,
	}, $class;

	for my $i (1 .. 3)
	{
		$dtx->p($i)->safe_psql(
			'postgres', q{
CREATE TABLE w (id bigint NOT NULL, refuse boolean);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RAISE EXCEPTION 'refused'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON w DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.refuse) EXECUTE FUNCTION refuse();
});
		$dtx->sql(
			"CREATE FOREIGN TABLE w$i (id bigint, refuse boolean) SERVER s$i OPTIONS (table_name 'w')"
		);
	}
	$dtx->sql(
		qq{
CREATE TABLE w0 (id bigint NOT NULL, refuse boolean);
CREATE TABLE skew (client int PRIMARY KEY, v bigint NOT NULL);
INSERT INTO skew SELECT i, 0 FROM generate_series(1, $self->{clients}) i;
});
	return $self;
}

sub problems { return @{ $_[0]{problems} }; }
sub transactions { return $_[0]{count}{transactions} // 0; }
sub interleavings { return $_[0]{interleavings}; }

sub _problem
{
	my ($self, $text) = @_;
	push @{ $self->{problems} }, $text if @{ $self->{problems} } < 50;
	return;
}

# SQL of some transactions of one client, which echoes what became of each.
sub _script
{
	my ($client, $round, $seq, $n) = @_;
	my $sql = "\\set client $client\n";
	for (1 .. $n)
	{
		my $k = int(rand @shapes);
		my $shape = $shapes[$k];
		my $id = "$round" . sprintf('%03d%06d', $client, $$seq++);
		$sql .= sprintf "\\set few %d\n\\set some %d\n",
		  int(rand 4), 1 + int(rand 20);
		$sql .= ($shape->{begin} // 'BEGIN') . ";\n";
		$sql .= "SET LOCAL pg_dtx.commit_point = server;\n" if rand(2) < 1;
		for my $node (@{ $shape->{wrote} })
		{
			my $refuse = $node == ($shape->{refused} // -1) ? 'true' : 'NULL';
			$sql .= "INSERT INTO w$node VALUES ($id, $refuse);\n";
		}
		$sql .= "$shape->{before}\n" if $shape->{before};
		$sql .= ($shape->{end} // 'COMMIT') . ";\n\\echo end $id $k :SQLSTATE\n";
	}
	return $sql;
}

# A client: sessions that come and go, until it is time.
sub _client
{
	my ($self, $client, $until) = @_;
	my $coord = $self->{dtx}->coord;
	my @command = (
		$coord->installed_command('psql'), '-XAt', '-v', 'ON_ERROR_STOP=0',
		'-d', $coord->connstr('postgres'), '-f', "$self->{dir}/script.$client");
	my $seq = 0;

	srand(time * 1000 ^ $$);
	open STDOUT, '>>', "$self->{dir}/out.$client" or die "$!";
	open STDERR, '>>', "$self->{dir}/err.$client" or die "$!";
	while (time < $until)
	{
		open my $fh, '>', "$self->{dir}/script.$client" or die "$!";
		print $fh _script($client, $self->{round}, \$seq, 10 + int(rand 40));
		close $fh;
		return 1 if system(@command) != 0;
	}
	return 0;
}

sub _fork
{
	my ($self, $code) = @_;
	my $pid = fork();
	croak "could not fork: $!" unless defined $pid;
	return $pid if $pid;

	# Neither END blocks nor destructors of the test may run here.
	my $status = eval { $code->() } // 1;
	print STDERR $@ if $@;
	POSIX::_exit($status);
}

# Disks of all kinds: while a node flushes, its transactions are neither here nor
# there, and that is when a look at them is worth most.  Each round has another
# disk for each node, from one that costs nothing to a slow one.
sub _slow_disks
{
	my $self = shift;
	for my $i (0 .. 3)
	{
		my $delay = (0, 500, 2_000, 5_000)[ ($i + $self->{round} * 3) % 4 ];
		my $node = $self->{dtx}{nodes}[$i];
		$node->safe_psql('postgres',
			"ALTER SYSTEM SET commit_delay = $delay;"
			  . 'ALTER SYSTEM SET commit_siblings = 0;'
			  . "ALTER SYSTEM SET fsync = " . ($delay ? 'on' : 'off'));
		$node->reload;
	}
	return;
}

# So many seconds of it.
sub round
{
	my ($self, $seconds) = @_;
	my $dtx = $self->{dtx};
	my $dir = $self->{dir};
	my $coord = $dtx->coord;
	my (%clients, $resolvers, @closers);
	my $begin = time;

	$self->{round}++;
	unlink glob("$dir/*");
	$self->_slow_disks;
	PostgreSQL::Test::Utils::append_to_file("$dir/resolve.sql",
		"SELECT count(*) FROM dtx.resolve_in_doubt();\n");
	truncate $dtx->p($_)->logfile, 0 for 1 .. 3;
	$resolvers = $self->_fork(
		sub {
			open STDOUT, '>>', "$dir/resolvers" or die "$!";
			open STDERR, '>&', \*STDOUT or die "$!";
			exec $coord->installed_command('pgbench'), '-n', '-c',
			  $self->{resolvers}, '-j', $self->{resolvers}, '-T', int($seconds + 1),
			  '-f', "$dir/resolve.sql", '-d', $coord->connstr('postgres')
			  or die "pgbench: $!";
		});
	PostgreSQL::Test::Utils::append_to_file("$dir/close.sql", q{
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'postgres_fdw' ORDER BY random() LIMIT 1 \watch 0.1
});
	for my $i (1 .. 3)
	{
		my $node = $dtx->p($i);
		push @closers, $self->_fork(
			sub {
				open STDOUT, '>', '/dev/null' or die "$!";
				exec $node->installed_command('psql'), '-XAtq', '-d',
				  $node->connstr('postgres'), '-f', "$dir/close.sql"
				  or die "psql: $!";
			});
	}
	for my $client (1 .. $self->{clients})
	{
		$clients{ $self->_fork(sub { $self->_client($client, $begin + $seconds) }) } =
		  $client;
	}
	for my $pid (keys %clients)
	{
		waitpid $pid, 0;
		$self->_problem("client $clients{$pid} broke off: "
			  . slurp_file("$dir/err.$clients{$pid}") =~ s/.*(?=.{1000})//sr)
		  if $?;
	}
	kill 'TERM', @closers;
	waitpid $_, 0 for @closers;
	waitpid $resolvers, 0;
	$self->_problem('dtx.resolve_in_doubt() failed: ' . slurp_file("$dir/resolvers")) if $?;
	$self->_problem('something is prepared or in doubt') unless $dtx->clean("round $self->{round}");

	my $before = $self->{interleavings};
	my $transactions = $self->transactions;
	$self->_check;
	$self->{say}->(
		sprintf 'round %d: %d s, %d transactions, %d interleavings, %d problems',
		$self->{round}, time - $begin, $self->transactions - $transactions,
		$self->{interleavings} - $before, scalar @{ $self->{problems} });
	return !@{ $self->{problems} };
}

# Compare what was told, the logs and the rows of a round.
sub _check
{
	my $self = shift;
	my $dtx = $self->{dtx};
	my (%journal, @rows, %outcomes, %prepared_on);
	my $oids = $dtx->sql(q{SELECT string_agg(oid || ' ' || substr(srvname, 2), ' ') FROM pg_foreign_server});
	my %server = split / /, $oids;

	# What clients were told: by number.
	for my $client (1 .. $self->{clients})
	{
		my $tag = '';
		for my $line (split /\n/, slurp_file("$self->{dir}/out.$client"))
		{
			if ($line =~ /^end (\d+) (\d+) (\w+)$/)
			{
				# 08007: the server that decides could not be asked
				my $outcome =
				    $3 eq '08007' ? 'unknown'
				  : $3 ne '00000' ? 'refused'
				  : $tag eq 'COMMIT' ? 'ack'
				  : 'refused';
				$journal{$1} = { id => $1, shape => $shapes[$2], told => $outcome };
				$self->{count}{transactions}++;
				$self->{told}{ $shapes[$2]{name} }{$outcome}++;
			}
			else
			{
				$tag = $line;
			}
		}
	}

	for my $i (1 .. 3)
	{
		my $log = $self->_read_log($i);
		my %finished;

		for my $gid (keys %{ $log->{prepare} }, keys %{ $log->{finish} })
		{
			next if exists $finished{$gid};
			my @prepares = @{ $log->{prepare}{$gid} // [] };
			my @finishes = @{ $log->{finish}{$gid} // [] };
			my $id = $log->{id}{$gid} // 'none';

			$finished{$gid} = 1;
			$self->_problem("$gid was prepared " . @prepares . " times on s$i")
			  if @prepares != 1;
			$self->_problem("$gid was finished " . @finishes . " times on s$i: "
				  . join(', ', map { $_->{how} } @finishes))
			  if @finishes != 1;
			$self->_problem("$gid was prepared on two servers")
			  if $prepared_on{$gid}++;
			next unless @prepares && @finishes;

			$outcomes{$id}{$i} = $finishes[0]{how};
			my $t = $journal{$id};
			if (!$t)
			{
				$self->_problem("$gid on s$i belongs to no transaction ($id)");
				next;
			}
			$self->{count}{gids}++;
			if ($gid =~ /^dtx:\w+:\d+:\w+:s\d+:\d+:\d+:\d+:\w+:(\d+):/)
			{
				my $decider = $server{$1} // 'none';
				$self->_problem("$gid names another server as the one that decides than its transaction's others")
				  if ($t->{decider} // $decider) ne $decider;
				$self->{count}{'decided by a server'}++ if !$t->{decider};
				$t->{decider} = $decider;
			}
			$self->_check_hand($i, $gid, $t, $log, $prepares[0], $finishes[0]);
			$self->{interleavings} +=
			  $log->{looks_before}->($finishes[0]{end}) -
			  $log->{looks_ended}->($prepares[0]{begin});
		}
		$self->{count}{looks} += $log->{looks};
		$self->{count}{'too late'} += $log->{late};
	}

	# Rows: by node and number.
	for my $i (0 .. 3)
	{
		my $node = $dtx->{nodes}[$i];
		my $table = $i == 0 ? 'w0' : 'w';
		for my $line (split /\n/,
			$node->safe_psql('postgres', "SELECT id FROM $table"))
		{
			$self->_problem("node $i has the row of transaction $line twice")
			  if $rows[$i]{$line}++;
			$self->_problem("node $i has a row $line of no transaction")
			  if !$journal{$line};
		}
		$node->safe_psql('postgres', "TRUNCATE $table");
	}

	for my $id (keys %journal)
	{
		my $t = $journal{$id};
		my $what = "transaction $id ($t->{shape}{name}"
		  . ($t->{decider} ? ", s$t->{decider} decides" : '') . ')';
		my @wrote = @{ $t->{shape}{wrote} };
		my %wrote = map { $_ => 1 } @wrote;

		# If nobody knows, it is as it is on the first node.
		my $want = $t->{told} eq 'unknown' ? ($rows[ $wrote[0] ]{$id} ? 1 : 0) : $t->{told} eq 'ack' ? 1 : 0;

		for my $i (0 .. 3)
		{
			my $has = $rows[$i]{$id} ? 1 : 0;
			my $how = $outcomes{$id}{$i} // '';

			$self->_problem("$what was told \"$t->{told}\", but is "
				  . ($has ? '' : 'not ') . "on node $i")
			  if $has != ($want && $wrote{$i} ? 1 : 0);
			next if $i == 0;
			$self->_problem("$what was told \"$t->{told}\", but \"$how\" on s$i")
			  if $how ne '' && $how ne ($want ? 'COMMIT' : 'ROLLBACK');
			$self->_problem("$what was committed on s$i, but not in two phases")
			  if $want && $wrote{$i} && $how eq '' && $i ne ($t->{decider} // 0);
			$self->_problem("$what was prepared on s$i, which decides")
			  if $how ne '' && $i eq ($t->{decider} // 0);
		}
	}

	my $log = slurp_file($dtx->coord->logfile);
	$self->_problem("the coordinator's log has: $1")
	  if $log =~ /^(.*(?:PANIC|TRAP|terminated by signal|although (?:its|the) transaction has committed).*)$/m;
	return;
}

# Who finished it?
sub _check_hand
{
	my ($self, $i, $gid, $t, $log, $prepare, $finish) = @_;

	$self->{count}{"$finish->{how} by its own backend"}++, return
	  if $prepare->{pid} == $finish->{pid};
	$self->{count}{"$finish->{how} by a resolver"}++;

	# Whose backend does not give it up: nobody may have touched it.
	return if $t->{shape}{shared} || $t->{told} eq 'unknown' || $log->{closed}{ $prepare->{pid} };
	return
	  if $finish->{how} eq 'ROLLBACK'
	  && $finish->{end} - $prepare->{begin} >= $abort_wait;
	$self->_problem(
		"$gid ($t->{shape}{name}) was finished on s$i ($finish->{how}) by another than its own backend, which was alive"
	);
	return;
}

# What the log of a participant says.
sub _read_log
{
	my ($self, $i) = @_;
	my %log = (prepare => {}, finish => {}, id => {}, closed => {}, looks => 0, late => 0);
	my (@begins, @ends, %inserts, %number);

	open my $fh, '<', $self->{dtx}->p($i)->logfile or croak "$!";
	while (my $line = <$fh>)
	{
		if ($line =~ /^([\d.]+) (\d+) LOG:  duration: ([\d.]+) ms  (?:statement|execute [^:]*): (.*)/)
		{
			my ($end, $pid, $ms, $sql) = ($1, $2, $3, $4);
			$inserts{$pid} = $sql =~ /INSERT INTO public\.w\(/;
			my $begin = $end - $ms / 1000;
			if ($sql =~ /^(?:SET [^;]*; (?:SELECT|EXECUTE) [^;]*; )?PREPARE TRANSACTION '([^']+)'/)
			{
				push @{ $log{prepare}{$1} },
				  { pid => $pid, begin => $begin, end => $end };
				$log{id}{$1} = delete $number{$pid};
			}
			elsif ($sql =~ /^(COMMIT|ROLLBACK) PREPARED '([^']+)'/)
			{
				push @{ $log{finish}{$2} },
				  { pid => $pid, begin => $begin, end => $end, how => $1 };
			}
			elsif ($sql =~ /^SELECT current_user::pg_catalog\.text,.* FROM pg_catalog\.pg_prepared_xacts WHERE gid LIKE/)
			{
				push @begins, $begin;
				push @ends, $end;
				$log{looks}++;
			}
		}
		elsif ($line =~ /^[\d.]+ (\d+) DETAIL:  parameters: \$1 = '(\d+)'/)
		{
			$number{$1} = $2 if $inserts{$1} && $2 ne '0';
		}
		elsif ($line =~ /^[\d.]+ (\d+) FATAL:  /)
		{
			$log{closed}{$1} = 1;
		}
		elsif ($line =~ /ERROR:  prepared transaction with identifier .* (?:does not exist|is busy)/)
		{
			$log{late}++;
		}
	}
	close $fh;
	@begins = sort { $a <=> $b } @begins;
	@ends = sort { $a <=> $b } @ends;
	$log{looks_before} = sub { return _count_below(\@begins, $_[0]); };
	$log{looks_ended} = sub { return _count_below(\@ends, $_[0]); };
	return \%log;
}

# How many of the sorted numbers are less than this one?
sub _count_below
{
	my ($numbers, $x) = @_;
	my ($low, $high) = (0, scalar @$numbers);
	while ($low < $high)
	{
		my $middle = ($low + $high) >> 1;
		if ($numbers->[$middle] < $x)
		{
			$low = $middle + 1;
		}
		else
		{
			$high = $middle;
		}
	}
	return $low;
}

# What has happened, as text.
sub table
{
	my $self = shift;
	my $text = sprintf "%10d  %s\n", $self->{interleavings}, 'interleavings';
	$text .= sprintf "%10d  %s\n", $self->{count}{$_}, $_
	  for sort keys %{ $self->{count} };
	$text .= sprintf "%-36s %10s %10s %10s\n", 'shape', 'ack', 'refused', 'unknown';
	for my $shape (@shapes)
	{
		my $told = $self->{told}{ $shape->{name} } // {};
		$text .= sprintf "%-36s %10d %10d %10d\n", $shape->{name},
		  map { $told->{$_} // 0 } qw(ack refused unknown);
	}
	return $text;
}

1;

# Deadlocks between servers: circles of all kinds, closed step by step, so that each is
# one for sure; and what has to become of them.
#
#	my $deadlocks = Deadlocks->new($dtx);
#	$deadlocks->run($kind, $row);
#
# {as} is the role of sessions, {hung} the number of a server that does not answer, {coordinators}
# which other coordinator a session is on, by the name of the session.
#
# A kind has "hold", what each session does first, one after the other, each until it is
# done; and "close", what they do then, each when the one before it waits for a lock.
# What is an error, and whose, is told afterwards: one session has got 40P01, the others
# have done what they wanted.
package Deadlocks;

use strict;
use warnings FATAL => 'all';

use AsyncPsql;
use Carp;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

# How long everything has to be over, seconds.
sub patience
{
	return $PostgreSQL::Test::Utils::timeout_default;
}

sub new
{
	my ($class, $dtx, %params) = @_;
	my $self = bless { dtx => $dtx, idle => {}, %params }, $class;
	my $rows = $params{rows} // 200;
	my $fill = "SELECT i, 0 FROM generate_series(1, $rows) AS i";

	for my $n (1 .. $dtx->servers)
	{
		$dtx->p($n)->safe_psql('postgres', qq{
CREATE TABLE item (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO item $fill;
CREATE TABLE deferred (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE whole (id int);
CREATE TABLE part AS SELECT $n AS n, id, v FROM item;
});
		$dtx->sql(qq{
CREATE FOREIGN TABLE item$n (id int, v int) SERVER s$n OPTIONS (table_name 'item');
CREATE FOREIGN TABLE deferred$n (id int) SERVER s$n OPTIONS (table_name 'deferred');
});
	}
	$dtx->sql("CREATE TABLE item0 (id int PRIMARY KEY, v int NOT NULL); INSERT INTO item0 $fill");

	# two foreign tables that are scanned at the same time
	$dtx->sql(q{
CREATE TABLE parts (n int, id int, v int) PARTITION BY LIST (n);
CREATE FOREIGN TABLE part1 PARTITION OF parts FOR VALUES IN (1) SERVER s1 OPTIONS (table_name 'part', async_capable 'true');
CREATE FOREIGN TABLE part2 PARTITION OF parts FOR VALUES IN (2) SERVER s2 OPTIONS (table_name 'part', async_capable 'true');
});

	# a second way to the first server
	my ($host, $port) = ($dtx->p(1)->host, $dtx->p(1)->port);
	$dtx->sql(qq{
CREATE SERVER again FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER again;
CREATE FOREIGN TABLE item_again (id int, v int) SERVER again OPTIONS (table_name 'item');
});

	# the coordinator as one of its own servers
	($host, $port) = ($dtx->coord->host, $dtx->coord->port);
	$dtx->sql(qq{
CREATE SERVER home FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER home;
CREATE FOREIGN TABLE item_home (id int, v int) SERVER home OPTIONS (table_name 'item0');
CREATE FOREIGN TABLE flush2 (i int) SERVER s2 OPTIONS (table_name 'flush');
});

	# with it the second server can decide, and the coordinator as a server cannot
	$dtx->sql(q{DO $$ BEGIN EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', 3577::regprocedure); END $$});
	$dtx->p(2)->safe_psql('postgres', q{
CREATE FUNCTION flush() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CHECKPOINT'; RETURN 1; END $$;
CREATE VIEW flush AS SELECT flush() AS i});
	return $self;
}

# SQL that changes a row of a server (0: of the coordinator).
sub row
{
	my ($server, $id) = @_;
	return "UPDATE item$server SET v = v + 1 WHERE id = $id";
}

sub exec_row
{
	my ($server, $id) = @_;
	return "SELECT dtx.exec('s$server', 'UPDATE item SET v = v + 1 WHERE id = $id')";
}

sub all_rows
{
	my ($id) = @_;
	return "SELECT * FROM dtx.exec_all('{s1,s2}', 'UPDATE item SET v = v + 1 WHERE id = $id')";
}

sub advisory
{
	my ($server, $id) = @_;
	return "SELECT * FROM dtx.query('s$server', 'SELECT 1 FROM pg_advisory_xact_lock($id)') AS t (one int)";
}

sub whole
{
	my ($server, $mode) = @_;
	return "SELECT dtx.exec('s$server', 'LOCK TABLE whole IN $mode MODE')";
}

# The kinds.  "id" is the number of a row, and of the next one, that nobody else uses.
# "victims": the sessions of which one has to be it, if not all.  "on": the node of a
# session, if not the coordinator.
sub kinds
{
	return (
		'two sessions, two servers' => sub {
			my $id = shift;
			return {
				hold => [ [ a => row(1, $id) ], [ b => row(2, $id) ] ],
				close => [ [ a => row(2, $id) ], [ b => row(1, $id) ] ]
			};
		},
		'local row, closed by the remote wait' => sub {
			my $id = shift;
			return {
				hold => [ [ a => row(0, $id) ], [ b => row(1, $id) ] ],
				close => [ [ b => row(0, $id) ], [ a => row(1, $id) ] ],
				victims => ['a']
			};
		},
		'local row, closed by the local wait' => sub {
			my $id = shift;
			return {
				hold => [ [ a => row(0, $id) ], [ b => row(1, $id) ] ],
				close => [ [ a => row(1, $id) ], [ b => row(0, $id) ] ],
				victims => ['a']
			};
		},
		'through a session that uses no server' => sub {
			my ($id, $next) = @_;
			return {
				hold => [ [ a => row(0, $id) ], [ b => row(1, $id) ], [ c => row(0, $next) ] ],
				close => [ [ a => row(1, $id) ], [ b => row(0, $next) ], [ c => row(0, $id) ] ],
				victims => ['a']
			};
		},
		'dtx.exec()' => sub {
			my $id = shift;
			return {
				hold => [ [ a => exec_row(1, $id) ], [ b => exec_row(2, $id) ] ],
				close => [ [ a => exec_row(2, $id) ], [ b => exec_row(1, $id) ] ]
			};
		},
		'dtx.exec_all(), each waits on two servers' => sub {
			my $id = shift;
			return {
				hold => [ [ a => exec_row(1, $id) ], [ b => exec_row(2, $id) ] ],
				close => [ [ a => all_rows($id) ], [ b => all_rows($id) ] ]
			};
		},
		'advisory locks through dtx.query()' => sub {
			my $id = shift;
			return {
				hold => [ [ a => advisory(1, $id) ], [ b => advisory(2, $id) ] ],
				close => [ [ a => advisory(2, $id) ], [ b => advisory(1, $id) ] ]
			};
		},
		'table locks' => sub {
			return {
				alone => 1,
				hold => [ [ a => whole(1, 'SHARE') ], [ b => whole(2, 'SHARE') ] ],
				close => [ [ a => whole(2, 'ACCESS EXCLUSIVE') ], [ b => whole(1, 'ACCESS EXCLUSIVE') ] ]
			};
		},
		'one in PREPARE, the other in a statement' => sub {
			my $id = shift;
			return {
				hold => [ [ b => "INSERT INTO deferred2 VALUES ($id)" ],
					[ a => "INSERT INTO deferred2 VALUES ($id); " . row(1, $id) ] ],
				close => [ [ a => 'COMMIT' ], [ b => row(1, $id) ] ],
				victims => ['b'],
			};
		},
		'one in PREPARE, the other waits here' => sub {
			my $id = shift;
			return {
				hold => [ [ b => "INSERT INTO deferred2 VALUES ($id)" ],
					[ a => "INSERT INTO deferred2 VALUES ($id); " . row(0, $id) ] ],
				close => [ [ a => 'COMMIT' ], [ b => row(0, $id) ] ],
				victims => ['a']
			};
		},
		'one in PREPARE, the other waits here for what that has prepared' => sub {
			my $id = shift;
			return {
				hold => [ [ b => "INSERT INTO deferred2 VALUES ($id)" ],
					[ a => "INSERT INTO deferred2 VALUES ($id); " . row('_home', $id) ] ],
				close => [ [ a => 'COMMIT' ], [ b => row(0, $id) ] ],
				victims => ['a']
			};
		},
		'one in COMMIT on the server that decides, the other waits here' => sub {
			my $id = shift;
			return {
				hold => [ [ b => "INSERT INTO deferred2 VALUES ($id)" ],
					[ a => "SET LOCAL pg_dtx.commit_point = server; INSERT INTO deferred2 VALUES ($id); " . row('_home', $id) . '; ' . row(2, $id) . '; SELECT FROM flush2' ] ],
				close => [ [ a => 'COMMIT' ], [ b => row(0, $id) ] ],
				victims => ['a']
			};
		},
		'through a client of a server' => sub {
			my ($id, $next) = @_;
			return {
				on => { c => 1 },
				hold => [ [ a => row(1, $next) ], [ b => row(2, $id) ],
					[ c => "UPDATE item SET v = v + 1 WHERE id = $id" ] ],
				close => [ [ c => "UPDATE item SET v = v + 1 WHERE id = $next" ],
					[ a => row(2, $id) ], [ b => row(1, $id) ] ],
				victims => [qw(a b)]
			};
		},
		'an asynchronous scan' => sub {
			my ($id, $next) = @_;
			return {
				hold => [ [ a => "UPDATE part1 SET v = v + 1 WHERE id = $id" ], [ b => row(2, $id) ] ],
				close => [ [ b => "SELECT * FROM parts WHERE id IN ($id, $next) FOR UPDATE" ], [ a => row(2, $id) ] ],
				victims => ['a']
			};
		},
		'one stands in a queue' => sub {
			my $id = shift;
			return {
				hold => [ [ a => row(1, $id) ], [ b => row(2, $id) ] ],
				close => [ [ c => row(1, $id) ], [ b => row(1, $id) ], [ a => row(2, $id) ] ],
				victims => [qw(a b)]
			};
		},
		'six in a ring over three servers' => sub {
			my @ids = @_;
			my @rows = map { [ $_ % 3 + 1, $ids[ $_ / 3 ] ] } 0 .. 5;
			return {
				hold => [ map { [ $_ => row(@{ $rows[$_] }) ] } 0 .. 5 ],
				close => [ map { [ $_ => row(@{ $rows[ ($_ + 1) % 6 ] }) ] } 0 .. 5 ]
			};
		},
		'others wait for the circle' => sub {
			my ($id, $next) = @_;
			return {
				hold => [ [ a => row(1, $id) ], [ b => row(2, $id) ], [ c => row(2, $next) ] ],
				close => [ [ c => row(1, $id) ], [ d => row(2, $next) ], [ a => row(2, $id) ], [ b => row(1, $id) ] ],
				victims => [qw(a b)]
			};
		},
		'two of three sessions' => steps('b1 b2 c3 | a1 c2 b3', qw(b c)),
		'two of four, and one elsewhere' => steps('a1 b2 c3 d4 | c2 b3', qw(b c)),
		'two of four, the others in a row' => steps('d1 b2 c3 | a1 b3 c2', qw(b c)),
		'two of six, the others in a row' => steps('a1 e5 c2 b3 d4 f6 | c4 d6 a5 e1', qw(a e)),
		'two of six, in two parts' => steps('f6 e5 d4 b3 c2 | e6 a4 d5 b2 c3', qw(b c)),
		'two of five, at the end of a row' => steps('e5 c2 d4 f6 | b2 c4 d5 e6 f5', qw(e f)),
		'two ways to the same server' => sub {
			my $id = shift;
			return {
				hold => [ [ a => row(1, $id) ] ],
				close => [ [ a => "UPDATE item_again SET v = v + 1 WHERE id = $id" ] ]
			};
		});
}

sub session
{
	my ($self, $node) = @_;
	my $as = $self->{as} // '';
	my $free = $self->{idle}{ $node->name . $as } //= [];

	return (pop @$free) // AsyncPsql->new($node->installed_command('psql'),
		$node->connstr('postgres') . ($as ne '' ? " user=$as" : ''));
}

# A kind in short: sessions a to f, rows 1 to 6 of three servers.  "b1" is an update by b of
# row 1; what comes behind "|" waits.
sub steps
{
	my ($steps, @victims) = @_;
	return sub {
		my @ids = @_;
		my ($hold, $close) = map {
			[ map { /(.)(.)/; [ $1 => row(($2 - 1) % 3 + 1, $ids[ $2 > 3 ]) ] } split ' ' ]
		} split /\|/, $steps;
		return { hold => $hold, close => $close, victims => \@victims };
	};
}

# Send a command, and do not wait.
my $last = 0;
sub ask
{
	my ($s, $sql) = @_;
	$s->{asked} = ++$last;
	@{$s}{qw(out err)} = ('', '');
	$s->send("$sql;\n\\echo [end $last]\n\\warn [end $last]\n");
	return;
}

sub is_over
{
	my $s = shift;
	$s->pump;
	croak 'a session has ended' if $s->eof;
	return $s->{out} =~ /^\[end $s->{asked}\]$/m && $s->{err} =~ /^\[end $s->{asked}\]$/m;
}

sub wait_over
{
	my ($s, $what) = @_;
	my $deadline = time + patience();
	until (is_over($s))
	{
		croak "$what does not end" if time > $deadline;
		usleep(2_000);
	}
	return;
}

# Wait until so many sessions wait for a lock, here or on a server; under a load, for a
# while.
sub wait_blocked
{
	my ($self, $n) = @_;
	my $deadline = time + patience();
	while (1)
	{
		my $waiting = 0;
		$waiting += $_->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND backend_type = 'client backend'})
		  for map { $self->{dtx}{nodes}[$_] } grep { $_ != ($self->{hung} // -1) } 0 .. $self->{dtx}->servers;
		return if $waiting >= $n;
		croak "$n sessions do not wait: $waiting" if time > $deadline;
		usleep(5_000);
	}
	return;
}

# Run circles of one kind, each with rows of its own, at the same time.  Returns for each a
# description of what went wrong, or '', and the time from the wait that closed it, or
# from the last one, to the error of the victim, in seconds.
sub run
{
	my ($self, $kind, @ids) = @_;
	my @runs;
	my $closed;
	my $blocked = 0;

	for my $id (@ids)
	{
		my $run = $kind->($id, $id + 1);
		$run->{s} = { map { $_->[0] => undef } @{ $run->{hold} }, @{ $run->{close} } };
		for my $name (keys %{ $run->{s} })
		{
			my $on = ($run->{on} // {})->{$name};
			$run->{nodes}{$name} = defined $on ? $self->{dtx}->p($on) : ($self->{coordinators} // {})->{$name} // $self->{dtx}->coord;
			$run->{s}{$name} = $self->session($run->{nodes}{$name});
			$run->{err}{$name} = '';
			ask($run->{s}{$name}, 'BEGIN');
			wait_over($run->{s}{$name}, 'BEGIN');
		}
		for my $step (@{ $run->{hold} })
		{
			my $s = $run->{s}{ $step->[0] };
			ask($s, $step->[1]);
			wait_over($s, $step->[1]);
			croak $s->{err} if $s->{err} =~ /ERROR/;
		}
		push @runs, $run;
	}
	for my $i (0 .. $#{ $runs[0]{close} })
	{
		for my $run (@runs)
		{
			my $step = $run->{close}[$i];
			ask($run->{s}{ $step->[0] }, $step->[1]);
			$run->{open}{ $step->[0] } = 1;
			$run->{committed}{ $step->[0] } = 1 if $step->[1] eq 'COMMIT';
			$closed = time;
		}
		$blocked += @runs;
		$self->wait_blocked($blocked) if $i < $#{ $runs[0]{close} };
	}

	# Each that has got what it wanted commits.
	my $deadline = time + patience();
	my %at;
	while (grep { %{ $_->{open} } } @runs)
	{
		for my $run (@runs)
		{
			for my $name (keys %{ $run->{open} })
			{
				my $s = $run->{s}{$name};
				next if !is_over($s);
				$run->{err}{$name} .= $s->{err};
				$run->{at} //= time if $s->{err} =~ /40P01/;
				if ($run->{committed}{$name}++)
				{
					delete $run->{open}{$name};
					next;
				}
				ask($s, 'COMMIT');
			}
		}
		for my $run (grep { defined $_->{at} } @runs)
		{
			# who waits for nobody, and others, not in the circle, for it
			for my $name (grep { !$run->{committed}{$_} && !$run->{open}{$_} } keys %{ $run->{s} })
			{
				ask($run->{s}{$name}, 'COMMIT');
				$run->{open}{$name} = $run->{committed}{$name} = 1;
			}
		}
		if (time > $deadline)
		{
			$_->kill for map { values %{ $_->{s} } } @runs;
			return map { [ 'hangs: ' . join(' ', keys %{ $_->{open} }), 0 ] } @runs;
		}
		usleep(1_000);
	}

	my @results;
	for my $run (@runs)
	{
		my @victims = grep { $run->{err}{$_} =~ /ERROR: +40P01: deadlock detected/ } sort keys %{ $run->{err} };
		my @others = grep { $run->{err}{$_} =~ /ERROR/ && $run->{err}{$_} !~ /40P01/ } sort keys %{ $run->{err} };
		my $problem = '';
		my %allowed = map { $_ => 1 } @{ $run->{victims} // [ keys %{ $run->{s} } ] };

		$problem = 'victims: ' . (join(' ', @victims) || 'none') if @victims != 1 || !$allowed{ $victims[0] };
		$problem .= " errors of others: " . join(' ', map { "$_: $run->{err}{$_}" } @others) if @others;
		if (@victims == 1)
		{
			my ($detail) = $run->{err}{ $victims[0] } =~ /^DETAIL:  (.*?)^(?:HINT|CONTEXT|LOCATION|\[)/ms;
			my @edges = split /\n/, $detail // '';
			$run->{edges} = \@edges;
			$problem .= " edges: @edges" if grep { !/^\s*Process \d+.* waits for .*; blocked by (?:process \d+|prepared).*\.$/ } @edges or !@edges;
		}
		push @results, [ $problem, ($run->{at} // $closed) - $closed, $run->{edges} ];
		push @{ $self->{idle}{ $run->{nodes}{$_}->name . ($self->{as} // '') } }, $run->{s}{$_} for keys %{ $run->{s} };
	}
	return @results;
}

1;

# A bank while everything fails.
#
# Clients move money between accounts on a coordinator and three servers, which
# they reach through proxies.  Meanwhile servers are killed and started, stopped
# and continued, their connections cut and delayed.  A transfer writes its number
# on every node it touches, so each of them can be checked: acknowledged, it is on
# all its nodes; refused, on none; whatever its client does not know, all or
# nothing.
#
# With the option sagas, some transactions start a saga instead, that moves the
# money step by step.  Whatever happens, it has to end, and each of its steps and
# compensations has to have taken effect once.
#
# Beside all that, all servers are dumped at one moment again and again: what comes out of
# it has the right total.
#
# One process does all this: clients are psqls on pipes, disasters are scheduled.
# What happens is drawn from one stream of random numbers, what clients do from a
# stream for each; a seed makes the same schedule, though not the same timing.
package Chaos;

use strict;
use warnings FATAL => 'all';

use AsyncPsql;
use Carp;
use DtxTest;
use FindBin;
use POSIX qw(WNOHANG);
use PostgreSQL::Test::Utils;
use Time::HiRes qw(time usleep);

my $accounts = 200;
my $initial = 1000;

# Kinds of transfers, with their weights.
my @kinds = (
	[ 20, 'two servers' ],
	[ 15, 'ledger, server' ],
	[ 10, 'ledger, three servers' ],
	[ 8, 'one server' ],
	[ 8, 'two servers, reader' ],
	[ 8, 'consistent read' ],
	[ 2, 'restore point' ],
	[ 8, 'savepoint' ],
	[ 6, 'deferred trigger' ],
	[ 8, 'commit_wait off' ],
	[ 5, 'synchronous_commit off' ],
	[ 4, 'refused at prepare' ],
	[ 3, 'error' ],
	[ 3, 'rollback' ],
	[ 5, 'statement timeout' ]);

# ... and those that start sagas.
my @saga_kinds = (
	[ 25, 'saga' ],
	[ 12, 'saga that is refused' ],
	[ 8, 'saga and transfer' ],
	[ 4, 'saga, rolled back' ]);

# Disasters, with their weights.
my @disasters = (
	[ 6, 'kill a process of a participant' ],
	[ 5, 'power failure of a participant' ],
	[ 3, 'restart a participant' ],
	[ 5, 'kill a process of the coordinator' ],
	[ 4, 'power failure of the coordinator' ],
	[ 2, 'restart the coordinator' ],
	[ 4, 'terminate the resolver' ],
	[ 4, 'stop the resolver' ],
	[ 6, 'stop a session' ],
	[ 6, 'stop a remote session' ],
	[ 5, 'stop a participant' ],
	[ 3, 'stop the coordinator' ],
	[ 7, 'cut PREPARE' ],
	[ 7, 'cut COMMIT PREPARED' ],
	[ 7, 'cut a reply' ],
	[ 4, 'cut all connections' ],
	[ 8, 'delay PREPARE' ],
	[ 8, 'delay COMMIT PREPARED' ],
	[ 4, 'delay everything' ],
	[ 10, 'cancel sessions' ],
	[ 6, 'terminate a session' ],
	[ 5, 'kill a client' ]);

# ... of sagas.
my @saga_disasters = (
	[ 6, 'terminate a saga worker' ],
	[ 6, 'stop a saga worker' ],
	[ 4, 'cancel a saga worker' ],
	[ 2, 'kill a saga worker' ],
	[ 3, 'terminate the saga scheduler' ],
	[ 3, 'stop the saga scheduler' ],
	[ 3, 'outage of a participant' ]);

# A stream of random numbers that is the same everywhere.
sub _stream
{
	my $state = shift;
	my $mask = 2**48 - 1;
	{
		use integer;
		$state = ($state * 2862933555777941757 + 3037000493) & $mask;
	}
	return sub {
		my $n = shift;
		{
			use integer;
			$state = ($state * 25214903917 + 11) & $mask;
		}
		return int(($state >> 16) / 4294967296 * $n);
	};
}

sub _draw
{
	my ($random, @what) = @_;
	my $sum = 0;
	$sum += $_->[0] for @what;
	my $n = $random->($sum);
	for (@what)
	{
		return $_->[1] if ($n -= $_->[0]) < 0;
	}
	return;
}

# Options: seed, duration in seconds, clients (16), sagas => true: with sagas, say
# => a function that is called with each line of the schedule, journal => a file
# for all transfers.
sub new
{
	my ($class, %params) = @_;
	my $self = bless {
		seed => $params{seed},
		duration => $params{duration},
		say => $params{say} // sub { },
		problems => [],
		happened => {},
		transfers => {},
		outcomes => {},
		pending => [],
		state => {},
		checked => 0,
		id => 0,
		checks => 0,
	}, $class;
	$self->{random} = _stream($self->{seed});
	$self->{kinds} = [ @kinds, $params{sagas} ? @saga_kinds : () ];
	$self->{disasters} = [ @disasters, $params{sagas} ? @saga_disasters : () ];
	$self->{sagas} = $params{sagas};
	if ($params{journal})
	{
		open $self->{journal}, '>', $params{journal}
		  or croak "$params{journal}: $!";
		$self->{journal}->autoflush(1);
	}

	my $dtx = $self->{dtx} = DtxTest->new(
		servers => 3,
		proxy => [ 1, 2, 3 ],
		participant_conf => q{
restart_after_crash = on
log_statement = none
max_connections = 100
lock_timeout = 10s
wal_level = replica
},
		conf => q{
restart_after_crash = on
log_statement = none
max_connections = 100
lock_timeout = 10s
synchronous_standby_names = ''
synchronous_commit = on
pg_dtx.resolve_interval = '300ms'
pg_dtx.prepare_timeout = '4s'
pg_dtx.commit_timeout = '1500ms'
deadlock_timeout = '300ms'
max_worker_processes = 20
});
	for my $i (1 .. 3)
	{
		$dtx->p($i)->safe_psql(
			'postgres', qq{
DELETE FROM acct;
INSERT INTO acct SELECT i, $initial FROM generate_series(1, $accounts) i;
CREATE TABLE log (id int PRIMARY KEY, amount int NOT NULL, refuse boolean NOT NULL DEFAULT false);
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	'BEGIN RAISE EXCEPTION \$\$refused\$\$; END';
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON log DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.refuse) EXECUTE FUNCTION refuse();
});
	}
	$dtx->sql(
		qq{
DELETE FROM acct0;
INSERT INTO acct0 SELECT i, $initial FROM generate_series(1, $accounts) i;
CREATE TABLE log0 (id int PRIMARY KEY, amount int NOT NULL);
} . join('',
			map { "CREATE FOREIGN TABLE log$_ (id int, amount int, refuse boolean) SERVER s$_ OPTIONS (table_name 'log');\n" }
			  1 .. 3) . q{
CREATE TABLE later (id int PRIMARY KEY, src int, dst int, acct int, amount int);
CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO log0 VALUES (NEW.id, 0);
	EXECUTE format('UPDATE acct%s SET bal = bal - %s WHERE id = %s', NEW.src, NEW.amount, NEW.acct);
	EXECUTE format('INSERT INTO log%s VALUES (%s, -%s, false)', NEW.src, NEW.id, NEW.amount);
	EXECUTE format('UPDATE acct%s SET bal = bal + %s WHERE id = %s', NEW.dst, NEW.amount, NEW.acct);
	EXECUTE format('INSERT INTO log%s VALUES (%s, %s, false)', NEW.dst, NEW.id, NEW.amount);
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION later();
CREATE FUNCTION is_total(total numeric, expected numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	IF total <> expected THEN RAISE EXCEPTION 'wrong total: %', total; END IF;
END $$;
});

	$self->_define_sagas if $self->{sagas};

	for my $n (1 .. $params{clients} // 16)
	{
		push @{ $self->{clients} },
		  {
			n => $n,
			random => _stream($self->{seed} * 1000 + $n),
			state => 'away',
			since => 0
		  };
	}
	$self->{started} = time;
	return $self;
}

# Three steps: money leaves the ledger of the coordinator, comes to one server,
# and goes on to the next, which is a group on both.  The last step of "refused"
# fails.  Every statement writes a line, which nothing keeps from coming twice.
# There is a definition for each order of two servers.
sub _define_sagas
{
	my $self = shift;
	my $dtx = $self->{dtx};
	my $options = q{backoff => '20 ms', max_attempts => 1000, compensate_attempts => 1000};
	my $statement = sub {
		my ($step, $what, $table, $sign) = @_;
		return "\$s\$WITH l AS (INSERT INTO saga_log VALUES ((\$1->>'id')::int, $step, '$what', $sign(\$1->>'n')::int)) "
		  . "UPDATE $table SET bal = bal $sign (\$1->>'n')::int WHERE id = (\$1->>'acct')::int RETURNING bal\$s\$";
	};
	my $on = sub {
		my ($step, $server, $sign) = @_;
		my $back = $sign eq '-' ? '+' : '-';
		my $table = $server eq 'NULL' ? 'acct0' : 'acct';
		return "$server, " . $statement->($step, 'execute', $table, $sign)
		  . ', compensate => ' . $statement->($step, 'compensate', $table, $back) . ', min_rows => 1';
	};

	for my $node (@{ $dtx->{nodes} })
	{
		$node->safe_psql('postgres',
			'CREATE TABLE saga_log (saga int, step int, what text, amount int)');
	}
	for my $pair ([ 1, 2 ], [ 2, 3 ], [ 3, 1 ])
	{
		my ($i, $j) = @$pair;
		my @steps = (
			"dtx.step('one', " . $on->(1, 'NULL', '-') . ", $options)",
			"dtx.step('two', " . $on->(2, "'s$i'", '+') . ", $options)",
			"dtx.step('three', ARRAY[dtx.statement(" . $on->(3, "'s$i'", '-')
			  . '), dtx.statement(' . $on->(3, "'s$j'", '+') . ")], $options)");
		my $fail = "dtx.step('four', 's$j', 'UPDATE acct SET bal = 1 / 0 WHERE id = 1', 'SELECT 1', $options)";

		$dtx->sql("SELECT dtx.define_saga('saga $i $j', " . join(",\n", @steps) . ");\n"
			  . "SELECT dtx.define_saga('refused $i $j', " . join(",\n", @steps, $fail) . ');');
	}
	return;
}

# Run for the whole duration, with a check every minute.  Returns true if nothing
# was wrong.
sub run
{
	my $self = shift;
	my $end = time + $self->{duration};
	my $minute = 60;

	$self->{say}->("seed $self->{seed}, $self->{duration} seconds");
	while (!@{ $self->{problems} } && time < $end)
	{
		my $pause = $end - time < 1.5 * $minute ? $end - time : $minute;
		my $good = eval {
			$self->_storm(time + $pause);
			$self->_calm;
			$self->_check;
			1;
		};
		$self->_problem("broken off: $@") unless $good;
	}
	$_->{psql} && $_->{psql}->kill for @{ $self->{clients} };
	eval { $self->_check_all; 1 } or $self->_problem("broken off: $@");
	return !@{ $self->{problems} };
}

sub problems { return @{ $_[0]{problems} }; }

sub _problem
{
	my ($self, $text) = @_;
	push @{ $self->{problems} }, $text;
	$self->_say("PROBLEM: $text");
	return;
}

sub _say
{
	my ($self, $text) = @_;
	$self->{say}->(sprintf '%8.3f  %s', time - $self->{started}, $text);
	return;
}

# ----------------------------------------------------------------
# The storm
# ----------------------------------------------------------------

sub _storm
{
	my ($self, $until) = @_;
	my $next = time + 0.5;

	while (time < $until && !@{ $self->{problems} })
	{
		$self->_pump(0.01);
		for my $client (@{ $self->{clients} })
		{
			$self->_begin($client) if $client->{state} eq 'idle';
		}
		$self->_due(time);
		$self->_dump;
		if (time >= $next)
		{
			$self->_disaster;
			$next = time + 0.05 + $self->{random}->(700) / 1000;
		}
	}
	return;
}

# Do what is due: start, continue, clear.
sub _due
{
	my ($self, $now) = @_;
	my @due = grep { $_->[0] <= $now } @{ $self->{pending} };

	@{ $self->{pending} } = grep { $_->[0] > $now } @{ $self->{pending} };
	$_->[1]->() for sort { $a->[0] <=> $b->[0] } @due;
	return;
}

sub _later
{
	my ($self, $ms, $action, $node_number) = @_;
	push @{ $self->{pending} }, [ time + $ms / 1000, $action, $node_number ];
	return;
}

# Dump all servers at one moment, in the background; and look at the last dump if it is
# over.  One that did not succeed says nothing.
sub _dump
{
	my ($self, $only_look) = @_;
	my $dir = "$PostgreSQL::Test::Utils::tmp_check/chaos_dump";
	my $coord = $self->{dtx}->coord;
	local $?;

	if ($self->{dump})
	{
		return if waitpid($self->{dump}, WNOHANG) != $self->{dump};
		$self->{dump} = undef;
		my $result = -e "$dir.total" ? slurp_file("$dir.total") : 'none';
		chomp $result;
		$self->{dumps}{ $result eq 'none' ? 'failed' : 'complete' }++;
		my $should = 4 * $accounts . ' ' . 4 * $accounts * $initial;
		$self->_problem("a dump of all servers has $result rows and total, instead of $should")
		  if $result ne 'none' && $result ne $should && !$self->{sagas};
	}
	return if $only_look;

	$self->{dump} = fork() // croak "fork: $!";
	return if $self->{dump};
	my $script = q{
rm -rf "$1" "$1.total"
timeout -k 5 20 bash "$2" "$1" -a -t 'acct*' || exit 1
for node in coordinator s1 s2 s3; do
	pg_restore -a -f - "$1/$node.dump" || exit 1
done >"$1.sql"
awk '/^[0-9]+\t-?[0-9]+$/ { n++; total += $2 } END { print n, total }' "$1.sql" >"$1.total"
sleep 1
};
	@ENV{qw(PGHOST PGPORT PGDATABASE)} = ($coord->host, $coord->port, 'postgres');
	open STDOUT, '>', "$dir.log";
	open STDERR, '>&', \*STDOUT;
	{
		no warnings 'exec';
		exec 'bash', '-c', $script, 'dump', $dir, "$FindBin::RealBin/../examples/dump_all.sh";
	}
	POSIX::_exit(127);
}

sub _disaster
{
	my $self = shift;
	my $random = $self->{random};
	my $what = _draw($random, @{ $self->{disasters} });
	my $i = 1 + $random->(3);
	my $ms = 50 + $random->(50) * $random->(50);    # mostly short
	my $pick = $random->(1_000_000);
	my $dtx = $self->{dtx};

	my $node_number = $what =~ /coordinator|resolver|saga|stop a session/ ? 0 : $i;
	my $node = $dtx->{nodes}[$node_number];
	my $place = $node_number ? "s$node_number" : 'coordinator';

	# What is down or stopped already is left alone.
	return if $self->{state}{$node_number};

	my $detail = '';
	if ($what =~ /^power failure|^outage/)
	{
		# longer than any attempts of a step would last
		$ms = 15_000 if $what =~ /^outage/;
		$dtx->crash($node);
		$self->{state}{$node_number} = 'down';
		$self->_later($ms, sub {
			$node->start;
			delete $self->{state}{$node_number};
		});
		$detail = "$place, for $ms ms";
	}
	elsif ($what =~ /^restart/)
	{
		# Processes that are stopped would keep it from ending, and so would a
		# server that the coordinator's sessions wait for: postgres_fdw gives an
		# aborted query 30 seconds, and here nothing is continued meanwhile.
		my @stopped = grep {
			$node_number == 0 || (defined $_->[2] && $_->[2] == $node_number)
		} @{ $self->{pending} };
		$_->[0] = 0 for @stopped;
		$self->_due(0);
		if (!$node->stop($pick % 2 ? 'fast' : 'immediate', fail_ok => 1))
		{
			$self->_problem("$place does not shut down");
			return;
		}
		$node->start;
		$detail = $place;
	}
	elsif ($what =~ /^kill a process/)
	{
		# Without the startup process, PostgreSQL shuts down (postmaster.c, reaper).
		my @children = $self->_named($node, qr/^postgres: (?!.*\bstartup\b)/);
		return unless @children;
		my $pid = $children[ $pick % @children ];
		kill 'KILL', $pid;
		$detail = "$place, $pid";
	}
	elsif ($what =~ /^stop (?:a participant|the coordinator)/)
	{
		$dtx->freeze($node);
		$self->{state}{$node_number} = 'stopped';
		$self->_later($ms, sub {
			$dtx->thaw($node);
			delete $self->{state}{$node_number};
		});
		$detail = "$place, for $ms ms";
	}
	elsif ($what =~ /the resolver|saga|stop a/)
	{
		my $title = $what =~ /resolver|saga (?:worker|scheduler)/ ? qr/pg_dtx $&/ : qr/\] idle|\] (?:COMMIT|UPDATE|INSERT|SELECT|PREPARE|BIND|BEGIN)|\[local\]/i;
		my @pids = $self->_named($node, $title);
		return unless @pids;
		my $pid = $pids[ $pick % @pids ];
		$detail = "$place, $pid";
		if ($what =~ /^(terminate|cancel|kill)/)
		{
			kill { terminate => 'TERM', cancel => 'INT', kill => 'KILL' }->{$1}, $pid;
		}
		else
		{
			# it may have ended meanwhile
			eval { $dtx->stop_process($pid); 1 } or return;
			$self->_later($ms, sub { $dtx->continue_process($pid) }, $node_number);
			$detail .= ", for $ms ms";
		}
	}
	elsif ($what =~ /^(?:cut|delay)/)
	{
		my $action = $what =~ /^delay/ ? 'hold' : $what =~ /reply/ ? 'cut_reply' : 'cut';
		my $regex =
		    $what =~ /COMMIT PREPARED/ || ($what =~ /reply/ && $pick % 2)
		  ? q{(?:COMMIT|ROLLBACK) PREPARED 'dtx}
		  : $what =~ /PREPARE|reply/ ? q{PREPARE TRANSACTION 'dtx}
		  : '.';
		return if $self->{state}{"proxy $i"};
		$dtx->proxy($i)->rule($action, $regex);
		$self->{state}{"proxy $i"} = $action;
		$self->_later($ms, sub {
			$dtx->proxy($i)->clear;
			delete $self->{state}{"proxy $i"};
		});
		$detail = "s$i, for $ms ms";
	}
	elsif ($what =~ /^(?:cancel|terminate)/)
	{
		return if $self->{state}{0};
		my %child = map { $_ => 1 } $dtx->processes($dtx->coord);
		my @pids = grep { $child{$_} }
		  map { $_->{pid} // 0 } grep { $_->{state} eq 'busy' } @{ $self->{clients} };
		return unless @pids;
		if ($what =~ /^cancel/)
		{
			my @some = grep { $random->(2) } @pids;
			kill 'INT', @some if @some;
			$detail = scalar(@some);
		}
		else
		{
			my $pid = $pids[ $pick % @pids ];
			kill 'TERM', $pid;
			$detail = $pid;
		}
	}
	elsif ($what eq 'kill a client')
	{
		my @busy = grep { $_->{state} eq 'busy' } @{ $self->{clients} };
		return unless @busy;
		my $client = $busy[ $pick % @busy ];
		$client->{psql}->kill;
		$self->_answered($client, 'unknown');
		$detail = "client $client->{n}";
	}
	else
	{
		croak "do not know how to $what";
	}
	$self->{happened}{$what}++;
	$self->_say($detail ne '' ? "$what: $detail" : $what);
	return;
}

# Processes of a node by their titles.
sub _named
{
	my ($self, $node, $regex) = @_;
	my (undef, @children) = $self->{dtx}->processes($node);
	my @pids;
	for my $pid (@children)
	{
		# one that is gone meanwhile has no title any more
		open my $fh, '<', "/proc/$pid/cmdline" or next;
		my $title = <$fh> // '';
		close $fh;
		push @pids, $pid if $title =~ $regex;
	}
	return @pids;
}

# ----------------------------------------------------------------
# Clients
# ----------------------------------------------------------------

# Take what the clients have to say, and wait for it for so many seconds.
sub _pump
{
	my ($self, $timeout) = @_;
	my $bits = '';

	for my $client (@{ $self->{clients} })
	{
		next unless $client->{psql};
		vec($bits, fileno($_), 1) = 1 for $client->{psql}->handles;
	}
	select $bits, undef, undef, $timeout;
	for my $client (@{ $self->{clients} })
	{
		my $state = $client->{state};
		my $psql = $client->{psql};

		if ($state eq 'away')
		{
			next if time < $client->{since};
			my $coord = $self->{dtx}->coord;
			$psql = $client->{psql} = AsyncPsql->new($coord->installed_command('psql'),
				$coord->connstr('postgres'));
			$psql->commit('hello', 'SELECT pg_backend_pid();', 'SELECT 1');
			$self->_enter($client, 'connecting');
		}
		elsif ($state eq 'connecting')
		{
			next unless $psql->answered;
			if ($psql->eof || $psql->{out} !~ /^(\d+)\n/)
			{
				$psql->kill;
				$self->_enter($client, 'away', 0.1);
			}
			else
			{
				$client->{pid} = $1;
				$self->_enter($client, 'idle');
			}
		}
		elsif ($state eq 'busy')
		{
			$self->_answered($client, $psql->outcome) if $psql->answered;
		}
		if ($client->{state} =~ /^(?:busy|connecting)$/ && time - $client->{since} > 180)
		{
			my $id = $client->{transfer} ? $client->{transfer}{id} : 'none';
			$self->_problem("client $client->{n}, process "
				  . ($client->{pid} // '?')
				  . ", is $client->{state} for more than 180 seconds, transfer $id");
			return;
		}
	}
	return;
}

sub _enter
{
	my ($self, $client, $state, $wait) = @_;
	$client->{state} = $state;
	$client->{since} = time + ($wait // 0);
	return;
}

sub _answered
{
	my ($self, $client, $outcome) = @_;
	my $t = delete $client->{transfer};

	# After COMMIT on a single server was sent in one phase, an error of that
	# connection is no answer to whether it has committed.
	$outcome = 'unknown'
	  if $outcome eq 'refused'
	  && @{ $t->{nodes} } == 1
	  && $client->{psql}{err} =~ /^ERROR:  (?:08|57|XX)/m;
	$t->{outcome} = $outcome;
	$self->{outcomes}{ $t->{kind} }{$outcome}++;
	if ($self->{journal})
	{
		my $err = $client->{psql}{err};
		$err =~ s/\s+/ /g;
		printf { $self->{journal} } "%.3f client %d pid %s transfer %d (%s) nodes %s: %s %s\n",
		  time - $self->{started}, $client->{n}, $client->{pid} // '?', $t->{id}, $t->{kind},
		  "@{$t->{nodes}}", $outcome, $outcome eq 'ack' ? '' : $err;
	}
	if ($client->{psql}->eof)
	{
		$self->_enter($client, 'away', 0.02);
	}
	else
	{
		$self->_enter($client, 'idle');
	}
	return;
}

sub _begin
{
	my ($self, $client) = @_;
	my $r = $client->{random};
	my $id = ++$self->{id};
	my $kind = _draw($r, @{ $self->{kinds} });
	my $amount = 1 + $r->(9);
	my @servers = (1, 2, 3);
	my $command = 'COMMIT';
	my $sql = "BEGIN;\n";

	# Where nothing is written here a server may decide; half of the time it is asked
	# once more whether it can.
	$sql .= "SET LOCAL pg_dtx.commit_point = server;\n" if $id % 2;

	# in any order: deadlocks between servers are found
	push @servers, splice(@servers, $r->(3), 1) for 1 .. 3;

	my $move = sub {
		my ($i, $sum, $refuse) = @_;
		my $acct = 1 + $r->($accounts);
		my $extra = $i ? ', ' . ($refuse ? 'true' : 'false') : '';
		return "UPDATE acct$i SET bal = bal + ($sum) WHERE id = $acct;\n"
		  . "INSERT INTO log$i VALUES ($id, $sum$extra);\n";
	};

	my @nodes = ($servers[0], $servers[1]);
	if ($kind =~ /saga/)
	{
		my $pair = (qw(1_2 2_3 3_1))[ $r->(3) ];
		my $name = ($kind =~ /refused/ ? 'refused ' : 'saga ') . $pair =~ tr/_/ /r;
		my $acct = 1 + $r->($accounts);
		@nodes = ();
		if ($kind eq 'saga and transfer')
		{
			@nodes = ($servers[0], 0);
			$sql .= $move->($servers[0], -$amount) . $move->(0, $amount);
		}
		$sql .= "SELECT dtx.start_saga('$name', '{\"id\": $id, \"n\": $amount, \"acct\": $acct}', key => '$id');\n";
		$command = 'ROLLBACK' if $kind =~ /rolled back/;
	}
	elsif ($kind eq 'ledger, server')
	{
		@nodes = $r->(2) ? (0, $servers[0]) : ($servers[0], 0);
		$sql .= $move->($nodes[0], -$amount) . $move->($nodes[1], $amount);
	}
	elsif ($kind eq 'ledger, three servers')
	{
		@nodes = (0, 1, 2, 3);
		$sql .= $move->($servers[0], -3 * $amount)
		  . join '', map { $move->($_, $amount) } $servers[1], 0, $servers[2];
	}
	elsif ($kind eq 'one server')
	{
		@nodes = ($servers[0]);
		$sql .= $move->($servers[0], 0);
	}
	elsif ($kind eq 'consistent read')
	{
		# An error if the total is wrong, whatever is under way or in doubt.  (Sagas move
		# money in steps.)
		my $total = 4 * $accounts * $initial;
		@nodes = ();
		$sql = "BEGIN ISOLATION LEVEL REPEATABLE READ;\nSET LOCAL pg_dtx.consistent_reads = on;\n"
		  . "SET LOCAL pg_dtx.snapshot_timeout = '1s';\n"
		  . 'SELECT is_total(' . join(' + ', map { "(SELECT sum(bal) FROM acct$_)" } 0 .. 3)
		  . ($self->{sagas} ? ', NULL' : ", $total") . ");\n";
	}
	elsif ($kind eq 'restore point')
	{
		@nodes = ();
		$sql .= "SET LOCAL pg_dtx.snapshot_timeout = '1s';\n"
		  . "SELECT count(*) FROM dtx.create_restore_point('chaos $id');\n";
	}
	elsif ($kind eq 'savepoint')
	{
		# What is rolled back to the savepoint includes an error.
		$sql .= $move->($servers[0], -$amount)
		  . "SAVEPOINT a;\n"
		  . $move->($servers[1], 7)
		  . ($r->(2) ? "INSERT INTO log$servers[0] VALUES ($id, 0, false);\n" : $move->($servers[2], 7))
		  . "ROLLBACK TO a;\nSAVEPOINT b;\n"
		  . $move->($servers[1], $amount)
		  . "RELEASE b;\n";
	}
	elsif ($kind eq 'deferred trigger')
	{
		@nodes = (0, $servers[0], $servers[1]);
		my $acct = 1 + $r->($accounts);
		$sql .= "INSERT INTO later VALUES ($id, $servers[0], $servers[1], $acct, $amount);\n";
	}
	elsif ($kind eq 'error')
	{
		$sql .= $move->($servers[0], $amount) . $move->($servers[1], -1_000_000);
	}
	else
	{
		$sql .= "SET LOCAL pg_dtx.commit_wait = off;\n" if $kind eq 'commit_wait off';
		if ($kind eq 'synchronous_commit off')
		{
			$sql .= "SET LOCAL synchronous_commit = off;\n";
			push @nodes, 0;
			$sql .= $move->(0, 0);
		}
		$sql .= $move->($nodes[0], -$amount)
		  . $move->($nodes[1], $amount, $kind eq 'refused at prepare');
		$sql .= "SELECT count(*) FROM log$servers[2] WHERE id = $id;\n"
		  if $kind eq 'two servers, reader';
		$sql .= 'SET LOCAL statement_timeout = ' . (1 + $r->(25)) . ";\n"
		  if $kind eq 'statement timeout';
		$command = 'ROLLBACK' if $kind eq 'rollback';
	}

	my $t = { id => $id, kind => $kind, nodes => [ sort @nodes ] };
	$self->{transfers}{$id} = $client->{transfer} = $t;
	$client->{psql}->commit($id, $sql, $command);
	$self->_enter($client, 'busy');
	return;
}

# ----------------------------------------------------------------
# The calm, and what is found
# ----------------------------------------------------------------

# Everything runs again, all clients have an answer, nothing is in doubt.
sub _calm
{
	my $self = shift;
	my $dtx = $self->{dtx};
	my $begin = time;

	$self->_due(9e15);
	while (grep { $_->{state} =~ /^(?:busy|connecting)$/ } @{ $self->{clients} })
	{
		$self->_pump(0.05);
		croak 'stuck' if @{ $self->{problems} };
	}
	while ($self->{dump})
	{
		$self->_dump(1);
		usleep(50_000);
	}

	# Sessions whose clients are gone, too.
	my $mine = join ',', 0, map { $_->{pid} // 0 } @{ $self->{clients} };
	$self->_poll(0,
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND pid NOT IN ($mine)",
		'0');

	# Sagas that wait before they try again do so for no longer than they have
	# been trying.  The faster the machine, the more of them are left.
	$self->_poll(0,
		q{SELECT coalesce(string_agg(concat_ws(' ', id, name, state, reason), '; '), 'none') FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated')},
		'none', 150)
	  if $self->{sagas};

	# What a proxy held back may arrive after a first look, so look twice, with
	# a pass of the resolver in between.
	for my $look (1, 2)
	{
		for my $i (1 .. 3)
		{
			$self->_poll($i, q{SELECT coalesce(string_agg(gid, ' '), 'none') FROM pg_prepared_xacts}, 'none');
		}
		$self->_poll(0,
			q{SELECT coalesce(string_agg(format('%s on %s (%s, %s)', gid, server, attempts, last_error), ' '), 'none') FROM dtx.in_doubt},
			'none');
		$self->_poll(0, 'SELECT passes >= ' . ($self->_ask(0, 'SELECT passes FROM dtx.stat') + 2) . ' FROM dtx.stat', 't')
		  if $look == 1;
	}

	# (a crash may have taken what was counted)
	my $decided = $self->_ask(0, 'SELECT decided_by_server FROM dtx.stat');
	my $last = $self->{last_decided} // 0;
	$self->{decided} += $decided >= $last ? $decided - $last : $decided;
	$self->{last_decided} = $decided;
	$self->{calm} += time - $begin;
	return;
}

sub _ask
{
	my ($self, $i, $sql) = @_;
	my $deadline = time + 120;
	while (time < $deadline)
	{
		my $node = $self->{dtx}{nodes}[$i];

		# A psql that gets no connection may be gone before it is told what to do.
		my ($rc, $out) = eval {
			$node->psql('postgres', $sql, timeout => 60, timed_out => \my $late);
		};
		return $out if defined $rc && $rc == 0;
		usleep(50_000);
	}
	croak "node $i does not answer: $sql";
}

sub _poll
{
	my ($self, $i, $sql, $expected, $seconds) = @_;
	my $deadline = time + ($seconds // 150);
	my $is;
	while (time < $deadline)
	{
		$is = $self->_ask($i, $sql);
		return if $is eq $expected;
		usleep(50_000);
	}
	croak "node $i, \"$sql\": $is";
}

# Transfers since the last check, one by one; then sums.
sub _check
{
	my ($self, $since) = @_;
	$since //= $self->{checked};
	my %on;

	for my $i (0 .. 3)
	{
		my $log = $i ? 'log' : 'log0';
		my $acct = $i ? 'acct' : 'acct0';
		push @{ $on{$_} }, $i
		  for split /\n/, $self->_ask($i, "SELECT id FROM $log WHERE id > $since");
		my $sagas = $self->{sagas} ? '(SELECT coalesce(sum(amount), 0) FROM saga_log)' : '0';
		my $wrong = $self->_ask($i,
			"SELECT (SELECT sum(bal) FROM $acct) - (SELECT coalesce(sum(amount), 0) FROM $log) - $sagas - $accounts * $initial");
		$self->_problem("node $i: balances do not agree with the transfers, by $wrong")
		  if $wrong != 0;
		push @{ $self->{sums}[$i] }, $self->_ask($i, "SELECT sum(bal) FROM $acct");
	}
	my $total = 0;
	$total += $_->[-1] for @{ $self->{sums} };
	$self->_problem("the total is $total")
	  if $total != 4 * $accounts * $initial;

	my ($sagas, $lines) = $self->{sagas} ? $self->_ended_sagas($since) : ({}, {});
	for my $id ($since + 1 .. $self->{id})
	{
		my $t = $self->{transfers}{$id} or next;
		if ($t->{kind} =~ /saga/)
		{
			my ($state, $done) = ($sagas->{$id}, delete $lines->{$id});
			$self->_problem("saga $id ($t->{kind}), $t->{outcome}: it was acknowledged and is nowhere")
			  if $t->{outcome} eq 'ack' && !defined $state;
			$self->_problem("saga $id ($t->{kind}), $t->{outcome}: it was not committed, but is there")
			  if $t->{outcome} =~ /^(?:refused|never)$/ && defined $state;
			$self->_problem("saga $id ($t->{kind}) must not complete")
			  if $t->{kind} =~ /refused/ && ($state // '') eq 'completed';
			$self->{ended}{ $t->{kind} }{ $state // 'not started' }++;
			$self->_check_saga($id, $state // 'not started', $done // '');
			if (!@{ $t->{nodes} })
			{
				$t->{found} = defined $state ? 'there' : 'not there';
				next;
			}
			$self->_problem("saga $id ($t->{kind}): its transaction is there in part only")
			  if defined $state != (@{ $on{$id} // [] } > 0);
		}
		if ($t->{kind} =~ /^(?:consistent read|restore point)$/)
		{
			$t->{found} = 'not there';
			next;
		}
		my $is = join ' ', sort @{ delete $on{$id} // [] };
		my $should = join ' ', @{ $t->{nodes} };
		my $what = "transfer $id ($t->{kind}), nodes $should, $t->{outcome}";

		$self->_problem("$what: it is on nodes $is only")
		  if $is ne '' && $is ne $should;
		$self->_problem("$what: it was acknowledged and is nowhere")
		  if $t->{outcome} eq 'ack' && $is eq '';
		$self->_problem("$what: it was not committed, but is there")
		  if $t->{outcome} =~ /^(?:refused|never)$/ && $is ne '';
		$self->_problem("$what: it must not commit")
		  if $t->{kind} =~ /^(?:refused at prepare|error|rollback)$/ && $is ne '';
		$t->{found} = $is ne '' ? 'there' : 'not there';
	}
	$self->_problem("saga $_ has done $lines->{$_}, and nobody started it")
	  for sort keys %$lines;
	$self->_problem("transfer $_ is on nodes @{$on{$_}}, and nobody made it")
	  for sort keys %on;
	$self->{checked} = $self->{id};
	$self->{checks}++;
	$self->_say("checked: $self->{id} transfers so far");
	return;
}

# By number of the transfer: the states of its sagas, and what they have done on
# the nodes, as in "0:1 execute,1:2 execute".
sub _ended_sagas
{
	my ($self, $since) = @_;
	my (%state, %lines);

	for (split /\n/, $self->_ask(0, "SELECT key, state FROM dtx.sagas WHERE key::int > $since"))
	{
		my ($id, $state) = split /\|/;
		$self->_problem("saga $id is there twice") if exists $state{$id};
		$state{$id} = $state;
	}
	for my $i (0 .. 3)
	{
		for (split /\n/, $self->_ask($i, "SELECT saga, step, what FROM saga_log WHERE saga > $since ORDER BY saga, step, what"))
		{
			my ($id, $step, $what) = split /\|/;
			push @{ $lines{$id} }, "$step $what on $i";
		}
	}
	return (\%state, { map { $_ => join(', ', @{ $lines{$_} }) } keys %lines });
}

# Has a saga that ended in that state done what it should, and nothing twice?
sub _check_saga
{
	my ($self, $id, $state, $done) = @_;
	my %count;
	my $good = 1;

	$count{$_}++ for split /, /, $done;
	$good &&= $count{$_} == 1 for keys %count;
	if ($state eq 'completed')
	{
		my $all = join ' ', sort map { /^(\d)/ ? $1 : () } keys %count;
		$good &&= $all eq '1 2 3 3' && $done !~ /compensate/;
	}
	elsif ($state eq 'compensated')
	{
		for my $what (keys %count)
		{
			my ($step, $did, $where) = $what =~ /^(\d) (\w+) on (\d)$/;
			$good &&= $count{"$step execute on $where"} && $count{"$step compensate on $where"};
		}
		my %steps = map { /^(\d)/ ? ($1 => 1) : () } keys %count;
		$good &&= join('', sort keys %steps) =~ /^(?:1(?:2(?:3)?)?)?$/;
	}
	else
	{
		$good &&= $done eq '' && $state eq 'not started';
	}
	$self->_problem("saga $id, $state, has done: $done") unless $good;
	return;
}

# Everything once more, and what else must be so.
sub _check_all
{
	my $self = shift;

	return if @{ $self->{problems} };
	$self->{ended} = {};
	$self->_check(0);
	$self->_poll(0, 'SELECT count(*) < 100 FROM dtx_internal.decision', 't');
	$self->_poll(0, 'SELECT count(*) FROM dtx.transactions', '0');
	for my $i (0 .. 3)
	{
		my $log = slurp_file($self->{dtx}{nodes}[$i]->logfile);
		while ($log =~ /^(.*(?:PANIC:|TRAP:|terminated by signal (?!9\b)\d+|although its transaction (?:was rolled back|has committed)|wrong total).*)$/mg)
		{
			my $line = $1;
			# stopped for so long that the postmaster lost patience
			next if $line =~ /by signal 3\b/;
			$self->_problem("log of node $i: $line");
		}
	}
	return;
}

# What has happened, as text.
sub table
{
	my $self = shift;
	my @outcomes = qw(ack refused never unknown);
	my $text = sprintf "seed %s, %d seconds, of which %d waiting for the calm; %d checks\n\n",
	  $self->{seed}, time - $self->{started}, $self->{calm} // 0, $self->{checks};
	my %sum;

	$text .= sprintf "%-40s%8s\n", 'disaster', 'times';
	$text .= sprintf "%-40s%8d\n", $_, $self->{happened}{$_} // 0
	  for map { $_->[1] } @{ $self->{disasters} };
	$text .= sprintf "\n%-40s%8s%8s%8s%8s\n", 'transfers', 'ack', 'refused', 'unsent', 'unknown';
	for my $kind (map { $_->[1] } @{ $self->{kinds} })
	{
		my $row = $self->{outcomes}{$kind} // {};
		$text .= sprintf "%-40s%8d%8d%8d%8d\n", $kind, map { $row->{$_} // 0 } @outcomes;
		$sum{$_} += $row->{$_} // 0 for @outcomes;
	}
	$text .= sprintf "%-40s%8d%8d%8d%8d\n", 'all', map { $sum{$_} // 0 } @outcomes;
	my %unknown = ('there' => 0, 'not there' => 0);
	$unknown{ $_->{found} // '?' }++
	  for grep { ($_->{outcome} // '') eq 'unknown' } values %{ $self->{transfers} };
	$text .= "unknown: $unknown{there} had committed, $unknown{'not there'} had not\n";
	$text .= sprintf "dumps of all servers: %d complete, %d failed\n", map { $self->{dumps}{$_} // 0 } qw(complete failed);
	$text .= 'decided by a server: ' . ($self->{decided} // 0) . "\n";
	if ($self->{sagas})
	{
		my @states = ('completed', 'compensated', 'not started');
		$text .= sprintf "\n%-40s%12s%12s%12s\n", 'sagas', @states;
		for my $kind (sort keys %{ $self->{ended} })
		{
			$text .= sprintf "%-40s%12d%12d%12d\n", $kind,
			  map { $self->{ended}{$kind}{$_} // 0 } @states;
		}
	}
	$text .= "PROBLEM: $_\n" for @{ $self->{problems} };
	return $text;
}

1;

# A coordinator and its participants, and what the tests do to them.
#
#	my $dtx = DtxTest->new(servers => 2);
#	$dtx->sql("UPDATE acct1 ...");		# on the coordinator
#	$dtx->p(1)->safe_psql(...);			# on a participant
#
# The coordinator has a local table acct0 and foreign tables acct1 .. acctN on
# servers s1 .. sN, all with one account (1, 100).  No test sleeps and hopes:
# everything is polled for, with a deadline.
package DtxTest;

use strict;
use warnings FATAL => 'all';

use Carp;
use DtxProxy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# Processes that got SIGSTOP, to be continued whatever happens.
my %stopped;

# This runs before the END block of PostgreSQL::Test::Cluster, which stops the
# servers.
END
{
	local $?;
	kill 'CONT', keys %stopped if %stopped;
}

# A psql that can't connect may have ended before its input was written, and then
# IPC::Run dies.  To us it is a failed connection like others.
{
	no warnings 'redefine';
	my $broken = qr/Broken pipe|process ended prematurely/;
	my $poll = \&PostgreSQL::Test::Cluster::poll_query_until;
	*PostgreSQL::Test::Cluster::poll_query_until = sub {
		my @args = @_;
		my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
		while (1)
		{
			my $result = eval { $poll->(@args); };
			return $result if $@ eq '';
			die $@ if $@ !~ $broken || time > $deadline;
			usleep(20_000);
		}
	};
	my $psql = \&PostgreSQL::Test::Cluster::psql;
	*PostgreSQL::Test::Cluster::psql = sub {
		my @args = @_;
		my $list = wantarray;
		my @result = eval { $list ? $psql->(@args) : scalar $psql->(@args); };
		my %params = @args[ 3 .. $#args ];
		return $list ? @result : $result[0] if $@ eq '';
		die $@ if $@ !~ $broken || $params{on_error_die};
		note "psql has ended: $@";
		return $list ? (2, '', 'connection failed') : 2;
	};

	# A process that is killed does not tell which lines it has reached ("make coverage").
	*PostgreSQL::Test::Cluster::teardown_node = sub {
		my $node = shift;
		local $ENV{PGCTLTIMEOUT} = 20;
		$node->stop('fast', fail_ok => 1) or $node->stop('immediate');
		return;
	} if ($ENV{DTX_STOP} // '') eq 'fast';
}

# Options: servers => number of participants (2), proxy => [numbers of the
# participants that are reached through a DtxProxy], conf => more settings of
# the coordinator, participant_conf => more settings of the participants.
sub new
{
	my ($class, %params) = @_;
	my $n = $params{servers} // 2;
	my $self = bless { nodes => [], proxies => {} }, $class;

	for my $i (1 .. $n)
	{
		my $node = PostgreSQL::Test::Cluster->new("p$i");
		$node->init;
		$node->append_conf(
			'postgresql.conf', qq{
max_prepared_transactions = 20
autovacuum = off
} . ($params{participant_conf} // ''));
		$node->start;
		$node->safe_psql(
			'postgres', q{
CREATE TABLE acct (id int PRIMARY KEY, bal int NOT NULL CHECK (bal >= 0));
INSERT INTO acct VALUES (1, 100);
});
		$self->{nodes}[$i] = $node;
	}

	# No prepared transactions on the coordinator itself: it needs none.  A
	# COMMIT with synchronous_commit = on waits for a standby that does not
	# exist, see hold(), and nobody else does.
	my $coord = PostgreSQL::Test::Cluster->new('coordinator');
	$coord->init(allows_streaming => 1);
	$coord->append_conf(
		'postgresql.conf', qq{
shared_preload_libraries = 'pg_dtx'
max_prepared_transactions = 0
max_connections = 30
autovacuum = off
synchronous_standby_names = 'nobody'
synchronous_commit = local
pg_dtx.wait_for_standby = off
pg_dtx.resolve_interval = '500ms'
} . ($params{conf} // ''));
	$coord->start;
	$self->{nodes}[0] = $coord;

	$self->{proxies}{$_} = DtxProxy->new($self->p($_))
	  for @{ $params{proxy} // [] };
	$self->install('postgres');
	return $self;
}

# The extension, servers and tables in a database of the coordinator.
sub install
{
	my ($self, $dbname, %params) = @_;
	my $sql = q{
CREATE EXTENSION postgres_fdw;
CREATE TABLE acct0 (id int PRIMARY KEY, bal int NOT NULL CHECK (bal >= 0));
INSERT INTO acct0 VALUES (1, 100);
CREATE TABLE probe AS SELECT 1 AS i;
};
	# States of sagas change as dtx_internal.saga_transitions() says, or not at all.
	$sql .= q{
CREATE EXTENSION pg_dtx;
CREATE TRIGGER check_saga AFTER INSERT OR UPDATE OF state ON dtx_internal.saga_record
	FOR EACH ROW EXECUTE FUNCTION dtx_internal.saga_check_transition('saga');
CREATE TRIGGER check_step AFTER INSERT OR UPDATE OF state ON dtx_internal.saga_step_record
	FOR EACH ROW WHEN (NEW.step > 0) EXECUTE FUNCTION dtx_internal.saga_check_transition('step');
CREATE TRIGGER check_timer AFTER INSERT OR UPDATE OF state ON dtx_internal.saga_step_record
	FOR EACH ROW WHEN (NEW.step = 0) EXECUTE FUNCTION dtx_internal.saga_check_transition('timer');
} unless $params{without_extension};
	for my $i (1 .. $self->servers)
	{
		my $node = $self->p($i);
		my $host =
		  $self->{proxies}{$i} ? $self->{proxies}{$i}->host : $node->host;
		my $port = $node->port;
		$sql .= qq{
CREATE SERVER s$i FOREIGN DATA WRAPPER postgres_fdw
	OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER s$i;
CREATE FOREIGN TABLE acct$i (id int, bal int) SERVER s$i
	OPTIONS (table_name 'acct');
};
	}
	$self->coord->safe_psql($dbname, $sql);
	return;
}

sub coord
{
	return $_[0]->{nodes}[0];
}

# Make another node, such as a promoted standby, the coordinator.
sub set_coord
{
	my ($self, $node) = @_;
	$self->{nodes}[0] = $node;
	return;
}

# Participant number $i, from 1.
sub p
{
	my ($self, $i) = @_;
	return $self->{nodes}[$i];
}

sub proxy
{
	my ($self, $i) = @_;
	return $self->{proxies}{$i};
}

sub servers
{
	my $self = shift;
	return $#{ $self->{nodes} };
}

# Names of prepared transactions of transactions that were rolled back.
sub orphan_gids
{
	my ($self, $count, $dbname) = @_;
	return split /\n/, $self->coord->safe_psql($dbname // 'postgres',
		'BEGIN; SELECT dtx_internal.gid(pg_current_xact_id(), 1); ROLLBACK;' x $count);
}

# Run SQL on the coordinator.
sub sql
{
	my ($self, $sql) = @_;
	return $self->coord->safe_psql('postgres', $sql);
}

# SQL of a transaction that moves $amount from the first of the given accounts
# to the last one; those in between lose nothing but are written, too.
sub transfer
{
	my ($self, $amount, @accounts) = @_;
	my $sql = "BEGIN;\n";
	for my $i (0 .. $#accounts)
	{
		my $change = $i == 0 ? -$amount : $i == $#accounts ? $amount : 0;
		$sql .= "UPDATE acct$accounts[$i] SET bal = bal + ($change) WHERE id = 1;\n";
	}
	return $sql . "COMMIT;\n";
}

# With pg_dtx.commit_point = server, participant $i decides, and no other.
sub only_decides
{
	my ($self, $i) = @_;
	for my $other (grep { $_ != $i } 1 .. $self->servers)
	{
		$self->p($other)->safe_psql('postgres', q{
DO $$ BEGIN EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', 3577::regprocedure); END $$});
	}
	$self->p($i)->safe_psql('postgres', q{
CREATE FUNCTION flush() RETURNS int LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'CHECKPOINT'; RETURN 1; END $$;
CREATE VIEW flush AS SELECT flush() AS i});
	$self->sql("CREATE FOREIGN TABLE flush$i (i int) SERVER s$i OPTIONS (table_name 'flush')");
	$self->{decides} = $i;
	return;
}

# transfer(), about which that participant decides: its transaction is on its disk.
sub decided
{
	my ($self, @args) = @_;
	return $self->transfer(@args) =~ s/COMMIT/SELECT FROM flush$self->{decides};\nCOMMIT/r;
}

# Balances of the coordinator and all participants, read on each itself.
sub balances
{
	my $self = shift;
	return join ' ', map {
		$self->{nodes}[$_]->safe_psql('postgres',
			$_ == 0
			? 'SELECT bal FROM acct0'
			: 'SELECT bal FROM acct')
	} 0 .. $self->servers;
}

sub balances_are
{
	my ($self, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return is($self->balances, $expected, $name);
}

# Wait until a query on a node gives a result.
sub poll
{
	my ($self, $node, $sql, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return ok($node->poll_query_until('postgres', $sql, $expected), $name);
}

# The number of transactions of ours that are prepared on participant $i.
sub prepared_is
{
	my ($self, $i, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $self->poll($self->p($i),
		"SELECT count(*) FROM pg_prepared_xacts WHERE gid LIKE 'dtx:%'",
		$expected, $name // "$expected prepared on s$i");
}

# The gid that is prepared on participant $i.
sub gid
{
	my ($self, $i) = @_;
	return $self->p($i)
	  ->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
}

# Soon nothing is prepared anywhere, and nothing in doubt.
sub clean
{
	my ($self, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $good = 1;

	for my $i (1 .. $self->servers)
	{
		$good &&= $self->p($i)->poll_query_until('postgres',
			'SELECT count(*) FROM pg_prepared_xacts', '0');
	}
	$good &&= $self->coord->poll_query_until('postgres',
		'SELECT count(*) FROM dtx.in_doubt', '0');
	return ok($good, "$name: nothing is prepared, nothing in doubt");
}

# Wait for passes of the resolver that begin from now on.
sub wait_passes
{
	my ($self, $n) = @_;
	my $before = $self->sql('SELECT passes FROM dtx.stat');

	# the one that is under way does not count
	$n = $before + ($n // 1) + 1;
	$self->coord->poll_query_until('postgres',
		"SELECT passes >= $n FROM dtx.stat")
	  or croak 'the resolver made no pass';
	return;
}

# A psql session; see DtxTest::Session below.
sub session
{
	my ($self, %params) = @_;
	return DtxTest::Session->new($params{node} // $self->coord,
		$params{dbname} // 'postgres', $params{user});
}

# SQL that makes the COMMITs of a session wait, participants prepared, after
# the commit record is on disk: for a standby that does not exist.  The coordinator
# decides then.
sub hold
{
	return 'SET synchronous_commit = on; SET pg_dtx.commit_point = coordinator;';
}

# Wait until the backend of a session is in that wait.
sub wait_held
{
	my ($self, $session) = @_;
	$self->coord->poll_query_until('postgres',
		    'SELECT wait_event = $$SyncRep$$ FROM pg_stat_activity WHERE pid = '
		  . $session->pid)
	  or croak 'the commit does not wait for a standby';
	return;
}

# Let those COMMITs go on.
sub release
{
	my $self = shift;
	$self->sql("ALTER SYSTEM SET synchronous_standby_names = ''");
	$self->coord->reload;
	return;
}

# Backends of postgres_fdw connections on participant $i.
sub remote_pids
{
	my ($self, $i) = @_;
	return split /\n/,
	  $self->p($i)->safe_psql('postgres', q{
SELECT pid FROM pg_stat_activity
WHERE backend_type = 'client backend' AND application_name = 'postgres_fdw'
});
}

# Undo release(): the next such COMMIT waits again.  The servers' processes learn
# of it some time after the reload, so try until one waits.
sub arm
{
	my $self = shift;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	$self->sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	$self->coord->reload;
	my $probe = $self->session;
	my $pid = $probe->pid;
	$probe->run($self->hold);
	while (1)
	{
		my $waits = 0;

		$probe->start('UPDATE probe SET i = i + 1');
		until ($waits || $probe->finished)
		{
			croak 'commits do not wait for a standby' if time > $deadline;
			usleep(10_000);
			$waits = $self->sql(
				"SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $pid"
			) eq 't';
		}
		$self->sql("SELECT pg_cancel_backend($pid)") if $waits;
		$probe->finish;
		last if $waits;
	}
	$probe->close;
	return;
}

sub stop_process
{
	my ($self, @pids) = @_;
	for my $pid (@pids)
	{
		$stopped{$pid} = 1;
		kill 'STOP', $pid or croak "could not stop process $pid: $!";
	}
	return;
}

sub continue_process
{
	my ($self, @pids) = @_;
	for my $pid (@pids)
	{
		delete $stopped{$pid};
		kill 'CONT', $pid;
	}
	return;
}

# Postmaster and all other processes of a node.
sub processes
{
	my ($self, $node) = @_;
	my $file = $node->data_dir . '/postmaster.pid';
	my ($postmaster) = split /\n/, slurp_file($file);
	my @children =
	  map { /^\s*(\d+)\s+$postmaster\s*$/ ? $1 : () } _process_table();
	return ($postmaster, @children);
}

# Lines "pid ppid" of all processes that are not zombies.
sub _process_table
{
	my @stat = glob '/proc/[0-9]*/stat';
	return `ps -A -o pid= -o ppid=` unless @stat;

	my @lines;
	for my $file (@stat)
	{
		open my $fh, '<', $file or next;
		my $line = <$fh>;
		close $fh;
		push @lines, "$1 $3\n"
		  if defined $line && $line =~ /^(\d+) \(.*\) (\S) (\d+)/s && $2 ne 'Z';
	}
	return @lines;
}

# The whole node stops answering, its connections stay open.
sub freeze
{
	my ($self, $node) = @_;
	my ($postmaster) = $self->processes($node);

	# the postmaster first, so that no child is added meanwhile
	$self->stop_process($postmaster);
	my (undef, @children) = $self->processes($node);
	$self->stop_process(@children);
	$self->{frozen}{ $node->name } = [ $postmaster, @children ];
	return;
}

sub thaw
{
	my ($self, $node) = @_;
	$self->continue_process(@{ delete $self->{frozen}{ $node->name } });
	return;
}

# Power failure: all processes of a node are gone at once, none of them does
# anything any more.
sub crash
{
	my ($self, $node) = @_;
	my ($postmaster) = $self->processes($node);

	kill 'STOP', $postmaster;
	my (undef, @children) = $self->processes($node);

	# Let them say which lines they have reached ("make coverage"): that is all they do.
	if (($ENV{DTX_STOP} // '') eq 'fast')
	{
		kill 'QUIT', @children;
		for (1 .. 100)
		{
			my %there = map { /^(\d+) / ? ($1 => 1) : () } _process_table();
			last unless grep { $there{$_} && !$stopped{$_} } @children;
			usleep(20_000);
		}
	}
	kill 'KILL', @children, $postmaster;
	delete $stopped{$_} for $postmaster, @children;
	$node->kill9;

	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my %mine = map { $_ => 1 } $postmaster, @children;
	while (grep { /^(\d+) / && $mine{$1} } _process_table())
	{
		croak 'killed processes are still there' if time > $deadline;
		usleep(20_000);
	}

	# A zombie may keep the number of the dead postmaster in use.
	unlink $node->data_dir . '/postmaster.pid',
	  $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	return;
}

# A psql of one's own, for statements that are not to be waited for.
package DtxTest::Session;

use strict;
use warnings FATAL => 'all';

use Carp;
use IPC::Run;
use Test::More;

sub new
{
	my ($class, $node, $dbname, $user) = @_;
	my $self =
	  bless { in => '', out => '', err => '', seq => 0, running => 0 }, $class;
	my $connstr = $node->connstr($dbname) . ($user ? " user=$user" : '');

	$self->{timer} =
	  IPC::Run::timer($PostgreSQL::Test::Utils::timeout_default);
	$self->{ipc} = IPC::Run::start(
		[
			$node->installed_command('psql'), '-XAtq',
			'-v', 'ON_ERROR_STOP=0', '-v', 'VERBOSITY=verbose',
			'-d', $connstr, '-f', '-'
		],
		'<', \$self->{in},
		'>', \$self->{out},
		'2>', \$self->{err},
		$self->{timer});
	$self->{pid} = $self->run('SELECT pg_backend_pid()');
	croak "no connection: $self->{stderr}" unless $self->{pid} =~ /^\d+$/;
	return $self;
}

# Process id of the backend.
sub pid
{
	return $_[0]->{pid};
}

# Send SQL, do not wait for anything.
sub start
{
	my ($self, $sql) = @_;
	croak 'a statement is running already' if $self->{running};

	$self->{seq}++;
	$self->{running} = 1;
	$self->{in} .= "$sql\n;\n\\echo [done $self->{seq}]\n\\warn [done $self->{seq}]\n";
	$self->_pump(0);
	return;
}

# Send and receive what there is, or wait for something.  Returns false when psql
# has ended.  That it can't be written to is one way to learn that: after a lost
# connection it may end at any time.
sub _pump
{
	my ($self, $wait) = @_;
	return 0 if $self->{lost} || !$self->{ipc}->pumpable;
	return 1 if eval { $wait ? $self->{ipc}->pump : $self->{ipc}->pump_nb; 1 };
	die $@ if $@ !~ /Broken pipe|process ended prematurely/;
	$self->{lost} = 1;
	note "psql has ended: $@";
	return 0;
}

# Wait for what was started, and return its output.
sub finish
{
	my $self = shift;
	my $mark = qr/\[done $self->{seq}\]\n/;

	$self->{timer}->start($PostgreSQL::Test::Utils::timeout_default);
	until ($self->{out} =~ $mark && $self->{err} =~ $mark)
	{
		croak "a statement did not finish in time, output so far:\n"
		  . "$self->{out}$self->{err}"
		  if $self->{timer}->is_expired;
		last unless $self->_pump(1);
	}
	$self->{timer}->reset;
	$self->{running} = 0;
	($self->{stdout}, $self->{stderr}) = @{$self}{qw(out err)};
	s/$mark// for @{$self}{qw(stdout stderr)};
	chomp $self->{stdout};
	@{$self}{qw(out err)} = ('', '');
	note "psql: $self->{stdout} $self->{stderr}";
	return $self->{stdout};
}

# Has what was started finished?
sub finished
{
	my $self = shift;
	return 1 if !$self->_pump(0);
	return $self->{err} =~ /\[done $self->{seq}\]\n/ ? 1 : 0;
}

sub run
{
	my ($self, $sql) = @_;
	$self->start($sql);
	return $self->finish;
}

# What psql wrote to stderr: errors, warnings.
sub stderr
{
	return $_[0]->{stderr};
}

sub close
{
	my $self = shift;
	return unless $self->{ipc};
	$self->{in} .= "\\q\n";
	eval { $self->{ipc}->finish; };
	$self->{ipc} = undef;
	return;
}

1;

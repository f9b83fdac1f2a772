# Sagas whose every step and compensation leaves a line in a log on each node
# that it touches, so that it shows what took effect how often.
#
#	my $books = SagaBooks->new(conf => "...");
#	my $id = $books->start('move', n => 5);
#	$books->ended($id, 'completed', 'name of the test');
#
# Saga "move" takes n from acct0 on the coordinator (step 1), gives it to acct on
# s1 (2), moves it on to s2 (3, one group on both servers), and counts it on the
# coordinator (4).  Saga "refused" does the same, and its last step fails, so that
# everything is compensated.  Sagas that meet on several servers may end up in a
# deadlock that no server sees: the timeouts of their steps end it.
package SagaBooks;

use strict;
use warnings FATAL => 'all';

use Carp;
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $timeout = $PostgreSQL::Test::Utils::timeout_default;
$timeout = 60 if $timeout < 60;

# Lines of the log per node, of a saga of either kind that has ended well.
my %expected = (
	completed => [
		'1 execute,4 execute',
		'2 execute,3 execute',
		'3 execute'
	],
	compensated => [
		'1 compensate,1 execute',
		'2 compensate,2 execute,3 compensate,3 execute',
		'3 compensate,3 execute'
	]);

sub new
{
	my ($class, %params) = @_;
	my $dtx = DtxTest->new(
		servers => 2,
		%params,
		conf => q{
synchronous_standby_names = ''
synchronous_commit = on
max_worker_processes = 20
restart_after_crash = on
pg_dtx.saga_lock_timeout = 0
include_if_exists 'fault.conf'
} . ($params{conf} // ''));
	my $self = bless { dtx => $dtx, log_offset => 0 }, $class;

	for my $node (@{ $dtx->{nodes} })
	{
		$node->safe_psql('postgres',
			'CREATE TABLE saga_log (saga int, step int, what text)');
	}
	$dtx->sql('UPDATE acct0 SET bal = 100000');
	$self->define('postgres');
	return $self;
}

# A statement that notes itself, and its compensation.
sub _line
{
	my ($step, $what, $sql) = @_;
	return
	  "WITH l AS (INSERT INTO saga_log VALUES ((\$1->>'id')::int, $step, '$what')) $sql";
}

sub define
{
	my ($self, $dbname) = @_;
	my $n = q{($1->>'n')::int};
	my $give = sub { _line($_[0], $_[1], "UPDATE $_[2] SET bal = bal + $n WHERE id = 1 RETURNING bal") };
	my $take = sub { _line($_[0], $_[1], "UPDATE $_[2] SET bal = bal - $n WHERE id = 1 RETURNING bal") };
	my $options = q{backoff => '20 ms', max_attempts => 1000, timeout => '5 s'};
	my $step = sub {
		my ($name, $server, $execute, $compensate) = @_;
		return "dtx.step('$name', server => $server, execute => \$e\$$execute\$e\$, "
		  . "compensate => \$c\$$compensate\$c\$, min_rows => 1, $options)";
	};
	my @steps = (
		$step->('one', 'NULL',
			$take->(1, 'execute', 'acct0'), $give->(1, 'compensate', 'acct0')),
		$step->('two', "'s1'",
			$give->(2, 'execute', 'acct'), $take->(2, 'compensate', 'acct')),
		"dtx.step('three', ARRAY["
		  . join(', ',
			"dtx.statement('s1', \$e\$" . $take->(3, 'execute', 'acct')
			  . "\$e\$, compensate => \$c\$" . $give->(3, 'compensate', 'acct') . "\$c\$, min_rows => 1)",
			"dtx.statement('s2', \$e\$" . $give->(3, 'execute', 'acct')
			  . "\$e\$, compensate => \$c\$" . $take->(3, 'compensate', 'acct') . "\$c\$, min_rows => 1)")
		  . "], $options)");
	$self->{dtx}->coord->safe_psql(
		$dbname,
		"SELECT dtx.define_saga('move', " . join(",\n", @steps,
			$step->('four', 'NULL',
				_line(4, 'execute', q{SELECT ($2->'three'->>'bal')::int}), 'SELECT 1')) . ");\n"
		  . "SELECT dtx.define_saga('refused', " . join(",\n", @steps,
			$step->('four', "'s1'",
				_line(4, 'execute', "UPDATE acct SET bal = -1 WHERE id = 1"), 'SELECT 1')) . ');');
	return;
}

sub dtx
{
	return $_[0]->{dtx};
}

# Start a saga; returns its number.  The server may crash before it has said so,
# because of what the worker meets: then ask again, with the same key.
sub start
{
	my ($self, $name, %params) = @_;
	my $n = $params{n} // 1;
	my $next = ++$self->{started};
	my $sql =
	  "SELECT dtx.start_saga('$name', '{\"id\": $next, \"n\": $n}', key => 'number $next')";
	my $deadline = time + $timeout;
	while (1)
	{
		my ($ret, $id, $err) = $self->{dtx}->coord->psql('postgres', $sql);
		if ($ret == 0)
		{
			$self->{number}{$id} = $next;
			return $id;
		}
		croak "could not start a saga: $err" if $ret != 2 || time > $deadline;
		usleep(20_000);
	}
}

# Wait until a saga has ended, over crashes of the coordinator.
sub state
{
	my ($self, $id) = @_;
	my $deadline = time + $timeout;
	my $state = '';

	while (time < $deadline)
	{
		$state = '';
		$self->{dtx}->coord->psql('postgres',
			"SELECT state FROM dtx.sagas WHERE id = $id", stdout => \$state,
			stderr => \my $error);
		return $state if $state =~ /^(?:completed|compensated|failed)$/;
		usleep(20_000);
	}
	return $state;
}

# End all sagas of some rows of dtx.sagas by force, of which some may come to their end by
# themselves meanwhile.
sub force
{
	my ($self, $state, $condition) = @_;

	$self->{dtx}->sql(qq{
DO \$do\$
DECLARE
	saga bigint;
BEGIN
	FOR saga IN SELECT id FROM dtx.sagas WHERE finished_at IS NULL AND $condition LOOP
		BEGIN
			PERFORM dtx.force_saga(saga, '$state', 'test');
		EXCEPTION WHEN object_not_in_prerequisite_state THEN
			NULL;
		END;
	END LOOP;
END
\$do\$});
	return;
}

# Workers of sagas stay for ten seconds when there is nothing to do.  From now on those
# that have been there are not; there must be nothing that others would come for.
sub dismiss_workers
{
	my ($self, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $dtx = $self->{dtx};
	my $workers = q{FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'};

	$dtx->sql("SELECT pg_terminate_backend(pid) $workers");
	return $dtx->poll($dtx->coord, "SELECT count(*) $workers", 0, $name);
}

# What a saga has done on each node, and how often.
sub lines
{
	my ($self, $id) = @_;
	my $number = $self->{number}{$id} // $id;
	return map {
		$_->safe_psql('postgres', qq{
SELECT coalesce(string_agg(step || ' ' || what, ',' ORDER BY step, what), '')
FROM saga_log WHERE saga = $number})
	} @{ $self->{dtx}{nodes} };
}

# A saga ends in that state, and everything took effect once.
sub ended
{
	my ($self, $id, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $got = join '; ', $self->state($id), $self->lines($id);
	return is($got, join('; ', $state, @{ $expected{$state} }),
		"$name: $state, every step once")
	  || diag($self->{dtx}->sql(
			"SELECT step, action, attempt, outcome, sqlstate, message FROM dtx.saga_history WHERE saga = $id ORDER BY 1"
		));
}

# Nothing came from nowhere.
sub balanced
{
	my ($self, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $sum = 0;
	$sum += $_ for split ' ', $self->{dtx}->balances;
	return is($sum, 100_000 + 100 * $self->{dtx}->servers, "$name: the books agree");
}

# ----------------------------------------------------------------
# Fault points, in a library that has them
# ----------------------------------------------------------------

# From now on all processes of the coordinator have this setting.
sub arm
{
	my ($self, $fault) = @_;
	my $coord = $self->{dtx}->coord;
	my $file = $coord->data_dir . '/fault.conf';

	open my $fh, '>', "$file.new" or croak "$file.new: $!";
	print $fh "pg_dtx.fault = '$fault'\n";
	close $fh;
	rename "$file.new", $file or croak "$file: $!";
	$self->{log_offset} = -s $coord->logfile;
	my ($postmaster) = split /\n/,
	  slurp_file($coord->data_dir . '/postmaster.pid');
	kill 'HUP', $postmaster;
	return if $fault eq '';
	$coord->poll_query_until('postgres',
		"SELECT current_setting('pg_dtx.fault') = '$fault'")
	  or croak 'the setting does not take effect';
	return;
}

# The process that reached an armed point; waits for it.
sub reached
{
	my ($self, $point) = @_;
	my $deadline = time + $timeout;
	while (time < $deadline)
	{
		return $1
		  if slurp_file($self->{dtx}->coord->logfile, $self->{log_offset}) =~
		  /fault point "\Q$point\E" reached, action "\w+", process (\d+)/;
		usleep(2_000);
	}
	return undef;
}

1;

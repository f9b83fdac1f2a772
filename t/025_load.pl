# Load: many sessions and servers.  What is documented as enough is enough; what
# is exhausted (slots for prepared transactions, room for what is in doubt, disks)
# makes clear errors or warnings, loses nothing, and is good again afterwards.
# See t/lib/Load.pm.  "make load" does it with 200 sessions and 10 servers.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use Load;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# Programs with this extension that are not those of PG_CONFIG.

my $sessions = $ENV{DTX_LOAD_SESSIONS} || 24;
my $servers = $ENV{DTX_LOAD_SERVERS} || 3;
my $seconds = $ENV{DTX_LOAD_SECONDS} || 4;
my $say = sub { $ENV{DTX_LOAD_LOUD} ? diag($_[0]) : note($_[0]) };
my $timeout = $PostgreSQL::Test::Utils::timeout_default;

# What makes a disk full: a library that servers preload, or, in the long form,
# small disks.
my $shim = PostgreSQL::Test::Utils::tempdir() . '/disk_full.so';
my $can_fill = system("cc -shared -fPIC -O1 -o $shim $FindBin::RealBin/programs/disk_full.c -ldl >/dev/null 2>&1") == 0;
$ENV{LD_PRELOAD} = join ':', grep { $_ } $shim, $ENV{LD_PRELOAD} if $can_fill;

my $few = int($sessions / 6);
my $room = 16;

# Full disks, and the servers that die of them, are not a matter of many sessions.
my $some = $sessions < 24 ? $sessions : 24;
my $load = Load->new(
	sessions => $sessions,
	servers => $servers,
	conf => "pg_dtx.max_in_doubt = $room\n",
	say => $say);
my $dtx = $load->dtx;
my $coord = $dtx->coord;
my @all = (1 .. $servers);

# Different messages, a few of them, without what differs each time.
sub different
{
	my %seen;
	for (grep { $_ ne '' } @_)
	{
		(my $text = $_) =~ s/\d{9,}|pg_wal\S+|base\S+|\(\d+\)/.../g;
		$seen{$text}++;
	}
	my @all = sort keys %seen;
	splice @all, 5 if @all > 5;
	return join "\n", map { "$seen{$_} x $_" } @all;
}

# Sessions that have reported what they should have, and nothing else.
sub good
{
	my ($run, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(join("\n", grep { defined } ($load->problems)[ 0 .. 9 ]), '', "$run->{name}: $name");
	return;
}

# ---- enough is enough
my $handed = $dtx->sql('SELECT handed_over FROM dtx.stat');
my $run = $load->start(name => 'everything as documented');
$load->watch($run, $seconds);
$handed = $dtx->sql('SELECT handed_over FROM dtx.stat') - $handed;
$load->stop($run);
my $journal = $load->check($run);
good($run, 'all transactions are where they should be');
is(different(grep { !/: refused/ } map { $_->{said} } @$journal),
	'', '... nobody was told of anything but refusals');
cmp_ok($run->{count}{ack}, '>', $sessions, '... many were committed');
is($run->{count}{unknown} // 0, 0, '... and everybody knows his outcome');
my %limits = (
	'connections of sessions' => $sessions,
	'connections of resolvers' => 2,    # one may be ending
	'prepared' => $sessions,
	'locks per session' => 2,    # the second one for a moment, in its first COMMIT
	'workers' => 2,


	# with commit_wait off, what is not confirmed when another transaction needs
	# the session's row; none on a machine that is fast enough
	'in doubt' => $handed);
cmp_ok($run->{max}{$_} // 0, '<=', $limits{$_}, "... at most $limits{$_} $_")
  for sort keys %limits;
cmp_ok($run->{max}{'decision rows'}, '<=', $sessions + 1 + $handed, '... at most as many decision rows as sessions');

# ---- too few slots for prepared transactions on one server
sub slots
{
	my $n = shift;
	$dtx->p(1)->append_conf('postgresql.conf', "max_prepared_transactions = $n");
	$dtx->p(1)->restart;
	return;
}
slots($few);
$run = $load->start(
	name => 'slots of a server exhausted',
	slow => { map { $_ => 0.05 } 2 .. $servers },
	kind => 'all servers, local');
$load->wait_for($run, 5, qr/53200/);
$load->watch($run, $seconds / 2);
$load->stop($run);
$journal = $load->check($run);
good($run, 'all or nothing');
my @refused = grep { $_->{outcome} eq 'refused' } @$journal;
my $expected = qr/^ERROR: 53200: could not prepare transaction on server "s1": maximum number of prepared transactions reached DETAIL: Increase "?max_prepared_transactions"? \(currently $few\)\. HINT: On the server that "s1" connects to, set "max_prepared_transactions"/;
cmp_ok(scalar @refused, '>', 0, '... some were refused');
is(different(grep { $_ !~ $expected } map { $_->{said} } @refused),
	'', '... all of them with a clear error');
cmp_ok($run->{count}{ack} // 0, '>', 0, '... others were committed');
cmp_ok($run->{max}{prepared}, '<=', $sessions, '... no more are prepared than there are sessions');
is($dtx->sql(q{SELECT slots_total FROM dtx.servers WHERE server = 's1'}),
	$few, '... dtx.servers shows the slots');
slots($sessions);
$run = $load->start(name => 'as many slots as sessions again');
$load->watch($run, 1);
$load->stop($run);
$journal = $load->check($run);
good($run, 'recovered');
is(different(grep { /53200/ } map { $_->{said} } @$journal), '', '... nobody lacks a slot');

# ---- more in doubt than there is room for
my $before = $dtx->sql('SELECT not_remembered FROM dtx.stat');
my $log_offset = -s $coord->logfile;
my $held = $load->start(
	name => 'more in doubt than there is room for',
	kind => 'all servers, local',
	each => 1,
	set => $dtx->hold);
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'},
	$sessions, 'all sessions have committed, their participants prepared');
$load->sample($held);
is($held->{max}{prepared}, $sessions, '... with as many slots as sessions');
$load->down(1, 1);
$dtx->crash($dtx->p(1));
$dtx->release;
$load->stop($held);
cmp_ok($dtx->sql('SELECT count(*) FROM dtx.in_doubt'), '<=', $room, 'dtx.in_doubt is not larger than allowed');
cmp_ok($dtx->sql('SELECT not_remembered FROM dtx.stat') - $before, '>=', $sessions - $room,
	'... what was not remembered is counted');
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.decision', $sessions, '... all decisions are on record');
like(slurp_file($coord->logfile, $log_offset),
	qr/too many prepared foreign transactions are in doubt to remember them all\n.*DETAIL:  There is room for $room of them\..*\n.*HINT:  Consider increasing the configuration parameter "pg_dtx.max_in_doubt"\./,
	'... the log says what to do');

# Life goes on elsewhere, and nothing that is needed is overwritten.
$run = $load->start(name => 'meanwhile, without that server', servers => [ 2 .. $servers ]);
$load->watch($run, $seconds / 2);
$load->stop($run);
cmp_ok($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '>=', $sessions, '... all decisions are still there');

# What shared memory knew is lost.
$dtx->crash($coord);
$coord->start;
cmp_ok($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '>=', $sessions, '... also after a crash');
$dtx->p(1)->start;
$load->down(1, 0);
$journal = $load->check($held);
good($held, 'committed everywhere when the server is back');
is($held->{count}{ack}, $sessions, '... as everybody was told');
is(scalar(grep { $_->{said} =~ /^WARNING: 01000: transaction has committed, but not every server has confirmed it yet: "s1"/ } @$journal),
	$sessions, '... with a warning');
$journal = $load->check($run);
good($run, 'all transactions are where they should be');
is(different(grep { !/: refused/ } map { $_->{said} } @$journal),
	'', '... nobody was told of anything but refusals');
$dtx->poll($coord, 'SELECT count(*) <= ' . ($sessions + 1) . ' FROM dtx_internal.decision', 't', 'the decisions are forgotten');

# ---- full disks
SKIP:
{
	skip 'no compiler', 1 unless $can_fill;
	disks('a preloaded library', sub {
		my ($i, $which, $full) = @_;
		my $file = $dtx->{nodes}[$i]->data_dir . "/disk_full_$which";
		if ($full)
		{
			append_to_file($file, '');
		}
		else
		{
			unlink $file;
		}
	});
}

# The same with small disks, where there are any: directories with names that are
# numbers of nodes.
SKIP:
{
	skip 'no small disks', 1 unless $ENV{DTX_SMALL_DISKS};
	for my $i (0, 1)
	{
		my $node = $dtx->{nodes}[$i];
		my ($from, $to) = ($node->data_dir, "$ENV{DTX_SMALL_DISKS}/$i/data");

		# little to begin with
		$node->append_conf('postgresql.conf', "max_wal_size = 64MB\nmin_wal_size = 32MB\n");
		$node->stop;
		system_or_bail('mv', $from, $to);
		symlink $to, $from or die "symlink: $!";
		$node->start;
	}
	disks('small disks', sub {
		my ($i, $which, $full) = @_;
		my $file = "$ENV{DTX_SMALL_DISKS}/$i/filler";
		if ($full)
		{
			open my $fh, '>', $file or die "$file: $!";
			for my $size (1048576, 8192, 512)
			{
				1 while syswrite $fh, 'x' x $size;
			}
			close $fh;
		}
		else
		{
			unlink $file;
		}
	});
}

# $set->(node, 'data' or 'wal', 0 or 1) makes a disk full, or gives space back.
sub disks
{
	my ($how, $set) = @_;
	my $free = sub {
		my ($i) = @_;
		$set->($i, $_, 0) for 'data', 'wal';
	};
	my $disk_full = qr/^ERROR: 53100: .*No space left on device/;

	# A participant can't store what comes with PREPARE.
	$run = $load->start(sessions => $some, name => "$how: data of a participant");
	$load->watch($run, 0.5);
	$dtx->p(1)->safe_psql('postgres', 'CHECKPOINT');
	$set->(1, 'data', 1);
	my $alive = eval { $load->wait_for($run, 10, qr/53100/); 1 };
	ok($alive, "$run->{name}: some are refused") or diag($@);
	$free->(1);
	revive(1);
	$load->wait_for($run, $some);
	$load->stop($run);
	$journal = $load->check($run);
	good($run, 'all or nothing');
	cmp_ok(scalar(grep { $_->{said} =~ /^ERROR: 53100: could not prepare transaction on server "s1": could not extend file .*No space left on device.* HINT: Check free disk space\./ } @$journal),
		'>', 0, '... at PREPARE, too, with a clear error');

	# A participant that can't write WAL dies.
	for my $i (1, 0)
	{
		my $node = $dtx->{nodes}[$i];
		my $who = $i ? 'a participant' : 'the coordinator';
		$run = $load->start(sessions => $some, name => "$how: WAL of $who");
		$load->watch($run, 0.5);
		$log_offset = -s $node->logfile;
		$set->($i, 'wal', 1);
		my $deadline = time + $timeout;
		until (dead($i) || time > $deadline)
		{
			$node->psql('postgres', 'SELECT pg_switch_wal()', timeout => 20, timed_out => \my $late);
		}
		ok(dead($i), "$run->{name}: it dies");
		like(slurp_file($node->logfile, $log_offset), qr/PANIC: .*No space left on device/,
			'... as PostgreSQL does');
		$load->down($i, 1);
		$load->watch($run, 1);
		$free->($i);
		revive($i);
		$load->down($i, 0);
		$load->wait_for($run, 2 * $some);
		$load->stop($run);
		$journal = $load->check($run);
		good($run, 'all or nothing');
	}

	# The coordinator has no room for its decisions: the table is empty.
	$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.decision', '0', "$how: no decisions are left");
	my $empty = 0;
	my $deadline = time + $timeout;
	until ($empty || time > $deadline)
	{
		$dtx->sql('VACUUM dtx_internal.decision');
		$empty = $dtx->sql(q{SELECT pg_relation_size('dtx_internal.decision') = 0}) eq 't';
		usleep(50_000);
	}
	ok($empty, '... and the table takes no space');

	# (a server would not need any)
	$dtx->sql('ALTER SYSTEM SET pg_dtx.commit_point = coordinator');
	$coord->reload;
	$dtx->poll($coord, 'SHOW pg_dtx.commit_point', 'coordinator', '... and the coordinator decides');

	# what a checkpoint would give back is given back now
	$dtx->sql('CHECKPOINT');
	$set->(0, 'data', 1);
	$run = $load->start(sessions => $some, name => "$how: decisions", kind => 'all servers');
	$alive = eval { $load->wait_for($run, 2 * $some, qr/53100/); 1 };
	ok($alive, "$run->{name}: COMMIT fails") or diag($@);
	my @early = @{ Load::_journal($run) };
	is(scalar(grep { $_->{outcome} eq 'ack' } @early), 0, '... nobody commits');
	$free->(0);
	revive(0);
	$load->wait_for($run, $some);
	$load->stop($run);
	$journal = $load->check($run);
	good($run, 'all or nothing');
	is(different(grep { $_ !~ $disk_full } map { $_->{said} } @$journal),
		'', '... with a clear error');
	cmp_ok($run->{count}{ack} // 0, '>', 0, '... and they commit again when there is space');
	$dtx->sql('ALTER SYSTEM RESET pg_dtx.commit_point');
	$coord->reload;
	return;
}

sub dead
{
	my $i = shift;
	my $file = $dtx->{nodes}[$i]->data_dir . '/postmaster.pid';
	return 1 unless -s $file;
	my ($pid) = split /\n/, slurp_file($file);
	return !kill(0, $pid);
}

# Start a node that has died.
sub revive
{
	my $i = shift;
	my $node = $dtx->{nodes}[$i];
	return unless dead($i);
	unlink $node->data_dir . '/postmaster.pid';
	$node->{_pid} = undef;
	$node->start;
	return;
}

done_testing();

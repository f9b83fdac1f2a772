# The files for Prometheus with the real exporter, and its rules with promtool.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use DtxTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $files = "$FindBin::RealBin/../../monitoring";
my $dtx = DtxTest->new(servers => 2);
my %exporter;

sub start_exporter
{
	my ($name, $port, $node, $file) = @_;

	$node->safe_psql('postgres', 'CREATE ROLE exporter LOGIN IN ROLE pg_monitor');
	local $ENV{DATA_SOURCE_NAME} =
	  'user=exporter dbname=postgres host=' . $node->host . ' port=' . $node->port . ' sslmode=disable';
	my $out = '';
	$exporter{$name} = IPC::Run::start(
		[ 'prometheus-postgres-exporter', "--web.listen-address=127.0.0.1:$port", "--extend.query-path=$files/$file" ],
		'<', \undef, '>', "$PostgreSQL::Test::Utils::tmp_check/exporter_$name.log", '2>&1');
	return;
}

END
{
	local $?;
	$_->kill_kill for values %exporter;
}

# What it tells, once a pattern is there.
sub scrape
{
	my ($port, $pattern) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $page = '';

	while (time < $deadline)
	{
		$page = `curl -s http://127.0.0.1:$port/metrics`;
		return $page if $page =~ $pattern;
		usleep(200_000);
	}
	diag join "\n", grep { /pg_dtx|error/ } split /\n/, $page;
	return $page;
}

start_exporter('coordinator', 9187, $dtx->coord, 'coordinator.yaml');
start_exporter('server', 9188, $dtx->p(1), 'participant.yaml');
$dtx->sql($dtx->transfer(1, 1, 0, 2));
$dtx->wait_passes;
my $page = scrape(9187, qr/^pg_dtx_stat_two_phase_total(?:\{.*\})? 1$/m);
like($page, qr/^pg_dtx_stat_two_phase_total(?:\{.*\})? 1$/m, 'a transaction in two phases');
like($page, qr/^# TYPE pg_dtx_stat_two_phase_total counter$/m, '... is a counter');
like($page, qr/^pg_dtx_in_doubt_current\{.*foreign_server="s1".*\} 0$/m, 'nothing in doubt on s1');
like($page, qr/^pg_dtx_server_reachable\{.*foreign_server="s2".*\} 1$/m, 's2 is reachable');
like($page, qr/^pg_dtx_resolver_running(?:\{.*\})? 1$/m, 'the resolver runs');
like($page, qr/^pg_dtx_damage_current(?:\{.*\})? 0$/m, 'no damage');
like($page, qr/^pg_dtx_transactions_current\{.*state="preparing".*\} 0$/m, 'transactions');
like(scrape(9188, qr/^pg_dtx_prepared_current/m), qr/^pg_dtx_prepared_current(?:\{.*\})? 0$/m, 'nothing prepared on s1');

# in doubt on s2, prepared on s1
my $s = $dtx->session;
$dtx->arm;
$s->run($dtx->hold);
$s->start($dtx->transfer(1, 1, 0, 2));
$dtx->wait_held($s);
like(scrape(9188, qr/^pg_dtx_prepared_current(?:\{.*\})? 1$/m), qr/^pg_dtx_prepared_current(?:\{.*\})? 1$/m, 'prepared on s1');
$dtx->p(2)->stop('immediate');
$dtx->release;
$s->finish;
$page = scrape(9187, qr/^pg_dtx_in_doubt_current\{.*foreign_server="s2".*\} 1$/m);
like($page, qr/^pg_dtx_in_doubt_current\{.*foreign_server="s2".*\} 1$/m, 'in doubt on s2');
like(scrape(9187, qr/^pg_dtx_server_reachable\{.*foreign_server="s2".*\} 0$/m),
	qr/^pg_dtx_server_reachable\{.*foreign_server="s2".*\} 0$/m, 's2 is not reachable');
$dtx->p(2)->start;
$dtx->clean('s2 is back');

is(system('promtool', 'check', 'rules', "$files/alerts.yaml"), 0, 'promtool: the rules are valid');
is(system("cd '$files' && promtool test rules alerts_test.yaml"), 0, 'promtool: they fire when they should');

done_testing();

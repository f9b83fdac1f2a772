# The files for prometheus-postgres-exporter: their queries return what they say,
# and what the alarms are about changes when it should.  Those for sql_exporter say the
# same; alarms and dashboard name metrics that there are.  "make test-examples" runs
# postgres_exporter itself.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $dir = "$FindBin::RealBin/../monitoring";

# Only as much YAML as is needed:
# name => { query, metrics => { name => usage }, help => { name => text }, columns => [ name ] }.
sub queries
{
	my $file = shift;
	my (%queries, $query, $metric);

	for my $line (split /\n/, slurp_file("$dir/$file"))
	{
		next if $line =~ /^\s*(#|$)/;
		if ($line =~ /^(\w+):$/) { $query = $queries{$1} = {}; }
		elsif ($line =~ /^  query: "(.*)"$/) { $query->{query} = $1; }
		elsif ($line =~ /^  metrics:$/) { }
		elsif ($line =~ /^    - (\w+):$/) { $metric = $1; push @{ $query->{columns} }, $metric; }
		elsif ($line =~ /^        usage: "(LABEL|GAUGE|COUNTER)"$/) { $query->{metrics}{$metric} = $1; }
		elsif ($line =~ /^        description: "([^"]+)"$/) { $query->{help}{$metric} = $1; }
		else { die "$file: what is $line\n"; }
	}
	return \%queries;
}

my $dtx = DtxTest->new(servers => 2);
my $coordinator = queries('coordinator.yaml');
my $participant = queries('participant.yaml');

# The role of an exporter.
$_->safe_psql('postgres', 'CREATE ROLE exporter LOGIN IN ROLE pg_monitor') for $dtx->coord, $dtx->p(1);

# A server on which nothing was prepared.
$dtx->sql(q{CREATE SERVER unused FOREIGN DATA WRAPPER postgres_fdw});

# A saga, which is not run: there is no worker for it.
$dtx->sql(q{ALTER SYSTEM SET pg_dtx.saga_workers = 0});
$dtx->coord->reload;
$dtx->sql(q{SELECT dtx.define_saga('monitored', dtx.step('only', NULL, 'SELECT 1'))});
$dtx->sql(q{SELECT dtx.start_saga('monitored')});

# A relay that is connected, and an event that waits.
my $relay = $dtx->session;
$relay->run(q{SELECT dtx.relay_hello('shop', 'shops', 'out'); SELECT dtx.relay_beat(64, 3, 2, 1, NULL);});
$dtx->sql(q{SELECT dtx.publish('order', '1', 'paid')});

# All metrics, as the exporter would name them.
sub metrics
{
	my ($node, $queries) = @_;
	my %metrics;

	for my $name (sort keys %$queries)
	{
		my ($query, $usage) = @{ $queries->{$name} }{qw(query metrics)};
		for my $row (split /\n/,
			$node->safe_psql('postgres', "SELECT row_to_json(q) FROM ($query) AS q",
				extra_params => [ '-U', 'exporter' ]))
		{
			my %row = $row =~ /"(\w+)":("[^"]*"|[^,}]*)/g;
			is($row{database}, '"postgres"', "$name: tells its database") if exists $usage->{database};
			my @labels = map { "$_=$row{$_}" } grep { $_ ne 'database' && ($usage->{$_} // '') eq 'LABEL' } sort keys %row;
			my $labels = @labels ? '{' . join(',', @labels) . '}' : '';

			is(join(' ', sort keys %row), join(' ', sort keys %$usage), "$name: columns are as described")
			  unless $metrics{$name}++;
			$metrics{"${name}_$_$labels"} = $row{$_} for grep { ($usage->{$_} // '') ne 'LABEL' } keys %row;
		}
	}
	return \%metrics;
}

$dtx->sql($dtx->transfer(1, 1, 0, 2));
$dtx->wait_passes;
my $m = metrics($dtx->coord, $coordinator);
is($m->{pg_dtx_damage_current}, 0, 'no damage');
is($m->{pg_dtx_stat_two_phase_total}, 1, 'one transaction in two phases');
cmp_ok($m->{pg_dtx_stat_prepare_seconds_total}, '>', 0, '... took some time');
is($m->{'pg_dtx_in_doubt_current{foreign_server="s1"}'}, 0, 'nothing in doubt');
is($m->{'pg_dtx_in_doubt_current{foreign_server=""}'}, 0, '... nor on servers that were dropped');
is($m->{'pg_dtx_server_reachable{foreign_server="s1"}'}, 1, 's1 is reachable');
is($m->{'pg_dtx_server_slots_limit{foreign_server="s1"}'}, 20, '... and has 20 slots');
my $saga = 'name="monitored",owner="' . $dtx->sql('SELECT current_user') . '"';
is($m->{"pg_dtx_saga_pending{$saga}"} + $m->{"pg_dtx_saga_running{$saga}"}, 1, 'one saga is not finished');
is($m->{"pg_dtx_saga_failed{$saga}"}, 0, '... and none has failed');
ok(!grep({ /^pg_dtx_server_.*unused/ && $m->{$_} ne 'null' } keys %$m), 'what was not visited is not unreachable');
is($m->{pg_dtx_resolver_running}, 1, 'the resolver runs');
cmp_ok($m->{pg_dtx_resolver_silent_seconds}, '<', 60, '... and is not silent');
is($m->{'pg_dtx_transactions_current{state="active"}'}, 0, 'no transaction');
is("$m->{pg_dtx_outbox_waiting} $m->{pg_dtx_outbox_dead} $m->{pg_dtx_outbox_relays}", '1 0 1', 'an event waits, and one relay is there');
cmp_ok($m->{pg_dtx_outbox_oldest_seconds}, '>', 0, '... with its age');
my $shop = '{direction="out",relay="shop",relay_group="shops"}';
is(join(' ', map { $m->{"pg_dtx_relay_sessions_$_$shop"} } qw(buckets done_total failed_total dead_total)), '64 3 2 1', '... with what it has done');
cmp_ok($m->{"pg_dtx_relay_sessions_silent_seconds$shop"}, '<', 60, '... and is not silent');
$relay->close;
$dtx->sql('DELETE FROM dtx.outbox');
$m = metrics($dtx->coord, $coordinator);
is("$m->{pg_dtx_outbox_waiting} $m->{pg_dtx_outbox_oldest_seconds}", '0 0', 'nothing waits');
ok(!grep({ /^pg_dtx_relay_sessions/ } keys %$m), '... and a relay that has gone is not shown');
$m = metrics($dtx->p(1), $participant);
is("$m->{pg_dtx_prepared_current} $m->{pg_dtx_prepared_oldest_xmin_age} $m->{pg_dtx_prepared_slots_limit}", '0 0 20',
	'nothing prepared');

# In doubt on s1, which is there; its resolver is off.
my $s = $dtx->session;
$dtx->arm;
$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
$dtx->coord->reload;
$s->run($dtx->hold . 'SET pg_dtx.commit_timeout = 0;');
$s->start($dtx->transfer(1, 1, 0, 2));
$dtx->wait_held($s);
$dtx->prepared_is($_, 1) for 1, 2;
$m = metrics($dtx->coord, $coordinator);
is($m->{'pg_dtx_transactions_current{state="deciding"}'}, 1, 'a transaction that commits');
is($m->{pg_dtx_resolver_enabled}, 0, 'the resolver is off');
$dtx->p(1)->safe_psql('postgres', 'SELECT txid_current()') for 1 .. 3;
$m = metrics($dtx->p(1), $participant);
is("$m->{pg_dtx_prepared_current} $m->{pg_dtx_prepared_slots_used}", '1 1', 'prepared on s1');
cmp_ok($m->{pg_dtx_prepared_oldest_xmin_age}, '>=', 3, '... and holds back xmin');
$dtx->p(2)->stop('immediate');
$dtx->release;
$s->finish;
$dtx->poll($dtx->coord, q{SELECT count(*) > 0 FROM dtx.in_doubt WHERE server = 's2'}, 't', 's2 is in doubt');
$m = metrics($dtx->coord, $coordinator);
is($m->{'pg_dtx_in_doubt_current{foreign_server="s2"}'}, 1, '... and so says the metric');
cmp_ok($m->{'pg_dtx_in_doubt_oldest_seconds{foreign_server="s2"}'}, '>', 0, '... with its age');
$dtx->sql('ALTER SYSTEM RESET pg_dtx.resolver');
$dtx->coord->reload;
$dtx->poll($dtx->coord, q{SELECT reachable FROM dtx.servers WHERE server = 's2'}, 'f', 'the resolver can not reach s2');
$m = metrics($dtx->coord, $coordinator);
is($m->{'pg_dtx_server_reachable{foreign_server="s2"}'}, 0, '... and so says the metric');
$dtx->p(2)->start;
$s->close;
$dtx->clean('s2 is back');

is($m->{"pg_dtx_saga_overdue_seconds{$saga}"} > 0, 1, 'a step is due that nobody executes') or diag explain $m;

# Alarms use metrics that exist, and fire when they should.
my %exists = map { my $n = $_; my $q = { %$coordinator, %$participant }->{$n};
	map { ("${n}_$_" => 1) } grep { $q->{metrics}{$_} ne 'LABEL' } keys %{ $q->{metrics} } } keys %$coordinator, keys %$participant;
my @alerts = slurp_file("$dir/alerts.yaml") =~ /^\s+expr: (.*)$/mg;
cmp_ok(scalar @alerts, '>=', 6, 'there are alarms');
is(join(' ', grep { !$exists{$_} } map { /\b(pg_dtx_\w+)/g } @alerts), '', '... on metrics that exist');
like(slurp_file("$dir/alerts.yaml"), qr/runbook: docs\/monitoring\.md#\S+/, 'they say where the runbook is');
for my $anchor (slurp_file("$dir/alerts.yaml") =~ /runbook: docs\/monitoring\.md#(\S+)/g)
{
	my %anchors = map { my $a = lc; $a =~ s/[^\w\s-]//g; $a =~ s/\s/-/g; $a => 1 } slurp_file("$dir/../docs/monitoring.md") =~ /^#+ (.*)$/mg;
	ok($anchors{$anchor}, "... $anchor is there");
}
my $promtool = system('command -v promtool >/dev/null 2>&1') == 0;
sub promtool
{
	my ($what, $command) = @_;
  SKIP:
	{
		skip 'promtool is not installed', 1 unless $promtool;
		my $out = `cd '$dir' && promtool $command 2>&1`;
		is($?, 0, "promtool: $what") or diag $out;
	}
	return;
}
promtool('alarms fire when they should, and only then', 'test rules alerts_test.yaml');
promtool('prometheus.yml is valid', 'check config prometheus.yml');

# Counters end in _total, and nothing else does.
my %type = map { my $n = $_; my $q = { %$coordinator, %$participant }->{$n};
	map { ("${n}_$_" => $q->{metrics}{$_}) } grep { $q->{metrics}{$_} ne 'LABEL' } keys %{ $q->{metrics} } } keys %$coordinator, keys %$participant;
is(join(' ', grep { ($type{$_} eq 'COUNTER') != /_total$/ } sort keys %type), '', 'counters end in _total, gauges do not');

# The collectors of sql_exporter: the same queries, metrics, labels, types and words.
sub collector
{
	my $file = shift;
	my (%queries, @metrics, $query);
	my ($name) = slurp_file("$dir/$file") =~ /^collector_name: (\w+)$/m;

	for my $line (split /\n/, slurp_file("$dir/$file"))
	{
		if ($line =~ /^(?:#|collector_name:|metrics:$|queries:$|$)/) { }
		elsif ($line =~ /^  - metric_name: (\w+)$/) { push @metrics, { name => $1 }; }
		elsif ($line =~ /^    type: (gauge|counter)$/) { $metrics[-1]{type} = uc $1; }
		elsif ($line =~ /^    help: "([^"]+)"$/) { $metrics[-1]{help} = $1; }
		elsif ($line =~ /^    key_labels: \[([\w, ]+)\]$/) { $metrics[-1]{labels} = $1; }
		elsif ($line =~ /^    values: \[(\w+)\]$/) { $metrics[-1]{value} = $1; }
		elsif ($line =~ /^    query_ref: (\w+)$/) { $metrics[-1]{query} = $1; }
		elsif ($line =~ /^  - query_name: (\w+)$/) { $query = $1; $queries{$query} = ''; }
		elsif ($line =~ /^    query: \|$/) { }
		elsif ($line =~ /^      (\S.*)$/) { $queries{$query} .= ($queries{$query} eq '' ? '' : ' ') . $1; }
		else { die "$file: what is $line\n"; }
	}
	return ($name, \%queries, \@metrics);
}
my %collectors;
for my $pair ([ 'coordinator', $coordinator ], [ 'participant', $participant ])
{
	my ($file, $expected) = @$pair;
	my ($name, $queries, $metrics) = collector("$file.collector.yml");

	$collectors{$name} = 1;
	is_deeply($queries, { map { $_ => $expected->{$_}{query} } keys %$expected }, "$file.collector.yml: the same queries");
	is_deeply(
		[ sort map { "$_->{name} $_->{type} $_->{query} $_->{value} " . ($_->{labels} // '') . ": $_->{help}" } @$metrics ],
		[
			sort map {
				my $q = $_;
				my %m = %{ $expected->{$q}{metrics} };
				my $labels = join ', ', grep { $m{$_} eq 'LABEL' } @{ $expected->{$q}{columns} };
				map { "${q}_$_ $m{$_} $q $_ $labels: $expected->{$q}{help}{$_}" } grep { $m{$_} ne 'LABEL' } keys %m
			} keys %$expected
		],
		'... metrics, with their types, labels and texts');
}
my $config = slurp_file("$dir/sql_exporter.yml");
is(join(' ', sort $config =~ /^    collectors: \[(\w+)\]$/mg), join(' ', sort keys %collectors), 'sql_exporter.yml uses both');

# The dashboard: JSON, without what Grafana would not take, and metrics that there are.
my $dashboard = JSON::PP->new->decode(slurp_file("$dir/grafana.json"));
my @panels = @{ $dashboard->{panels} };
my (%ids, %taken, @expr);
for my $panel (@panels)
{
	my ($x, $y, $w, $h) = @{ $panel->{gridPos} }{qw(x y w h)};

	ok(!$ids{ $panel->{id} }++, "panel \"$panel->{title}\": its id is its own");
	my @clash = grep { $taken{$_}++ } map { my $c = $_; map { "$c/$_" } $y .. $y + $h - 1 } $x .. $x + $w - 1;
	ok(!@clash && $x + $w <= 24, '... it has its place');
	next if $panel->{type} eq 'row';
	like($panel->{type}, qr/^(?:stat|timeseries)$/, '... its type is known');
	ok($panel->{description} && @{ $panel->{targets} }, '... it says what it shows');
	is($_->{datasource}{uid}, '${datasource}', '... from the chosen data source') for $panel, @{ $panel->{targets} };
	push @expr, map { $_->{expr} } @{ $panel->{targets} };
}
my @variables = @{ $dashboard->{templating}{list} };
is(join(' ', map { $_->{name} } @variables), 'datasource database', 'variables of the dashboard');
my %shown = map { $_ => 1 } map { /\b(pg_dtx_\w+)/g } @expr, map { $_->{definition} // () } @variables;
is(join(' ', grep { !$exists{$_} } sort keys %shown), '', 'the dashboard shows metrics that exist');
is(join(' ', grep { !$shown{$_} } sort keys %exists), '', '... all of them');
my $rules = "$PostgreSQL::Test::Utils::tmp_check/dashboard.yaml";
append_to_file($rules, join "\n", 'groups:', '  - name: dashboard', '    rules:',
	map { my $e = $expr[$_]; $e =~ s/\$__rate_interval/5m/g; $e =~ s/\$database/.*/g; $e =~ s/'/''/g; "      - {record: 'panel:$_', expr: '$e'}" } 0 .. $#expr);
promtool('the expressions of the dashboard are valid', "check rules '$rules'");

my @docs = slurp_file("$dir/../docs/monitoring.md") =~ /\b(pg_dtx_[a-z]\w+)/g;
is(join(' ', grep { !$exists{$_} && $_ ne 'pg_dtx_relay' } @docs), '', 'docs/monitoring.md names metrics that exist');

done_testing();

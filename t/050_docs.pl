# Documentation that drifts fails: every command in README.md and docs/ is run
# against real servers and must print what the document says it prints, every
# setting, view, function, link and make target must exist.  t/lib/Markdown.pm
# says how documents are marked.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use IPC::Run;
use Markdown;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = "$FindBin::RealBin/..";
my @files = ('README.md', 'CONTRIBUTING.md', 'SECURITY.md', map { s{^\Q$top\E/}{}r } sort glob("$top/docs/*.md"));
my %doc = map { $_ => Markdown->new("$top/$_") } @files;
my $timeout = $PostgreSQL::Test::Utils::timeout_default;

# ----------------------------------------------------------------
# What the examples are about: servers "tokyo" and "berlin" as examples/quickstart.sh
# makes them, and "lima".

my @names = qw(tokyo berlin lima);
my $dtx = DtxTest->new(servers => scalar @names, participant_conf => "max_connections = 20\nwal_level = replica\n");
my %server = (map({ $names[ $_ - 1 ] => $dtx->p($_) } 1 .. @names), coordinator => $dtx->coord);

for my $i (1 .. @names)
{
	$dtx->p($i)->safe_psql(
		'postgres', q{
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL CHECK (balance >= 0));
CREATE TABLE queue (id int PRIMARY KEY, account int, amount int);
INSERT INTO queue VALUES (1, 5, 10), (2, 6, 20);
CREATE FUNCTION quote(currency text, amount numeric, OUT rate numeric, OUT until timestamptz)
	RETURNS SETOF record LANGUAGE sql AS 'SELECT 0.93, now()';
} . 'INSERT INTO account SELECT i, 100 FROM generate_series(1, 200) i WHERE ' . ($i == 1 ? 'i <= 10 OR i > 100' : 'i <= 100'));
	$dtx->sql(qq{
ALTER SERVER s$i RENAME TO $names[$i - 1];
CREATE FOREIGN TABLE accounts_$names[$i - 1] (id int, balance int) SERVER $names[$i - 1]
	OPTIONS (table_name 'account');
});
}
$dtx->sql('CREATE TABLE transfers (account int, amount int, at timestamptz)');

# The servers of the saga are databases of one of them.
for my $name (qw(stock bank depot))
{
	$dtx->p(3)->safe_psql('postgres', "CREATE DATABASE $name");
	$dtx->p(3)->safe_psql($name, q{
CREATE TABLE item (id int PRIMARY KEY, qty int NOT NULL);
INSERT INTO item VALUES (7, 5);
CREATE FUNCTION charge(jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE FUNCTION ship(jsonb) RETURNS boolean LANGUAGE sql AS 'SELECT true';
});
	$dtx->sql(sprintf "CREATE SERVER $name FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname '$name');
CREATE USER MAPPING FOR CURRENT_USER SERVER $name", $dtx->p(3)->host, $dtx->p(3)->port);
}
$dtx->sql('CREATE TABLE orders (id int)');

# The gid that "dtx:…" in a command stands for.
my $gid;

# What setups have printed.
my $printed = '';

# A psql that may have to wait.
sub start_psql
{
	my ($node, $sql) = @_;
	my %run = (out => '');
	my $file = "$PostgreSQL::Test::Utils::tmp_check/050_docs.sql";

	# from a file, which nobody has to feed
	unlink $file;
	append_to_file($file, $sql);
	$run{handle} = IPC::Run::start(
		[ $node->installed_command('psql'), '-Xq', '-d', $node->connstr('postgres') ],
		'<', $file, '>', \$run{out}, '2>&1', IPC::Run::timeout($timeout));
	return \%run;
}

sub psql
{
	my ($node, $sql) = @_;
	my $out = '';

	my $ok = IPC::Run::run(
		[ $node->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') ],
		'<', \$sql, '>', \$out, '2>&1', IPC::Run::timeout($timeout));
	return ($ok, $out);
}

# A COMMIT that waits, prepared on two servers and decided.
sub held_commit
{
	$dtx->arm;
	my $run = start_psql(
		$dtx->coord, 'SET synchronous_commit = on;
BEGIN;
UPDATE accounts_tokyo SET balance = balance + 1 WHERE id = 8;
UPDATE accounts_berlin SET balance = balance - 1 WHERE id = 8;
COMMIT;
');
	$dtx->coord->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'})
	  or die 'the commit does not wait';
	return $run;
}

sub set_resolver
{
	my $to = shift;
	$dtx->sql("ALTER SYSTEM SET pg_dtx.resolver = $to");
	$dtx->coord->reload;
	$dtx->coord->poll_query_until('postgres', "SELECT current_setting('pg_dtx.resolver') = '$to'")
	  or die 'not reloaded';
	return;
}

my %setup = (
	# tokyo has gone in the middle of a COMMIT
	'tokyo is down' => sub {
		my $run = held_commit();
		$server{tokyo}->stop('immediate');
		$dtx->release;
		$run->{handle}->finish;
		$printed = $run->{out};
		$dtx->coord->poll_query_until('postgres',
			q{SELECT count(*) = 1 FROM dtx.in_doubt WHERE last_error IS NOT NULL})
		  or die 'nothing is in doubt';
	},

	# it is there again, but nobody has looked yet
	'tokyo is back' => sub {
		set_resolver('off');
		$server{tokyo}->start;
		$gid = $server{tokyo}->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
	},
	'all is well' => sub {
		set_resolver('on');
		$dtx->clean('docs');
	},

	# an operator has rolled back by hand what was to be committed
	'damage' => sub {
		my $run = held_commit();
		my $wrong = $server{tokyo}->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts');
		$server{tokyo}->safe_psql('postgres', "ROLLBACK PREPARED '$wrong'");
		$dtx->release;
		$run->{handle}->finish;
		$dtx->coord->poll_query_until('postgres', 'SELECT count(*) = 1 FROM dtx.damage')
		  or die 'no damage was found';
		$gid = $wrong;
	},
	# the resolver has visited all servers
	'visited' => sub {
		$dtx->wait_passes;
		$dtx->coord->poll_query_until('postgres',
			q{SELECT count(*) = 0 FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated')});
	},
);

# ----------------------------------------------------------------
# A shell for each document.

my ($shell, $shell_in, $shell_out, $shell_seq);

sub shell_start
{
	my $dir = shift;
	my $tmp = PostgreSQL::Test::Utils::tempdir_short;

	local %ENV = %ENV;
	delete @ENV{ grep { /^PG/ } keys %ENV };
	@ENV{qw(TMPDIR HOME LC_ALL)} = ($tmp, $tmp, 'C.UTF-8');
	chomp(my $bindir = `$ENV{DTX_TEST_PG_CONFIG} --bindir`);
	$ENV{PATH} = "$bindir:$ENV{PATH}";
	($shell_in, $shell_out, $shell_seq) = ("cd '$top'\ntrap 'echo \"[failed]\"' ERR\n", '', 0);
	$shell = IPC::Run::start([ 'bash', '--noprofile', '--norc' ],
		'<', \$shell_in, '>', \$shell_out, '2>&1', IPC::Run::timeout($timeout));
	return;
}

sub shell_run
{
	my $commands = shift;
	my $mark = '[end of block ' . ++$shell_seq . ']';

	$shell_in .= "$commands\necho '$mark'\n";
	$shell->pump until $shell_out =~ /\Q$mark\E\n/ || !$shell->pumpable;
	(my $out = $shell_out) =~ s/\Q$mark\E\n.*//s;
	$shell_out = '';
	return (index($out, '[failed]') < 0, $out);
}

sub shell_end
{
	$shell_in .= "exit\n";
	$shell->finish;
	undef $shell;
	return;
}

# ----------------------------------------------------------------
# Commands and their output.

my %make_target;
{
	my $makefile = slurp_file("$top/Makefile");
	$make_target{$_} = 1 for split ' ', ($makefile =~ /^dev_targets = ((?:.*\\\n)*.*)$/m)[0] =~ s/\\\n/ /gr;
	$make_target{$_} = 1 for qw(install installcheck all clean);
}
$ENV{DTX_TEST_PG_CONFIG} = $ENV{PG_CONFIG} || 'pg_config';

sub fails
{
	my ($what, $text) = @_;
	diag $text;
	return fail $what;
}

my $run = 0;
my $quickstart = '';
for my $file (@files)
{
	my $out;

	shell_start();
	for my $block (@{ $doc{$file}{blocks} })
	{
		my $where = "$file, line $block->{line}";
		my %check = %{ $block->{check} };
		my $text = $block->{text};
		my $ok = 1;

		if (defined $check{setup})
		{
			for my $name (split /,\s*/, $check{setup})
			{
				my $sub = $setup{$name} or die "$where: no setup \"$name\"\n";
				$printed = '';
				$sub->();
				$out = $printed;
			}
		}
		# the SQL of docs/sagas.md and docs/sagas-howto.md is run by t/046_saga_examples.pl
		if (defined $check{not} || defined $check{fresh} || $file =~ m{^docs/sagas(-howto)?\.md$} && $block->{lang} eq 'sql')
		{
			undef $out;
			pass "$where: not run here";
			next;
		}
		if (defined $check{file})
		{
			ok(index(slurp_file("$top/$check{file}"), $text) >= 0, "$where: is part of $check{file}");
			next;
		}

		if ($block->{lang} eq 'output')
		{
			defined $out or die "$where: output of what?\n";
			Markdown::agrees($text, $out)
			  ? pass "$where: this is what is printed"
			  : fails("$where: this is what is printed", "The document says:\n${text}Printed is:\n$out");
		}
		elsif ($block->{lang} eq 'sql')
		{
			$text =~ s/dtx:…/$gid/g if defined $gid;
			($ok, $out) = psql($server{ $check{on} // 'coordinator' }, $text);
			$ok ? pass "$where: SQL works" : fails("$where: SQL works", $out);
			$run++;
		}
		elsif ($block->{lang} eq 'sh')
		{
			($ok, $out) = shell_run($text);
			$ok ? pass "$where: commands work" : fails("$where: commands work", $out);
			$quickstart = $out if $text =~ /quickstart/;
			$run++;
		}
		elsif ($block->{lang} eq 'ini')
		{
			for my $line (split /\n/, $text)
			{
				next if $line =~ /^\s*(#.*)?$/;
				my ($name) = $line =~ /^\s*([\w.]+)\s*=/;
				is($dtx->sql('SELECT count(*) FROM pg_settings WHERE name = $$' . ($name // '') . '$$'),
					'1', "$where: $line is a setting");
			}
		}
		elsif ($block->{lang} eq 'text' || $block->{lang} eq 'mermaid')
		{
			undef $out;
			pass "$where: no command";
		}
		elsif ($block->{lang} eq '' && $text =~ /^make /m)
		{
			my @lines = grep { /\S/ } split /\n/, $text;
			is(scalar(grep { !/^make ([\w-]+)/ || !$make_target{$1} } @lines), 0, "$where: targets of make exist");
		}
		else
		{
			fail "$where: neither marked as a command nor as something else";
		}
	}
	shell_end();
}

# What the quickstart says of how to connect and to get rid of it is so, and the
# examples run there, too.
{
	ok($quickstart =~ /^Connect:  (psql .*)\nRemove:   (.*)$/m, 'the quickstart says how to go on') or diag $quickstart;
	my ($connect, $remove) = ($1, $2);
	my $examples = join '', map { $_->{text} } grep { $_->{lang} eq 'sql' && !%{ $_->{check} } }
	  map { @{ $doc{$_}{blocks} } } 'README.md', 'docs/remote-sql.md', 'docs/adopt.md';
	my $out = '';

	local %ENV = %ENV;
	chomp(my $bindir = `$ENV{DTX_TEST_PG_CONFIG} --bindir`);
	$ENV{PATH} = "$bindir:$ENV{PATH}";
	IPC::Run::run([ split(' ', $connect), '-Xq', '-v', 'ON_ERROR_STOP=1' ],
		'<', \$examples, '>', \$out, '2>&1', IPC::Run::timeout($timeout))
	  ? pass 'examples run on the servers of the quickstart'
	  : fails('examples run on the servers of the quickstart', $out);
	is(system("{ $remove; } >/dev/null 2>&1"), 0, 'they are removed');
}
cmp_ok($run, '>=', 7, 'commands were run');

# ----------------------------------------------------------------
# What is said in prose and in tables.

my $reference = $doc{'docs/reference.md'}{prose};
my $all = join "\n", map { $_->{prose} . join '', map { $_->{text} } @{ $_->{blocks} } } values %doc;

# settings: names, defaults, who may change them
{
	my %context = (
		'any user, any time' => 'user',
		'superusers, any time' => 'superuser',
		'configuration file, reload' => 'sighup',
		'configuration file, restart' => 'postmaster');
	my @rows = $reference =~ /^\| `(pg_dtx\.\w+)` \| `([^`]*)` \| ([^|]*) \|/mg;
	my @said;
	while (my ($name, $default, $who) = splice @rows, 0, 3)
	{
		push @said, join '|', $name, $default =~ s/^''$//r, $context{$who} // "($who)";
	}
	is(join("\n", sort @said),
		join("\n", sort split /\n/, $dtx->sql(q{
SELECT name, CASE WHEN unit = 'ms' THEN regexp_replace(boot_val, '000$', 's')
	ELSE boot_val END, context
FROM pg_settings WHERE name LIKE 'pg_dtx.%'})),
		'reference: settings, their defaults, and who may change them');
}

# views: columns
for my $view (split /\n/, $dtx->sql(q{
SELECT relname FROM pg_class WHERE relnamespace = 'dtx'::regnamespace AND relkind = 'v' ORDER BY 1}))
{
	like($all, qr/`dtx\.$view`/, "view dtx.$view is documented");
	my ($table) = $reference =~ /^\*\*`dtx\.$view`\*\*.*?\n\n((?:\|.*\n)+)/m or next;
	my @columns = map { my ($cell) = /^\| ([^|]*) \|/; $cell =~ /`(\w+)`/g } split /\n/, $table;
	is(join(' ', sort @columns),
		$dtx->sql("SELECT string_agg(attname, ' ' ORDER BY attname COLLATE \"C\") FROM pg_attribute
			WHERE attrelid = 'dtx.$view'::regclass AND attnum > 0 AND NOT attisdropped"),
		"reference: columns of dtx.$view");
}

# functions and relations: what there is is documented, what is mentioned there is
{
	my %exists = map { $_ => 1 } split /\n/, $dtx->sql(q{
SELECT proname FROM pg_proc WHERE pronamespace = 'dtx'::regnamespace
UNION SELECT relname FROM pg_class WHERE relnamespace = 'dtx'::regnamespace
UNION SELECT typname FROM pg_type WHERE typnamespace = 'dtx'::regnamespace});
	my %mentioned = map { $_ => 1 } $all =~ /(?<!-)\bdtx\.([a-z]\w+)/g;
	is(join(' ', grep { !$exists{$_} } sort keys %mentioned), '', 'everything that is mentioned exists');
	my %internal = map { $_ => 1 } split /\n/, $dtx->sql(q{
SELECT proname FROM pg_proc WHERE pronamespace = 'dtx_internal'::regnamespace
UNION SELECT relname FROM pg_class WHERE relnamespace = 'dtx_internal'::regnamespace
UNION SELECT typname FROM pg_type WHERE typnamespace = 'dtx_internal'::regnamespace});
	is(join(' ', grep { !$internal{$_} } $all =~ /\bdtx_internal\.([a-z]\w+)/g), '', '... in schema dtx_internal, too');
	is(join(' ', grep { !$mentioned{$_} } split /\n/, $dtx->sql(q{
SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'dtx'::regnamespace ORDER BY 1})),
		'', 'every function is documented');
}

# targets of make, links
{
	my %targets = map { $_ => 1 } $all =~ /`make ([a-z][\w-]*)/g;
	is(join(' ', grep { !$make_target{$_} } sort keys %targets), '', 'targets of make exist');
}
# how large max_prepared_transactions has to be: one rule, in the same words
is(join(' ', grep { slurp_file("$top/$_") !~ /to\s+at\s+least\s+its\s+\W*max_connections/ }
	qw(README.md docs/adopt.md docs/reference.md docs/monitoring.md src/sql/check.c src/commit/participant.c schema/40_overview.sql)),
	'', 'max_prepared_transactions: the rule');
my %tests = map { $_ => 1 } $all =~ m{`((?:t|sql|specs)/[\w./]+\.\w+)`}g;
is(join(' ', grep { !-e "$top/$_" } sort keys %tests), '', 'tests that are named exist');
for my $file (@files, 'schema/40_overview.sql')
{
	(my $dir = $file) =~ s{[^/]*$}{};
	my @bad;
	my @links = $doc{$file} ? $doc{$file}{prose} =~ /\]\(([^)\s]+)\)/g :
	  map { "../$_" } slurp_file("$top/$file") =~ /(docs\/\w+\.md[^\s',;)]*)/g;
	for my $link (@links)
	{
		next if $link =~ /^[a-z]+:/;
		my ($path, $anchor) = split /#/, $link, 2;
		my $target = $path eq '' ? "$top/$file" : "$top/$dir$path";
		my $good = -e $target;
		if ($good && defined $anchor)
		{
			my %anchors = map {
				my $a = lc;
				$a =~ s/[^\w\s-]//g;
				$a =~ s/\s/-/g;
				$a => 1
			} slurp_file($target) =~ /^#+ (.*)$/mg;
			$good = $anchors{$anchor};
		}
		push @bad, $link unless $good;
	}
	is(join(' ', @bad), '', "$file: links lead somewhere");
}

done_testing();

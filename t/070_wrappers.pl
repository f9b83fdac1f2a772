# What is a postgres_fdw is not a matter of names; and one whose calls of libpq do
# not come to pg_dtx, as if it had been linked statically, can't be used together
# with anything else.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $pkglibdir = `$pg_config --pkglibdir`);
chomp(my $include = `$pg_config --includedir-server`);
my $dir = PostgreSQL::Test::Utils::tempdir;
chmod 0755, $dir;

my $dtx = DtxTest->new(servers => 2);

# A copy of the library under another name.  Its one setting is renamed, so that
# both can be loaded in one session.
sub copy_library
{
	my ($name, $setting) = @_;
	open my $in, '<:raw', "$pkglibdir/postgres_fdw.so" or die "$!";
	my $content = do { local $/; <$in> };
	close $in;
	$content =~ s/postgres_fdw\.application_name/$setting.application_name/g;
	open my $out, '>:raw', "$dir/$name.so" or die "$!";
	print $out $content;
	close $out or die "$!";
	chmod 0755, "$dir/$name.so";
	return;
}

# A wrapper made of it, with servers and foreign tables.
sub make_wrapper
{
	my ($name, $handler) = @_;
	my $sql = qq{
CREATE FUNCTION $handler() RETURNS fdw_handler LANGUAGE c STRICT
	AS '$dir/$name', 'postgres_fdw_handler';
CREATE FUNCTION ${handler}_v(text[], oid) RETURNS void LANGUAGE c STRICT
	AS '$dir/$name', 'postgres_fdw_validator';
CREATE FOREIGN DATA WRAPPER $name HANDLER $handler VALIDATOR ${handler}_v;
};
	for my $i (1, 2)
	{
		my ($host, $port) = ($dtx->p($i)->host, $dtx->p($i)->port);
		$sql .= qq{
CREATE SERVER ${name}_s$i FOREIGN DATA WRAPPER $name
	OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER ${name}_s$i;
CREATE FOREIGN TABLE ${name}_acct$i (id int, bal int) SERVER ${name}_s$i
	OPTIONS (table_name 'acct');
};
	}
	return $sql;
}

sub prepared
{
	return $dtx->sql('SELECT prepared FROM dtx.stat');
}

# Another name of file and function
copy_library('other', 'postgres_fdx');
$dtx->sql(make_wrapper('other', 'make_other'));
my $before = prepared();
$dtx->sql(q{BEGIN;
UPDATE other_acct1 SET bal = bal - 10 WHERE id = 1;
UPDATE other_acct2 SET bal = bal + 10 WHERE id = 1;
COMMIT;});
$dtx->balances_are('100 90 110', 'a copy: committed');
is(prepared() - $before, 2, 'a copy: prepared on both servers');

# together with the original, and one refuses
$dtx->p(2)->safe_psql(
	'postgres', q{
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'refused'; END$$;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal = 66) EXECUTE FUNCTION refuse();
});
my ($ret, $out, $err) = $dtx->coord->psql('postgres', q{BEGIN;
UPDATE acct1 SET bal = 34 WHERE id = 1;
UPDATE other_acct2 SET bal = 66 WHERE id = 1;
COMMIT;});
like($err, qr/refused/, 'a copy and the original: refused by one');
$dtx->balances_are('100 90 110', 'rolled back on both');

$dtx->sql(q{SELECT dtx.define_saga('other', dtx.step('only', server => 'other_s1', execute => 'SELECT 1'))});
my $saga = $dtx->sql(q{SELECT dtx.start_saga('other')});
is($dtx->sql(qq{SELECT dtx.wait_saga($saga)}), 'completed', 'a step of a saga there');

is( $dtx->sql(
		q{SELECT ok, detail FROM dtx.check_server('other_s1') WHERE "check" = 'interposition'}
	),
	't|pg_dtx has seen postgres_fdw open a session',
	'check_server has seen a session');
is( $dtx->sql(
		q{SELECT string_agg(server, ' ' ORDER BY server) FROM dtx.servers}),
	'other_s1 other_s2 s1 s2',
	'all are servers of postgres_fdw');

# compile a library
sub compile
{
	my $name = shift;
	system_or_bail('cc', '-shared', '-fPIC', '-D_GNU_SOURCE', "-I$include",
		'-o', "$dir/$name.so", "$dir/$name.c");
	chmod 0755, "$dir/$name.so";
	return;
}
SKIP:
{
	# (the runtime of the sanitizers does not allow RTLD_DEEPBIND)
	skip 'a sanitizer', 27 if ($ENV{DTX_CHECKER} // '') eq 'sanitizers';

	# One that goes past us: as if libpq were a part of it
	copy_library('past', 'postgres_fdy');
	append_to_file("$dir/loader.c", qq{
#include "postgres.h"
#include <dlfcn.h>
#include "fmgr.h"
PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
void
_PG_init(void)
{
	if (dlopen("$dir/past.so", RTLD_NOW | RTLD_GLOBAL | RTLD_DEEPBIND) == NULL)
		elog(ERROR, "%s", dlerror());
}
});

	compile('loader');
	$dtx->sql("ALTER SYSTEM SET session_preload_libraries = '$dir/loader'");
	$dtx->coord->reload;
	$dtx->sql(make_wrapper('past', 'make_past'));
	$dtx->sql(q{
CREATE TABLE parts (id int, bal int) PARTITION BY LIST (id);
CREATE FOREIGN TABLE parts1 PARTITION OF parts FOR VALUES IN (7) SERVER past_s1
	OPTIONS (table_name 'acct');
});

	my $cant = qr/ERROR:  .*server "(past_s1|s2)" cannot take part in an atomic commit/;

	sub refused
	{
		my ($name, $sql) = @_;
		my $session = $dtx->session;
		$session->run("BEGIN;\n$sql");
		is($session->stderr, '', "$name: no error before COMMIT");
		$session->run('COMMIT');
		like($session->stderr, $cant, "$name: refused");
		$session->close;
		$dtx->balances_are('100 90 110', "$name: nothing has changed");
		return;
	}

	refused('with a local change', q{
UPDATE acct0 SET bal = bal - 1;
UPDATE past_acct1 SET bal = bal + 1;});
	refused('with another server', q{
UPDATE past_acct1 SET bal = bal + 1;
UPDATE acct2 SET bal = bal - 1;});
	refused('with the other server of its kind', q{
UPDATE past_acct1 SET bal = bal + 1;
UPDATE past_acct2 SET bal = bal - 1;});
	refused('COPY', q{
UPDATE acct0 SET bal = bal - 1;
COPY past_acct1 FROM PROGRAM 'printf "5\t5\n"';});
	refused('TRUNCATE', q{
UPDATE acct0 SET bal = bal - 1;
TRUNCATE past_acct1;});
	refused('by way of a partition', q{
UPDATE acct0 SET bal = bal - 1;
INSERT INTO parts VALUES (7, 7);});
	refused('released savepoint', q{
SAVEPOINT a;
UPDATE past_acct1 SET bal = bal + 1;
RELEASE SAVEPOINT a;
UPDATE acct0 SET bal = bal - 1;});
	is($dtx->p(1)->safe_psql('postgres', 'SELECT count(*) FROM acct'),
		1, 'no row was added');

	($ret, $out, $err) = $dtx->coord->psql('postgres',
		'UPDATE past_acct1 SET bal = bal + 1 WHERE id = 1');
	is($err, '', 'alone it can be used');
	($ret, $out, $err) = $dtx->coord->psql('postgres', q{BEGIN;
	SAVEPOINT a;
	UPDATE past_acct1 SET bal = 0;
	ROLLBACK TO SAVEPOINT a;
	UPDATE acct0 SET bal = bal - 1;
	COMMIT;});
	is($err, '', 'what was rolled back does not matter');
	$dtx->balances_are('99 91 110', 'both committed');

	is( $dtx->sql(
			q{SELECT ok, detail FROM dtx.check_server('past_s1') WHERE "check" = 'interposition'}
		),
		'f|postgres_fdw does not call libpq through pg_dtx',
		'check_server says so');
	$dtx->sql('ALTER SYSTEM RESET session_preload_libraries');
	$dtx->coord->reload;
	$dtx->poll($dtx->coord,
		q{SELECT ok FROM dtx.check_server('s1') WHERE "check" = 'interposition'},
		't', 'the original is seen');
}

# The library shows nothing that could clash with others, but for the wrappers (and what
# "make coverage" brings along).
my ($symbols) = run_command([ 'nm', '-D', '--defined-only', "$pkglibdir/pg_dtx.so" ]);
is(join(' ', grep { !/^(?:PQ|dtx_|pg_finfo_dtx_|_PG_init$|Pg_magic_func$|__gcov_|mangle_path$)/ }
		map { (split)[2] } split /\n/, $symbols),
	'', 'no other symbol is exported');
like($symbols, qr/ T PQsendQuery\n.* T dtx_sql_check_server\n/s, 'those are that have to be');

# (which JIT, which inlines functions, must not mind)
is( $dtx->sql(q{
SET jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0; SET jit_optimize_above_cost = 0;
SELECT count(DISTINCT dtx_internal.gid('3', g)) FROM generate_series(1, 10) AS g;
BEGIN;
SELECT sum(dtx.exec('s1', 'UPDATE acct SET bal = bal')) FROM generate_series(1, 2);
SELECT count(*) FROM generate_series(1, 1), dtx.exec_all('{s1,s2}', 'SELECT');
COMMIT;
SELECT count(*) > 0 FROM dtx.check_server('s1');}),
	"10\n2\n2\nt", 'with JIT');

# Libraries that insist on being the first to set hooks, like Citus, come after us.
append_to_file("$dir/insists.c", q{
#include "postgres.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "optimizer/planner.h"
#include "tcop/utility.h"
PG_MODULE_MAGIC;
PGDLLEXPORT void _PG_init(void);
void
_PG_init(void)
{
	if (planner_hook != NULL || ProcessUtility_hook != NULL ||
		ExecutorStart_hook != NULL || ExecutorRun_hook != NULL ||
		ExecutorEnd_hook != NULL)
		elog(ERROR, "must be loaded first");
}
});
compile('insists');
$dtx->sql("ALTER SYSTEM SET shared_preload_libraries = pg_dtx, '$dir/insists'");
$dtx->coord->restart;
$before = prepared();
$dtx->sql($dtx->transfer(1, 1, 2));
is(prepared() - $before, 2, 'together with a library that insists on hooks');

done_testing();

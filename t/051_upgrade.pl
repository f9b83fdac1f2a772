# From one SQL version to the next, with data, sagas, and a transaction in doubt; and
# what a dump keeps.  (pg_upgrade: "make test-upgrade".)
#
# The next version is made of this tree: a table has one more column, a view too,
# there is one more function, and one has another body (see updates/README.md).
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use File::Copy qw(copy);
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $coord = $dtx->coord;
my $tmp = $PostgreSQL::Test::Utils::tmp_check;
my $top = "$FindBin::RealBin/..";

# ----------------------------------------------------------------
# The next version
# ----------------------------------------------------------------

my $next = "$tmp/next";
system_or_bail('mkdir', '-p', "$next/updates/1.0.1");
system_or_bail('cp', '-r', "$top/schema", "$top/Makefile", "$top/pg_dtx.control", $next);

sub change
{
	my ($file, $from, $to) = @_;
	my $text = slurp_file("$next/$file");
	$text =~ s/$from/ref $to ? $to->() : $to/e or die "$file is not as expected";
	unlink "$next/$file";
	append_to_file("$next/$file", $text);
	return;
}
change('pg_dtx.control', qr/'1\.0\.0'/, q{'1.0.1'});
change('schema/11_decision.sql', qr/(  at timestamptz NOT NULL)\n\);/, sub { "$1,\n  ticket text\n);" });
change('schema/11_decision.sql', qr/\z/, "COMMENT ON COLUMN dtx_internal.forced_record.ticket IS 'where it is told';\n");
change('schema/21_status.sql', qr/(d\.detail)(\n\s+FROM dtx_internal\.damage_record)/, sub { "$1, d.found = 'lost' AS is_lost$2" });
change('schema/40_overview.sql', qr/' per second'/, "' a second'");
change('schema/22_operate.sql', qr/\z/, q{
CREATE OR REPLACE FUNCTION dtx.is_forced(gid text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$SELECT EXISTS (SELECT FROM dtx_internal.forced_record f WHERE f.gid = is_forced.gid AND f.ticket IS NOT NULL)$$;
COMMENT ON FUNCTION dtx.is_forced(text) IS 'test';
CREATE OR REPLACE FUNCTION dtx_internal.unused() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp AS 'SELECT';
COMMENT ON FUNCTION dtx_internal.unused() IS 'test';
});
my $privileges = "\nREVOKE ALL ON FUNCTION dtx.is_forced(text) FROM PUBLIC;\n";
change('schema/90_privileges.sql', qr/\z/, $privileges);
append_to_file("$next/updates/1.0.1/tables.sql", q{
ALTER TABLE dtx_internal.forced_record ADD COLUMN ticket text;
COMMENT ON COLUMN dtx_internal.forced_record.ticket IS 'where it is told';
});
append_to_file("$next/updates/1.0.1/privileges.sql", $privileges);
my @scripts = ('pg_dtx--1.0.1.sql', 'pg_dtx--1.0.0--1.0.1.sql');
system_or_bail('make', '-s', '-C', $next, 'with_llvm=no', "PG_CONFIG=$ENV{PG_CONFIG}", @scripts);
chomp(my $sharedir = `$ENV{PG_CONFIG} --sharedir`);
for my $script (@scripts)
{
	unlink "$sharedir/extension/$script";
	copy("$next/$script", "$sharedir/extension/$script") or die "$script: $!";
}

# ----------------------------------------------------------------
# This version, at work
# ----------------------------------------------------------------

$dtx->sql('CREATE DATABASE old');
$dtx->install('old');
is($coord->safe_psql('old', q{SELECT extversion FROM pg_extension WHERE extname = 'pg_dtx'}), '1.0.0', 'version 1.0.0');
$coord->safe_psql('old', $dtx->transfer(10, 1, 0, 2));
$dtx->balances_are('100 90 110', 'a transfer');
$coord->safe_psql('old', q{
SELECT dtx.define_saga('move', dtx.step('take', 's1', 'UPDATE acct SET bal = bal - 1', 'UPDATE acct SET bal = bal + 1'),
	dtx.step_signal('go'), dtx.step_external('tell', 'news'));
SELECT dtx.start_saga('move');
});
$coord->poll_query_until('old', q{SELECT state = 'waiting' FROM dtx.saga_steps WHERE step = 'go'}) or die 'the saga does not run';
$dtx->balances_are('100 89 110', '... and half a saga');

# Something in doubt: decided, and a server is down.
sub make_doubt
{
	my $s = $dtx->session(dbname => 'old');
	$dtx->arm;
	$s->run($dtx->hold);
	$s->start($dtx->transfer(10, 1, 0, 2));
	$dtx->wait_held($s);
	$dtx->p(2)->stop('immediate');
	$dtx->release;
	$s->finish;
	$s->close;
	$coord->poll_query_until('old', q{SELECT count(*) = 1 FROM dtx.in_doubt WHERE server = 's2' AND decision = 'commit'})
	  or die 'nothing is in doubt';
	return;
}
make_doubt();
$coord->safe_psql('old', q{
INSERT INTO dtx_internal.forced_record VALUES ('dtx:1', 's1', 'commit', 'commit', false, 'test', 'me', now());
INSERT INTO dtx_internal.damage_record VALUES ('dtx:2', 's1', 'commit', 'rollback', now(), '7', 1, 'test');
});
$coord->command_ok([ 'pg_dump', '-d', $coord->connstr('old'), '-f', "$tmp/051.sql" ], 'pg_dump');
my $id = $coord->safe_psql('old', 'SELECT id FROM dtx_internal.coordinator');
# not those rows that their sessions will use again
my $decision_rows =
  q{SELECT d.* FROM dtx_internal.decision AS d JOIN dtx.in_doubt AS i ON i.gid LIKE '%:' || lpad(to_hex(d.boot_id), 16, '0') || ':' || d.xid || ':%'};
my $decisions = $coord->safe_psql('old', $decision_rows);
isnt($decisions, '', 'a decision is needed');

# A transaction in progress sees neither the one nor the other half.
my $open = $dtx->session(dbname => 'old');
$open->run('BEGIN; UPDATE acct1 SET bal = bal - 1; UPDATE acct0 SET bal = bal + 1');
$coord->safe_psql('old', q{GRANT EXECUTE ON FUNCTION dtx.start_saga TO PUBLIC; ALTER EXTENSION pg_dtx UPDATE TO '1.0.1'});
is($coord->safe_psql('old', q{SELECT extversion FROM pg_extension WHERE extname = 'pg_dtx'}), '1.0.1', 'updated');
is($coord->safe_psql('old', q{SELECT has_function_privilege('pg_monitor', 'dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer, integer, text, text, jsonb, text)', 'EXECUTE')}),
	't', '... and what was granted stays so');
$coord->safe_psql('old', 'REVOKE EXECUTE ON FUNCTION dtx.start_saga FROM PUBLIC');
is($open->run('COMMIT') . $open->stderr, '', 'a transaction that began before commits');
is($coord->safe_psql('old', 'SELECT id FROM dtx_internal.coordinator'), $id, '... with its identity');
is($coord->safe_psql('old', $decision_rows), $decisions, '... its decision');
is($coord->safe_psql('old', 'SELECT count(*) FROM dtx.forced'), '1', '... what was forced');
is($coord->safe_psql('old', 'SELECT is_lost FROM dtx.damage'), 'f', '... and damage');
is($coord->safe_psql('old', 'SELECT count(*) FROM dtx.in_doubt'), '1', 'still in doubt');
$dtx->p(2)->start;
ok($coord->poll_query_until('old', 'SELECT count(*) = 0 FROM dtx.in_doubt'), 'finished after the update');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct'), '120', 'it was committed');
$open->close;

# The saga goes on, too.
$coord->safe_psql('old', q{SELECT dtx.signal_saga(id, 'go') FROM dtx.sagas});
$coord->poll_query_until('old', q{SELECT count(*) = 1 FROM dtx.saga_steps WHERE queue = 'news'}) or die 'nothing offered';
is($coord->safe_psql('old', q{SELECT dtx.complete_step(token) FROM dtx.claim_step('news', 'me'); SELECT state FROM dtx.sagas}),
	"\ncompleted", 'the saga was completed after the update');

# Updated, it is what a new one is.
my $objects = q{
SELECT pg_describe_object(classid, objid, 0) || ' ' ||
	coalesce((SELECT array_agg(a::text ORDER BY a::text)::text FROM unnest(
		CASE classid WHEN 'pg_proc'::regclass THEN (SELECT proacl FROM pg_proc WHERE oid = objid)
			WHEN 'pg_class'::regclass THEN (SELECT relacl FROM pg_class WHERE oid = objid)
			WHEN 'pg_type'::regclass THEN (SELECT typacl FROM pg_type WHERE oid = objid) END) a), '-') || ' ' ||
	coalesce(CASE classid WHEN 'pg_proc'::regclass THEN (SELECT md5(pg_get_functiondef(objid)) FROM pg_proc WHERE oid = objid AND prokind <> 'a')
		WHEN 'pg_class'::regclass THEN (SELECT md5(string_agg(concat_ws(' ', attname, format_type(atttypid, atttypmod), attnotnull, attacl,
				col_description(attrelid, attnum), (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum)), ' ' ORDER BY attnum)
				|| coalesce((SELECT string_agg(pg_get_constraintdef(c.oid), ' ' ORDER BY c.conname) FROM pg_constraint c WHERE c.conrelid = objid), '')
				|| coalesce((SELECT string_agg(pg_get_indexdef(i.indexrelid), ' ' ORDER BY i.indexrelid::regclass::text) FROM pg_index i WHERE i.indrelid = objid), '')
				|| (SELECT concat_ws(' ', c.relkind, c.reloptions, CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END) FROM pg_class c WHERE c.oid = objid))
			FROM pg_attribute WHERE attrelid = objid AND attnum > 0 AND NOT attisdropped)
		WHEN 'pg_type'::regclass THEN (SELECT md5(string_agg(enumlabel, ' ' ORDER BY enumsortorder)) FROM pg_enum WHERE enumtypid = objid) END, '-') || ' ' ||
	coalesce(obj_description(objid, (SELECT relname FROM pg_class WHERE oid = classid)), '-')
FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_dtx')
ORDER BY 1};
$dtx->sql('CREATE DATABASE new');
$coord->safe_psql('new', q{CREATE EXTENSION pg_dtx VERSION '1.0.1' CASCADE});
my $new = $coord->safe_psql('new', $objects);
is($coord->safe_psql('old', $objects), $new, 'updated, the extension is what a new one is');
is(join("\n", grep { / -$/ && !/^(?:type|sequence|index|schema|constraint) / } split /\n/, $new), '',
	'everything has a comment');

# A dump keeps what humans did, and no identity, no decisions.
$dtx->sql('CREATE DATABASE restored');
$coord->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $coord->connstr('restored'), '-f', "$tmp/051.sql" ],
	'restore');
is($coord->safe_psql('restored', q{SELECT extversion FROM pg_extension WHERE extname = 'pg_dtx'}), '1.0.0', 'restored');
isnt($coord->safe_psql('restored', 'SELECT id FROM dtx_internal.coordinator'), $id, '... with an identity of its own');
is($coord->safe_psql('restored', 'SELECT count(*) FROM dtx_internal.decision'), '0', '... without decisions');
is($coord->safe_psql('restored', 'SELECT count(*) FROM dtx.forced'), '1', '... with what was forced');
is($coord->safe_psql('restored', 'SELECT count(*) FROM dtx_internal.damage_record'), '0', '... without damage');
is($coord->safe_psql('restored', 'SELECT string_agg(srvname, $$ $$ ORDER BY 1) FROM pg_foreign_server'), 's1 s2', '... with its servers');
$coord->safe_psql('restored', $dtx->transfer(1, 1, 0, 2));
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct'), '121', '... and it works');

done_testing();

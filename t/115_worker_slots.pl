# Background-worker slots are scarce: every database's resolver has its turn, whatever
# other databases, sagas and settings of a database ask for.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

# Besides the launchers (PostgreSQL's and ours) and the reserved resolver there is room
# for three.
my $dtx = DtxTest->new(servers => 1, conf => "max_worker_processes = 6\npg_dtx.saga_workers = 2\n");
my $coord = $dtx->coord;
my $p1 = $dtx->p(1);
my @databases = ('postgres', map { "db$_" } 2 .. 7);

# A prepared transaction in each database that nobody but its resolver ends.
sub orphans
{
	for my $db (@databases)
	{
		my ($gid) = $dtx->orphan_gids(1, $db);
		$p1->safe_psql('postgres', "BEGIN; CREATE TABLE t_$db (i int); PREPARE TRANSACTION '$gid'");
	}
	return;
}

for my $db (@databases[ 1 .. $#databases ])
{
	$dtx->sql("CREATE DATABASE $db");
	$dtx->install($db);
}

# (something has been prepared on each server before)
for my $db (@databases)
{
	$coord->safe_psql($db, 'BEGIN; UPDATE acct0 SET bal = bal + 1; UPDATE acct1 SET bal = bal + 1; COMMIT');
}
$dtx->prepared_is(1, 0, 'seven databases commit');
my $log = -s $coord->logfile;
for my $round (1 .. 2)
{
	orphans();
	$dtx->prepared_is(1, 0, "all seven resolvers have had a turn ($round)");
}
cmp_ok($dtx->sql(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'}),
	'<=', 4, '... in four slots');
my $text = slurp_file($coord->logfile, $log);
my @said = $text =~ /(out of background worker slots)/g;
cmp_ok(scalar(@said), '<=', 1, '... with one warning at most');
unlike($text, qr/ERROR|FATAL|PANIC|terminated by signal/, '... and no error');

# One that cannot end what it has to end does not keep the slot: nobody answers there.
for my $db (@databases[ 0 .. 3 ])
{
	my ($gid) = $dtx->orphan_gids(1, $db);
	$coord->safe_psql($db, q{ALTER SERVER s1 OPTIONS (SET dbname 'nothing')});
	$p1->safe_psql('postgres', "BEGIN; CREATE TABLE u_$db (i int); PREPARE TRANSACTION '$gid'");
}
for my $db (@databases[ 4 .. 6 ])
{
	my ($gid) = $dtx->orphan_gids(1, $db);
	$p1->safe_psql('postgres', "BEGIN; CREATE TABLE u_$db (i int); PREPARE TRANSACTION '$gid'");
}
$dtx->prepared_is(1, 4, 'four that cannot end their business do not keep the others from theirs');
$coord->safe_psql($_, q{ALTER SERVER s1 OPTIONS (SET dbname 'postgres')}) for @databases[ 0 .. 3 ];
$dtx->prepared_is(1, 0, '... and end it when they can');

# In a database: a saga that does not end before it is told to.
my $slow_saga = q{
CREATE TABLE release (i int);
CREATE FUNCTION wait_for_release() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	LOOP
		EXIT WHEN EXISTS (SELECT FROM public.release);
		PERFORM pg_sleep(0.05);
	END LOOP;
	RETURN 1;
END$$;
SELECT dtx.define_saga('slow', dtx.step('wait', execute => 'SELECT public.wait_for_release()'));
};

# Sagas take every slot that they get; one is not theirs.
$dtx->sql("DROP DATABASE $_") for @databases[ 1 .. $#databases ];
@databases = ('postgres');
$dtx->sql($slow_saga . q{SELECT dtx.start_saga('slow') FROM generate_series(1, 10);
});
$dtx->poll($coord, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'}, 't', 'sagas run');
$dtx->sql('CREATE DATABASE late');
$dtx->install('late');
$coord->safe_psql('late', 'BEGIN; UPDATE acct0 SET bal = bal + 1; UPDATE acct1 SET bal = bal + 1; COMMIT');
@databases = ('postgres', 'late');
orphans();
$dtx->prepared_is(1, 0, 'sagas that never end keep no resolver out');

# Nor do those of another database, which wait for a slot themselves.
$dtx->sql(q{SELECT dtx.start_saga('slow') FROM generate_series(1, 3)});
$coord->safe_psql('late', $slow_saga . q{SELECT dtx.start_saga('slow') FROM generate_series(1, 3);
});
$dtx->poll($coord, q{SELECT count(*) > 1 FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga scheduler'}, 't',
	'sagas of another database ask for slots');
for my $round (1 .. 2)
{
	orphans();
	$dtx->prepared_is(1, 0, "... and the resolvers have their turns ($round)");
}
$coord->safe_psql('late', 'INSERT INTO release VALUES (1)');
$dtx->sql('INSERT INTO release VALUES (1)');
$dtx->poll($coord, q{SELECT count(*) FROM dtx.sagas WHERE state = 'completed'}, 13, '... and they end when they may');

# Defaults of a database are for its users.
my $version = $dtx->sql('SHOW server_version_num');
$dtx->sql('CREATE ROLE powerless');
$dtx->sql('CREATE SCHEMA trap');
$dtx->sql(join ';', map { "ALTER DATABASE postgres SET $_" }
	q{role = 'powerless'}, q{search_path = 'trap'}, q{statement_timeout = '1ms'},
	q{idle_in_transaction_session_timeout = '1ms'}, q{idle_session_timeout = '1ms'},
	q{default_transaction_read_only = on}, q{default_transaction_isolation = 'serializable'},
	q{session_replication_role = 'replica'},
	$version >= 170000 ? q{transaction_timeout = '1ms'} : ());
$coord->restart;
$log = -s $coord->logfile;
local $ENV{PGOPTIONS} = '-c role=none -c search_path=public -c statement_timeout=0 -c idle_in_transaction_session_timeout=0'
  . ' -c idle_session_timeout=0 -c session_replication_role=origin -c default_transaction_read_only=off -c default_transaction_isolation=read\ committed'
  . ($version >= 170000 ? ' -c transaction_timeout=0' : '');
orphans();
$dtx->prepared_is(1, 0, 'a resolver does its work whatever the defaults of its database');
$dtx->sql(q{SELECT dtx.start_saga('slow')});
$dtx->poll($coord, q{SELECT count(*) FROM dtx.sagas WHERE state = 'completed'}, 14, '... and so do sagas');
unlike(slurp_file($coord->logfile, $log), qr/(?:ERROR|FATAL).*(?:powerless|timeout)|permission denied/, '... without an error');

done_testing();

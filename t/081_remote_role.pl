# A trigger or function on a server sets another role until the end of the transaction:
# what is prepared belongs to the role of the user mapping all the same.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(servers => 2);

for my $i (1, 2)
{
	$dtx->p($i)->safe_psql('postgres', q{
CREATE ROLE writer;
CREATE ROLE "Other Role";
CREATE ROLE web LOGIN;
CREATE ROLE web2 LOGIN;
CREATE ROLE dba LOGIN SUPERUSER;
GRANT writer, "Other Role" TO web, web2;
ALTER ROLE web2 SET role = "Other Role";
CREATE TABLE doc (id int PRIMARY KEY, how text, who text, deferred text);
GRANT ALL ON doc TO PUBLIC;
CREATE FUNCTION become(how text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
	IF how IN ('role', 'late') THEN PERFORM set_config('role', 'writer', true);
	ELSIF how = 'session role' THEN PERFORM set_config('role', 'writer', false);
	ELSIF how = 'session' THEN PERFORM set_config('session_authorization', 'writer', true);
	END IF;
END $$;
CREATE FUNCTION early() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	IF new.how <> 'late' THEN PERFORM public.become(new.how); END IF;
	new.who = current_user;
	RETURN new;
END $$;
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
	UPDATE public.doc SET deferred = current_user WHERE id = new.id;
	IF new.how = 'late' THEN PERFORM public.become(new.how); END IF;
	RETURN NULL;
END $$;
CREATE TRIGGER early BEFORE INSERT ON doc FOR EACH ROW EXECUTE FUNCTION early();
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON doc DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION late();
});
	$dtx->sql(qq{CREATE FOREIGN TABLE doc$i (id int, how text, who text, deferred text) SERVER s$i OPTIONS (table_name 'doc')});
}

my $n = 0;
for my $user (qw(web web2 dba))
{
	$dtx->sql("ALTER USER MAPPING FOR CURRENT_USER SERVER s$_ OPTIONS ("
		  . ($n == 0 ? '' : 'SET ') . "user '$user'"
		  . ($n == 0 ? ", password_required 'false'" : '') . ')')
	  for 1, 2;
	my $own = $user eq 'web2' ? 'Other Role' : $user;
	for my $how ('role', 'late', 'session role', $user eq 'dba' ? 'session' : ())
	{
		my $name = "$user, $how";
		my $s = $dtx->session;

		# The commit, by the session, ...
		$n++;
		my $insert = "INSERT INTO doc1 (id, how) VALUES ($n, '$how'); INSERT INTO doc2 (id, how) VALUES ($n, '$how');";
		$s->run("BEGIN; $insert COMMIT");
		is($s->stderr, '', "$name: committed without a warning");
		is($dtx->p($_)->safe_psql('postgres', "SELECT who, deferred FROM doc WHERE id = $n"),
			$how eq 'late' ? "$own|$own" : 'writer|writer',
			"... the triggers had their role on s$_")
		  for 1, 2;

		# ... and by the resolver.
		next if $how eq 'session role';
		$n++;
		$dtx->arm;
		$s->run($dtx->hold);
		$s->start("BEGIN; INSERT INTO acct0 VALUES ($n, 1); "
			  . "INSERT INTO doc1 (id, how) VALUES ($n, '$how'); INSERT INTO doc2 (id, how) VALUES ($n, '$how'); COMMIT");
		$dtx->wait_held($s);
		is($dtx->p(1)->safe_psql('postgres', 'SELECT owner FROM pg_prepared_xacts'),
			$how eq 'session' ? 'writer' : $own, '... the owner of what is prepared');
		$dtx->p($_)->safe_psql('postgres',
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'")
		  for 1, 2;
		$dtx->release;
		$s->finish;
		$dtx->clean("$name, by the resolver");
		is($dtx->p(2)->safe_psql('postgres', "SELECT count(*) FROM doc WHERE id = $n"), '1', '... committed');
		$s->close;
	}
}

done_testing();

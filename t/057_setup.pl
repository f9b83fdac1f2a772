# examples/setup.sql makes servers, user mappings and foreign tables for as many servers
# as it is told, and adds what is missing when it is run again.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my @names = ('berlin', 'lima', 'the "other" one', 'tokyo');
my $dtx = DtxTest->new(servers => scalar @names, participant_conf => "max_connections = 20\n");
my $coord = $dtx->coord;

$coord->safe_psql('postgres', 'CREATE DATABASE bank');
for my $i (1 .. @names)
{
	$dtx->p($i)->safe_psql('postgres', q{
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
INSERT INTO account VALUES (1, 100);
CREATE TABLE "Note" (note text);
CREATE TABLE secret (i int);
});
}

# Run it for the first servers.
sub setup
{
	my ($count, @more) = @_;
	my %servers;

	for my $i (1 .. $count)
	{
		$servers{ $names[ $i - 1 ] } =
		  { host => $dtx->p($i)->host, port => '' . $dtx->p($i)->port, dbname => 'postgres', fetch_size => '500' };
	}
	my $out = '';
	my $ok = IPC::Run::run(
		[
			$coord->installed_command('psql'), '-XAtq', '-d', $coord->connstr('bank'),
			'-v', 'servers=' . JSON::PP->new->canonical->encode(\%servers),
			@more, '-f', "$FindBin::RealBin/../examples/setup.sql"
		],
		'>', \$out, '2>', \my $err);
	return ($ok ? '' : 'failed: ') . join '', grep { !/NOTICE/ } map { "$_\n" } split /\n/, $out . $err;
}

sub bank
{
	return $coord->safe_psql('bank', shift);
}

is(setup(2), '', 'two servers: dtx.check() finds nothing wrong');
is(bank('SELECT string_agg(srvname, $$, $$ ORDER BY srvname) FROM pg_foreign_server'), 'berlin, lima', '... they are there');
is(bank('SELECT string_agg(foreign_table_schema || $$.$$ || foreign_table_name, $$, $$ ORDER BY foreign_table_schema) FROM information_schema.foreign_tables'),
	'berlin.account, lima.account', '... with their tables, and no others');
is(bank(q{SELECT option_value FROM information_schema.foreign_server_options WHERE foreign_server_name = 'lima' AND option_name = 'fetch_size'}),
	500, '... and their options');

is(setup(4, '-v', 'remote={account,Note}'), '', 'again, with two servers and one table more');
is(bank('SELECT count(*) FROM pg_foreign_server'), 4, '... four servers');
is(bank('SELECT count(*) FROM pg_user_mappings'), 4, '... with a user mapping each');
is(bank('SELECT string_agg(table_name, $$ $$ ORDER BY table_name COLLATE "C") FROM (SELECT foreign_table_schema || $$.$$ || foreign_table_name FROM information_schema.foreign_tables) AS t (table_name)'),
	join(' ', sort map { ("$_.Note", "$_.account") } @names), '... and both tables each')
  or diag bank('SELECT foreign_table_schema, foreign_table_name FROM information_schema.foreign_tables');

bank(q{BEGIN; UPDATE berlin.account SET balance = balance - 5; UPDATE "the ""other"" one".account SET balance = balance + 5; COMMIT;});
is(bank('SELECT two_phase, prepared FROM dtx.stat'), '1|2', 'a transaction over two of them, in two phases');
is($dtx->p(3)->safe_psql('postgres', 'SELECT balance FROM account'), 105, '... has come there');

# A password comes from the environment, and is shown to nobody.
{
	local $ENV{DTX_PASSWORD} = q{se'cret};
	$coord->safe_psql('bank', 'DROP USER MAPPING FOR CURRENT_USER SERVER tokyo');
	unlike(setup(4, '-v', 'login=app'), qr/cret/, 'a password from the environment is not shown');
	is(bank(q{SELECT array_to_string(umoptions, ' ') FROM pg_user_mappings WHERE srvname = 'tokyo'}), q{user=app password=se'cret},
		'... and is in the new user mapping');
}

done_testing();

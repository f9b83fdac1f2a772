# Single-user mode: transactions over several servers are atomic, and nothing waits for
# the end of a postmaster.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $coord = $dtx->coord;
$dtx->sql(q{
CREATE FUNCTION transfer(amount int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	UPDATE acct1 SET bal = bal - amount WHERE id = 1;
	UPDATE acct2 SET bal = bal + amount WHERE id = 1;
END $$});
$dtx->p(2)->safe_psql(
	'postgres', q{
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'refused'; END$$;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal > 150) EXECUTE FUNCTION refuse();
});

# Run statements, one a line.
sub single
{
	my $in = shift;
	my ($out, $err) = ('', '');
	$coord->stop;
	IPC::Run::run([ 'postgres', '--single', '-D', $coord->data_dir, 'postgres' ],
		'<', \$in, '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$coord->start;
	note $out, $err;
	return "$out$err";
}

my $out = single(
	"SELECT transfer(1)\nSELECT dtx_internal.record_boot()\nSELECT transfer(10)\nSELECT transfer(60)\nSELECT dtx.exec('s1', 'UPDATE acct SET bal = bal + 1')\nSELECT ok, detail FROM dtx.check_server('s2') WHERE \"check\" = 'reachable'\n");
unlike($out, qr/FATAL|PANIC|epoll|kqueue|poll\(\)/, 'nothing is wrong');
like($out, qr/HINT:  .*dtx_internal.record_boot\(\)/, 'the run has to be recorded first');
like($out, qr/ERROR:  .*refused/, 'what a server refuses is an error');
$dtx->balances_are('100 91 110', 'and rolled back everywhere');
like($out, qr/ok = "t"/, 'check_server can connect');
$dtx->clean('afterwards');
$dtx->sql($dtx->transfer(1, 1, 2));
$dtx->balances_are('100 90 111', 'the server goes on');

done_testing();

# The counters of dtx.stat outlive a clean restart, in a file; what is wrong with that file is
# said, and keeps no server from starting or stopping.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $coord = $dtx->coord;
my $file = $coord->data_dir . '/pg_stat/pg_dtx.stat';
my $count = 'SELECT two_phase FROM dtx.stat';

# What a clean restart has logged; between stop and start: what happens to the file.
sub restart
{
	my $meanwhile = shift;
	my $from = -s $coord->logfile;
	$coord->stop('fast');
	$meanwhile->() if defined $meanwhile;
	$coord->start;
	return slurp_file($coord->logfile, $from);
}

sub put
{
	my $content = shift;
	open(my $fh, '>:raw', $file) or die "cannot write $file: $!";
	print $fh $content;
	close $fh or die "cannot write $file: $!";
	return;
}

$dtx->sql($dtx->transfer(1, 1, 2) x 3);
is($dtx->sql($count), '3', 'three transactions');
restart();
is($dtx->sql($count), '3', 'kept across a clean restart');
ok(!-e $file, '... the file is gone, so that a crash does not bring it back');
$dtx->crash($coord);
$coord->start;
is($dtx->sql($count), '0', 'zero after a crash');

# A file that was cut, one whose content has changed, one that is too long.
$dtx->sql($dtx->transfer(1, 1, 2));
my $good;
for my $damage (
	[ 'cut' => sub { substr($good, 0, -1) } ],
	[ 'changed' => sub { my $bad = $good; substr($bad, 20, 1) ^= "\1"; $bad } ],
	[ 'too long' => sub { "${good}x" } ])
{
	my ($name, $bad) = @$damage;
	my $log = restart(sub { $good //= slurp_file($file); put($bad->()) });
	like($log, qr/LOG:  ignoring invalid data in file "pg_stat\/pg_dtx\.stat"/, "$name: said in the log");
	is($dtx->sql($count), '0', '... and zero');
	ok(!-e $file, '... and it is gone');
}
restart(sub { put($good) });
is($dtx->sql($count), '1', 'unchanged: taken');

# Something else in its place.
my $log = restart(sub { unlink $file; mkdir $file or die $! });
like($log, qr/LOG:  could not (?:open|read) file "pg_stat\/pg_dtx\.stat"/, 'a directory: said in the log');
is($dtx->sql($count), '0', '... and zero');
rmdir $file;
mkdir "$file.tmp" or die $!;
$log = restart();
like($log, qr/LOG:  could not write file "pg_stat\/pg_dtx\.stat\.tmp"/, 'it cannot be written: said in the log');
is($dtx->sql($dtx->transfer(1, 1, 2)), '', '... and transactions commit');
rmdir "$file.tmp";

done_testing();

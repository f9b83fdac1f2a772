# Every message, SQLSTATE and wait event of the source is documented: docs/messages.md and
# docs/reference.md.  No servers are needed.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use Markdown;
use Test::More;

my $top = "$FindBin::RealBin/..";
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';

sub content
{
	my $file = shift;
	open(my $fh, '<', $file) or die "cannot read $file: $!";
	local $/;
	return <$fh>;
}

my $reference = Markdown->new("$top/docs/reference.md")->{prose};
my $messages = Markdown->new("$top/docs/messages.md")->{prose};

# wait events: those of the source are those of the table
my $source = join '', map { content($_) } sort glob("$top/src/*/*.c"), glob("$top/src/*.c");
{
	my ($table) = $reference =~ /^## Wait events\n(.*?)(?=^## |\z)/ms;
	is(join(' ', sort { $a cmp $b } ($table // '') =~ /^\| `(\w+)` \|/mg),
		join(' ', sort { $a cmp $b } $source =~ /\bDtxWaitEvent\("(\w+)"\)/g), 'reference: wait events');
}

# SQLSTATEs and messages.  Of errors in arguments (class 22), of names and privileges
# (42), and of what does not happen (XX, no memory, files) only the SQLSTATE.
{
	my $schema = join '', map { content($_) } glob("$top/schema/*.sql");
	chomp(my $sharedir = `$pg_config --sharedir`);
	my %sqlstate;
	for (split /\n/, content("$sharedir/errcodes.txt"))
	{
		my ($code, undef, $macro, $condition) = /^(\w{5})\s+(\w)\s+(\w+)(?:\s+(\w+))?/ or next;
		$sqlstate{$macro} //= $code;
		$sqlstate{$condition} //= $code if defined $condition;
	}

	# what is not the same text each time
	my $plain = sub {
		my $text = shift;
		$text =~ s/%(?:\d+\$)?[a-zA-Z]/…/g;
		$text =~ s/…\.…/…/g;
		return $text;
	};
	my (%used, %said, %must);
	while ($source =~ /\bereport\((.*?)\)\)\);/gs)
	{
		my $report = $1;
		my @codes = map { $sqlstate{$_} // $_ } $report =~ /\b(ERRCODE_\w+)/g;
		next if $report =~ /fault point/;
		@used{@codes} = ();
		my $free = @codes > 0 && !grep { !/^(22|42|XX|53200|HV001)/ } @codes;
		while ($report =~ /\berrmsg\w*\(\s*((?:"(?:[^"\\]|\\.)*"\s*|\w*INT64_FORMAT\s*)+)/g)
		{
			my $text = join '', map { /^"(.*)"$/s ? $1 : '…' } $1 =~ /"(?:[^"\\]|\\.)*"|\w*INT64_FORMAT/g;
			next if $text =~ /%m/ || $text eq '%s';
			$text =~ s/\\"/"/g;
			$text = $plain->($text);
			$said{$text} = 1;
			$must{$text} = 1 if !$free || $report =~ /^\s*WARNING/;
		}
	}
	@used{ map { $sqlstate{$_} // $_ } $schema =~ /\bERRCODE = '(\w+)'/g } = ();
	$said{ $plain->($_) } = 1 for $schema =~ /(?:\bMESSAGE = |\bsaga_warn\(\s*)(?:format\()?'((?:[^']|'')*)'/g;

	my %known = map { $_ => 1 } map { /`(\w{5})`/g } $messages =~ /^\| ((?:`\w{5}`(?:, )?)+) \|/mg;
	is(join(' ', sort grep { !$known{$_} } keys %used), '', 'messages: every SQLSTATE of the source is there');
	my %any = map { ($sqlstate{$_} // $_) => 1 } "$source$schema" =~ /\b(ERRCODE_\w+)/g;
	is(join(' ', sort grep { !exists $used{$_} && !$any{$_} } keys %known), '', '... and no other');

	my @listed = map { s/^`|`$//gr } $messages =~ /^\| (`[^|]*[^|\s`]{5,}[^|]*`) \| [^|]+ \| .*\|$/mg;
	my %listed = map { $_ => 1 } grep { / / } @listed;
	cmp_ok(scalar(keys %must), '>', 80, 'messages were found');
	is(join("\n", sort grep { !$listed{$_} } keys %must), '', 'messages: every message of the source is there');
	my @gone = grep { my $m = quotemeta; $m =~ s/(?:\\[^\w\s]){3}(?=$)/.*/; !$said{$_} && !grep { /^$m/ } keys %said } sort keys %listed;
	is(join("\n", @gone), '', '... and no other');
}

done_testing();

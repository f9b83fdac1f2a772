#!/usr/bin/perl
#
# valgrind.pl REPORT ...: print what valgrind has found in this library, each finding
# once, and remove the reports.  Only what has a function of the library, or what it
# called directly, on top counts: PostgreSQL is not looked at.
#
use strict;
use warnings;
use File::Basename qw(basename);

my $sources = join '|', map { quotemeta basename($_) } glob('src/*.c src/*/*.c');
my %seen;

for my $file (@ARGV)
{
	open my $fh, '<', $file or next;
	local $/;
	my $text = <$fh>;
	unlink $file;
	$text =~ s/^==\d+== ?//mg;
	for my $block (split /\n\s*\n/, $text)
	{
		my @frames = $block =~ /^ +(?:at|by) .*/mg;
		splice @frames, 4 if @frames > 4;
		next unless grep { /pg_dtx\.so|\((?:$sources):\d+\)/ } @frames;

		# Padding in WAL, which has no meaning (src/tools/valgrind.supp of PostgreSQL).
		next if $block =~ /pwrite64\(buf\) points to uninitialised/ && grep { /XLogWrite|XLogFlush/ } @frames;
		print "$block\n\n" unless $seen{"@frames"}++;
	}
}

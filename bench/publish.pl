#!/usr/bin/perl
#
# Put the results of a run into the documentation:
#
#	publish.pl RESULTS DOCS [own-disks]
#
# The text of RESULTS/performance.txt replaces what is between two comments in
# DOCS/performance.md; CSV and chart are copied.  What was measured with disks of
# their own has a place and names of its own.
#
use strict;
use warnings;

use File::Copy qw(copy);

my ($results, $docs, $variant) = @ARGV;
die "usage: publish.pl RESULTS DOCS [own-disks]\n"
  unless @ARGV == 2 || @ARGV == 3 && $variant eq 'own-disks';
my $suffix = defined $variant ? "-$variant" : '';

sub slurp
{
	my $file = shift;
	open my $fh, '<', $file or die "$file: $!\n";
	local $/;
	return <$fh>;
}

my $page = slurp("$docs/performance.md");
my $text = slurp("$results/performance.txt");
my @date = gmtime;
my $figures = -f "$results/performance.svg"
  ? "![throughput relative to plain postgres_fdw](performance$suffix.svg)\n\n"
  : '';
$figures .= sprintf "Measured on %04d-%02d-%02d.\n\n```text\n%s```\n", $date[5] + 1900,
  $date[4] + 1, $date[3], $text;

$page =~ s/(<!-- figures$suffix: begin -->\n).*(<!-- figures$suffix: end -->)/$1\n$figures\n$2/s
  or die "$docs/performance.md has no place for figures\n";
for my $type (qw(csv svg))
{
	next unless -f "$results/performance.$type";
	copy("$results/performance.$type", "$docs/performance$suffix.$type")
	  or die "$docs/performance$suffix.$type: $!\n";
}
open my $fh, '>', "$docs/performance.md" or die "$docs/performance.md: $!\n";
print $fh $page;
close $fh or die "$docs/performance.md: $!\n";

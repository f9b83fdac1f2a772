#!/usr/bin/perl
#
# coverage.pl coverage.info DIRECTORY: what lcov has written as a table of source
# files, DIRECTORY/coverage.txt, and all lines that were not reached,
# DIRECTORY/not_reached.txt.  Called in the directory that was built.
#
use strict;
use warnings;

my ($info, $dir) = @ARGV;
my (%lines, %hit, %missed, %times, $file);

# Inline functions of a header are there once for each file that includes it.
open my $fh, '<', $info or die "$info: $!\n";
while (<$fh>)
{
	$file = $1 if m{^SF:.*/(src/.*)};
	$times{$file}{$1} += $2 if /^DA:(\d+),(\d+)/;
}
for my $f (keys %times)
{
	for my $line (sort { $a <=> $b } keys %{ $times{$f} })
	{
		$lines{$f}++;
		$hit{$f} += $times{$f}{$line} > 0;
		push @{ $missed{$f} }, $line if $times{$f}{$line} == 0;
	}
}
open my $table, '>', "$dir/coverage.txt" or die "$dir/coverage.txt: $!\n";
open my $not_reached, '>', "$dir/not_reached.txt" or die "$dir/not_reached.txt: $!\n";
my ($all, $reached) = (0, 0);
for my $f (sort { $hit{$a} / $lines{$a} <=> $hit{$b} / $lines{$b} } keys %lines)
{
	printf $table "%6.1f %%  %5d of %5d lines  %s\n", 100 * $hit{$f} / $lines{$f}, $hit{$f}, $lines{$f}, $f;
	$all += $lines{$f};
	$reached += $hit{$f};
	open my $source, '<', $f or die "$f: $!\n";
	my @text = <$source>;
	print $not_reached "$f:$_:$text[ $_ - 1 ]" for @{ $missed{$f} // [] };
}
printf $table "%6.1f %%  %5d of %5d lines  in all\n", 100 * $reached / $all, $reached, $all;

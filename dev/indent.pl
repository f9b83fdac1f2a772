#!/usr/bin/perl
#
# indent.pl LIBRARY ... FILE ...: lay out C files as PostgreSQL does, with pg_bsd_indent.
# It has to know which names are types: those in the debug information of the libraries (or
# programs).
#
use strict;
use warnings;
use File::Basename qw(basename);
use File::Temp qw(tempfile);

# as in PostgreSQL's src/tools/pgindent
my @options = qw(-bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l79
  -lp -lpl -nip -npro -sac -tpg -ts4);
my @files = grep { /\.[ch]$/ } @ARGV;
my @libraries = grep { !/\.[ch]$/ } @ARGV;
die "usage: indent.pl LIBRARY ... FILE ...\n" if !@files || !@libraries;

my %types = map { $_ => 1 } qw(bool);
my $is_type = 0;
for my $library (@libraries)
{
	open my $dwarf, '-|', 'objdump', '--dwarf=info', $library or die "objdump: $!\n";
	while (<$dwarf>)
	{
		$is_type = $1 eq 'DW_TAG_typedef' if /\((DW_TAG_\w+)\)/;
		$types{$1} = 1 if $is_type && /DW_AT_name\s.*?(\w+)\s*$/;
	}
	close $dwarf or die "objdump failed\n";
}
for my $file (@files)
{
	open my $in, '<', $file or die "$file: $!\n";
	my $text = do { local $/; <$in> };
	$types{$1} = 1 while $text =~ /^typedef\b[^;{]*\{.*?^\}\s*(\w+);/msg;
}
my ($list, $list_name) = tempfile(UNLINK => 1);
print $list "$_\n" for sort keys %types;
close $list;

for my $file (@files)
{
	open my $in, '<', $file or die "$file: $!\n";
	my $before = do { local $/; <$in> };
	my $text = $before;

	# Boxes of dashes stay as they are.
	$text =~ s{/\* +-{3}}{/*---box}g;

	# What begins a comment does not within a string.
	$text =~ s{("(?:[^"\\\n]|\\.)*")}{$1 =~ s!/\*!/\x01!gr}ge;
	my ($out, $name) = tempfile(UNLINK => 1, SUFFIX => '.c');
	print $out $text;
	close $out;
	my $status = system('pg_bsd_indent', @options, "-U$list_name", $name);

	# (it makes a backup in the current directory)
	unlink basename($name) . '.BAK';
	$status == 0 or die "$file: pg_bsd_indent failed\n";
	open $in, '<', $name or die "$name: $!\n";
	$text = do { local $/; <$in> };
	$text =~ s{/\*---box}{/* ---}g;
	$text =~ s{/\x01}{/*}g;

	# "char *" before the name of a function on a line of its own
	$text =~ s{^(\w\S*)[ \t]+\*$}{$1 *}gm;
	next if $text eq $before;
	open my $result, '>', $file or die "$file: $!\n";
	print $result $text;
	print "$file\n";
}

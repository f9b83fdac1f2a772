# src/: who includes whom, who is built, who knows PostgreSQL's version, and how errors are worded.
use strict;
use warnings FATAL => 'all';

use FindBin;
use Test::More;

# From low to high: a folder may use itself and those before it.
my @folders = qw(base state net worker deadlock commit exec snapshot saga resolve sql);
my %level = map { $folders[$_] => $_ } 0 .. $#folders;

# A module is a .c file and the header beside it.

my $src = "$FindBin::RealBin/../src";
chdir $src or die "cannot go to $src: $!";

sub content
{
	my ($file) = @_;
	open(my $fh, '<', $file) or die "cannot read $file: $!";
	local $/;
	return <$fh>;
}

my (%uses, %guard, @up, @version, @foreign);
for my $file (sort glob('*/*.[ch]'))
{
	my ($module, $folder) = $file =~ m{^((\w+)/\w+)\.[ch]$} or die "what is $file?";
	my $text = content($file);

	push @foreign, $file if !defined $level{$folder};
	push @version, $file if $text =~ /\bPG_VERSION_NUM\b/ && $file ne 'base/compat.h';
	push @{ $guard{$1} }, $file if $text =~ /^#ifndef (PG_DTX_\w+_H)$/m;
	for my $header ($text =~ /^#include "(\w+\/\w+\.h)"/mg)
	{
		next if !-f $header;    # PostgreSQL's
		my ($used, $its_folder) = $header =~ m{^((\w+)/\w+)\.h$};
		push @up, "$file includes $header" if $level{$its_folder} > $level{$folder};
		$uses{$module}{$used} = 1 if $used ne $module;
	}
}
is("@foreign", '', 'every folder has its place in the order');
is(join("\n", @up), '', 'no file includes a header of a higher folder');
is("@version", '', 'only base/compat.h knows PG_VERSION_NUM');
is(join("\n", map { "@$_" } grep { @$_ > 1 } values %guard), '', 'no two headers share a guard');

# Circles, by depth-first search: the path to where one is, and what is done with.
my (%done, @circles);
sub visit
{
	my ($module, @path) = @_;
	if (my ($from) = grep { $path[$_] eq $module } 0 .. $#path)
	{
		push @circles, join(' -> ', @path[ $from .. $#path ], $module);
		return;
	}
	return if $done{$module};
	visit($_, @path, $module) for sort keys %{ $uses{$module} || {} };
	$done{$module} = 1;
	return;
}
visit($_) for sort keys %uses;
is(join("\n", @circles), '', 'modules use each other in no circle');

# What is built.
my ($objects) = content('../Makefile') =~ /^OBJS = \\\n((?:\t\S+ \\\n)*\t\S+\n)/m;
is_deeply([ sort map { s/\.o$/.c/r } $objects =~ /(\S+\.o)/g ], [ sort map { "src/$_" } glob('*.c'), glob('*/*.c') ],
	'the Makefile names every file');

# The primary message says what, DETAIL says why: "because" is not for the former.
my @because;
for my $file (glob('*/*.c'))
{
	my $text = content($file);
	while ($text =~ /\b(?:errmsg|errmsg_plural)\(((?:[^()"]|"(?:[^"\\]|\\.)*"|\([^()]*\))*)\)/g)
	{
		my $message = $1;
		push @because, "$file: $message" if $message =~ /\bbecause\b|can't/;
	}
}
for my $file (glob('../schema/*.sql'))
{
	push @because, map { "$file: $_" } grep { /\bbecause\b|can''t/ } content($file) =~ /(?:\bMESSAGE = |\bRAISE \w+ ').*/g;
}
is(join("\n", @because), '', 'primary error messages give no reasons');

# What a caller has to know stands at the definition: each public function has a comment there, right above it.
my ($public, @bare) = (0);
for my $file (glob('*/*.c'), glob('*.c'))
{
	my $text = content($file);
	while ($text =~ m~(^.*\*/\n)?^(?!static\b)\w[\w *]*\n(Dtx\w+)\([^;\{]*\)\n\{~mg)
	{
		$public++;
		push @bare, "$file: $2" if !defined $1;
	}
}
cmp_ok($public, '>', 500, 'public functions are found');
is(join("\n", @bare), '', '... and each has a comment');

# What a newcomer finds.
my $page = content('../docs/architecture.md');
is(join(' ', grep { index($page, '| `' . s/\.c$//r . '` |') < 0 } glob('*.c'), glob('*/*.c'), map { s{^\.\./}{}r } glob('../relay/*.c')), '',
	'docs/architecture.md says what each file is for');
is(join(' ', grep { !-e "$_.c" && !-e $_ && !-e "../$_.c" } $page =~ /^\| `([a-z_]+\/[a-z_.]+)` \|/mg), '', '... and names none that is not there');

done_testing();

# The commands in a document, and what they are said to print.
#
#	my $doc = Markdown->new('README.md');
#	for my $block (@{ $doc->{blocks} }) { ... }
#
# A block is what is between two fences.  The word after the first one says what
# it is: "sql" and "sh" are run, "output" is what the block before it prints
# ("…" stands for anything), "ini" are settings, "text" and "mermaid" are nothing of the kind.  A
# comment before the fence, which no reader sees, says what else is to be known:
#
#	<!-- check: setup NAME -->		let something happen before
#	<!-- check: on SERVER -->		SQL of that server, not of the coordinator
#	<!-- check: file NAME -->		the block is part of this file
#	<!-- check: fresh system -->		not here, but on a new system ("make test-matrix")
#	<!-- check: not run, REASON -->		by nobody
#
# Several of them are separated by semicolons.
#
# As a program it prints shell commands, those that are for a new system or the
# others, or SQL.
#
#	perl t/lib/Markdown.pm fresh|other|sql README.md
package Markdown;

use strict;
use warnings FATAL => 'all';

sub new
{
	my ($class, $file) = @_;
	my $self = bless { file => $file, blocks => [], prose => '' }, $class;
	my ($block, %check);
	my $n = 0;

	open my $fh, '<', $file or die "$file: $!\n";
	while (my $line = <$fh>)
	{
		$n++;
		if ($line =~ /^\s*```(\S*)\s*$/)
		{
			if ($block)
			{
				push @{ $self->{blocks} }, $block;
				undef $block;
			}
			else
			{
				$block = { line => $n, lang => $1, text => '', check => {%check} };
				%check = ();
			}
		}
		elsif ($block)
		{
			$block->{text} .= $line;
		}
		elsif ($line =~ /^\s*<!-- check: (.*?) -->\s*$/)
		{
			for my $what (split /;\s*/, $1)
			{
				$what =~ /^(setup|on|file|fresh|not)\s+(.*)$/
				  or die "$file, line $n: what is \"$what\"?\n";
				$check{$1} = $2;
			}
		}
		else
		{
			die "$file, line $n: a comment for no block\n" if %check && $line =~ /\S/;
			$self->{prose} .= $line;
		}
	}
	close $fh;
	die "$file: no end of the block of line $block->{line}\n" if $block;
	return $self;
}

# Does a text agree with what a document says?  Differences in blanks and in the
# width of columns do not matter.
sub agrees
{
	my ($expected, $got) = @_;

	for ($expected, $got)
	{
		s/[ \t]+$//mg;
		s/^\s+|\s+$//g;
		s/-{2,}/--/g;
		s/[ \t]+/ /g;
		s/\n+/\n/g;
		s/^ //mg;
	}
	my $pattern = join "\n", map {
		$_ eq '…'
		  ? '(?s:.*?)'
		  : join '.*?', map { quotemeta } split /…/, $_, -1
	} split /\n/, $expected;
	return $got =~ /\A$pattern\z/;
}

unless (caller)
{
	my ($which, $file) = @ARGV;

	for my $block (@{ Markdown->new($file)->{blocks} })
	{
		print $block->{text} if $which eq 'sql' && $block->{lang} eq 'sql' && !%{ $block->{check} };
		next if $block->{lang} ne 'sh' || defined $block->{check}{not};
		print $block->{text} if defined $block->{check}{fresh} ? $which eq 'fresh' : $which eq 'other';
	}
}

1;

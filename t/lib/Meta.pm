# META.json as PGXN wants it (PGXN Meta Spec 1.0.0), and versions that agree.
#
#	my @errors = Meta::errors($top);
#
# As a program it prints the version, or the errors.
package Meta;

use strict;
use warnings FATAL => 'all';

use JSON::PP;

sub slurp
{
	my $file = shift;
	open my $fh, '<', $file or return undef;
	local $/;
	return scalar <$fh>;
}

sub meta
{
	my $top = shift;
	return JSON::PP->new->decode(slurp("$top/META.json"));
}

sub errors
{
	my $top = shift;
	my $meta = eval { meta($top) } or return ("META.json: $@");
	my @errors;

	# semantic versions, and terms without what file systems do not like
	my $semver = qr/^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-?[A-Za-z][0-9A-Za-z-]*)?$/;
	my $term = qr{^[^\s/\\[:cntrl:]]{2,}$};
	my %allowed = map { $_ => 1 }
	  qw(abstract maintainer license provides name version meta-spec description generated_by tags no_index prereqs
	  release_status resources);
	my %licenses = map { $_ => 1 } qw(agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2 bsd freebsd gpl_1 gpl_2 gpl_3
	  lgpl_2_1 lgpl_3_0 mit mozilla_1_0 mozilla_1_1 openssl perl_5 postgresql qpl_1_0 ssleay sun zlib open_source
	  restricted unrestricted unknown);

	my $need = sub { my ($ok, $what) = @_; push @errors, $what unless $ok; };
	$need->(defined $meta->{$_}, "META.json: \"$_\" is missing")
	  for qw(abstract maintainer license provides name version meta-spec);
	return @errors if @errors;
	$need->($allowed{$_} || /^x_/i, "META.json: \"$_\" is not a key of the specification") for sort keys %$meta;
	$need->($meta->{name} =~ $term, 'META.json: name');
	$need->($meta->{version} =~ $semver, 'META.json: version');
	$need->($licenses{ $meta->{license} }, 'META.json: license');
	$need->($meta->{'meta-spec'}{version} =~ $semver, 'META.json: version of meta-spec');
	$need->(!ref $meta->{$_} && $meta->{$_} =~ /\S/, "META.json: $_") for qw(abstract maintainer);
	$need->(($meta->{release_status} // 'stable') =~ /^(?:stable|testing|unstable)$/, 'META.json: release_status');
	for my $tag (@{ $meta->{tags} // [] })
	{
		$need->(length($tag) <= 256 && $tag !~ m{[/\\[:cntrl:]]}, "META.json: tag \"$tag\"");
	}
	for my $phase (sort keys %{ $meta->{prereqs} // {} })
	{
		$need->($phase =~ /^(?:configure|build|test|runtime|develop)$/, "META.json: prereqs: $phase");
		for my $relation (sort keys %{ $meta->{prereqs}{$phase} })
		{
			$need->($relation =~ /^(?:requires|recommends|suggests|conflicts)$/, "META.json: prereqs: $relation");
			while (my ($name, $version) = each %{ $meta->{prereqs}{$phase}{$relation} })
			{
				$need->($version eq '0' || $version =~ /^(?:[<>=!]=?\s*)?\d+\.\d+\.\d+/, "META.json: prereqs: $name $version");
			}
		}
	}
	$need->(scalar keys %{ $meta->{provides} }, 'META.json: provides');
	for my $name (sort keys %{ $meta->{provides} })
	{
		my $what = $meta->{provides}{$name};
		$need->($name =~ $term, "META.json: provides: name \"$name\"");
		$need->(($what->{version} // '') =~ $semver, "META.json: $name: version");
		$need->(defined $what->{$_} && -f "$top/$what->{$_}", "META.json: $name: $_ is no file") for qw(file docfile);
	}

	# All of these are to be changed together.
	my ($default) = slurp("$top/pg_dtx.control") =~ /^default_version = '(.*)'$/m;
	my ($packaged, $distribution) = slurp("$top/debian/changelog") =~ /^pg-dtx \((\S+)\) (\S+);/;
	my ($noted, $date) = slurp("$top/CHANGELOG.md") =~ /^## (\d+\.\d+\.\d+) - (unreleased|\d{4}-\d\d-\d\d)$/m;
	my ($spec) = slurp("$top/rpm/pg_dtx.spec") =~ /^Version:\s+(\S+)$/m;
	$noted //= 'none, or without a date';
	$need->($default eq $meta->{version}, "pg_dtx.control says version $default, META.json $meta->{version}");
	$need->($meta->{provides}{pg_dtx}{version} eq $meta->{version}, 'META.json: versions differ');
	$need->($packaged eq $meta->{version}, "debian/changelog says version $packaged, META.json $meta->{version}");
	$need->($noted eq $meta->{version}, "CHANGELOG.md says version $noted, META.json $meta->{version}");
	$need->($spec eq $meta->{version}, "rpm/pg_dtx.spec says version $spec, META.json $meta->{version}");

	# A version has a date when it is released, and not before.
	my $released = ($date // '') ne 'unreleased';
	$need->(($distribution ne 'UNRELEASED') == $released, "CHANGELOG.md says $date, debian/changelog $distribution");
	$need->((($meta->{release_status} // 'stable') eq 'stable') == $released,
		"CHANGELOG.md says $date, release_status of META.json $meta->{release_status}");
	$need->($default eq '1.0.0' || -f "$top/updates/$default/$_.sql", "updates/$default/$_.sql is missing") for qw(tables privileges);
	push @errors, resources($meta->{resources} // {});
	return @errors;
}

# Where the project is; a host in ".invalid" is to be replaced when it has a home.
sub resources
{
	my $resources = shift;
	my @errors;
	my $url = qr{^https?://[^\s/]+(?:/\S*)?$};
	my $need = sub { my ($ok, $what) = @_; push @errors, "META.json: resources: $what" unless $ok; };

	$need->(/^(?:homepage|license|bugtracker|repository)$/ || /^x_/i, $_) for sort keys %$resources;
	$need->(($resources->{homepage} // '') =~ $url, 'homepage');
	$need->($_ =~ $url, 'license') for @{ $resources->{license} // [] };
	$need->(($resources->{bugtracker}{web} // '') =~ $url, 'bugtracker, web');
	$need->(($resources->{bugtracker}{mailto} // '') =~ /^[^\s@]+@[^\s@]+$/, 'bugtracker, mailto');
	$need->(($resources->{repository}{$_} // '') =~ $url, "repository, $_") for qw(url web);
	$need->(($resources->{repository}{type} // '') =~ /^[a-z]+$/, 'repository, type');
	return @errors;
}

unless (caller)
{
	my $top = $ARGV[0] // '.';
	my @errors = errors($top);

	die map { "$_\n" } @errors if @errors;
	print meta($top)->{version}, "\n";
}

1;

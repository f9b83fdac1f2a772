# META.json is valid for PGXN, all files that name a version name the same, rpmspec
# understands the RPM spec, and no address of the project leads to a stranger.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use Meta;
use Test::More;

my $top = "$FindBin::RealBin/..";

is(join("\n", Meta::errors($top)), '', 'META.json and versions');

# The project has no home yet (CONTRIBUTING.md): no address in its packages leads anywhere, but for
# those of licenses and formats.
my @strangers;
for my $file (qw(META.json debian/control.in debian/copyright debian/changelog rpm/pg_dtx.spec))
{
	open(my $fh, '<', "$top/$file") or die "cannot read $file: $!";
	my $text = do { local $/; <$fh> };
	push @strangers, map { "$file: $_" }
	  grep { !m{^(?:https?://|[\w.]+@)pg-dtx\.invalid\b|^https?://(?:www\.postgresql\.org/about/licence/|pgxn\.org/meta/|www\.debian\.org/doc/)} }
	  $text =~ m{https?://[^\s"'<>]+|[\w.]+@[\w-]+\.[\w.-]+}g;
}
is(join("\n", @strangers), '', 'addresses of the project are none of others');

# The validator of PGXN itself, where it is installed.
SKIP:
{
	skip 'PGXN::Meta::Validator is not installed', 1 unless eval { require PGXN::Meta::Validator; 1 };
	my $validator = PGXN::Meta::Validator->new(Meta::meta($top));
	ok($validator->is_valid, 'META.json is valid for PGXN') or diag join "\n", $validator->errors;
}

SKIP:
{
	skip 'rpmspec is not installed', 1 if system('command -v rpmspec >/dev/null 2>&1') != 0;
	my $out = `rpmspec -P '$top/rpm/pg_dtx.spec' 2>&1`;
	is($?, 0, 'rpmspec parses the spec') or diag $out;
}

done_testing();

# META.json is valid for PGXN, all files that name a version name the same, and rpmspec
# understands the RPM spec.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use Meta;
use Test::More;

my $top = "$FindBin::RealBin/..";

is(join("\n", Meta::errors($top)), '', 'META.json and versions');

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

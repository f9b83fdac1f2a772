# META.json is valid for PGXN, and all files that name a version name the same.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use Meta;
use Test::More;

is(join("\n", Meta::errors("$FindBin::RealBin/..")), '', 'META.json and versions');

done_testing();

# pg_dtx: atomic commit across postgres_fdw servers
#
#   make, make install, make installcheck    as for every extension (PGXS)
#   make test                                the whole test suite, on servers of its own
#   make demo                                the extension at work on four servers
#   make faults, make chaos, make races      the long tests, see docs/testing.md
#   make fuzz, make leaks, make load         hostile input, growth, many sessions
#   make deadlocks                           circles of waits on several servers
#   make coverage                          which lines the suite reaches
#   make sanitize, make valgrind             the suite under checkers of memory
#   make bench                               what it costs, see docs/performance.md
#   make bench-sagas                         how many sagas a second
#   make bench-snapshots                     what consistent reads cost
#   make relay, make install-relay           pg_dtx_relay, see docs/broker.md
#   make test-broker                         it, and brokers that die
#
# "make test" and "make demo" install the packages they need, so they also run where
# PostgreSQL is not installed yet (dev/setup), and use a private copy of it.

EXTENSION = pg_dtx
MODULE_big = pg_dtx
PGFILEDESC = "pg_dtx - atomic commit across postgres_fdw servers"

OBJS = \
	src/base/backoff.o \
	src/base/encoding.o \
	src/base/fault.o \
	src/base/gid.o \
	src/base/guarded.o \
	src/base/quiet.o \
	src/base/settings.o \
	src/base/siphash.o \
	src/base/stats.o \
	src/base/wakeup.o \
	src/commit/commands.o \
	src/commit/connection.o \
	src/commit/coordinator.o \
	src/commit/endpoint.o \
	src/commit/fdw_library.o \
	src/commit/fdw_session.o \
	src/commit/first.o \
	src/commit/handover.o \
	src/commit/interpose.o \
	src/commit/late.o \
	src/commit/own_writes.o \
	src/commit/participant.o \
	src/commit/passed_by.o \
	src/commit/phase_one.o \
	src/commit/phase_two.o \
	src/commit/point.o \
	src/commit/point_question.o \
	src/commit/prepare_question.o \
	src/commit/protection.o \
	src/commit/put_off.o \
	src/commit/reading.o \
	src/commit/real_libpq.o \
	src/commit/replies.o \
	src/commit/sending.o \
	src/commit/standby.o \
	src/commit/statement.o \
	src/commit/transaction.o \
	src/deadlock/ask.o \
	src/deadlock/describe.o \
	src/deadlock/detector.o \
	src/deadlock/graph.o \
	src/deadlock/here.o \
	src/deadlock/look.o \
	src/deadlock/owners.o \
	src/deadlock/questions.o \
	src/deadlock/search.o \
	src/deadlock/waits_log.o \
	src/exec/api.o \
	src/exec/rows.o \
	src/exec/run.o \
	src/exec/statements.o \
	src/net/ask_outcome.o \
	src/net/cancel.o \
	src/net/hosts.o \
	src/net/names.o \
	src/net/remote.o \
	src/net/remote_command.o \
	src/net/remote_connect.o \
	src/net/remote_park.o \
	src/net/remote_set.o \
	src/net/remote_wait.o \
	src/net/round_trip.o \
	src/net/route.o \
	src/net/session_mark.o \
	src/net/target.o \
	src/net/text.o \
	src/net/wait_set.o \
	src/net/wire.o \
	src/net/wire_wait.o \
	src/net/wrapper.o \
	src/pg_dtx.o \
	src/resolve/api.o \
	src/resolve/course.o \
	src/resolve/decider.o \
	src/resolve/facts.o \
	src/resolve/gone.o \
	src/resolve/judge.o \
	src/resolve/known_server.o \
	src/resolve/mapping.o \
	src/resolve/questions.o \
	src/resolve/resolver.o \
	src/resolve/results.o \
	src/resolve/schedule.o \
	src/resolve/timeline_history.o \
	src/resolve/unconfirmed.o \
	src/resolve/verdict.o \
	src/resolve/visit.o \
	src/resolve/worker_main.o \
	src/saga/announce.o \
	src/saga/at_commit.o \
	src/saga/call.o \
	src/saga/claims.o \
	src/saga/clock.o \
	src/saga/confirmed.o \
	src/saga/execute.o \
	src/saga/late_report.o \
	src/saga/placement.o \
	src/saga/role_type.o \
	src/saga/saga_tables.o \
	src/saga/scheduler.o \
	src/saga/session.o \
	src/saga/step.o \
	src/saga/step_worker.o \
	src/saga/stop.o \
	src/saga/wait.o \
	src/snapshot/api.o \
	src/snapshot/ask.o \
	src/snapshot/consistent_reads.o \
	src/snapshot/servers.o \
	src/snapshot/take.o \
	src/snapshot/unfinished.o \
	src/sql/adopt.o \
	src/sql/check.o \
	src/sql/drop_extension.o \
	src/sql/force.o \
	src/sql/guards.o \
	src/sql/identity_functions.o \
	src/sql/lock_waits.o \
	src/sql/self_test.o \
	src/sql/server_changes.o \
	src/sql/stat.o \
	src/sql/values.o \
	src/sql/views.o \
	src/state/activity.o \
	src/state/flushed.o \
	src/state/gate.o \
	src/state/boot.o \
	src/state/copies.o \
	src/state/damage.o \
	src/state/decision.o \
	src/state/decision_map.o \
	src/state/identity.o \
	src/state/in_doubt.o \
	src/state/tables.o \
	src/state/waits.o \
	src/worker/drop_guard.o \
	src/worker/jobs.o \
	src/worker/launcher.o \
	src/worker/register.o \
	src/worker/saga_workers.o \
	src/worker/self.o \
	src/worker/slots.o \
	src/worker/startup.o \
	src/worker/turns.o \
	src/worker/utility.o \
	src/worker/vacate.o \
	src/worker/wake.o

# "setup" makes the objects that all others use, so it comes first.
REGRESS = \
	setup \
	two_phase \
	commit_point \
	one_phase \
	reader_asked \
	errors \
	savepoints \
	cursors \
	batch_insert \
	direct_modify \
	copy \
	partitions \
	triggers \
	keep_connections \
	parallel_commit \
	async_append \
	alter_server \
	disconnect \
	non_superuser \
	views_as_owner \
	serializable \
	loopback \
	prepare_transaction \
	switched_off \
	protection \
	settings \
	privileges \
	catalog \
	views \
	overview \
	check_server \
	check \
	self_test \
	remote_exec \
	remote_exec_mixed \
	snapshot \
	resolve \
	force \
	damage \
	saga_define \
	saga_steps \
	saga_start \
	saga_trouble \
	saga_change \
	saga_external \
	saga_run \
	saga_privileges \
	outbox \
	saga_children \
	saga_more \
	gid

ISOLATION = \
	transfers \
	reader \
	snapshot_commits \
	resolver \
	saga_sessions \
	saga_queue

TAP_TESTS = 1

# "make installcheck" makes a server of its own here, with what is installed.  SERVER=
# (nothing) takes the running one that libpq finds: t/regress.conf says what it needs.
SERVER = $(CURDIR)/tmp_check
ifneq ($(SERVER),)
REGRESS_OPTS = --temp-instance=$(SERVER)/regress --temp-config=$(top_dir)/t/regress.conf
ISOLATION_OPTS = --temp-instance=$(SERVER)/isolation --temp-config=$(top_dir)/t/regress.conf
endif
# what the expected output is for
REGRESS_OPTS += --no-locale --encoding=UTF8
ISOLATION_OPTS += --no-locale --encoding=UTF8

PG_CONFIG ?= pg_config
top_dir := $(patsubst %/,%,$(dir $(abspath $(firstword $(MAKEFILE_LIST)))))

# Scripts are made of schema/ and updates/, see updates/README.md.
version := $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" '$(top_dir)/pg_dtx.control')
releases := 1.0.0 $(notdir $(patsubst %/,%,$(wildcard $(top_dir)/updates/*/)))
older := $(filter-out $(version),$(releases))
DATA_built = pg_dtx--$(version).sql $(foreach v,$(older),pg_dtx--$(v)--$(version).sql)

PG_CPPFLAGS = -I$(top_dir)/src -I$(libpq_srcdir)

EXTRA_CLEAN = relay/*.o relay/*.so relay/pg_dtx_relay bench/proxy bench/client2pc bench/own_disk.so

# "make FAULTS=1" compiles in the points at which tests make things go wrong, and
# the check that nothing is reported after the local commit (src/base/quiet.c).
ifdef FAULTS
PG_CPPFLAGS += -DDTX_FAULTS
quiet = errstart errstart_cold palloc palloc0 repalloc pstrdup MemoryContextAlloc \
	MemoryContextAllocZero MemoryContextStrdup table_open SearchSysCache1
endif

# c-ares looks up host names (src/net/names.c).
cares_libs := $(or $(shell pkg-config --libs libcares 2>/dev/null),-lcares)
PG_CPPFLAGS += $(shell pkg-config --cflags libcares 2>/dev/null)

# Functions of libpq that this library wraps are found with RTLD_NEXT, so libpq
# has to be a dependency of the library even where nothing else would need it.
SHLIB_LINK = -lpthread $(cares_libs) -Wl,--push-state,--no-as-needed $(libpq) -Wl,--pop-state \
	$(addprefix -Wl$(comma)--wrap=,$(quiet))
comma := ,

# The library shows what is PGDLLEXPORT, and nothing else.  PostgreSQL 15 defines that as
# nothing, and does not hide the rest (see PG_FUNCTION_INFO_V1 in src/base/compat.h).
PG_CPPFLAGS += '-DPGDLLEXPORT=__attribute__((visibility("default")))'

# What PostgreSQL's own headers do not keep to is left out of -Wextra.  A server
# that was built with gcc hands options to clang that clang does not know.
PG_CFLAGS = -fvisibility=hidden -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers \
	$(if $(findstring clang,$(shell $(CC) --version)), \
		-Wno-unknown-warning-option -Wno-ignored-optimization-argument \
		-Wno-ignored-attributes)

# These targets work without PostgreSQL.
dev_targets = test test-broker demo setup faults chaos races fuzz leaks deadlocks load coverage sanitize valgrind bench \
	bench-sagas bench-snapshots test-matrix test-versions test-upgrade test-examples deb dist indent spell

# What may be given to them on the command line.
export VERSIONS TESTS JOBS KEEP EVENTS CASES DURATION SEED SAGAS INTERLEAVINGS RUNS
export SESSIONS SECONDS_EACH FOREIGN_SERVERS PLANT TRANSACTIONS PASSES ROUNDS CLIENTS SERVERS DELAYS SAMPLE LOAD FLUSH PUBLISH RESULTS

relay_targets = relay install-relay

ifneq ($(filter-out $(dev_targets) $(relay_targets),$(or $(MAKECMDGOALS),all)),)

PGXS := $(shell $(PG_CONFIG) --pgxs)
ifeq ($(wildcard $(PGXS)),)
$(error PostgreSQL's development files are missing ($(PG_CONFIG) --pgxs says "$(PGXS)"); "make setup" installs them on Debian)
endif

# Bitcode for JIT needs the clang that PostgreSQL was built with; do without if
# it is not installed.
llvm_clang := $(shell sed -n 's/^CLANG *= *//p' '$(dir $(PGXS))../Makefile.global')
ifeq ($(if $(llvm_clang),$(shell command -v $(llvm_clang) 2>/dev/null)),)
override with_llvm := no
endif

include $(PGXS)

# Objects are in a subdirectory, which a build outside the source tree lacks,
# and not all servers were built with dependency tracking.
headers := $(wildcard $(top_dir)/src/*/*.h)
folders := $(addprefix $(CURDIR)/,$(sort $(patsubst %/,%,$(dir $(OBJS)))))
$(OBJS) $(OBJS:.o=.bc): $(headers) | $(folders)
$(folders):
	$(MKDIR_P) $@

# The script of a new installation; and one from each version before, of what was
# written by hand for all versions after that one, and all functions and views.
functions := $(sort $(wildcard $(top_dir)/schema/[2-8]*.sql))
pg_dtx--$(version).sql: $(sort $(wildcard $(top_dir)/schema/*.sql))
	cat $^ >$@
$(filter-out pg_dtx--$(version).sql,$(DATA_built)): pg_dtx--%--$(version).sql: $(functions) $(wildcard $(top_dir)/updates/*/*.sql)
	versions=`printf '%s\n' $(releases) | sort -uV | sed -n '/^$*$$/,$$p' | sed 1d` && \
	{ printf '%s\n' '\echo Use "ALTER EXTENSION pg_dtx UPDATE" to load this file. \quit' && \
	  for v in $$versions; do cat '$(top_dir)/updates/'$$v/tables.sql || exit; done && \
	  cat $(functions) && \
	  for v in $$versions; do cat '$(top_dir)/updates/'$$v/privileges.sql || exit; done; } >$@.tmp
	mv $@.tmp $@

installcheck: | $(SERVER)
$(SERVER):
	$(MKDIR_P) $@

# Programs of the benchmark, not installed.
.PHONY: bench-programs
bench-programs: bench/proxy bench/client2pc bench/own_disk.so
bench/%.so: $(top_dir)/bench/%.c
	@$(MKDIR_P) bench
	$(CC) -O2 -Wall -Wextra -shared -fPIC -o $@ $<
bench/%: $(top_dir)/bench/%.c
	@$(MKDIR_P) bench
	$(CC) -O2 -Wall -Wextra -I$(libpq_srcdir) -o $@ $< $(libpq) -pthread

endif

.PHONY: $(dev_targets)
$(dev_targets):
	@PG_CONFIG='$(PG_CONFIG)' '$(top_dir)/dev/run' $@

# A program of its own, which needs libpq and the brokers' libraries only.
.PHONY: $(relay_targets)
relay:
	$(MAKE) -C '$(top_dir)/relay' PG_CONFIG='$(PG_CONFIG)'
install-relay:
	$(MAKE) -C '$(top_dir)/relay' install PG_CONFIG='$(PG_CONFIG)'

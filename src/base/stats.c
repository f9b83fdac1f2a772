/*-------------------------------------------------------------------------
 *
 * stats.c
 *		Cumulative counters in shared memory, kept across a clean restart.
 *
 * The counters are atomics without a lock: they are counted by backends that
 * must not throw, and nobody needs two of them to agree.
 *
 * The postmaster writes them to a file when the server is shut down, and reads
 * and removes that file at startup.  After a crash there is no file, and the
 * counters begin at zero: a file from before would tell less than the truth
 * while it pretends to be complete.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <unistd.h>

#include "base/process.h"
#include "base/stats.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/atomics.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#define STATS_FILE		PGSTAT_STAT_PERMANENT_DIRECTORY "/pg_dtx.stat"
#define STATS_TEMP_FILE STATS_FILE ".tmp"

/* To be changed when the meaning of the file's fields does. */
#define STATS_MAGIC		0x20260002

typedef struct StatsShared
{
	pg_atomic_uint64 counters[DTX_STAT_COUNT];
	pg_atomic_uint64 reset_at;	/* TimestampTz when they were zero */
} StatsShared;

/* What the file holds.  No padding: the checksum covers every byte. */
typedef struct StatsFile
{
	uint32		magic;			/* STATS_MAGIC */
	uint32		ncounters;		/* DTX_STAT_COUNT of the writer */
	uint64		counters[DTX_STAT_COUNT];
	int64		reset_at;		/* TimestampTz when they were zero */
	uint32		unused;			/* 0 */
	pg_crc32c	crc;			/* of everything before it */
} StatsFile;

static StatsShared *stats = NULL;

static void load_stats(void);
static void save_stats(int code, Datum arg);
static bool stats_file_valid(const StatsFile *file);
static pg_crc32c stats_file_crc(const StatsFile *file);

/*
 * Bytes of shared memory that this module needs.
 */
Size
DtxStatsShmemSize(void)
{
	return MAXALIGN(sizeof(StatsShared));
}

/*
 * Create or attach to the counters.  The caller holds AddinShmemInitLock.
 */
void
DtxStatsShmemInit(void)
{
	bool		found;

	stats = ShmemInitStruct("pg_dtx statistics", sizeof(StatsShared), &found);
	if (!found)
	{
		for (int i = 0; i < DTX_STAT_COUNT; i++)
			pg_atomic_init_u64(&stats->counters[i], 0);
		pg_atomic_init_u64(&stats->reset_at, (uint64) GetCurrentTimestamp());
		load_stats();
	}

	/* Also after a crash: the postmaster forgot its callbacks then. */
	if (!IsUnderPostmaster)
		on_shmem_exit(save_stats, (Datum) 0);
}

/*
 * Count.  Never throws; any process, any time.
 */
void
DtxStatsAdd(DtxCounter counter, uint64 amount)
{
	Assert(counter >= 0 && counter < DTX_STAT_COUNT);
	pg_atomic_fetch_add_u64(&stats->counters[counter], (int64) amount);
}

/*
 * The value of a counter now; times are in microseconds.
 */
uint64
DtxStatsGet(DtxCounter counter)
{
	Assert(counter >= 0 && counter < DTX_STAT_COUNT);
	return pg_atomic_read_u64(&stats->counters[counter]);
}

/*
 * Since when the counters count.
 */
TimestampTz
DtxStatsResetAt(void)
{
	return (TimestampTz) pg_atomic_read_u64(&stats->reset_at);
}

/*
 * Set all counters to zero.  What is counted meanwhile may or may not be lost.
 */
void
DtxStatsReset(void)
{
	for (int i = 0; i < DTX_STAT_COUNT; i++)
		pg_atomic_write_u64(&stats->counters[i], 0);
	pg_atomic_write_u64(&stats->reset_at, (uint64) GetCurrentTimestamp());
}

/*
 * Take over the counters that the last clean shutdown left, and remove the
 * file, so that a crash of this server does not bring them back.
 */
static void
load_stats(void)
{
	FILE	   *fp;
	StatsFile	file;
	size_t		len;

	fp = AllocateFile(STATS_FILE, PG_BINARY_R);
	if (fp == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", STATS_FILE)));
		return;
	}

	len = fread(&file, 1, sizeof(file), fp);
	if (ferror(fp))
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", STATS_FILE)));
	else if (len != sizeof(file) || fgetc(fp) != EOF ||
			 !stats_file_valid(&file))
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("ignoring invalid data in file \"%s\"", STATS_FILE),
				 errdetail("The statistics of pg_dtx begin at zero.")));
	else
	{
		for (int i = 0; i < DTX_STAT_COUNT; i++)
			pg_atomic_write_u64(&stats->counters[i], file.counters[i]);
		pg_atomic_write_u64(&stats->reset_at, (uint64) file.reset_at);
	}

	FreeFile(fp);
	if (unlink(STATS_FILE) != 0 && errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", STATS_FILE)));
}

/*
 * Write the counters to the file, when the postmaster (or a single-user
 * backend) exits in good order.
 */
static void
save_stats(int code, Datum arg)
{
	FILE	   *fp;
	StatsFile	file;

	DtxAssertExiting();
	/* Not in a crash: shared memory may be damaged. */
	if (code != 0 || stats == NULL)
		return;

	memset(&file, 0, sizeof(file));
	file.magic = STATS_MAGIC;
	file.ncounters = DTX_STAT_COUNT;
	for (int i = 0; i < DTX_STAT_COUNT; i++)
		file.counters[i] = DtxStatsGet((DtxCounter) i);
	file.reset_at = DtxStatsResetAt();
	file.crc = stats_file_crc(&file);

	fp = AllocateFile(STATS_TEMP_FILE, PG_BINARY_W);
	if (fp == NULL)
		goto error;
	if (fwrite(&file, sizeof(file), 1, fp) != 1)
	{
		int			save_errno = errno;

		FreeFile(fp);
		errno = save_errno;
		goto error;
	}
	if (FreeFile(fp) != 0)
		goto error;

	/* Reports failures itself. */
	(void) durable_rename(STATS_TEMP_FILE, STATS_FILE, LOG);
	return;

error:
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("could not write file \"%s\": %m", STATS_TEMP_FILE)));
	unlink(STATS_TEMP_FILE);
}

static bool
stats_file_valid(const StatsFile *file)
{
	return file->magic == STATS_MAGIC &&
		file->ncounters == DTX_STAT_COUNT &&
		EQ_CRC32C(file->crc, stats_file_crc(file));
}

static pg_crc32c
stats_file_crc(const StatsFile *file)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, file, offsetof(StatsFile, crc));
	FIN_CRC32C(crc);
	return crc;
}

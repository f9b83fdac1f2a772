/*-------------------------------------------------------------------------
 *
 * copies.c
 *		Signs by which a server knows that its data directory was restored, copied or moved
 *		since it was used last.
 *
 * 	- Was it recovered from a backup, or to a target?  (recovery.signal, or backup_label
 * 	  without standby.signal, at a start since then.  Such a start leaves a random number
 * 	  in a file in the data directory.)
 * 	- Is it another cluster now (pg_upgrade, pg_resetwal), or is the timeline an
 * 	  earlier one?
 * 	- On the same timeline, is it another machine, or is pg_control another file?
 * 	  Then the data directory was copied or moved.  On a later timeline both may
 * 	  differ: a standby was promoted.
 *
 * What cannot be told apart from a crash: a copy of a whole disk or machine that keeps its
 * inode numbers and its machine identifier, started beside the original; and that of a
 * primary server whose standby was promoted beside it.  There the first minute is not
 * protected.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "state/copies.h"
#include "storage/fd.h"
#include "utils/palloc.h"

/* In the data directory: a number that each recovery from a backup changes. */
#define RECOVERY_FILE	"pg_dtx.recovery_id"

#define MACHINE_FILE	"/etc/machine-id"
#define MACHINE_SEED	UINT64CONST(0x70675f647478) /* "pg_dtx" */
#define CONTROL_FILE	"global/pg_control"

/*
 * Was this server started to be recovered from a backup, or to a target?  Then note a
 * new number in the data directory.  Returns the number there, or 0.  By the
 * postmaster, before recovery.  Throws if that file cannot be written or read.
 */
uint64
DtxCopiesNoteRecovery(void)
{
	struct stat st;
	bool		recovery = stat(RECOVERY_SIGNAL_FILE, &st) == 0;
	bool		standby = stat(STANDBY_SIGNAL_FILE, &st) == 0;
	bool		backup = stat(BACKUP_LABEL_FILE, &st) == 0;
	uint64		id = 0;
	char text[	32];
	int			fd;
	int			len;

	if ((recovery && !standby) || (backup && !standby) ||
		((recovery || standby) && recoveryTarget != RECOVERY_TARGET_UNSET))
	{
		id = DtxRandomId();
		snprintf(text, sizeof(text), "%016llx\n", (unsigned long long) id);
		fd = BasicOpenFile(RECOVERY_FILE ".tmp",
						   O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
		if (fd < 0 || write(fd, text, strlen(text)) != strlen(text) ||
			pg_fsync(fd) != 0 || close(fd) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write file \"%s\": %m",
							RECOVERY_FILE ".tmp")));
		(void) durable_rename(RECOVERY_FILE ".tmp", RECOVERY_FILE, ERROR);
		return id;
	}

	fd = BasicOpenFile(RECOVERY_FILE, O_RDONLY | PG_BINARY);
	if (fd < 0)
	{
		if (errno == ENOENT)
			return 0;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", RECOVERY_FILE)));
	}
	len = read(fd, text, sizeof(text) - 1);
	(void) close(fd);
	text[		Max(len, 0)] = '\0';

	id = strtou64(text, NULL, 16);
	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("invalid content of file \"%s\"", RECOVERY_FILE)));
	return id;
}

/* A random number that is not 0.  Throws if the system has none. */
uint64
DtxRandomId(void)
{
	uint64		id;

	do
	{
		if (!pg_strong_random(&id, sizeof(id)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random identifier for pg_dtx")));
	} while (id == 0);
	return id;
}

/*
 * What tells this machine from others, in the current memory context, or NULL.  Not
 * its identifier itself, which is confidential (machine-id(5)).
 */
char *
DtxCopiesMachineId(void)
{
	char text[	33];
	FILE	   *file = AllocateFile(MACHINE_FILE, "r");
	bool		ok;

	if (file == NULL)
		return NULL;
	ok = fgets(text, sizeof(text), file) != NULL;
	FreeFile(file);
	if (!ok || strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32)
		return NULL;
	return psprintf("%016llx",
					(unsigned long long) DatumGetUInt64(hash_any_extended((unsigned char *) text, 32, MACHINE_SEED)));
}

/*
 * The inode number of pg_control, which PostgreSQL overwrites in place.  Throws if it
 * cannot be looked at.
 */
uint64
DtxCopiesControlFile(void)
{
	struct stat st;

	if (stat(CONTROL_FILE, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", CONTROL_FILE)));
	return (uint64) st.st_ino;
}

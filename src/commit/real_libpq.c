/*-------------------------------------------------------------------------
 *
 * real_libpq.c
 *		The functions of libpq behind the wrappers of interpose.c.
 *
 * PostgreSQL opens modules with dlopen(RTLD_NOW | RTLD_GLOBAL)
 * (utils/fmgr/dfmgr.c, internal_load_library).  This module, loaded at server
 * start, exports functions with names of libpq; when postgres_fdw.so is loaded
 * later, the dynamic linker binds its references to them, by the ELF rules of
 * symbol interposition.  The real functions are found with RTLD_NEXT.
 *
 *-------------------------------------------------------------------------
 */
/* for RTLD_NEXT; must precede all headers */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "postgres.h"

#include <dlfcn.h>

#include "commit/fdw_library.h"
#include "commit/real_libpq.h"
#include "libpq-fe.h"

DtxRealLibpq dtx_real;

/* Which functions have a wrapper. */
#define WRAPPED(function)	{ #function, offsetof(DtxRealLibpq, function) }

static const struct
{
	const char *name;
	size_t		offset;			/* of the real one in dtx_real */
}			wrapped[] =

{
	WRAPPED(PQconnectdbParams),
	WRAPPED(PQconnectStartParams),
	WRAPPED(PQfinish),
	WRAPPED(PQsendQuery),
	WRAPPED(PQsendQueryParams),
	WRAPPED(PQsendPrepare),
	WRAPPED(PQsendQueryPrepared),
	WRAPPED(PQexec),
	WRAPPED(PQgetResult),
	WRAPPED(PQisBusy),
	WRAPPED(PQconsumeInput),
	WRAPPED(PQstatus),
	WRAPPED(PQtransactionStatus),
	WRAPPED(PQgetCancel),
	WRAPPED(PQcancel),
	WRAPPED(PQsetNoticeReceiver)
};

/*
 * Find the real functions and make sure that postgres_fdw will be bound to the
 * wrappers.  To be called at server start; throws, so that the server does not
 * start, if it would not.
 */
void
DtxRealLibpqFind(void)
{
	static const char *names[lengthof(wrapped)];

	for (int i = 0; i < lengthof(wrapped); i++)
		names[i] = wrapped[i].name;
	DtxFdwLibraryInit(names, lengthof(wrapped));

	for (int i = 0; i < lengthof(wrapped); i++)
	{
		void	   *first = dlsym(RTLD_DEFAULT, wrapped[i].name);
		void	  **real = (void **) ((char *) &dtx_real + wrapped[i].offset);

		*real = dlsym(RTLD_NEXT, wrapped[i].name);
		if (*real == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("could not find function \"%s\" of libpq",
							wrapped[i].name)));

		/* What is loaded later must find the wrapper first. */
		if (first == NULL ||
			!DtxFdwLibraryIsOurs(first))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("pg_dtx was loaded after another library that uses libpq"),
					 errdetail("Function \"%s\" would be called past pg_dtx, and transactions would not be atomic.",
							   wrapped[i].name),
					 errhint("Put pg_dtx first in \"shared_preload_libraries\".")));
	}

	if (DtxFdwLibraryLoaded())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_dtx was loaded after postgres_fdw"),
				 errdetail("postgres_fdw would commit past pg_dtx, and transactions would not be atomic."),
				 errhint("Put pg_dtx first in \"shared_preload_libraries\".")));
}

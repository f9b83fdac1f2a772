/*-------------------------------------------------------------------------
 *
 * call.h
 *		Calling the extension's own functions, and who has called the public ones.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_CALL_H
#define PG_DTX_CALL_H

/* The callers of the trampolines that are active, innermost first. */
typedef struct DtxSagaCaller
{
	Oid			caller;			/* role that called the public function */
	struct DtxSagaCaller *previous;
} DtxSagaCaller;

extern Datum DtxSagaCall(const char *name, int nargs, const Oid *types,
						 const Datum *args, const bool *argnulls,
						 bool *isnull);

/* The callers of the trampolines that are active, innermost first. */
extern DtxSagaCaller *DtxSagaCallers;

#endif							/* PG_DTX_CALL_H */

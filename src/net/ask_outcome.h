/*-------------------------------------------------------------------------
 *
 * ask_outcome.h
 *		How a server is asked what became of transaction ids of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ASK_OUTCOME_H
#define PG_DTX_ASK_OUTCOME_H

#include "base/outcome.h"

/*
 * What became of the transaction id "x", an SQL expression of type int8: a text that
 * DtxOutcomeParse() reads.
 *
 * txid_status() throws if an id was not assigned yet.  Whatever has ended is before
 * xmax.  What is not may be in progress, and then holds the lock of its id; it may end
 * between these two looks, so "future" is to be believed only if it is said twice.  (All
 * that is there on servers from version 10 on.)
 */
#define DTX_ASK_OUTCOME(x) \
	"CASE WHEN " x " OPERATOR(pg_catalog.<) " \
	"pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) " \
	"THEN COALESCE(pg_catalog.txid_status(" x "), 'forgotten') " \
	"WHEN EXISTS (SELECT FROM pg_catalog.pg_locks AS l " \
	"WHERE l.locktype OPERATOR(pg_catalog.=) 'transactionid' AND l.granted " \
	"AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock' " \
	"AND l.transactionid::pg_catalog.text OPERATOR(pg_catalog.=) " \
	"(" x " OPERATOR(pg_catalog.&) 4294967295)::pg_catalog.text) " \
	"THEN 'in progress' ELSE 'future' END"

extern DtxOutcome DtxOutcomeParse(const char *text);

#endif							/* PG_DTX_ASK_OUTCOME_H */

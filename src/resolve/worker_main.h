/*-------------------------------------------------------------------------
 *
 * worker_main.h
 *		The resolver: the background worker of one database that finishes what is in doubt.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WORKER_MAIN_H
#define PG_DTX_WORKER_MAIN_H

PGDLLEXPORT extern void dtx_resolver_main(Datum arg);

#endif							/* PG_DTX_WORKER_MAIN_H */

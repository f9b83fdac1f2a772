/*-------------------------------------------------------------------------
 *
 * detector.h
 *		The detector: the background worker of one database that finds deadlocks between
 *		servers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_DETECTOR_H
#define PG_DTX_DETECTOR_H

PGDLLEXPORT extern void dtx_detector_main(Datum arg);

#endif							/* PG_DTX_DETECTOR_H */

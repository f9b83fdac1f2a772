/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		The launcher: a static background worker without a database that starts those of
 *		each database that has the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_LAUNCHER_H
#define PG_DTX_LAUNCHER_H

PGDLLEXPORT extern void dtx_launcher_main(Datum arg);

#endif							/* PG_DTX_LAUNCHER_H */

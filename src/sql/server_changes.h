/*-------------------------------------------------------------------------
 *
 * server_changes.h
 *		What was known of a foreign server is not known any more when it was changed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SERVER_CHANGES_H
#define PG_DTX_SERVER_CHANGES_H

extern void DtxServerChangesInstallHooks(void);
extern void DtxServerChanged(Oid serverid);

#endif							/* PG_DTX_SERVER_CHANGES_H */

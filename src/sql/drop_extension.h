/*-------------------------------------------------------------------------
 *
 * drop_extension.h
 *		The locks of DROP EXTENSION.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_DROP_EXTENSION_H
#define PG_DTX_DROP_EXTENSION_H

extern void DtxDropExtensionInstallHook(void);

#endif							/* PG_DTX_DROP_EXTENSION_H */

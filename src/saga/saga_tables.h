/*-------------------------------------------------------------------------
 *
 * saga_tables.h
 *		Has this database the tables of sagas, and which of the sagas in them are its own?
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SAGA_TABLES_H
#define PG_DTX_SAGA_TABLES_H

extern bool DtxSagaInstalled(void);
extern Oid	DtxSagaTable(void);
extern bool DtxSagaUnfinished(void);
extern int64 DtxSagasNeedServer(Oid serverid);
extern void DtxSagaProbe(void);
extern void DtxSagaDisown(bool replaced);

#endif							/* PG_DTX_SAGA_TABLES_H */

/*-------------------------------------------------------------------------
 *
 * course.h
 *		The course of a visit, from phase to phase: connect, identify, list, judge, finish,
 *		ask; once more through another user mapping; the end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_COURSE_H
#define PG_DTX_COURSE_H

#include "resolve/visit.h"

extern void DtxVisitNext(DtxVisit *v);

#endif							/* PG_DTX_COURSE_H */

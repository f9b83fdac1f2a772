/*-------------------------------------------------------------------------
 *
 * out.h
 *		Publishing what is in dtx.outbox.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_OUT_H
#define RELAY_OUT_H

/* The thread that does it; "arg" is a Life. */
extern void *out_main(void *arg);

#endif							/* RELAY_OUT_H */

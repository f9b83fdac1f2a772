/*-------------------------------------------------------------------------
 *
 * notify.h
 *		Telling systemd how it goes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_NOTIFY_H
#define RELAY_NOTIFY_H

/* Such as "READY=1"; nothing without systemd. */
extern void notify(const char *state);

#endif							/* RELAY_NOTIFY_H */

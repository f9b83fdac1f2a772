/*-------------------------------------------------------------------------
 *
 * log.h
 *		What the relay tells of itself, on standard error.
 *
 * Nothing of what users have put into messages is ever logged: identifiers, names, and
 * what servers and brokers have said.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_LOG_H
#define RELAY_LOG_H

typedef enum LogLevel
{
	LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR
} LogLevel;

/* Below that, nothing is said. */
extern void log_set_level(LogLevel level);

/* A line, by any thread.  Line ends in it become spaces. */
extern void say(LogLevel level, const char *format,...) __attribute__((format(printf, 2, 3)));

#endif							/* RELAY_LOG_H */

/*-------------------------------------------------------------------------
 *
 * template.h
 *		Names of exchanges, topics and routing keys with parts of an event in them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_TEMPLATE_H
#define RELAY_TEMPLATE_H

/*
 * {aggregatetype}, {aggregateid} and {type} in "template" become what they are; nothing
 * in what they are is looked at again.
 */
extern char *template_fill(const char *template, const char *aggregatetype,
						   const char *aggregateid, const char *type);

#endif							/* RELAY_TEMPLATE_H */

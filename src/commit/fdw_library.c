/*-------------------------------------------------------------------------
 *
 * fdw_library.c
 *		Which of the libraries that this process has loaded are a postgres_fdw, and
 *		do their calls of libpq lead to our wrappers?
 *
 * A postgres_fdw is the mapping of a shared library in which a handler function
 * of it lies, whatever the name of the file; there may be several.  Whether its
 * calls lead to the wrappers is read from its relocations: a library that was linked
 * statically with libpq, or has found another libpq first, is known but does not
 * (DtxFdwLibraryCallsUs), and passed_by.c keeps transactions from committing past us
 * on its servers.
 *
 *-------------------------------------------------------------------------
 */
/* for dladdr and dl_iterate_phdr; must precede all headers */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "postgres.h"

#include <dlfcn.h>
#include <link.h>

#include "commit/fdw_library.h"
#include "net/wrapper.h"
#include "utils/palloc.h"

/* Functions of libpq that are wrapped, at most. */
#define MAX_WRAPPED		32

/* Their names, see DtxFdwLibraryInit(). */
static const char *const *wrapped = NULL;
static int	nwrapped = 0;

/*
 * The mappings of postgres_fdw in this process.  PostgreSQL never unloads a
 * library, so entries are only added; those that a postmaster had are inherited.
 */
#define MAX_FDW_OBJECTS	16

typedef struct FdwObject
{
	uintptr_t	start;			/* first address, and ... */
	uintptr_t	end;			/* ... the one after the last */
	bool		calls_us;		/* do its calls of libpq lead to the wrappers? */
} FdwObject;

static FdwObject fdw_objects[MAX_FDW_OBJECTS];
static int	nfdw_objects = 0;

/* Libraries loaded by this process, ever, at the last look for postgres_fdw. */
static unsigned long long objects_looked_at = 0;

/* A library that look_for_objects() has to look at. */
typedef struct LoadedObject
{
	char		path[MAXPGPATH];
	uintptr_t	start;
	uintptr_t	end;
} LoadedObject;

typedef struct LoadedObjects
{
	int			n;
	int			max;
	LoadedObject *objects;
} LoadedObjects;

static FdwObject *object_of(uintptr_t address);
static void look_for_objects(void);
static int	count_objects(struct dl_phdr_info *info, size_t size, void *data);
static int	note_object(struct dl_phdr_info *info, size_t size, void *data);
static bool is_postgres_fdw(void *handle, const LoadedObject *object);
static bool leads_to_wrappers(const struct link_map *map);
static void check_relocations(const struct link_map *map, const char *relocs,
							  size_t size, size_t entry_size,
							  const ElfW(Sym) * symbols, const char *names,
							  bool *found, bool *elsewhere);
static void *defined_in(const void *address);

/*
 * The names of the functions of libpq that are wrapped, by functions of this very
 * library.  At server start; the array must live for ever.
 */
void
DtxFdwLibraryInit(const char *const *names, int n)
{
	Assert(n <= MAX_WRAPPED);
	wrapped = names;
	nwrapped = n;
}

/*
 * Does this address lie in a function of this library, pg_dtx itself?
 */
bool
DtxFdwLibraryIsOurs(const void *address)
{
	return defined_in(address) == defined_in((const void *) DtxFdwLibraryInit);
}

/*
 * Has this process loaded any postgres_fdw?  Throws if out of memory.
 */
bool
DtxFdwLibraryLoaded(void)
{
	look_for_objects();
	return nfdw_objects > 0;
}

/*
 * Does this address lie in a postgres_fdw that was loaded before the last look for
 * one?  Does not throw.
 */
bool
DtxFdwLibraryContains(const void *address)
{
	return object_of((uintptr_t) address) != NULL;
}

/*
 * Does this address lie in a postgres_fdw?  Throws if out of memory.
 */
bool
DtxFdwLibraryFind(const void *address)
{
	if (object_of((uintptr_t) address) != NULL)
		return true;
	look_for_objects();
	return object_of((uintptr_t) address) != NULL;
}

/*
 * Do the calls of libpq that come from the library in which this function lies, a
 * handler of postgres_fdw, lead to the wrappers?  Throws if out of memory.
 */
bool
DtxFdwLibraryCallsUs(const void *handler)
{
	FdwObject  *object;

	look_for_objects();
	object = object_of((uintptr_t) handler);
	return object != NULL && object->calls_us;
}

/*
 * Has this process loaded a postgres_fdw whose calls do not lead to the wrappers?
 * Cheap as long as no library was loaded since the last call.  Throws if out of
 * memory.
 */
bool
DtxFdwLibraryAnyPassesBy(void)
{
	look_for_objects();
	for (int i = 0; i < nfdw_objects; i++)
	{
		if (!fdw_objects[i].calls_us)
			return true;
	}
	return false;
}

/* Base address of the object that an address lies in. */
static void *
defined_in(const void *address)
{
	Dl_info		info;

	return dladdr(address, &info) != 0 ? info.dli_fbase : NULL;
}

/* The postgres_fdw that an address lies in, or NULL. */
static FdwObject *
object_of(uintptr_t address)
{
	for (int i = 0; i < nfdw_objects; i++)
	{
		if (address >= fdw_objects[i].start && address < fdw_objects[i].end)
			return &fdw_objects[i];
	}
	return NULL;
}

/* dl_iterate_phdr callback: how many objects have ever been loaded? */
static int
count_objects(struct dl_phdr_info *info, size_t size, void *data)
{
	*(unsigned long long *) data = info->dlpi_adds;
	return 1;
}

/* dl_iterate_phdr callback: remember an object, or that there is no room. */
static int
note_object(struct dl_phdr_info *info, size_t size, void *data)
{
	LoadedObjects *loaded = (LoadedObjects *) data;
	LoadedObject object = {.start = UINTPTR_MAX,.end = 0};

	if (info->dlpi_name == NULL || info->dlpi_name[0] == '\0')
		return 0;				/* the program itself */
	for (int i = 0; i < info->dlpi_phnum; i++)
	{
		uintptr_t	from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;

		if (info->dlpi_phdr[i].p_type != PT_LOAD)
			continue;
		object.start = Min(object.start, from);
		object.end = Max(object.end, from + info->dlpi_phdr[i].p_memsz);
	}
	if (object.end <= object.start || object_of(object.start) != NULL)
		return 0;
	if (loaded->n < loaded->max)
	{
		strlcpy(object.path, info->dlpi_name, sizeof(object.path));
		loaded->objects[loaded->n] = object;
	}
	loaded->n++;
	return 0;
}

/*
 * If libraries were loaded since the last look, find out which of them are a
 * postgres_fdw.  Throws if out of memory, and if there are too many.
 */
static void
look_for_objects(void)
{
	unsigned long long adds = 0;
	LoadedObjects loaded;

	dl_iterate_phdr(count_objects, &adds);
	if (adds == objects_looked_at)
		return;

	loaded.max = 64;
	loaded.objects = palloc(sizeof(LoadedObject) * loaded.max);
	for (;;)
	{
		loaded.n = 0;
		dl_iterate_phdr(note_object, &loaded);
		if (loaded.n <= loaded.max)
			break;
		loaded.max = loaded.n;
		loaded.objects = repalloc(loaded.objects,
								  sizeof(LoadedObject) * loaded.max);
	}

	/* (no lock of the dynamic linker is held here, as it is in the callbacks) */
	for (int i = 0; i < loaded.n; i++)
	{
		const LoadedObject *object = &loaded.objects[i];
		void	   *handle = dlopen(object->path, RTLD_LAZY | RTLD_NOLOAD);
		struct link_map *map = NULL;

		if (handle == NULL)
			continue;
		if (is_postgres_fdw(handle, object))
		{
			if (nfdw_objects == MAX_FDW_OBJECTS)
			{
				dlclose(handle);
				ereport(ERROR,
						(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						 errmsg("too many copies of postgres_fdw are loaded")));
			}
			fdw_objects[nfdw_objects].start = object->start;
			fdw_objects[nfdw_objects].end = object->end;
			fdw_objects[nfdw_objects].calls_us =
				dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 &&
				leads_to_wrappers(map);
			nfdw_objects++;
		}
		dlclose(handle);
	}
	pfree(loaded.objects);
	objects_looked_at = adds;
}

/*
 * Does the function that makes a wrapper a postgres_fdw lie in this object itself?
 * (dlsym() looks at the libraries that it needs, too.)
 */
static bool
is_postgres_fdw(void *handle, const LoadedObject *object)
{
	uintptr_t	handler = (uintptr_t) dlsym(handle, DTX_POSTGRES_FDW_HANDLER);

	return handler >= object->start && handler < object->end;
}

/*
 * Do the calls of libpq in this object lead to the wrappers?  The dynamic linker
 * has put the addresses where its relocations say (RTLD_NOW), by the names of the
 * functions.  An object that was linked statically with libpq names none.
 */
static bool
leads_to_wrappers(const struct link_map *map)
{
	const		ElfW(Sym) * symbols = NULL;
	const char *names = NULL;
	const char *jump_relocs = NULL;
	const char *relocs[2] = {NULL, NULL};	/* with and without addends */
	size_t		jump_size = 0;
	size_t		sizes[2] = {0, 0};
	size_t		jump_entry_size = 0;
	bool		found[MAX_WRAPPED] = {false};
	bool		elsewhere = false;
	bool		connects = false;
	bool		finishes = false;
	bool		sends = false;
	bool		receives = false;

	if (map->l_ld == NULL)
		return false;
	for (const ElfW(Dyn) * dyn = map->l_ld; dyn->d_tag != DT_NULL; dyn++)
	{
		uintptr_t	address = dyn->d_un.d_ptr;

		/* The dynamic linker relocates these in place, but not everywhere. */
		if (address < map->l_addr)
			address += map->l_addr;
		switch (dyn->d_tag)
		{
			case DT_SYMTAB:
				symbols = (const ElfW(Sym) *) address;
				break;
			case DT_STRTAB:
				names = (const char *) address;
				break;
			case DT_JMPREL:
				jump_relocs = (const char *) address;
				break;
			case DT_PLTRELSZ:
				jump_size = dyn->d_un.d_val;
				break;
			case DT_PLTREL:
				jump_entry_size = dyn->d_un.d_val == DT_RELA ?
					sizeof(ElfW(Rela)) : sizeof(ElfW(Rel));
				break;
			case DT_RELA:
				relocs[0] = (const char *) address;
				break;
			case DT_RELASZ:
				sizes[0] = dyn->d_un.d_val;
				break;
			case DT_REL:
				relocs[1] = (const char *) address;
				break;
			case DT_RELSZ:
				sizes[1] = dyn->d_un.d_val;
				break;
			default:
				break;
		}
	}
	if (symbols == NULL || names == NULL)
		return false;

	if (jump_relocs != NULL && jump_entry_size != 0)
		check_relocations(map, jump_relocs, jump_size, jump_entry_size,
						  symbols, names, found, &elsewhere);
	if (relocs[0] != NULL)
		check_relocations(map, relocs[0], sizes[0], sizeof(ElfW(Rela)),
						  symbols, names, found, &elsewhere);
	if (relocs[1] != NULL)
		check_relocations(map, relocs[1], sizes[1], sizeof(ElfW(Rel)),
						  symbols, names, found, &elsewhere);

	/* No version of postgres_fdw does without these. */
	for (int i = 0; i < nwrapped; i++)
	{
		if (!found[i])
			continue;
		connects |= strcmp(wrapped[i], "PQconnectdbParams") == 0 ||
			strcmp(wrapped[i], "PQconnectStartParams") == 0;
		finishes |= strcmp(wrapped[i], "PQfinish") == 0;
		sends |= strcmp(wrapped[i], "PQsendQuery") == 0;
		receives |= strcmp(wrapped[i], "PQgetResult") == 0;
	}
	return connects && finishes && sends && receives && !elsewhere;
}

/*
 * Which of the wrapped functions do these relocations name (found), and does any
 * of them lead past its wrapper (elsewhere)?  So does one that leads to another
 * postgres_fdw that passes us by: before PostgreSQL 16, which hides them, what one
 * copy calls by name is found in the copy that was loaded first.
 */
static void
check_relocations(const struct link_map *map, const char *relocs, size_t size,
				  size_t entry_size, const ElfW(Sym) * symbols,
				  const char *names, bool *found, bool *elsewhere)
{
	void	   *us = defined_in((const void *) DtxFdwLibraryInit);

	for (size_t at = 0; at + entry_size <= size; at += entry_size)
	{
		/* ElfW(Rela) begins as ElfW(Rel) does */
		const		ElfW(Rel) * reloc = (const ElfW(Rel) *) (relocs + at);
		size_t		index = sizeof(ElfW(Addr)) == 8 ?
		(size_t) ((uint64) reloc->r_info >> 32) : (size_t) reloc->r_info >> 8;
		const char *name;
		const void *target;
		const FdwObject *other;

		if (index == 0)
			continue;
		target = *(void **) (map->l_addr + reloc->r_offset);
		other = object_of((uintptr_t) target);
		if (other != NULL && !other->calls_us)
			*elsewhere = true;
		name = names + symbols[index].st_name;
		if (name[0] != 'P' || name[1] != 'Q')
			continue;
		for (int i = 0; i < nwrapped; i++)
		{
			if (strcmp(name, wrapped[i]) != 0)
				continue;
			found[i] = true;
			if (defined_in(target) != us)
				*elsewhere = true;
		}
	}
}

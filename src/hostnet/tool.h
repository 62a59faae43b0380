/* Running a host's program (nft, dnsmasq) to its end: by exec with an argument list, never through a shell. */
#ifndef LODGE_HOSTNET_TOOL_H
#define LODGE_HOSTNET_TOOL_H

#include "base/err.h"

/*
 * Runs argv[0], looked for in PATH and in the sbin directories, with `input` (may be NULL) on its standard input, and waits for at
 * most 10 s. 0 when it ended with status 0; otherwise -errno with the first line that it wrote to standard error. -ENOENT: there is no such
 * program; `package` is named as the one that has it.
 */
int tool_run(const char *const *argv, const char *package, const char *input, struct err *err);

/* The full path of a program, or NULL; the caller frees it. */
char *tool_find(const char *name);

#endif

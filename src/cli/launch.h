/* Starting lodge-vm and waiting for its guest to end. */
#ifndef LODGE_CLI_LAUNCH_H
#define LODGE_CLI_LAUNCH_H

#include <stdbool.h>

/*
 * Runs lodge-vm on a domain document in the foreground, with our terminal, and puts the terminal back however it ends.
 * `monitor` and `gdb` are passed on, or NULL. Returns the exit status for `lodge`.
 */
int launch(const char *document, const char *monitor, const char *gdb, bool verbose);

#endif

/* The life of a lodge-vm process: one guest, its monitor, signals, and the exit status that says how it ended. */
#ifndef LODGE_MAIN_SERVE_H
#define LODGE_MAIN_SERVE_H

#include "domain/domain.h"

struct serve_options {
    const char *monitor; /* path of the monitor's socket, or NULL */
    const char *gdb;     /* where gdb finds us ("tcp=…", "unix=…"), or NULL */
    const char *incoming; /* a file that the monitor's migrate wrote: go on from there; or NULL */
    int status_fd;       /* gets "pty PATH\n" for each terminal, and "running\n" once the guest runs; -1: none */
    int end_fd;          /* gets how the guest ended, as the SHUTDOWN event's reason, and the exit status; -1: none */
    bool paused;         /* wait for the monitor's cont */
};

/* Runs the guest until it ends. `d` has its defaults and is checked. An exit status (cli/cli.h); errors are printed. */
int serve(const struct domain *d, const struct serve_options *o);

#endif

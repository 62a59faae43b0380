/* What is known of operating systems: osinfo-db's documents (Debian package osinfo-db), read directly. */
#ifndef LODGE_CLI_OSINFO_H
#define LODGE_CLI_OSINFO_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct osinfo {
    char *id;   /* "http://debian.org/debian/11" */
    char *name; /* "Debian 11" */
    char *family;
    bool net, block, gpu, rng, channel, tablet; /* it has drivers for these virtio devices (and for USB tablets) */
    uint64_t ram, storage;                      /* bytes, recommended or else needed; 0: nothing is said */
    unsigned cpus;
};

/* By short name ("debian11") or id. "generic" is always there and knows nothing. 0, or -ENOENT and *err. */
int osinfo_find(const char *name, struct osinfo *ret, struct err *err);
void osinfo_free(struct osinfo *o);
/* Prints the short names of all, one a line. */
int osinfo_list(struct err *err);

#endif

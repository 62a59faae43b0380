/* What a network backend gives to the rest of src/net/. All backends stand in backends.c. */
#ifndef LODGE_NET_BACKEND_H
#define LODGE_NET_BACKEND_H

#include "net/net.h"

struct net_backend {
    const char *kind; /* what a user writes: "user", "tap" */
    const char *summary;
    int (*open)(const struct net_options *opt, struct loop *loop, struct net **ret, struct err *err);
};

/* Every backend, NULL-terminated. */
extern const struct net_backend *const net_backends[];

extern const struct net_backend net_passt;
extern const struct net_backend net_tap;

#endif

/* Connection URIs: driver[+transport]://[host]/path[?name=value&...]. */
#ifndef LODGE_RPC_URI_H
#define LODGE_RPC_URI_H

#include <stdbool.h>

#include "base/err.h"

struct rpc_uri {
    char *driver, *transport; /* transport: NULL when not given */
    char *host;               /* NULL: this machine */
    char *path;               /* "/system" */
    char *socket;             /* ?socket=, or NULL */
    char *name;               /* what the server is asked for: without transport and socket */
};

/* 0, or -EINVAL. Free by rpc_uri_free() also then. */
int rpc_uri_parse(const char *text, struct rpc_uri *ret, struct err *err);
void rpc_uri_free(struct rpc_uri *u);

#endif

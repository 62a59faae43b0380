#include "net/net.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "net/backend.h"

int net_open(const struct net_options *opt, struct loop *loop, struct net **ret, struct err *err)
{
    char known[128] = "";
    for (const struct net_backend *const *b = net_backends; *b; b++) {
        if (!strcmp((*b)->kind, opt->kind))
            return (*b)->open(opt, loop, ret, err);
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", (*b)->kind);
    }
    return err_set(err, -EINVAL, "network '%s': no such kind of network; there are %s", opt->kind, known);
}

/* Changes to a guest's documents: the definition, the live one, or both. */
#ifndef LODGE_DAEMON_EDIT_H
#define LODGE_DAEMON_EDIT_H

#include "daemon/guest.h"

struct xml_node;

/*
 * Lets fn change a parsed copy of the definition (config) and the live document; both are put in place only if every
 * step works: fn, the check of the result, saving. `fn` returns -1 with *e. A change of the live document here is a
 * change on paper: whoever calls has changed the guest, or will.
 */
int edit_documents(struct guest *g, bool live, bool config,
                   int (*fn)(void *opaque, struct domain *d, struct rpc_error *e), void *opaque, struct rpc_error *e);

enum edit_op { EDIT_ATTACH, EDIT_DETACH, EDIT_UPDATE };
/* The same for one device (an element as libvirt's clients send it) of the definition. */
int edit_device(struct guest *g, enum edit_op op, const char *device_xml, struct rpc_error *e);

#endif

/* Elements of other programs in <metadata>, told apart by their namespace. */
#ifndef LODGE_DAEMON_METADATA_H
#define LODGE_DAEMON_METADATA_H

#include "daemon/verr.h"
#include "domain/domain.h"

/* libvirt's virDomainMetadataType. */
enum { METADATA_DESCRIPTION = 0, METADATA_TITLE = 1, METADATA_ELEMENT = 2 };

/* The element of namespace `uri`, without prefixes, as text for the caller; NULL: there is none. */
char *metadata_get(const struct domain *d, const char *uri);
/* Puts `xml` (NULL: nothing) in its place, with the prefix `key`. */
int metadata_set(struct domain *d, const char *uri, const char *key, const char *xml, struct rpc_error *e);

#endif

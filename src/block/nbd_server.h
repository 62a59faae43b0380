/*
 * An NBD server: any image, for Linux's nbd client, QEMU, libnbd. Fixed newstyle, structured replies, block status, several
 * exports and clients. Each client has a thread of its own, and helpers when its requests have to wait for a disk; what a
 * client can make us use is bounded (nbd_conn.h).
 */
#ifndef LODGE_BLOCK_NBD_SERVER_H
#define LODGE_BLOCK_NBD_SERVER_H

#include "block/image.h"

enum { NBD_BITMAPS_MAX = 16, NBD_CLIENTS_MAX = 128 };

struct nbd_export {
    const char *name, *description; /* description: may be NULL */
    struct blk_node *node;          /* not a reference: outlives the server */
    bool read_only;
    uint64_t offset, size; /* the part of the node that is shown */
    const char *bitmaps[NBD_BITMAPS_MAX]; /* persistent dirty bitmaps that clients may ask for */
    unsigned n_bitmaps;
    bool depth; /* qemu:allocation-depth */
};

struct nbd_server;

/* `exports` and what they name outlive the server. `gone` (may be NULL): a client left; from that client's thread. */
struct nbd_server *nbd_server_new(const struct nbd_export *exports, unsigned n, bool multi_conn,
                                  void (*gone)(void *opaque), void *opaque);
/* Ends all clients. NULL-safe. */
void nbd_server_free(struct nbd_server *s);
/* Serves a client on `fd` (a connected stream socket, blocking), which is taken over. 0 or -errno. */
int nbd_server_add(struct nbd_server *s, int fd);
/* Clients that are connected; of these, how many have finished the negotiation. */
unsigned nbd_server_clients(struct nbd_server *s, unsigned *ret_served);

#endif

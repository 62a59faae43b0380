/* What the drivers of pools and volumes share. */
#ifndef LODGE_DAEMON_POOL_CALLS_H
#define LODGE_DAEMON_POOL_CALLS_H

#include "daemon/daemon.h"
#include "daemon/pool.h"

void put_pool(rp_pool *ret, const struct pool *p);
/* NULL with call->error. */
struct pool *call_pool(struct daemon *d, struct rpc_call *call, const rp_pool *pool);
struct pool *call_active_pool(struct daemon *d, struct rpc_call *call, const rp_pool *pool);
void put_volume(rp_vol *ret, const struct pool *p, const struct volume *v);

/* volume_jobs.c: all answer later. */
int volume_create(struct rpc_call *call, struct pool *p, struct volume_spec *spec, unsigned flags,
                  const struct volume *source);
int volume_resize(struct rpc_call *call, struct pool *p, struct volume *v, uint64_t size, bool shrink, bool allocate);
int volume_wipe(struct rpc_call *call, struct pool *p, struct volume *v, bool trim);

/* volume_stream.c */
int volume_upload(struct daemon *d, struct rpc_call *call);
int volume_download(struct daemon *d, struct rpc_call *call);
/* NULL with call->error. */
struct volume *call_volume(struct daemon *d, struct rpc_call *call, const rp_vol *vol, struct pool **ret_pool);

#endif

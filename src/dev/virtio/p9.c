/*
 * virtio-9p: one queue of requests, answered one after the other on a thread of the device's own, by the server in
 * p9_server.c. That thread runs the queue's loop, so that a slow disk stops neither vCPUs nor the main loop. A reset
 * waits for the request under way.
 */
#include "dev/virtio/p9.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/fd.h"
#include "dev/virtio/p9_server.h"

#define F_MOUNT_TAG BIT64(0)
#define QUEUE_SIZE 128
#define TAG_MAX 200
#define BUDGET 16 /* requests of one call, so that a reset or a stop gets its turn */

struct virtio_p9 {
    struct virtio_dev virtio; /* first */
    struct p9_server *server;
    struct virtq_elem *elem;
    char *tag;
    struct loop *loop;
    pthread_t thread;
    bool started;
};

static void notify(struct virtq *q)
{
    struct virtio_p9 *p = (struct virtio_p9 *)q->dev;
    struct virtq_elem *e = p->elem;
    unsigned budget = BUDGET;
    do {
        virtq_disable_notify(q);
        while (budget && virtq_pop(q, e) > 0) {
            budget--;
            size_t n = p9_server_handle(p->server, e->iov, e->nout, virtq_in(e), e->nin);
            if (!n) {
                virtq_break(q, "9P request has no room for an answer");
                return;
            }
            virtq_push(q, e, (uint32_t)n);
            virtq_notify(q);
        }
        if (!budget) {
            virtio_kick(&p->virtio, q->index);
            return;
        }
    } while (virtq_enable_notify(q));
}

static void config_get(struct virtio_dev *dev, uint8_t *config)
{
    struct virtio_p9 *p = (struct virtio_p9 *)dev;
    le16_put(config, (uint16_t)strlen(p->tag));
    memcpy(config + 2, p->tag, strlen(p->tag));
}

static void reset(struct virtio_dev *dev)
{
    p9_server_reset(((struct virtio_p9 *)dev)->server);
}

static const struct virtio_ops p9_ops = {.notify = notify, .config_get = config_get, .reset = reset};

static void *run(void *opaque)
{
    struct virtio_p9 *p = opaque;
    pthread_setname_np(pthread_self(), "9p");
    loop_run(p->loop);
    return NULL;
}

static void destroy(struct device *dev)
{
    struct virtio_p9 *p = (struct virtio_p9 *)dev;
    if (p->started) {
        loop_quit(p->loop);
        pthread_join(p->thread, NULL);
    }
    virtio_fini(&p->virtio);
    p9_server_free(p->server);
    loop_free(p->loop);
    free(p->elem);
    free(p->tag);
    free(p);
}

/* Files that the guest has open do not survive a load: it gets -EBADF for them, and mounts again. */
static const struct state_field p9_fields[] = {VIRTIO_STATE_FIELDS(struct virtio_p9, virtio), STATE_END};
static const struct state_desc p9_state = {
    .name = "virtio-9p",
    .version = 1,
    .min_version = 1,
    .fields = p9_fields,
    .pre_save = virtio_pre_save,
    .post_load = virtio_post_load,
};

const struct device_type virtio_p9_type = {
    .name = "virtio-9p",
    .summary = "a directory of the host",
    .state = &p9_state,
    .reset = virtio_device_reset,
    .pause = virtio_device_pause,
    .destroy = destroy,
};

int virtio_p9_new(const struct virtio_p9_config *cfg, struct virtio_dev **ret, struct err *err)
{
    size_t len = strlen(cfg->tag);
    if (!len || len > TAG_MAX)
        return err_set(err, -EINVAL, "%s: the tag of a shared directory has 1 to %d bytes", cfg->id, TAG_MAX);
    struct virtio_p9 *p = xcalloc(1, sizeof *p);
    virtio_init(&p->virtio, &virtio_p9_type, cfg->id, VIRTIO_ID_9P, &p9_ops, cfg->mem, 1, (unsigned)(2 + len));
    p->virtio.host_features |= F_MOUNT_TAG;
    p->tag = xstrdup(cfg->tag);
    p->elem = virtq_elem_new(2 * QUEUE_SIZE);
    int code = p9_server_new(cfg->path, cfg->readonly, &p->server, err);
    if (!code)
        code = loop_new(&p->loop, err);
    if (!code)
        code = virtio_queue_init(&p->virtio, 0, QUEUE_SIZE, p->loop, err);
    if (!code) {
        code = -pthread_create(&p->thread, NULL, run, p);
        p->started = code == 0;
        if (code < 0)
            err_errno(err, code, "%s: cannot start a thread", cfg->id);
    }
    if (code < 0) {
        destroy(&p->virtio.dev);
        return code;
    }
    *ret = &p->virtio;
    return 0;
}

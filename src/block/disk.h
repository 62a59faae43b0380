/* A guest's disk over a graph of nodes: what disk.c, disk_queue.c, disk_pool.c and disk_limits.c share. */
#ifndef LODGE_BLOCK_DISK_H
#define LODGE_BLOCK_DISK_H

#include <pthread.h>

#include "block/block.h"
#include "block/driver.h"
#include "block/file.h"

enum { POOL_THREADS = 16 };

/* Work that blocks, done by threads that come and go with it. */
struct pool_job {
    void (*fn)(struct pool_job *job);
    struct pool_job *next;
};
struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work, gone;
    struct pool_job *head, **tail;
    unsigned threads, idle;
    bool stop;
};
void pool_init(struct pool *p);
void pool_fini(struct pool *p); /* nothing is queued */
/* Any thread. Without threads to be had, it is done at once. */
void pool_add(struct pool *p, struct pool_job *job);

/* Leaky buckets, one lock for all queues of a disk. */
struct bucket {
    double level;        /* of the average */
    double burst;        /* of the maximum */
    struct blk_rate rate;
};
struct throttle {
    pthread_mutex_t lock;
    struct blk_limits limits;
    struct bucket bytes[BLK_LIMITS], ops[BLK_LIMITS];
    uint64_t last_ns;
    _Atomic bool on;
};
void throttle_set(struct throttle *t, const struct blk_limits *limits);
/* Counts a request of `len` bytes now and returns 0, or the ns to wait first. */
uint64_t throttle_enter(struct throttle *t, bool write, uint64_t len, uint64_t now_ns);

struct disk {
    struct blk blk; /* first */
    struct blk_node *root;
    struct blk_edge *edge;
    struct pool pool;
    struct throttle throttle;
    enum blk_detect detect;
    bool no_discard;
    pthread_mutex_t lock; /* the list of queues */
    struct disk_queue *queues;
    _Atomic unsigned gate; /* > 0: new requests wait */
};

/* disk_queue.c */
struct blk_queue *disk_queue_new(struct blk *blk, struct loop *loop, struct err *err);
void disk_queue_free(struct blk_queue *q);
void disk_queue_submit(struct blk_queue *q, struct blk_req *req);
void disk_queue_kick(struct blk_queue *q);
void disk_queue_drain(struct blk_queue *q);
/* Waits for those that are inside of submit; then requests that were held go on. */
void disk_queues_close_gate(struct disk *d);
void disk_queues_open_gate(struct disk *d);

#endif

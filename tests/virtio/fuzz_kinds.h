/* What fuzz_virtio.c needs to know of each kind of device; all of them stand in fuzz_kinds.c. */
#ifndef TESTS_VIRTIO_FUZZ_KINDS_H
#define TESTS_VIRTIO_FUZZ_KINDS_H

#include <stdio.h>
#include <stdlib.h>

#include "vdriver.h"

enum { FUZZ_QUEUE_SIZE = 32 };

#define MUST(x)                                                                                                        \
    do {                                                                                                               \
        if (!(x)) {                                                                                                    \
            fprintf(stderr, "%s:%d: not so: %s (step %llu)\n", __FILE__, __LINE__, #x, (unsigned long long)fuzz_step); \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

extern uint64_t fuzz_seed, fuzz_step;
/* The next random number, 53 bits. */
uint64_t rnd(void);
static inline bool one_in(unsigned n)
{
    return rnd() % n == 0;
}

struct fuzz_kind {
    const char *name;
    struct virtio_dev *(*make)(struct vd *vd);
    /* Something a driver might put at the start of a buffer on queue q; its length, at most 128. */
    unsigned (*request)(unsigned q, uint8_t *buf);
    /* Optional: the outside world does something. */
    void (*poke)(struct virtio_dev *dev);
    /* Optional: after the device is gone. */
    void (*cleanup)(void);
};

/* NULL-terminated by name. */
extern const struct fuzz_kind fuzz_kinds[];

#endif

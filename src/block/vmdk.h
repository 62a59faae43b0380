/* What vmdk.c (the data path), vmdk_open.c (descriptors and headers) and vmdk_create.c know of each other. */
#ifndef LODGE_BLOCK_VMDK_H
#define LODGE_BLOCK_VMDK_H

#include "block/blocks.h"

enum {
    VMDK_HEADER = 512, /* of a sparse extent, little-endian */
    VMDK_H_VERSION = 4,
    VMDK_H_FLAGS = 8,
    VMDK_H_CAPACITY = 12, /* sectors */
    VMDK_H_GRAIN = 20,    /* sectors */
    VMDK_H_DESC_AT = 28,  /* sectors */
    VMDK_H_DESC_SIZE = 36,
    VMDK_H_GTES = 44,     /* entries of a grain table */
    VMDK_H_RGD = 48,      /* the redundant grain directory, sectors */
    VMDK_H_GD = 56,
    VMDK_H_OVERHEAD = 64,
    VMDK_H_NEWLINES = 73,
    VMDK_H_COMPRESS = 77,

    VMDK_FLAG_NEWLINES = 1,
    VMDK_FLAG_RGD = 2,
    VMDK_FLAG_ZERO_GRAIN = 4,
    VMDK_FLAG_COMPRESSED = 1 << 16,
    VMDK_FLAG_MARKERS = 1 << 17,

    VMDK_GTES = 512,
    VMDK_GRAIN_SECTORS = 128,
    VMDK_DESC_MAX = 1 << 20,
    VMDK_EXTENTS_MAX = 4096,
    VMDK_CACHE = 64, /* grain tables in memory, per extent */
};
#define VMDK_GD_AT_END UINT64_MAX

struct vmdk_table {
    uint32_t at; /* sector; 0: free slot */
    uint64_t used;
    uint8_t *entries;
};

struct vmdk_extent {
    struct blk_node *file; /* the node's `file`, or an extent child */
    enum { VMDK_FLAT, VMDK_SPARSE, VMDK_ZERO } kind;
    bool compressed, zero_grain, esx; /* esx: a COWD extent */
    char format[16]; /* as in the descriptor */
    uint64_t start, len; /* bytes of the disk */
    uint64_t flat_at;
    uint32_t grain; /* bytes */
    uint32_t gtes, gd_entries;
    uint8_t *gd;  /* sectors of the grain tables */
    uint8_t *rgd; /* of the redundant ones; NULL: none */
    uint64_t gd_at; /* bytes; esx: tables are made on demand */
    uint64_t end; /* where the next grain goes */
    struct vmdk_table cache[VMDK_CACHE];
};

struct vmdk {
    struct blocks b; /* first */
    struct vmdk_extent *extents;
    unsigned n_extents;
    uint32_t cid, parent_cid;
    char create_type[64];
    uint64_t clock;
    bool cid_written;
    uint64_t desc_at; /* of the descriptor in `file` */
    uint32_t desc_room;
};

/* vmdk_open.c */
int vmdk_probe(const uint8_t *head, size_t len, const char *filename);
int vmdk_open(struct blk_node *n, struct blk_opts *opts, struct err *err);
void vmdk_close(struct blk_node *n);
int vmdk_get_info(struct blk_node *n, struct blk_info *ret, struct err *err);
/* Records that the contents changed: a new CID, once per opening. */
int vmdk_touch(struct blk_node *n);

/* vmdk_create.c */
extern const struct blk_create_opt vmdk_create_opts[];
int vmdk_create(struct blk_node *file, struct blk_opts *opts, struct err *err);

/* vmdk.c */
int vmdk_look(struct blk_node *n, uint64_t index, struct block_at *ret);
int vmdk_place(struct blk_node *n, uint64_t index, struct block_at *ret);
int vmdk_publish(struct blk_node *n, uint64_t index, const struct block_at *at);
int vmdk_forget(struct blk_node *n, uint64_t index);
int vmdk_unpack(struct blk_node *n, const struct block_at *at, uint8_t *buf);

#endif

/* Opening a VMDK: the descriptor's lines, the headers of sparse extents. See vmdk.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/vmdk.h"

#define GD_MAX (64 * MIB)

int vmdk_probe(const uint8_t *head, size_t len, const char *filename)
{
    if (len >= 4 && (!memcmp(head, "KDMV", 4) || !memcmp(head, "COWD", 4)))
        return 100;
    /* A descriptor: comments and empty lines, then "version=". */
    for (size_t i = 0; i + 10 < len;) {
        const uint8_t *end = memchr(head + i, '\n', len - i);
        if (head[i] != '#' && head[i] != '\n' && head[i] != '\r' && head[i] != ' ')
            return !memcmp(head + i, "version=", 8) && head[i + 8] >= '1' && head[i + 8] <= '3' ? 100 : 0;
        if (!end)
            return 0;
        i = (size_t)(end - head) + 1;
    }
    return 0;
}

static struct vmdk_extent *add_extent(struct vmdk *v)
{
    struct vmdk_extent *bigger = realloc(v->extents, (v->n_extents + 1) * sizeof *bigger);
    if (!bigger)
        return NULL;
    v->extents = bigger;
    struct vmdk_extent *e = &bigger[v->n_extents++];
    memset(e, 0, sizeof *e);
    e->start = v->n_extents > 1 ? e[-1].start + e[-1].len : 0;
    return e;
}

/* ---- sparse extents ---- */

static int check_sparse(struct vmdk_extent *e, const char *name, struct err *err)
{
    if (!e->grain || e->grain % 512 || (e->grain & (e->grain - 1)) || e->grain > 64 << 20)
        return err_set(err, -EINVAL, "%s: invalid granularity, image may be corrupt", name);
    if (!e->gtes || e->gtes > 65536)
        return err_set(err, -EINVAL, "%s: L2 table size too big", name);
    if (e->len > INT64_MAX / 2)
        return err_set(err, -EINVAL, "%s: %" PRIu64 " bytes are too many", name, e->len);
    return 0;
}

/* The end of what tables and grains use: where the next grain goes. */
static void find_end(struct vmdk_extent *e)
{
    uint64_t size = e->file->size;
    e->end = ALIGN_UP(MAX(size, (uint64_t)512), e->compressed ? (uint64_t)512 : (uint64_t)e->grain);
}

static int open_esx(struct vmdk_extent *e, const uint8_t *h, const char *name, struct err *err)
{
    e->esx = true;
    e->len = (uint64_t)le32_get(h + 12) * 512;
    e->grain = le32_get(h + 16) * 512;
    e->gd_at = (uint64_t)le32_get(h + 20) * 512;
    e->gd_entries = le32_get(h + 24);
    e->gtes = 4096;
    int code = check_sparse(e, name, err);
    if (code == 0)
        code = blocks_read_table(e->file, "the grain directory", e->gd_at, 4ull * e->gd_entries, GD_MAX, (void **)&e->gd, err);
    find_end(e);
    return code;
}

static int open_sparse(struct blk_node *n, struct vmdk_extent *e, struct err *err)
{
    uint8_t h[VMDK_HEADER];
    const char *name = e->file->filename;
    uint64_t size = e->file->size;
    int code = blk_pread(e->file, 0, h, sizeof h);
    e->kind = VMDK_SPARSE;
    if (code == 0 && !memcmp(h, "COWD", 4)) {
        code = open_esx(e, h, name, err);
        if (code == 0 && !n->read_only)
            code = err_set(err, -ENOTSUP, "%s: ESX sparse extents can only be read", name);
        return code;
    }
    if (code == 0 && memcmp(h, "KDMV", 4))
        return err_set(err, -EINVAL, "%s: not a sparse VMDK extent", name);
    if (code == 0 && le64_get(h + VMDK_H_GD) == VMDK_GD_AT_END) { /* a stream: the real header is the footer */
        if (size < 1536)
            return err_set(err, -EINVAL, "%s: no footer", name);
        uint64_t at = ALIGN_DOWN(size, (uint64_t)512);
        code = blk_pread(e->file, at - 1024, h, sizeof h);
        if (code == 0 && memcmp(h, "KDMV", 4))
            return err_set(err, -EINVAL, "%s: the footer is missing: was the file cut off?", name);
    }
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", name);
    uint32_t version = le32_get(h + VMDK_H_VERSION), flags = le32_get(h + VMDK_H_FLAGS);
    if (version > 3)
        return err_set(err, -ENOTSUP, "Unsupported VMDK version %u", version);
    if (version == 3 && !n->read_only && !(flags & VMDK_FLAG_COMPRESSED) && !(n->flags & BLK_O_NO_IO))
        return err_set(err, -ENOTSUP, "VMDK version 3 must be read only");
    if ((flags & VMDK_FLAG_NEWLINES) && memcmp(h + VMDK_H_NEWLINES, "\n \r\n", 4))
        return err_set(err, -EINVAL, "%s: its line ends were changed on the way here (a transfer as text)", name);
    if (le64_get(h + VMDK_H_CAPACITY) > INT64_MAX / 1024)
        return err_set(err, -EINVAL, "%s: %" PRIu64 " sectors are too many", name, le64_get(h + VMDK_H_CAPACITY));
    uint64_t grain = le64_get(h + VMDK_H_GRAIN);
    if (grain > 131072)
        return err_set(err, -EINVAL, "%s: invalid granularity, image may be corrupt", name);
    e->len = le64_get(h + VMDK_H_CAPACITY) * 512;
    e->grain = (uint32_t)grain * 512;
    e->gtes = le32_get(h + VMDK_H_GTES);
    e->compressed = le16_get(h + VMDK_H_COMPRESS) == 1 && (flags & VMDK_FLAG_COMPRESSED);
    e->zero_grain = flags & VMDK_FLAG_ZERO_GRAIN;
    if ((flags & VMDK_FLAG_COMPRESSED) && !e->compressed)
        return err_set(err, -ENOTSUP, "%s: unknown compression %u", name, le16_get(h + VMDK_H_COMPRESS));
    if ((code = check_sparse(e, name, err)) < 0)
        return code;
    uint64_t per_table = (uint64_t)e->grain * e->gtes, entries = (e->len + per_table - 1) / per_table;
    if (entries > GD_MAX / 4)
        return err_set(err, -EFBIG, "%s: L1 size too big", name);
    e->gd_entries = (uint32_t)entries;
    uint64_t gd = le64_get(h + VMDK_H_GD), rgd = le64_get(h + VMDK_H_RGD);
    if (gd > INT64_MAX / 512 || rgd > INT64_MAX / 512)
        return err_set(err, -EINVAL, "%s: the grain directory lies behind the end of the file", name);
    e->gd_at = gd * 512;
    code = blocks_read_table(e->file, "the grain directory", e->gd_at, 4 * entries, GD_MAX, (void **)&e->gd, err);
    if (code == 0 && (flags & VMDK_FLAG_RGD) && rgd && !n->read_only)
        code = blocks_read_table(e->file, "the redundant grain directory", rgd * 512, 4 * entries, GD_MAX, (void **)&e->rgd,
                                 err);
    find_end(e);
    return code;
}

/* ---- the descriptor ---- */

/* The value of `key=` in a descriptor, without quotes; false: not there. */
static bool get_value(const char *text, const char *key, char *value, size_t room)
{
    size_t len = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        while (*line == ' ')
            line++;
        if (strncasecmp(line, key, len))
            continue;
        const char *v = line + len;
        while (*v == ' ')
            v++;
        if (*v++ != '=')
            continue;
        while (*v == ' ' || *v == '"')
            v++;
        size_t n = strcspn(v, "\"\r\n");
        if (n >= room)
            return false;
        memcpy(value, v, n);
        value[n] = 0;
        return true;
    }
    return false;
}

/* RW 4192256 SPARSE "name" or RW 63 FLAT "name" 0 or RW 100 ZERO. */
static int parse_extent(struct blk_node *n, struct blk_opts *opts, const char *line, struct err *err)
{
    struct vmdk *v = n->priv;
    char access[12], type[12], name[1024] = "", edge_name[32];
    uint64_t sectors = 0, flat_at = 0;
    struct blk_edge *edge;
    int fields = sscanf(line, "%10s %" SCNu64 " %11s \"%1023[^\n\r\"]\" %" SCNu64, access, &sectors, type, name, &flat_at);
    if (fields < 3 || strcmp(access, "RW"))
        return 0; /* an extent that must not be accessed */
    bool flat = !strcmp(type, "FLAT") || !strcmp(type, "VMFS"), zero = !strcmp(type, "ZERO");
    bool sparse = !strcmp(type, "SPARSE") || !strcmp(type, "VMFSSPARSE");
    if (!flat && !zero && !sparse)
        return err_set(err, -ENOTSUP, "Unsupported extent type '%s'", type);
    if (!sectors || sectors > INT64_MAX / 1024 || (!zero && fields < 4) || flat_at > INT64_MAX / 1024)
        return err_set(err, -EINVAL, "Invalid extent line: %.*s", (int)strcspn(line, "\r\n"), line);
    if (v->n_extents == VMDK_EXTENTS_MAX)
        return err_set(err, -EFBIG, "%s: more than %d extents", n->filename, VMDK_EXTENTS_MAX);
    struct vmdk_extent *e = add_extent(v);
    if (!e)
        return err_errno(err, -ENOMEM, "extent");
    snprintf(e->format, sizeof e->format, "%s", type);
    e->len = sectors * 512;
    e->kind = VMDK_ZERO;
    if (zero)
        return 0;
    snprintf(edge_name, sizeof edge_name, "extents.%u", v->n_extents - 1);
    autofree char *path = blk_path_relative(blk_node_file(n)->filename, name);
    unsigned flags = n->flags & (BLK_O_RDWR | BLK_O_DIRECT | BLK_O_NO_FLUSH | BLK_O_FORCE_SHARE | BLK_O_NO_URING | BLK_O_NO_LOCK);
    int code = blk_open_child(n, opts, edge_name, path, "file", BLK_ROLE_DATA, flags, &edge, err);
    if (code < 0)
        return code;
    e->file = edge->child;
    if (flat) {
        e->kind = VMDK_FLAT;
        e->flat_at = flat_at * 512;
        return 0;
    }
    code = open_sparse(n, e, err);
    if (code == 0 && e->len > sectors * 512)
        e->len = sectors * 512;
    return code;
}

static int parse_descriptor(struct blk_node *n, struct blk_opts *opts, char *text, bool embedded, struct err *err)
{
    struct vmdk *v = n->priv;
    char value[1024];
    if (!get_value(text, "createType", v->create_type, sizeof v->create_type))
        return err_set(err, -EINVAL, "invalid VMDK image descriptor: no createType");
    v->cid = get_value(text, "CID", value, sizeof value) ? (uint32_t)strtoul(value, NULL, 16) : 0;
    v->parent_cid = get_value(text, "parentCID", value, sizeof value) ? (uint32_t)strtoul(value, NULL, 16) : UINT32_MAX;
    if (get_value(text, "parentFileNameHint", value, sizeof value) && *value) {
        n->backing_file = xstrdup(value);
        n->backing_format = xstrdup("vmdk");
    }
    if (embedded)
        return 0;
    static const char *const types[] = {"monolithicFlat",   "vmfs",     "vmfsSparse",    "twoGbMaxExtentSparse",
                                        "twoGbMaxExtentFlat", "custom", "vmfsThin",      "monolithicSparse",
                                        "streamOptimized",  "fullDevice", "vmfsPreallocated"};
    bool known = false;
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++)
        known |= !strcmp(v->create_type, types[i]);
    if (!known)
        return err_set(err, -ENOTSUP, "Unsupported image type '%s'", v->create_type);
    for (char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : NULL) {
        int code = strncmp(line, "RW ", 3) ? 0 : parse_extent(n, opts, line, err);
        if (code < 0)
            return code;
    }
    return v->n_extents ? 0 : err_set(err, -EINVAL, "%s: no extents", n->filename);
}

static int read_text(struct blk_node *file, uint64_t at, uint64_t len, char **ret, struct err *err)
{
    char *text = NULL;
    uint64_t size = file->size;
    len = at < size ? MIN(len, size - at) : 0;
    if (len > VMDK_DESC_MAX)
        return err_set(err, -EFBIG, "%s: the descriptor is too large", file->filename);
    text = xcalloc(1, len + 1);
    int code = len ? blk_pread(file, at, text, len) : 0;
    if (code < 0) {
        free(text);
        return err_errno(err, code, "%s: cannot read", file->filename);
    }
    *ret = text;
    return 0;
}

static int open_monolithic(struct blk_node *n, struct blk_opts *opts, const uint8_t *head, struct err *err)
{
    struct vmdk *v = n->priv;
    struct vmdk_extent *e = add_extent(v);
    autofree char *text = NULL;
    if (!e)
        return err_errno(err, -ENOMEM, "extent");
    e->file = blk_node_file(n);
    int code = open_sparse(n, e, err);
    if (code < 0 || e->esx)
        return code;
    uint64_t at = le64_get(head + VMDK_H_DESC_AT), len = le64_get(head + VMDK_H_DESC_SIZE);
    if (!at || !len || at > INT64_MAX / 512 || len > VMDK_DESC_MAX / 512) {
        strcpy(v->create_type, "monolithicSparse");
        v->parent_cid = UINT32_MAX;
        return 0;
    }
    v->desc_at = at * 512;
    v->desc_room = (uint32_t)len * 512;
    code = read_text(e->file, v->desc_at, v->desc_room, &text, err);
    return code < 0 ? code : parse_descriptor(n, opts, text, true, err);
}

int vmdk_open(struct blk_node *n, struct blk_opts *opts, struct err *err)
{
    struct vmdk *v = xcalloc(1, sizeof *v);
    struct blk_node *file = blk_node_file(n);
    uint8_t head[VMDK_HEADER];
    autofree char *text = NULL;
    n->priv = v;
    int code = blk_pread(file, 0, head, sizeof head);
    if (code < 0)
        return err_errno(err, code, "%s: cannot read", n->filename);
    if (!memcmp(head, "KDMV", 4) || !memcmp(head, "COWD", 4)) {
        code = open_monolithic(n, opts, head, err);
    } else {
        v->desc_room = (uint32_t)MIN((uint64_t)file->size, (uint64_t)VMDK_DESC_MAX);
        code = read_text(file, 0, v->desc_room, &text, err);
        if (code == 0)
            code = parse_descriptor(n, opts, text, false, err);
    }
    if (code < 0)
        return code;
    /* One block size for all: that of the grains. */
    uint32_t grain = 0;
    for (unsigned i = 0; i < v->n_extents; i++)
        if (v->extents[i].kind == VMDK_SPARSE) {
            if (grain && grain != v->extents[i].grain)
                return err_set(err, -ENOTSUP, "%s: extents with different grain sizes are not supported", n->filename);
            grain = v->extents[i].grain;
        }
    n->cluster_size = grain;
    if (!grain)
        grain = 65536;
    for (unsigned i = 0; i < v->n_extents; i++)
        if (v->extents[i].start % grain)
            return err_set(err, -ENOTSUP, "%s: extent %u does not start at a multiple of the grain size", n->filename, i);
    for (unsigned i = 0; i < v->n_extents; i++)
        n->stream |= v->extents[i].compressed;
    const struct vmdk_extent *last = &v->extents[v->n_extents - 1];
    n->size = last->start + last->len;
    blk_blocks_init(&v->b, grain);
    v->b.holes = last->kind == VMDK_FLAT;
    v->b.look = vmdk_look;
    v->b.place = vmdk_place;
    v->b.publish = vmdk_publish;
    v->b.forget = vmdk_forget;
    v->b.unpack = vmdk_unpack;
    return 0;
}

void vmdk_close(struct blk_node *n)
{
    struct vmdk *v = n->priv;
    blocks_clear(&v->b);
    for (unsigned i = 0; i < v->n_extents; i++) {
        for (unsigned k = 0; k < VMDK_CACHE; k++)
            free(v->extents[i].cache[k].entries);
        free(v->extents[i].gd);
        free(v->extents[i].rgd);
    }
    free(v->extents);
    free(v);
}

/* A child records its parent's CID: it must change when the parent does. */
int vmdk_touch(struct blk_node *n)
{
    struct vmdk *v = n->priv;
    autofree char *text = NULL;
    char digits[9];
    if (v->cid_written || !v->desc_room)
        return 0;
    int code = read_text(blk_node_file(n), v->desc_at, v->desc_room, &text, NULL);
    if (code < 0)
        return code;
    char *at = !strncmp(text, "CID=", 4) ? text : strstr(text, "\nCID=");
    at = at ? strchr(at, '=') + 1 : NULL;
    if (at && strspn(at, "0123456789abcdefABCDEF") == 8) {
        v->cid = v->cid == UINT32_MAX - 1 ? 1 : v->cid + 1;
        snprintf(digits, sizeof digits, "%08x", v->cid);
        code = blk_pwrite(blk_node_file(n), v->desc_at + (uint64_t)(at - text), digits, 8, 0);
    }
    v->cid_written = code == 0;
    return code;
}

int vmdk_get_info(struct blk_node *n, struct blk_info *ret, struct err *err)
{
    const struct vmdk *v = n->priv;
    json_t *list = json_array();
    for (unsigned i = 0; i < v->n_extents; i++) {
        const struct vmdk_extent *e = &v->extents[i];
        json_t *j = json_object();
        if (e->compressed)
            json_object_set_new(j, "compressed", json_true());
        json_object_set_new(j, "virtual-size", json_integer((json_int_t)e->len));
        json_object_set_new(j, "filename", json_string(e->file ? e->file->filename : ""));
        if (e->kind == VMDK_SPARSE)
            json_object_set_new(j, "cluster-size", json_integer(e->grain));
        json_object_set_new(j, "format", json_string(e->format));
        json_array_append_new(list, j);
    }
    json_t *d = json_object();
    json_object_set_new(d, "cid", json_integer(v->cid));
    json_object_set_new(d, "parent-cid", json_integer(v->parent_cid));
    json_object_set_new(d, "create-type", json_string(v->create_type));
    json_object_set_new(d, "extents", list);
    ret->specific = d;
    return 0;
}

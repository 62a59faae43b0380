/* Creating VMDK images of all the usual kinds. See vmdk.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/vmdk.h"

enum { DESC_SECTOR = 1, DESC_SECTORS = 20 };
#define SPLIT_BYTES (2047 * MIB)
#define SIZE_MAX_BYTES (2048ull * GIB * 31) /* what 32-bit sector numbers of one extent, or all split ones, can name */

const struct blk_create_opt vmdk_create_opts[] = {
    {"size", BLK_OPT_SIZE, "Virtual disk size", NULL, false},
    {"adapter_type", BLK_OPT_STRING, "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX", NULL,
     false},
    {"backing_file", BLK_OPT_STRING, "File name of a base image", NULL, false},
    {"backing_fmt", BLK_OPT_STRING, "Must be 'vmdk' if present", NULL, false},
    {"compat6", BLK_OPT_BOOL, "VMDK version 6 image", "off", false},
    {"hwversion", BLK_OPT_STRING, "VMDK hardware version", "undefined", false},
    {"toolsversion", BLK_OPT_STRING, "VMware guest tools version", NULL, false},
    {"subformat", BLK_OPT_STRING,
     "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | twoGbMaxExtentSparse | "
     "twoGbMaxExtentFlat | streamOptimized} ",
     NULL, false},
    {"zeroed_grain", BLK_OPT_BOOL, "Enable efficient zero writes using the zeroed-grain GTE feature", NULL, false},
    {NULL},
};

/* What an image is to be. */
struct plan {
    const char *subformat, *backing;
    bool flat, split, stream, zero_grain;
    uint64_t size;
    uint32_t parent_cid;
};

/* An extent's header, both directories, and room for all grain tables. */
static int write_sparse(struct blk_node *file, const struct plan *p, uint64_t size, struct err *err)
{
    uint8_t h[VMDK_HEADER] = "KDMV";
    uint64_t capacity = size / 512, grains = (capacity + VMDK_GRAIN_SECTORS - 1) / VMDK_GRAIN_SECTORS;
    uint64_t tables = (grains + VMDK_GTES - 1) / VMDK_GTES, table_sectors = VMDK_GTES * 4 / 512;
    uint64_t gd_sectors = (tables * 4 + 511) / 512, copy = gd_sectors + tables * table_sectors;
    uint64_t rgd = DESC_SECTOR + DESC_SECTORS, gd = rgd + copy, overhead = ALIGN_UP(gd + copy, (uint64_t)VMDK_GRAIN_SECTORS);
    if (overhead > UINT32_MAX)
        return err_set(err, -EFBIG, "too large for a VMDK image");
    le32_put(h + VMDK_H_VERSION, p->stream ? 3 : p->zero_grain ? 2 : 1);
    le32_put(h + VMDK_H_FLAGS, VMDK_FLAG_NEWLINES | VMDK_FLAG_RGD | (p->stream ? VMDK_FLAG_COMPRESSED | VMDK_FLAG_MARKERS : 0) |
                                   (p->zero_grain ? VMDK_FLAG_ZERO_GRAIN : 0));
    le64_put(h + VMDK_H_CAPACITY, capacity);
    le64_put(h + VMDK_H_GRAIN, VMDK_GRAIN_SECTORS);
    le64_put(h + VMDK_H_DESC_AT, p->split ? 0 : DESC_SECTOR);
    le64_put(h + VMDK_H_DESC_SIZE, p->split ? 0 : DESC_SECTORS);
    le32_put(h + VMDK_H_GTES, VMDK_GTES);
    le64_put(h + VMDK_H_RGD, rgd);
    le64_put(h + VMDK_H_GD, gd);
    le64_put(h + VMDK_H_OVERHEAD, overhead);
    memcpy(h + VMDK_H_NEWLINES, "\n \r\n", 4);
    le16_put(h + VMDK_H_COMPRESS, p->stream ? 1 : 0);
    autofree uint8_t *dir = calloc(1, gd_sectors * 512);
    if (!dir)
        return err_errno(err, -ENOMEM, "grain directory");
    int code = blk_truncate(file, overhead * 512, BLK_PREALLOC_OFF, true, err);
    if (code < 0)
        return code;
    for (unsigned i = 0; i < 2 && code == 0; i++) {
        uint64_t start = i ? gd : rgd;
        for (uint64_t t = 0; t < tables; t++)
            le32_put(dir + 4 * t, (uint32_t)(start + gd_sectors + t * table_sectors));
        code = blk_pwrite(file, start * 512, dir, gd_sectors * 512, 0);
    }
    if (code == 0)
        code = blk_pwrite(file, 0, h, sizeof h, 0);
    return code < 0 ? err_errno(err, code, "cannot write") : 0;
}

/* "dir/name.vmdk" -> "dir/", "name". */
static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static char *extent_name(const char *path, const struct plan *p, unsigned index)
{
    const char *base = base_name(path), *dot = strrchr(base, '.');
    size_t stem = dot && !strcmp(dot, ".vmdk") ? (size_t)(dot - path) : strlen(path);
    if (!p->split)
        return xasprintf("%.*s-flat.vmdk", (int)stem, path);
    return xasprintf("%.*s-%c%03u.vmdk", (int)stem, path, p->flat ? 'f' : 's', index + 1);
}

static int create_extent(const char *name, const struct plan *p, uint64_t size, struct err *err)
{
    auto_node struct blk_node *file = NULL;
    int code = blk_file.create_file(name, 0, err);
    if (code == 0)
        code = blk_node_open(name, "file", NULL, BLK_O_RDWR | BLK_O_RESIZE, &file, err);
    if (code < 0)
        return code;
    return p->flat ? blk_truncate(file, size, BLK_PREALLOC_OFF, true, err) : write_sparse(file, p, size, err);
}

static int parent_of(struct blk_node *file, struct plan *p, struct err *err)
{
    auto_node struct blk_node *parent = NULL;
    autofree char *path = blk_path_relative(file->filename, p->backing);
    int code = blk_node_open(path, "vmdk", NULL, BLK_O_NO_BACKING, &parent, err);
    if (code == 0)
        p->parent_cid = ((struct vmdk *)parent->priv)->cid;
    return code;
}

static int parse_options(struct blk_node *file, struct blk_opts *opts, struct plan *p, struct err *err)
{
    static const char *const kinds[] = {"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
                                        "streamOptimized"};
    const char *sub = blk_opts_get(opts, "subformat"), *format = blk_opts_get(opts, "backing_fmt");
    bool compat6;
    *p = (struct plan){.parent_cid = UINT32_MAX};
    for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
        if (!strcmp(sub ? sub : kinds[0], kinds[i]))
            p->subformat = kinds[i];
    if (!p->subformat)
        return err_set(err, -EINVAL, "Invalid subformat '%s'", sub);
    int code = blk_opts_size(opts, "size", 0, &p->size, err);
    if (code == 0)
        code = blk_opts_bool(opts, "zeroed_grain", false, &p->zero_grain, err);
    if (code == 0)
        code = blk_opts_bool(opts, "compat6", false, &compat6, err);
    if (code < 0)
        return code;
    p->size = ALIGN_UP(p->size, (uint64_t)512);
    if (p->size > SIZE_MAX_BYTES)
        return err_set(err, -EFBIG, "too large for a VMDK image");
    p->flat = strstr(p->subformat, "Flat");
    p->split = !strncmp(p->subformat, "twoGb", 5);
    p->stream = !strcmp(p->subformat, "streamOptimized");
    p->backing = blk_opts_get(opts, "backing_file");
    if (p->backing && !*p->backing)
        p->backing = NULL;
    if (p->backing && p->flat)
        return err_set(err, -ENOTSUP, "Flat image can't have backing file");
    if (p->backing && format && strcmp(format, "vmdk"))
        return err_set(err, -EINVAL, "backing_file must be a vmdk image");
    if (p->zero_grain && p->flat)
        return err_set(err, -EINVAL, "Flat image can't enable zeroed grain");
    return p->backing ? parent_of(file, p, err) : 0;
}

int vmdk_create(struct blk_node *file, struct blk_opts *opts, struct err *err)
{
    struct plan p;
    char *text = NULL;
    size_t len = 0;
    uint32_t cid;
    int code = parse_options(file, opts, &p, err);
    if (code < 0)
        return code;
    const char *adapter = blk_opts_get(opts, "adapter_type"), *hw = blk_opts_get(opts, "hwversion"),
               *tools = blk_opts_get(opts, "toolsversion");
    bool compat6;
    blk_opts_bool(opts, "compat6", false, &compat6, NULL);
    if (!adapter)
        adapter = "ide";
    bool embedded = !p.flat && !p.split;
    if (getrandom(&cid, sizeof cid, 0) != sizeof cid)
        return err_errno(err, -errno, "cannot make a content ID");
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return err_errno(err, -ENOMEM, "descriptor");
    fprintf(f, "# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\ncreateType=\"%s\"\n", cid, p.parent_cid,
            p.subformat);
    if (p.backing)
        fprintf(f, "parentFileNameHint=\"%s\"\n", p.backing);
    fprintf(f, "\n# Extent description\n");
    uint64_t step = p.split ? SPLIT_BYTES : MAX(p.size, (uint64_t)512);
    unsigned i = 0;
    for (uint64_t at = 0; (at < p.size || !i) && code == 0; at += step, i++) {
        uint64_t part = MIN(step, p.size - at);
        autofree char *name = embedded ? xstrdup(file->filename) : extent_name(file->filename, &p, i);
        fprintf(f, "RW %" PRIu64 " %s \"%s\"%s\n", part / 512, p.flat ? "FLAT" : "SPARSE", base_name(name), p.flat ? " 0" : "");
        if (!embedded)
            code = create_extent(name, &p, part, err);
    }
    bool ide = !strcmp(adapter, "ide");
    uint64_t heads = ide ? 16 : 255;
    fprintf(f, "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"%s\"\nddb.geometry.cylinders = \"%" PRIu64
               "\"\nddb.geometry.heads = \"%" PRIu64 "\"\nddb.geometry.sectors = \"63\"\nddb.adapterType = \"%s\"\n"
               "ddb.toolsVersion = \"%s\"\n",
            hw && strcmp(hw, "undefined") ? hw : compat6 ? "6" : "4", p.size / (63 * heads * 512), heads, adapter,
            tools ? tools : "2147483647");
    if (fclose(f) && code == 0)
        code = err_errno(err, -ENOMEM, "descriptor");
    if (code == 0 && embedded)
        code = write_sparse(file, &p, p.size, err);
    if (code == 0 && embedded && len > DESC_SECTORS * 512)
        code = err_set(err, -EINVAL, "the descriptor is too long for its place");
    if (code == 0 && (code = blk_pwrite(file, embedded ? DESC_SECTOR * 512 : 0, text, len, 0)) < 0)
        code = err_errno(err, code, "cannot write");
    free(text);
    return code;
}

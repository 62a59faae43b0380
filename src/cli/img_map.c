/* `lodge img map`: where the contents of an image lie. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "cli/img.h"

/* Neighbouring extents that say the same are printed as one. */
struct run {
    uint64_t start, length;
    struct blk_extent e;
};

static bool joins(const struct run *a, const struct run *b)
{
    unsigned mask = BLK_STATUS_DATA | BLK_STATUS_ZERO | BLK_STATUS_ALLOCATED | BLK_STATUS_OFFSET;
    if ((a->e.flags & mask) != (b->e.flags & mask) || a->e.depth != b->e.depth || a->e.file != b->e.file)
        return false;
    return !(a->e.flags & BLK_STATUS_OFFSET) || a->e.host + a->length == b->e.host;
}

static int print_human(const struct img *img, const struct run *r)
{
    if (!(r->e.flags & BLK_STATUS_DATA) || (r->e.flags & BLK_STATUS_ZERO))
        return 0;
    if (!(r->e.flags & BLK_STATUS_OFFSET)) {
        img_error(img, "File contains external, encrypted or compressed clusters.");
        return -1;
    }
    char start[32], length[32], host[32];
    snprintf(start, sizeof start, r->start ? "0x%" PRIx64 : "0", r->start);
    snprintf(length, sizeof length, "0x%" PRIx64, r->length);
    snprintf(host, sizeof host, r->e.host ? "0x%" PRIx64 : "0", r->e.host);
    printf("%-16s%-16s%-16s%s\n", start, length, host, r->e.file ? r->e.file->filename : "");
    return 0;
}

static void print_json(const struct run *r, bool first)
{
    bool zero = r->e.flags & BLK_STATUS_ZERO, data = r->e.flags & BLK_STATUS_DATA;
    printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
           first ? "[" : ",\n", r->start, r->length, r->e.depth, r->e.flags & BLK_STATUS_ALLOCATED ? "true" : "false",
           zero ? "true" : "false", data ? "true" : "false");
    if (r->e.flags & BLK_STATUS_OFFSET)
        printf(", \"offset\": %" PRIu64, r->e.host);
    putchar('}');
}

int img_map(struct img *img, int argc, char **argv)
{
    int r = img_parse(img, argc, argv), json;
    int64_t start = 0, length = INT64_MAX;
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    if ((json = img_output(img)) < 0 || img_size_option(img, IMG_START, "start offset", 0, INT64_MAX, &start) < 0 ||
        img_size_option(img, IMG_LENGTH, "max length", 0, INT64_MAX, &length) < 0)
        return IMG_ERROR;
    auto_node struct blk_node *node = img_open_only(img, 0);
    if (!node)
        return IMG_ERROR;
    if (!json)
        printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    uint64_t end = node->size;
    if ((uint64_t)length < end && (uint64_t)start < end - (uint64_t)length)
        end = (uint64_t)start + (uint64_t)length;
    struct run run = {0};
    bool first = true;
    for (uint64_t pos = (uint64_t)start; pos < end;) {
        struct run next = {.start = pos};
        r = blk_block_status_above(node, NULL, pos, end - pos, true, &next.e);
        if (r < 0)
            return img_error(img, "Failed to read image metadata: %s", strerror(-r));
        next.length = next.e.len;
        pos += next.length;
        if (run.length && joins(&run, &next)) {
            run.length += next.length;
            continue;
        }
        if (run.length && json)
            print_json(&run, first);
        if (run.length && !json && print_human(img, &run) < 0)
            return IMG_ERROR;
        first = first && !run.length;
        run = next;
    }
    if (json) {
        if (run.length)
            print_json(&run, first);
        puts(run.length ? "]" : "[]");
    } else if (run.length && print_human(img, &run) < 0) {
        return IMG_ERROR;
    }
    return IMG_OK;
}

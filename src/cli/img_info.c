/* `lodge img info`: an image and, if asked, its backing files. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/fd.h"
#include "block/driver.h"
#include "cli/img.h"

enum { CHAIN_MAX = 1000 };

/* ---- for people ---- */

static void print_value(const json_t *j, unsigned depth);

static void print_key(const char *key, const json_t *v, unsigned depth)
{
    printf("%*s", (int)depth * 4, "");
    for (const char *c = key; *c; c++)
        putchar(*c == '-' ? ' ' : *c);
    putchar(':');
    putchar(json_is_object(v) || json_is_array(v) ? '\n' : ' ');
    print_value(v, depth);
}

static void print_value(const json_t *j, unsigned depth)
{
    const char *key;
    json_t *v;
    size_t i;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        json_object_foreach((json_t *)j, key, v)
            print_key(key, v, depth + 1);
        return;
    case JSON_ARRAY:
        json_array_foreach(j, i, v) {
            char index[32];
            snprintf(index, sizeof index, "[%zu]", i);
            print_key(index, v, depth + 1);
        }
        return;
    case JSON_STRING:
        puts(json_string_value(j));
        return;
    case JSON_INTEGER:
        printf("%lld\n", (long long)json_integer_value(j));
        return;
    case JSON_REAL:
        printf("%f\n", json_real_value(j));
        return;
    default:
        puts(json_is_true(j) ? "true" : json_is_false(j) ? "false" : "null");
    }
}

void img_print_specific(const json_t *specific)
{
    if (specific && json_object_size(specific)) {
        puts("Format specific information:");
        print_value(specific, 0);
    }
}

void img_print_snapshots(const struct blk_snapshot *sn, unsigned n)
{
    printf("%-9s %-16s %8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
    for (; n; n--, sn++) {
        char size[32], date[32] = "", clock[64], icount[32] = "";
        time_t t = sn->date_sec;
        struct tm tm;
        if (localtime_r(&t, &tm))
            strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &tm);
        uint64_t ms = sn->vm_clock_nsec / 1000000;
        snprintf(clock, sizeof clock, "%02llu:%02llu:%02llu.%03llu", (unsigned long long)(ms / 3600000),
                 (unsigned long long)(ms / 60000 % 60), (unsigned long long)(ms / 1000 % 60),
                 (unsigned long long)(ms % 1000));
        if (sn->icount != UINT64_MAX)
            snprintf(icount, sizeof icount, "%llu", (unsigned long long)sn->icount);
        printf("%-9s %-16s %8s%20s%13s%11s\n", sn->id, sn->name, img_size_text(sn->vm_state_size, size), date, clock,
               icount);
    }
}

/* What is known of one image. */
struct image {
    struct blk_node *node;
    const char *name;
    struct blk_info info;
    char *full_backing; /* NULL: none */
    struct blk_snapshot *snapshots;
    unsigned n_snapshots;
};

static void print_human(const struct image *m)
{
    char virtual[32], disk[32];
    const struct blk_info *info = &m->info;
    printf("image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\n", m->name, m->node->drv->name,
           img_size_text(info->virtual_size, virtual), (unsigned long long)info->virtual_size);
    printf("disk size: %s\n", info->actual_size == UINT64_MAX ? "unavailable" : img_size_text(info->actual_size, disk));
    if (info->encrypted)
        puts("encrypted: yes");
    if (info->cluster_size)
        printf("cluster_size: %u\n", info->cluster_size);
    if (info->dirty)
        puts("cleanly shut down: no");
    if (m->node->backing_file) {
        printf("backing file: %s", m->node->backing_file);
        if (m->full_backing && strcmp(m->full_backing, m->node->backing_file))
            printf(" (actual path: %s)", m->full_backing);
        putchar('\n');
        if (m->node->backing_format)
            printf("backing file format: %s\n", m->node->backing_format);
    }
    if (m->n_snapshots) {
        puts("Snapshot list:");
        img_print_snapshots(m->snapshots, m->n_snapshots);
    }
    img_print_specific(info->specific);
}

/* ---- for programs ---- */

static json_t *snapshot_json(const struct blk_snapshot *sn)
{
    json_t *j = json_object();
    if (sn->icount != UINT64_MAX)
        json_object_set_new(j, "icount", json_integer((json_int_t)sn->icount));
    json_object_set_new(j, "vm-clock-nsec", json_integer((json_int_t)(sn->vm_clock_nsec % 1000000000)));
    json_object_set_new(j, "name", json_string(sn->name));
    json_object_set_new(j, "date-sec", json_integer(sn->date_sec));
    json_object_set_new(j, "date-nsec", json_integer(sn->date_nsec));
    json_object_set_new(j, "vm-clock-sec", json_integer((json_int_t)(sn->vm_clock_nsec / 1000000000)));
    json_object_set_new(j, "id", json_string(sn->id));
    json_object_set_new(j, "vm-state-size", json_integer((json_int_t)sn->vm_state_size));
    return j;
}

static json_t *image_json(const struct image *m)
{
    const struct blk_info *info = &m->info;
    json_t *j = json_object();
    if (m->n_snapshots) {
        json_t *list = json_array();
        for (unsigned i = 0; i < m->n_snapshots; i++)
            json_array_append_new(list, snapshot_json(&m->snapshots[i]));
        json_object_set_new(j, "snapshots", list);
    }
    if (m->node->backing_format)
        json_object_set_new(j, "backing-filename-format", json_string(m->node->backing_format));
    json_object_set_new(j, "virtual-size", json_integer((json_int_t)info->virtual_size));
    json_object_set_new(j, "filename", json_string(m->name));
    if (info->cluster_size)
        json_object_set_new(j, "cluster-size", json_integer(info->cluster_size));
    json_object_set_new(j, "format", json_string(m->node->drv->name));
    if (info->actual_size != UINT64_MAX)
        json_object_set_new(j, "actual-size", json_integer((json_int_t)info->actual_size));
    if (info->encrypted)
        json_object_set_new(j, "encrypted", json_true());
    if (info->compressed)
        json_object_set_new(j, "compressed", json_true());
    if (info->specific && json_object_size(info->specific))
        json_object_set_new(j, "format-specific", json_pack("{s:s, s:O}", "type", m->node->drv->name, "data",
                                                            info->specific));
    if (m->full_backing)
        json_object_set_new(j, "full-backing-filename", json_string(m->full_backing));
    if (m->node->backing_file)
        json_object_set_new(j, "backing-filename", json_string(m->node->backing_file));
    json_object_set_new(j, "dirty-flag", json_boolean(info->dirty));
    return j;
}

/* ---- the verb ---- */

static void image_clear(struct image *m)
{
    blk_info_clear(&m->info);
    free(m->full_backing);
    free(m->snapshots);
    blk_node_unref(m->node);
}

/* Opens and asks. 0 or -1, an error printed. */
static int image_get(const struct img *img, const char *name, const char *format, bool image_opts, struct image *m)
{
    struct err err = {0};
    unsigned flags = BLK_O_NO_BACKING | BLK_O_NO_IO | BLK_O_CHECK;
    *m = (struct image){.name = name};
    if (img_has(img, IMG_FORCE_SHARE))
        flags |= BLK_O_FORCE_SHARE;
    m->node = img_open(img, name, format, image_opts, flags);
    if (!m->node)
        return -1;
    if (m->node->filename && (image_opts || !strncmp(name, "json:", 5)))
        m->name = m->node->filename;
    if (!strncmp(m->name, "file:", 5))
        m->name += 5;
    if (blk_get_info(m->node, &m->info, &err) < 0) {
        img_error(img, "%s: %s", name, err.msg);
        return -1;
    }
    if (m->node->backing_file)
        m->full_backing = blk_path_relative(m->node->filename, m->node->backing_file);
    int code = blk_snapshot_list(m->node, &m->snapshots, &m->n_snapshots, &err);
    if (code < 0 && code != -ENOTSUP) {
        img_error(img, "%s: %s", name, err.msg);
        return -1;
    }
    return 0;
}

static int show_chain(const struct img *img, bool json)
{
    json_t *list = json ? json_array() : NULL;
    char *seen[CHAIN_MAX + 1], *name = xstrdup(img->args[0]), *format = NULL;
    unsigned n = 0;
    int status = IMG_OK;
    if (img->value[IMG_FORMAT])
        format = xstrdup(img->value[IMG_FORMAT]);
    while (name && status == IMG_OK) {
        struct image m;
        for (unsigned i = 0; i < n && status == IMG_OK; i++)
            if (!strcmp(seen[i], name))
                status = img_error(img, "Backing file '%s' creates an infinite loop.", name);
        if (status == IMG_OK && n >= CHAIN_MAX)
            status = img_error(img, "the backing chain has more than %d images", CHAIN_MAX);
        if (status != IMG_OK)
            break;
        seen[n++] = name;
        if (image_get(img, name, format, n == 1 && img_has(img, IMG_IMAGE_OPTS), &m) < 0) {
            name = NULL;
            status = IMG_ERROR;
            image_clear(&m);
            break;
        }
        if (json) {
            json_array_append_new(list, image_json(&m));
        } else {
            if (n > 1)
                putchar('\n');
            print_human(&m);
        }
        free(format);
        name = img_has(img, IMG_CHAIN) ? ptr_take(m.full_backing) : NULL;
        format = name && m.node->backing_format ? xstrdup(m.node->backing_format) : NULL;
        image_clear(&m);
    }
    if (json && status == IMG_OK)
        img_print_json(img_has(img, IMG_CHAIN) ? json_incref(list) : json_incref(json_array_get(list, 0)));
    json_decref(list);
    if (!n || seen[n - 1] != name)
        free(name);
    for (unsigned i = 0; i < n; i++)
        free(seen[i]);
    free(format);
    return status;
}

int img_info(struct img *img, int argc, char **argv)
{
    int r = img_parse(img, argc, argv), json;
    if (r)
        return r < 0 ? IMG_ERROR : IMG_OK;
    if ((json = img_output(img)) < 0 || !img_only_arg(img))
        return IMG_ERROR;
    return show_chain(img, json);
}

/* Numbers in the stream are little-endian; names are length-prefixed (one byte). */
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

void state_writer_free(struct state_writer *w)
{
    free(w->data);
    *w = (struct state_writer){0};
}

static void put(struct state_writer *w, const void *p, size_t n)
{
    if (w->cap - w->len < n) {
        w->cap = MAX(w->cap * 2, w->len + n + 4096);
        w->data = realloc(w->data, w->cap);
        if (!w->data)
            abort();
    }
    memcpy(w->data + w->len, p, n);
    w->len += n;
}

static void put32(struct state_writer *w, uint32_t v)
{
    uint8_t b[4];
    le32_put(b, v);
    put(w, b, sizeof b);
}

static void put_name(struct state_writer *w, const char *s)
{
    uint8_t n = (uint8_t)MIN(strlen(s), 255);
    put(w, &n, 1);
    put(w, s, n);
}

static uint32_t field_bytes(const struct state_field *f)
{
    return f->size * f->count;
}

void state_save(struct state_writer *w, const struct state_desc *desc, const char *instance, void *obj)
{
    if (desc->pre_save)
        desc->pre_save(obj);
    put_name(w, desc->name);
    put_name(w, instance);
    put32(w, desc->version);
    uint32_t n = 0;
    for (const struct state_field *f = desc->fields; f->name; f++)
        n++;
    put32(w, n);
    /* The host is little-endian, as is the stream. */
    for (const struct state_field *f = desc->fields; f->name; f++) {
        put_name(w, f->name);
        put32(w, field_bytes(f));
        put(w, (const uint8_t *)obj + f->offset, field_bytes(f));
    }
}

static int get(struct state_reader *r, const uint8_t **ret, size_t n)
{
    if (r->len - r->pos < n)
        return -EINVAL;
    *ret = r->data + r->pos;
    r->pos += n;
    return 0;
}

static int get32(struct state_reader *r, uint32_t *ret)
{
    const uint8_t *p;
    if (get(r, &p, 4) < 0)
        return -EINVAL;
    *ret = le32_get(p);
    return 0;
}

static int get_name(struct state_reader *r, char ret[256])
{
    const uint8_t *p;
    if (get(r, &p, 1) < 0)
        return -EINVAL;
    size_t n = *p;
    if (get(r, &p, n) < 0)
        return -EINVAL;
    memcpy(ret, p, n);
    ret[n] = 0;
    return 0;
}

#define STATE_FIELDS_MAX 256

static const struct state_field *find_field(const struct state_desc *desc, const char *name)
{
    for (const struct state_field *f = desc->fields; f->name; f++)
        if (!strcmp(f->name, name))
            return f;
    return NULL;
}

int state_load(struct state_reader *r, const struct state_desc *desc, const char *instance, void *obj, struct err *err)
{
    char name[256], inst[256];
    uint32_t version, n;
    if (get_name(r, name) || get_name(r, inst) || get32(r, &version) || get32(r, &n))
        return err_set(err, -EINVAL, "saved state of %s: the stream ends early", desc->name);
    if (strcmp(name, desc->name) || strcmp(inst, instance))
        return err_set(err, -EINVAL, "saved state: found %s '%s' where %s '%s' belongs", name, inst, desc->name, instance);
    if (version > desc->version || version < desc->min_version)
        return err_set(err, -ENOTSUP, "saved state of %s: version %u is not between %u and %u", name, version,
                       desc->min_version, desc->version);
    bool seen[STATE_FIELDS_MAX] = {0};
    for (uint32_t i = 0; i < n; i++) {
        uint32_t len;
        const uint8_t *p;
        if (get_name(r, name) || get32(r, &len) || get(r, &p, len))
            return err_set(err, -EINVAL, "saved state of %s: the stream ends early", desc->name);
        const struct state_field *f = find_field(desc, name);
        if (!f)
            return err_set(err, -EINVAL, "saved state of %s: unknown field '%s'", desc->name, name);
        if (len != field_bytes(f))
            return err_set(err, -EINVAL, "saved state of %s: field '%s' has %u bytes, not %u", desc->name, name, len,
                           field_bytes(f));
        memcpy((uint8_t *)obj + f->offset, p, len);
        seen[f - desc->fields] = true;
    }
    for (const struct state_field *f = desc->fields; f->name; f++)
        if (f->since <= version && !seen[f - desc->fields])
            return err_set(err, -EINVAL, "saved state of %s: field '%s' is missing", desc->name, f->name);
    return desc->post_load ? desc->post_load(obj, version, err) : 0;
}

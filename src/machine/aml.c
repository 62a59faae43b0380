/* ACPI Machine Language writer. Pure functions on a buffer; grows it, aborts when memory is out (all of it is our own
 * data). */
#include "machine/aml.h"

#include <stdlib.h>

#include "base/bits.h"

void aml_free(struct aml *a)
{
    free(a->data);
    *a = (struct aml){0};
}

void aml_bytes(struct aml *a, const void *p, size_t len)
{
    if (a->len + len > a->cap) {
        a->cap = MAX(a->cap * 2, a->len + len + 256);
        a->data = realloc(a->data, a->cap);
        if (!a->data)
            abort();
    }
    memcpy(a->data + a->len, p, len);
    a->len += len;
}

void aml_byte(struct aml *a, uint8_t v)
{
    aml_bytes(a, &v, 1);
}

static void put16(struct aml *a, uint16_t v)
{
    v = htole16(v);
    aml_bytes(a, &v, 2);
}
static void put32(struct aml *a, uint32_t v)
{
    v = htole32(v);
    aml_bytes(a, &v, 4);
}
static void put64(struct aml *a, uint64_t v)
{
    v = htole64(v);
    aml_bytes(a, &v, 8);
}

void aml_path(struct aml *a, const char *path)
{
    if (*path == '\\')
        aml_byte(a, (uint8_t)*path++);
    size_t n = strlen(path) / 4;
    if (n == 2) {
        aml_byte(a, 0x2e);
    } else if (n > 2) {
        aml_byte(a, 0x2f);
        aml_byte(a, (uint8_t)n);
    }
    aml_bytes(a, path, n * 4);
}

/* The length goes where the mark stands, when the object is closed. */
size_t aml_open_scope(struct aml *a, const char *path)
{
    aml_byte(a, 0x10);
    size_t mark = a->len;
    aml_path(a, path);
    return mark;
}

size_t aml_open_device(struct aml *a, const char *name)
{
    aml_byte(a, 0x5b);
    aml_byte(a, 0x82);
    size_t mark = a->len;
    aml_path(a, name);
    return mark;
}

size_t aml_open_method(struct aml *a, const char *name, unsigned args)
{
    aml_byte(a, 0x14);
    size_t mark = a->len;
    aml_path(a, name);
    aml_byte(a, (uint8_t)(args | 8)); /* serialized: methods here may create named objects */
    return mark;
}

size_t aml_open_package(struct aml *a, unsigned elements)
{
    aml_byte(a, 0x12);
    size_t mark = a->len;
    aml_byte(a, (uint8_t)elements);
    return mark;
}

/* PkgLength (20.2.4) counts itself. */
void aml_close(struct aml *a, size_t mark)
{
    size_t body = a->len - mark, n = body + 1 < 64 ? 1 : body + 2 < 4096 ? 2 : 3, total = body + n;
    uint8_t l[3];
    if (n == 1) {
        l[0] = (uint8_t)total;
    } else {
        l[0] = (uint8_t)((n - 1) << 6 | (total & 15));
        l[1] = (uint8_t)(total >> 4);
        l[2] = (uint8_t)(total >> 12);
    }
    static const uint8_t zero[3];
    aml_bytes(a, zero, n);
    memmove(a->data + mark + n, a->data + mark, body);
    memcpy(a->data + mark, l, n);
}

void aml_int(struct aml *a, uint64_t v)
{
    if (v <= 1) {
        aml_byte(a, (uint8_t)v);
    } else if (v <= 0xff) {
        aml_byte(a, 0x0a);
        aml_byte(a, (uint8_t)v);
    } else if (v <= 0xffff) {
        aml_byte(a, 0x0b);
        put16(a, (uint16_t)v);
    } else if (v <= 0xffffffff) {
        aml_byte(a, 0x0c);
        put32(a, (uint32_t)v);
    } else {
        aml_byte(a, 0x0e);
        put64(a, v);
    }
}

void aml_str(struct aml *a, const char *s)
{
    aml_byte(a, 0x0d);
    aml_bytes(a, s, strlen(s) + 1);
}

static unsigned hex(char c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/* Three letters of 5 bits and four hexadecimal digits, big-endian (19.3.4). */
void aml_eisaid(struct aml *a, const char *id)
{
    uint32_t v = (uint32_t)(id[0] - 0x40) << 26 | (uint32_t)(id[1] - 0x40) << 21 | (uint32_t)(id[2] - 0x40) << 16 |
                 hex(id[3]) << 12 | hex(id[4]) << 8 | hex(id[5]) << 4 | hex(id[6]);
    aml_byte(a, 0x0c);
    put32(a, __builtin_bswap32(v));
}

void aml_name(struct aml *a, const char *name)
{
    aml_byte(a, 0x08);
    aml_path(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
    aml_name(a, name);
    aml_int(a, v);
}

void aml_name_str(struct aml *a, const char *name, const char *s)
{
    aml_name(a, name);
    aml_str(a, s);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
    aml_name(a, name);
    aml_eisaid(a, id);
}

void res_io(struct aml *r, uint16_t base, uint8_t len)
{
    aml_byte(r, 0x47);
    aml_byte(r, 1); /* decodes 16 bits */
    put16(r, base);
    put16(r, base);
    aml_byte(r, 1);
    aml_byte(r, len);
}

void res_irq_edge(struct aml *r, unsigned irq)
{
    aml_byte(r, 0x22);
    put16(r, (uint16_t)(1u << irq));
}

void res_interrupt(struct aml *r, uint32_t gsi)
{
    aml_byte(r, 0x89);
    put16(r, 6);
    aml_byte(r, 1); /* consumer, level, active high, exclusive */
    aml_byte(r, 1);
    put32(r, gsi);
}

void res_memory32(struct aml *r, uint32_t base, uint32_t len)
{
    aml_byte(r, 0x86);
    put16(r, 9);
    aml_byte(r, 1); /* writable */
    put32(r, base);
    put32(r, len);
}

/* Address spaces (6.4.3.5): kind 0 memory, 1 I/O, 2 bus; min and max fixed, positive decode, producer. */
void res_bus_window(struct aml *r, uint16_t first, uint16_t last)
{
    aml_byte(r, 0x88);
    put16(r, 0x0d);
    aml_byte(r, 2);
    aml_byte(r, 0x0c);
    aml_byte(r, 0);
    put16(r, 0);
    put16(r, first);
    put16(r, last);
    put16(r, 0);
    put16(r, (uint16_t)(last - first + 1));
}

void res_io_window(struct aml *r, uint16_t first, uint16_t last)
{
    aml_byte(r, 0x88);
    put16(r, 0x0d);
    aml_byte(r, 1);
    aml_byte(r, 0x0c);
    aml_byte(r, 3); /* entire range */
    put16(r, 0);
    put16(r, first);
    put16(r, last);
    put16(r, 0);
    put16(r, (uint16_t)(last - first + 1));
}

void res_mem_window32(struct aml *r, uint32_t first, uint32_t last)
{
    aml_byte(r, 0x87);
    put16(r, 0x17);
    aml_byte(r, 0);
    aml_byte(r, 0x0c);
    aml_byte(r, 1); /* not cacheable, read-write */
    put32(r, 0);
    put32(r, first);
    put32(r, last);
    put32(r, 0);
    put32(r, last - first + 1);
}

void res_mem_window64(struct aml *r, uint64_t first, uint64_t last)
{
    aml_byte(r, 0x8a);
    put16(r, 0x2b);
    aml_byte(r, 0);
    aml_byte(r, 0x0c);
    aml_byte(r, 7); /* cacheable and prefetchable, read-write */
    put64(r, 0);
    put64(r, first);
    put64(r, last);
    put64(r, 0);
    put64(r, last - first + 1);
}

void aml_name_crs(struct aml *a, struct aml *r)
{
    aml_byte(r, 0x79); /* end tag, checksum 0: not used */
    aml_byte(r, 0);
    aml_name(a, "_CRS");
    aml_byte(a, 0x11);
    size_t mark = a->len;
    aml_int(a, r->len);
    aml_bytes(a, r->data, r->len);
    aml_close(a, mark);
    aml_free(r);
}

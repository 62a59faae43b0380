/* SMBIOS tables. Offsets are those of DSP0134 3.6. Pure data from our own configuration. */
#include "machine/smbios.h"

#include <errno.h>
#include <stdio.h>

#define AREA SMBIOS_IMAGE_MAX
#define FORMATTED_MAX 64

struct tables {
    uint8_t buf[AREA];
    size_t len;
    uint16_t handle;
    int full;
};

/* A structure being made: its formatted part, and its strings. */
struct item {
    uint8_t f[FORMATTED_MAX];
    char strings[512];
    size_t strings_len;
    unsigned n_strings;
};

static uint8_t str(struct item *i, const char *s)
{
    size_t n = s ? strlen(s) : 0;
    if (!n || i->strings_len + n + 2 > sizeof i->strings)
        return 0;
    memcpy(i->strings + i->strings_len, s, n + 1);
    i->strings_len += n + 1;
    return (uint8_t)++i->n_strings;
}

static uint16_t put(struct tables *t, struct item *i, unsigned type, unsigned len)
{
    size_t strings = i->strings_len ? i->strings_len + 1 : 2;
    if (t->len + len + strings > AREA) {
        t->full = 1;
        return 0xffff;
    }
    i->f[0] = (uint8_t)type;
    i->f[1] = (uint8_t)len;
    le16_put(i->f + 2, t->handle);
    memcpy(t->buf + t->len, i->f, len);
    memcpy(t->buf + t->len + len, i->strings, strings);
    t->len += len + strings;
    return t->handle++;
}

static void firmware(struct tables *t)
{
    struct item i = {0};
    i.f[4] = str(&i, "Lodge");
    i.f[5] = str(&i, LODGE_VERSION);
    le16_put(i.f + 6, 0xe800);
    i.f[8] = str(&i, "01/01/2025");
    le64_put(i.f + 10, BIT(3)); /* characteristics not supported */
    i.f[19] = BIT(4) | BIT(2);  /* a virtual machine; targeted content distribution */
    i.f[22] = i.f[23] = 0xff;
    put(t, &i, 0, 0x1a);
}

static void system_and_chassis(struct tables *t, const struct smbios_config *c)
{
    struct item s = {0}, e = {0};
    s.f[4] = str(&s, c->manufacturer ? c->manufacturer : "Lodge");
    s.f[5] = str(&s, c->product ? c->product : "Lodge virtual machine");
    s.f[6] = str(&s, c->version ? c->version : LODGE_VERSION);
    s.f[7] = str(&s, c->serial);
    /* The first three fields are little-endian (7.2.1). */
    static const uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    for (unsigned k = 0; k < 16; k++)
        s.f[8 + k] = c->uuid[order[k]];
    s.f[24] = 6; /* power switch */
    put(t, &s, 1, 0x1b);

    e.f[4] = str(&e, c->manufacturer ? c->manufacturer : "Lodge");
    e.f[5] = 1; /* other */
    e.f[6] = str(&e, c->version ? c->version : LODGE_VERSION);
    e.f[9] = e.f[10] = e.f[11] = 3;
    e.f[12] = 2;
    put(t, &e, 3, 0x16);
}

static void processors(struct tables *t, const struct smbios_config *c)
{
    unsigned sockets = MAX(c->sockets, 1u), cores = MAX(c->cores, 1u), threads = MAX(c->threads, cores);
    for (unsigned n = 0; n < sockets && n < 16; n++) {
        struct item i = {0};
        char name[16];
        snprintf(name, sizeof name, "CPU %u", n);
        i.f[4] = str(&i, name);
        i.f[5] = 3; /* central processor */
        i.f[6] = 1; /* other family */
        i.f[7] = str(&i, "Lodge");
        le32_put(i.f + 8, c->cpu_signature);
        le32_put(i.f + 12, c->cpu_features);
        i.f[16] = str(&i, "virtual");
        le16_put(i.f + 20, 2000);
        le16_put(i.f + 22, 2000);
        i.f[24] = 0x41; /* populated, enabled */
        i.f[25] = 1;
        le16_put(i.f + 26, 0xffff);
        le16_put(i.f + 28, 0xffff);
        le16_put(i.f + 30, 0xffff);
        i.f[35] = i.f[36] = (uint8_t)MIN(cores, 255u);
        i.f[37] = (uint8_t)MIN(threads, 255u);
        le16_put(i.f + 38, BIT(2)); /* 64-bit */
        le16_put(i.f + 40, 1);
        le16_put(i.f + 42, (uint16_t)cores);
        le16_put(i.f + 44, (uint16_t)cores);
        le16_put(i.f + 46, (uint16_t)threads);
        put(t, &i, 4, 0x30);
    }
}

static void mapped(struct tables *t, uint16_t array, uint64_t start, uint64_t size)
{
    struct item i = {0};
    if (!size)
        return;
    le32_put(i.f + 4, 0xffffffff);
    le32_put(i.f + 8, 0xffffffff);
    le16_put(i.f + 12, array);
    i.f[14] = 1;
    le64_put(i.f + 15, start);
    le64_put(i.f + 23, start + size - 1);
    put(t, &i, 19, 0x1f);
}

static void memory(struct tables *t, const struct mem *m)
{
    struct item a = {0}, d = {0};
    a.f[4] = 1; /* other location */
    a.f[5] = 3; /* system memory */
    a.f[6] = 6; /* multi-bit ECC */
    le32_put(a.f + 7, 0x80000000);
    le16_put(a.f + 11, 0xfffe);
    le16_put(a.f + 13, 1);
    le64_put(a.f + 15, m->ram_size);
    uint16_t array = put(t, &a, 16, 0x17);

    uint64_t mb = m->ram_size / MIB;
    le16_put(d.f + 4, array);
    le16_put(d.f + 6, 0xfffe);
    le16_put(d.f + 8, 0xffff);
    le16_put(d.f + 10, 0xffff);
    le16_put(d.f + 12, mb >= 0x7fff ? 0x7fff : (uint16_t)mb);
    d.f[14] = 9; /* DIMM */
    d.f[16] = str(&d, "DIMM 0");
    d.f[18] = 7; /* RAM */
    le16_put(d.f + 19, BIT(1));
    d.f[23] = str(&d, "Lodge");
    le32_put(d.f + 28, mb >= 0x7fff ? (uint32_t)mb : 0);
    put(t, &d, 17, 0x28);
    mapped(t, array, 0, m->low_size);
    mapped(t, array, MEM_HIGH_BASE, m->ram_size - m->low_size);
}

int smbios_make(const struct smbios_config *c, const struct mem *mem, gpa_t at, struct smbios_image *ret, struct err *err)
{
    struct tables t = {0};
    uint8_t *e = ret->entry, sum = 0;

    firmware(&t);
    system_and_chassis(&t, c);
    processors(&t, c);
    memory(&t, mem);
    struct item boot = {0}, end = {0};
    put(&t, &boot, 32, 0x0b);
    put(&t, &end, 127, 4);
    if (t.full)
        return err_set(err, -ENOSPC, "the SMBIOS tables do not fit into their area");
    memset(ret->entry, 0, sizeof ret->entry);
    memcpy(e, "_SM3_", 5);
    e[6] = SMBIOS_ENTRY_SIZE;
    e[7] = 3;
    e[10] = 1;
    le32_put(e + 12, (uint32_t)t.len);
    le64_put(e + 16, at);
    for (unsigned i = 0; i < SMBIOS_ENTRY_SIZE; i++)
        sum += e[i];
    e[5] = (uint8_t)-sum;
    memcpy(ret->data, t.buf, t.len);
    ret->len = t.len;
    return 0;
}

int smbios_build(const struct smbios_config *c, struct mem *mem, struct err *err)
{
    const gpa_t tables = SMBIOS_AREA_BASE + 0x20;
    struct smbios_image img;
    int code = smbios_make(c, mem, tables, &img, err);
    if (code < 0)
        return code;
    if (mem_write(mem, SMBIOS_AREA_BASE, img.entry, sizeof img.entry) < 0 || mem_write(mem, tables, img.data, img.len) < 0)
        return err_set(err, -EFAULT, "the guest has too little memory for SMBIOS tables");
    return 0;
}

/* ACPI tables but for the DSDT's body. Field offsets are those of ACPI 6.5, ch. 5. */
#include "machine/acpi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "machine/acpi_priv.h"

#define HEADER 36
#define FADT_SIZE 276
#define FACS_SIZE 64
#define TABLES_MAX 8

struct tables {
    struct acpi_image *img;
    gpa_t base;
    uint64_t max; /* bytes the image may have */
    gpa_t table[TABLES_MAX]; /* for the XSDT */
    unsigned n;
    struct err *err;
    int failed;
};

static uint8_t sum8(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    for (size_t i = 0; i < len; i++)
        s += p[i];
    return s;
}

static void header(uint8_t *t, const char *sig, unsigned rev)
{
    memcpy(t, sig, 4);
    t[8] = (uint8_t)rev;
    memcpy(t + 10, "LODGE ", 6);
    memcpy(t + 16, "LODGEVM ", 8);
    le32_put(t + 24, 1);
    memcpy(t + 28, "LDGE", 4);
    le32_put(t + 32, 1);
}

/* Puts `len` bytes at the next free place of the image, aligned. Returns their address. */
static gpa_t place(struct tables *t, const void *data, size_t len, uint64_t align)
{
    struct acpi_image *img = t->img;
    gpa_t at = ALIGN_UP(t->base + img->len, align);
    uint64_t off = at - t->base;
    if (t->failed)
        return at;
    if (off > t->max || len > t->max - off) {
        t->failed = err_set(t->err, -ENOSPC, "the ACPI tables do not fit into their area");
        return at;
    }
    uint8_t *data_new = realloc(img->data, off + len);
    if (!data_new)
        abort();
    img->data = data_new;
    memset(img->data + img->len, 0, off - img->len);
    memcpy(img->data + off, data, len);
    img->len = off + len;
    return at;
}

/* Says that the `size` bytes at address `at` are the address of something in the image. */
static void pointer(struct tables *t, gpa_t at, unsigned size)
{
    struct acpi_image *img = t->img;
    if (img->n_pointers < ACPI_POINTERS_MAX)
        img->pointer[img->n_pointers++] = (struct acpi_pointer){(uint32_t)(at - t->base), (uint8_t)size};
}

/* Completes and places a table with the common header. */
static gpa_t finish(struct tables *t, uint8_t *table, size_t len)
{
    le32_put(table + 4, (uint32_t)len);
    table[9] = 0;
    table[9] = (uint8_t)-sum8(table, len);
    gpa_t at = place(t, table, len, 16);
    if (t->img->n_tables < ACPI_TABLES_MAX)
        t->img->table[t->img->n_tables++] = (struct acpi_span){(uint32_t)(at - t->base), (uint32_t)len};
    return at;
}

static void list(struct tables *t, gpa_t gpa)
{
    if (t->n < TABLES_MAX)
        t->table[t->n++] = gpa;
}

/* Generic Address Structure (5.2.3.2). space: 0 memory, 1 I/O. */
static void gas(uint8_t *p, unsigned space, unsigned bits, uint64_t addr)
{
    p[0] = (uint8_t)space;
    p[1] = (uint8_t)bits;
    p[2] = 0;
    p[3] = bits == 8 ? 1 : bits == 16 ? 2 : bits == 32 ? 3 : 0;
    le64_put(p + 4, addr);
}

static void fadt(struct tables *t, const struct acpi_config *c, gpa_t dsdt)
{
    enum {
        WBINVD = 1,
        PROC_C1 = 4,
        PWR_BUTTON = 16,
        SLP_BUTTON = 32,
        FIX_RTC = 64,
        TMR_VAL_EXT = 256,
        RESET_REG = 1024,
        HW_REDUCED = 1 << 20
    };
    uint8_t f[FADT_SIZE] = {0};
    uint32_t flags = WBINVD | PROC_C1;
    uint16_t arch = BIT(2); /* no VGA to be probed */

    header(f, "FACP", 6);
    le32_put(f + 40, (uint32_t)dsdt);
    le64_put(f + 140, dsdt);
    f[131] = 4; /* minor version */
    if (c->uarts || c->i8042)
        arch |= BIT(0);
    if (c->i8042)
        arch |= BIT(1);
    if (!c->rtc)
        arch |= BIT(5);
    le16_put(f + 109, arch);
    if (c->hw_reduced) {
        flags |= HW_REDUCED | PWR_BUTTON | SLP_BUTTON;
        gas(f + 244, 0, 8, c->sleep_control);
        gas(f + 256, 0, 8, c->sleep_status);
    } else {
        uint8_t facs[FACS_SIZE] = "FACS";
        le32_put(facs + 4, sizeof facs);
        facs[32] = 2;
        gpa_t at = place(t, facs, sizeof facs, 64);
        le32_put(f + 36, (uint32_t)at);
        le16_put(f + 46, c->sci);
        le32_put(f + 48, c->smi_cmd);
        f[52] = c->acpi_enable;
        f[53] = c->acpi_disable;
        le32_put(f + 56, c->pm1_evt);
        le32_put(f + 64, c->pm1_cnt);
        f[88] = c->pm1_evt ? 4 : 0;
        f[89] = c->pm1_cnt ? 2 : 0;
        gas(f + 148, 1, 32, c->pm1_evt);
        gas(f + 172, 1, 16, c->pm1_cnt);
        if (c->pm_timer) {
            flags |= TMR_VAL_EXT;
            le32_put(f + 76, c->pm_timer);
            f[91] = 4;
            gas(f + 208, 1, 32, c->pm_timer);
        }
        if (c->gpe0) {
            le32_put(f + 80, c->gpe0);
            f[92] = c->gpe0_len;
            gas(f + 220, 1, c->gpe0_len * 8u, c->gpe0);
        }
        le16_put(f + 96, 0xfff); /* no C2, no C3 */
        le16_put(f + 98, 0xfff);
        f[108] = c->rtc ? 0x32 : 0; /* century */
        if (!c->rtc)
            flags |= FIX_RTC;
    }
    if (c->reset_port) {
        flags |= RESET_REG;
        gas(f + 116, 1, 8, c->reset_port);
        f[128] = c->reset_value;
    }
    le32_put(f + 112, flags);
    memcpy(f + 268, "LodgeVM", 7);
    gpa_t at = finish(t, f, sizeof f);
    pointer(t, at + 40, 4);
    pointer(t, at + 140, 8);
    if (!c->hw_reduced)
        pointer(t, at + 36, 4); /* the FACS */
    list(t, at);
}

static void madt(struct tables *t, const struct acpi_config *c)
{
    struct aml a = {0};
    uint8_t h[HEADER + 8] = {0};

    header(h, "APIC", 5);
    le32_put(h + HEADER, c->lapic_base ? c->lapic_base : 0xfee00000);
    le32_put(h + HEADER + 4, c->has_8259);
    aml_bytes(&a, h, sizeof h);
    for (unsigned i = 0; i < c->cpus; i++) {
        uint32_t id = c->apic_id ? c->apic_id(c->opaque, i) : i;
        uint8_t e[16] = {0};
        if (id < 255 && i < 255) {
            e[0] = 0, e[1] = 8, e[2] = (uint8_t)i, e[3] = (uint8_t)id, e[4] = 1;
        } else {
            e[0] = 9, e[1] = 16, e[8] = 1;
            le32_put(e + 4, id);
            le32_put(e + 12, i);
        }
        aml_bytes(&a, e, e[1]);
    }
    uint8_t io[12] = {1, 12, c->ioapic_id};
    le32_put(io + 4, c->ioapic_base ? c->ioapic_base : 0xfec00000);
    aml_bytes(&a, io, sizeof io);
    for (unsigned i = 0; i < c->n_overrides && i < ACPI_OVERRIDES_MAX; i++) {
        uint8_t e[10] = {2, 10, 0, c->override[i].irq};
        le32_put(e + 4, c->override[i].gsi);
        le16_put(e + 8, c->override[i].level ? 0xd : 0);
        aml_bytes(&a, e, sizeof e);
    }
    static const uint8_t nmi[6] = {4, 6, 0xff, 0, 0, 1};
    aml_bytes(&a, nmi, sizeof nmi);
    list(t, finish(t, a.data, a.len));
    aml_free(&a);
}

static void small_tables(struct tables *t, const struct acpi_config *c)
{
    if (c->pci && c->ecam_base) {
        uint8_t m[HEADER + 8 + 16] = {0};
        header(m, "MCFG", 1);
        le64_put(m + 44, c->ecam_base);
        m[55] = (uint8_t)((c->ecam_buses ? c->ecam_buses : 256) - 1);
        list(t, finish(t, m, sizeof m));
    }
    if (c->hpet_base) {
        uint8_t h[56] = {0};
        header(h, "HPET", 1);
        le32_put(h + 36, 0x8086a201);
        gas(h + 40, 0, 64, c->hpet_base);
        h[43] = 0;
        le16_put(h + 53, 128);
        list(t, finish(t, h, sizeof h));
    }
    /* Emulated devices: no need to read RTC and PM timer more than once. */
    uint8_t w[40] = {0};
    header(w, "WAET", 1);
    le32_put(w + 36, 3);
    list(t, finish(t, w, sizeof w));
}

int acpi_make(const struct acpi_config *c, gpa_t base, uint64_t max, struct acpi_image *img, struct err *err)
{
    struct tables t = {.img = img, .base = base, .max = max, .err = err};
    uint8_t xsdt[HEADER + 8 * TABLES_MAX] = {0}, h[HEADER] = {0};
    struct aml dsdt = {0};

    *img = (struct acpi_image){0};
    header(h, "DSDT", 2);
    aml_bytes(&dsdt, h, sizeof h);
    acpi_dsdt(&dsdt, c);
    gpa_t dsdt_at = finish(&t, dsdt.data, dsdt.len);
    aml_free(&dsdt);
    fadt(&t, c, dsdt_at);
    madt(&t, c);
    small_tables(&t, c);

    header(xsdt, "XSDT", 1);
    for (unsigned i = 0; i < t.n; i++)
        le64_put(xsdt + HEADER + 8 * i, t.table[i]);
    gpa_t xsdt_at = finish(&t, xsdt, HEADER + 8 * t.n);
    for (unsigned i = 0; i < t.n; i++)
        pointer(&t, xsdt_at + HEADER + 8 * i, 8);
    img->xsdt = xsdt_at;
    return t.failed;
}

void acpi_image_free(struct acpi_image *img)
{
    free(img->data);
    img->data = NULL;
}

void acpi_rsdp(uint8_t rsdp[ACPI_RSDP_SIZE], gpa_t xsdt)
{
    memset(rsdp, 0, ACPI_RSDP_SIZE);
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "LODGE ", 6);
    rsdp[15] = 2;
    le32_put(rsdp + 20, ACPI_RSDP_SIZE);
    le64_put(rsdp + 24, xsdt);
    rsdp[8] = (uint8_t)-sum8(rsdp, 20);
    rsdp[32] = (uint8_t)-sum8(rsdp, ACPI_RSDP_SIZE);
}

int acpi_build(const struct acpi_config *c, struct mem *mem, gpa_t base, uint64_t size, gpa_t *ret_rsdp,
               struct err *err)
{
    uint8_t rsdp[ACPI_RSDP_SIZE];
    struct acpi_image img;
    gpa_t rsdp_at = ALIGN_UP(base, 16), at = ALIGN_UP(rsdp_at + sizeof rsdp, 16);

    int code = acpi_make(c, at, size > at - base ? size - (at - base) : 0, &img, err);
    acpi_rsdp(rsdp, img.xsdt);
    if (!code && (mem_write(mem, at, img.data, img.len) < 0 || mem_write(mem, rsdp_at, rsdp, sizeof rsdp) < 0))
        code = err_set(err, -EFAULT, "the guest has too little memory for ACPI tables");
    acpi_image_free(&img);
    if (!code)
        *ret_rsdp = rsdp_at;
    return code;
}

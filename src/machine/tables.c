/*
 * See tables.h. The ACPI tables go as one blob with a script (etc/table-loader, the interface that qemu's
 * docs/specs/acpi_... and both firmwares share): allocate the blobs, patch addresses, correct checksums. The firmware
 * chooses where ECAM lies, so the blob is made again whenever it is read; its size does not change.
 */
#include "machine/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "dev/fw_cfg.h"
#include "dev/rtc.h"
#include "machine/acpi.h"
#include "machine/firmware.h"
#include "machine/machine.h"
#include "machine/smbios.h"

#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE "etc/acpi/rsdp"
#define ENTRY_SIZE 128
#define FILE_NAME 56
#define BLOB_MAX (128 * KIB)

enum { LOADER_ALLOCATE = 1, LOADER_POINTER = 2, LOADER_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

struct firmware_tables {
    struct vm *vm;
};

static uint32_t apic_id(void *opaque, unsigned cpu)
{
    return cpu_apic_id(&((struct vm *)opaque)->engine->cfg.cpu.topology, cpu);
}

void tables_acpi_config(struct vm *vm, struct acpi_config *ret)
{
    *ret = (struct acpi_config){.cpus = vm->n_cpus, .apic_id = apic_id, .opaque = vm};
    vm->board->describe(vm, ret);
}

void tables_smbios_config(const struct vm *vm, struct smbios_config *ret)
{
    const struct cpu_topology *topo = &vm->engine->cfg.cpu.topology;
    *ret = (struct smbios_config){
        .sockets = MAX(topo->sockets, 1),
        .cores = topo->cores ? topo->cores : vm->n_cpus,
        .threads = MAX(topo->threads, 1),
    };
    memcpy(ret->uuid, vm->domain->uuid, sizeof ret->uuid);
}

/* ---- ACPI ---- */

struct script {
    uint8_t *data;
    size_t len;
};

static uint8_t *script_entry(struct script *s, uint32_t command)
{
    uint8_t *data = realloc(s->data, s->len + ENTRY_SIZE);
    if (!data)
        abort();
    s->data = data;
    uint8_t *e = data + s->len;
    memset(e, 0, ENTRY_SIZE);
    le32_put(e, command);
    s->len += ENTRY_SIZE;
    return e;
}

static void script_allocate(struct script *s, const char *file, uint32_t align, uint8_t zone)
{
    uint8_t *e = script_entry(s, LOADER_ALLOCATE);
    memcpy(e + 4, file, strlen(file));
    le32_put(e + 4 + FILE_NAME, align);
    e[4 + FILE_NAME + 4] = zone;
}

static void script_pointer(struct script *s, const char *file, uint32_t off, uint8_t size)
{
    uint8_t *e = script_entry(s, LOADER_POINTER);
    memcpy(e + 4, file, strlen(file));
    memcpy(e + 4 + FILE_NAME, TABLES_FILE, sizeof TABLES_FILE);
    le32_put(e + 4 + 2 * FILE_NAME, off);
    e[4 + 2 * FILE_NAME + 4] = size;
}

static void script_checksum(struct script *s, const char *file, uint32_t at, uint32_t start, uint32_t len)
{
    uint8_t *e = script_entry(s, LOADER_CHECKSUM);
    memcpy(e + 4, file, strlen(file));
    le32_put(e + 4 + FILE_NAME, at);
    le32_put(e + 4 + FILE_NAME + 4, start);
    le32_put(e + 4 + FILE_NAME + 8, len);
}

/* OVMF sums up what stands there, checksum included. */
static void clear_checksums(struct acpi_image *img)
{
    for (unsigned i = 0; i < img->n_tables; i++)
        img->data[img->table[i].start + 9] = 0;
}

/* On a vCPU's thread, while the firmware reads. */
static void remake(void *opaque, uint8_t *data, uint32_t len)
{
    struct firmware_tables *t = opaque;
    struct acpi_config cfg;
    struct acpi_image img;
    tables_acpi_config(t->vm, &cfg);
    if (!acpi_make(&cfg, 0, BLOB_MAX, &img, NULL) && img.len == len) {
        clear_checksums(&img);
        memcpy(data, img.data, len);
    }
    acpi_image_free(&img);
}

static int add_acpi(struct firmware_tables *t, struct err *err)
{
    struct vm *vm = t->vm;
    struct acpi_config cfg;
    struct acpi_image img;
    struct script s = {0};
    uint8_t rsdp[ACPI_RSDP_SIZE];
    tables_acpi_config(vm, &cfg);
    int code = acpi_make(&cfg, 0, BLOB_MAX, &img, err);
    if (!code) {
        clear_checksums(&img);
        acpi_rsdp(rsdp, img.xsdt);
        rsdp[8] = rsdp[32] = 0;
        script_allocate(&s, RSDP_FILE, 16, ZONE_FSEG);
        script_allocate(&s, TABLES_FILE, 64, ZONE_HIGH);
        for (unsigned i = 0; i < img.n_pointers; i++)
            script_pointer(&s, TABLES_FILE, img.pointer[i].at, img.pointer[i].size);
        for (unsigned i = 0; i < img.n_tables; i++)
            script_checksum(&s, TABLES_FILE, img.table[i].start + 9, img.table[i].start, img.table[i].len);
        script_pointer(&s, RSDP_FILE, 24, 8);
        script_checksum(&s, RSDP_FILE, 8, 0, 20);
        script_checksum(&s, RSDP_FILE, 32, 0, ACPI_RSDP_SIZE);
        code = fw_cfg_add_made(vm->fw_cfg, TABLES_FILE, img.data, img.len, remake, t, err);
    }
    if (code >= 0)
        code = fw_cfg_add_file(vm->fw_cfg, RSDP_FILE, rsdp, sizeof rsdp, err);
    if (code >= 0)
        code = fw_cfg_add_file(vm->fw_cfg, "etc/table-loader", s.data, s.len, err);
    free(s.data);
    acpi_image_free(&img);
    return code;
}

static int add_smbios(struct vm *vm, struct err *err)
{
    struct smbios_config cfg;
    struct smbios_image img;
    tables_smbios_config(vm, &cfg);
    int code = smbios_make(&cfg, vm->mem, 0, &img, err);
    if (code < 0 || (code = fw_cfg_add_file(vm->fw_cfg, "etc/smbios/smbios-tables", img.data, img.len, err)) < 0)
        return code;
    return fw_cfg_add_file(vm->fw_cfg, "etc/smbios/smbios-anchor", img.entry, sizeof img.entry, err);
}

/* ---- memory ---- */

static int add_memory(struct vm *vm, struct err *err)
{
    const struct mem *m = vm->mem;
    uint64_t high = m->ram_size - m->low_size;
    uint8_t map[2 * 20] = {0};
    le64_put(map + 8, m->low_size);
    le32_put(map + 16, E820_RAM);
    le64_put(map + 20, MEM_HIGH_BASE);
    le64_put(map + 28, high);
    le32_put(map + 36, E820_RAM);

    uint64_t kib = MIN((m->low_size - MIB) / KIB, 0xffffull);
    uint64_t blocks = m->low_size > 16 * MIB ? MIN((m->low_size - 16 * MIB) / (64 * KIB), 0xffffull) : 0;
    uint64_t high_blocks = MIN(high / (64 * KIB), 0xffffffull);
    const struct {
        uint8_t at;
        uint8_t val;
    } cmos[] = {
        {0x15, 640 & 0xff},
        {0x16, 640 >> 8},
        {0x17, (uint8_t)kib},
        {0x18, (uint8_t)(kib >> 8)},
        {0x30, (uint8_t)kib},
        {0x31, (uint8_t)(kib >> 8)},
        {0x34, (uint8_t)blocks},
        {0x35, (uint8_t)(blocks >> 8)},
        {0x5b, (uint8_t)high_blocks},
        {0x5c, (uint8_t)(high_blocks >> 8)},
        {0x5d, (uint8_t)(high_blocks >> 16)},
        {0x5f, (uint8_t)(vm->n_cpus - 1)},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(cmos); i++)
        rtc_set_cmos(vm->rtc, cmos[i].at, cmos[i].val);
    return fw_cfg_add_file(vm->fw_cfg, "etc/e820", map, high ? 40 : 20, err);
}

/* ---- option ROMs ---- */

/* The BIOS runs the file named after the PCI ids as that device's ROM. */
static int add_vgabios(struct vm *vm, struct err *err)
{
    uint8_t *rom;
    uint64_t size;
    if (!vm->has_display || firmware_is_efi(vm->domain))
        return 0;
    int code = firmware_read("video BIOS", "/usr/share/seabios/vgabios-stdvga.bin", 256 * KIB, 512, &rom, &size, err);
    if (code < 0)
        return code;
    code = fw_cfg_add_file(vm->fw_cfg, "vgaroms/vgabios-stdvga.bin", rom, size, err);
    free(rom);
    return code;
}

/* ---- a kernel for the firmware to start ---- */

static int add_part(struct vm *vm, uint16_t size_key, uint16_t data_key, const uint8_t *data, uint64_t len,
                    struct err *err)
{
    int code = fw_cfg_add_u32(vm->fw_cfg, size_key, (uint32_t)len, err);
    return code < 0 ? code : fw_cfg_add(vm->fw_cfg, data_key, data, len, err);
}

/* The Linux boot protocol's two parts: the setup sectors, and the rest (Documentation/arch/x86/boot.rst). */
static int add_kernel(struct vm *vm, struct err *err)
{
    const struct domain_os *os = &vm->domain->os;
    autofree uint8_t *kernel = NULL, *initrd = NULL;
    uint64_t size = 0, initrd_size = 0;
    if (!os->kernel)
        return 0;
    int code = firmware_read("kernel", os->kernel, GIB, 1, &kernel, &size, err);
    if (code < 0)
        return code;
    if (size < 1024 || memcmp(kernel + 0x202, "HdrS", 4))
        return err_set(err, -EINVAL, "kernel %s: UEFI firmware starts Linux bzImages only", os->kernel);
    uint64_t setup = (kernel[0x1f1] ? kernel[0x1f1] + 1u : 5u) * 512;
    if (setup > size)
        return err_set(err, -EINVAL, "kernel %s: the file is cut off", os->kernel);
    if ((code = add_part(vm, FW_CFG_SETUP_SIZE, FW_CFG_SETUP_DATA, kernel, setup, err)) < 0 ||
        (code = add_part(vm, FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA, kernel + setup, size - setup, err)) < 0)
        return code;
    if (os->initrd && ((code = firmware_read("initrd", os->initrd, GIB, 1, &initrd, &initrd_size, err)) < 0 ||
                       (code = add_part(vm, FW_CFG_INITRD_SIZE, FW_CFG_INITRD_DATA, initrd, initrd_size, err)) < 0))
        return code;
    const char *cmdline = os->cmdline ? os->cmdline : "";
    return add_part(vm, FW_CFG_CMDLINE_SIZE, FW_CFG_CMDLINE_DATA, (const uint8_t *)cmdline, strlen(cmdline) + 1, err);
}

/* ---- boot ---- */

static int add_boot(struct vm *vm, struct err *err)
{
    const struct domain_os *os = &vm->domain->os;
    bool menu = os->bootmenu == DOMAIN_ON;
    uint8_t wait[2], never[4];
    autofree char *order = boot_order(vm);
    int code = fw_cfg_add_u16(vm->fw_cfg, FW_CFG_BOOT_MENU, menu, err);
    if (code >= 0 && order)
        code = fw_cfg_add_file(vm->fw_cfg, "bootorder", order, strlen(order) + 1, err);
    if (code >= 0 && menu) {
        le16_put(wait, (uint16_t)(os->bootmenu_timeout ? os->bootmenu_timeout : 3000));
        code = fw_cfg_add_file(vm->fw_cfg, "etc/boot-menu-wait", wait, sizeof wait, err);
    }
    /* With nothing to boot it says so and stays. */
    le32_put(never, UINT32_MAX);
    if (code >= 0)
        code = fw_cfg_add_file(vm->fw_cfg, "etc/boot-fail-wait", never, sizeof never, err);
    /* Where there is no display, the BIOS's screen is the first serial port. */
    if (code >= 0 && (vm->uarts & 1) && !vm->has_display) {
        uint8_t port[2];
        le16_put(port, 0x3f8);
        code = fw_cfg_add_file(vm->fw_cfg, "etc/sercon-port", port, sizeof port, err);
    }
    return code;
}

int tables_add(struct vm *vm, struct firmware_tables **ret, struct err *err)
{
    struct firmware_tables *t = *ret = xcalloc(1, sizeof *t);
    t->vm = vm;
    int code = add_acpi(t, err);
    if (code >= 0)
        code = add_smbios(vm, err);
    if (code >= 0)
        code = add_memory(vm, err);
    if (code >= 0)
        code = add_vgabios(vm, err);
    if (code >= 0)
        code = add_kernel(vm, err);
    return code < 0 ? code : add_boot(vm, err);
}

void tables_free(struct firmware_tables *t)
{
    free(t);
}

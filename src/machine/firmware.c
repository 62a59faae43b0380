/*
 * See firmware.h. Files come from Debian's packages seabios and ovmf, or from the domain. PAM changes come from vCPU
 * threads under the host bridge's own order; everything else is on the main thread before vCPUs run.
 */
#include "machine/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "dev/fw_cfg.h"
#include "dev/rtc.h"
#include "machine/machine.h"
#include "machine/tables.h"

#define BIOS_PATH "/usr/share/seabios/bios-256k.bin"
#define ROM_MAX (16 * MIB)
#define SHADOW_BASE 0xc0000u
#define SHADOW_END 0x100000u
#define LOW_ROM_SIZE 0x20000u /* the ROM's end is seen below 1 MiB too */
#define SEGMENTS 13           /* PAM: twelve of 16 KiB, one of 64 KiB */

enum { PAM_READ = 1, PAM_WRITE = 2 };

struct firmware {
    struct mem *mem;
    uint8_t *image; /* as in the file; the low ROM is its end */
    uint64_t size;
    uint8_t *low; /* 128 KiB, page aligned */
    int window;   /* first of SEGMENTS */
    uint8_t attr[SEGMENTS];
    struct firmware_tables *tables;
};

bool firmware_is_efi(const struct domain *d)
{
    return (d->os.firmware && !strcmp(d->os.firmware, "efi")) ||
           (d->os.loader_type && !strcmp(d->os.loader_type, "pflash"));
}

bool firmware_wanted(const struct domain *d)
{
    if (d->os.board == DOMAIN_BOARD_MICRO)
        return false;
    return !d->os.kernel || firmware_is_efi(d);
}

/* ---- shadow RAM ---- */

static void segment(unsigned i, uint32_t *base, uint32_t *size)
{
    *base = i < 12 ? SHADOW_BASE + i * 0x4000 : 0xf0000;
    *size = i < 12 ? 0x4000 : 0x10000;
}

/* What the guest sees in a segment. Reads of ROM with writes to RAM are for the bus: no memory is both. */
static struct mem_window segment_window(const struct firmware *fw, unsigned i)
{
    uint32_t base, size;
    segment(i, &base, &size);
    struct mem_window w = {MEM_OFF, base, size, NULL};
    unsigned attr = fw->attr[i];
    if (attr == PAM_READ) {
        w.kind = MEM_ROM;
        w.host = fw->mem->ram + base;
    } else if (attr == 0 && base >= SHADOW_END - LOW_ROM_SIZE) {
        w.kind = MEM_ROM;
        w.host = fw->low + (base - (SHADOW_END - LOW_ROM_SIZE));
    } else if (!(attr & PAM_READ)) {
        w.kind = MEM_HOLE;
    }
    return w;
}

void firmware_set_pam(struct firmware *fw, const uint8_t pam[7])
{
    struct mem_window w[SEGMENTS];
    for (unsigned i = 0; i < SEGMENTS; i++) {
        unsigned reg = i < 12 ? 1 + i / 2 : 0, shift = i < 12 && i % 2 == 0 ? 0 : 4;
        fw->attr[i] = pam[reg] >> shift & (PAM_READ | PAM_WRITE);
        w[i] = segment_window(fw, i);
    }
    if (mem_set_windows(fw->mem, (unsigned)fw->window, w, SEGMENTS) < 0)
        abort(); /* all of them are page aligned */
}

static unsigned segment_of(uint32_t addr)
{
    return addr < 0xf0000 ? (addr - SHADOW_BASE) / 0x4000 : 12;
}

static uint64_t shadow_read(void *opaque, uint64_t off, unsigned size)
{
    const struct firmware *fw = opaque;
    uint64_t val = 0;
    for (unsigned i = 0; i < size; i++) {
        uint32_t addr = SHADOW_BASE + (uint32_t)off + i, low = SHADOW_END - LOW_ROM_SIZE;
        val |= (uint64_t)(addr >= low ? fw->low[addr - low] : 0xff) << i * 8;
    }
    return val;
}

static void shadow_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct firmware *fw = opaque;
    uint32_t addr = SHADOW_BASE + (uint32_t)off;
    if (!(fw->attr[segment_of(addr)] & PAM_WRITE))
        return;
    for (unsigned i = 0; i < size; i++)
        fw->mem->ram[addr + i] = (uint8_t)(val >> i * 8);
    mem_page_dirty(fw->mem, fw->mem->ram + addr);
}

static const struct bus_ops shadow_ops = {shadow_read, shadow_write, 1, 8};

/* ---- making ---- */

int firmware_read(const char *what, const char *path, uint64_t max, unsigned unit, uint8_t **ret, uint64_t *ret_size,
                  struct err *err)
{
    struct stat st;
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT && !strncmp(path, "/usr/share/", 11))
        return err_set(err, -ENOENT, "%s %s: no such file; install the package %s", what, path,
                       strstr(path, "/seabios/") ? "seabios"
                       : strstr(path, "/OVMF/")  ? "ovmf"
                                                 : "that has it");
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(err, -errno, "%s %s", what, path);
    if (!S_ISREG(st.st_mode) || !st.st_size || (uint64_t)st.st_size > max || st.st_size % unit)
        return err_set(err, -EINVAL, "%s %s: is not a file of whole %u bytes, at most %llu KiB", what, path, unit,
                       (unsigned long long)(max / KIB));
    uint8_t *data = aligned_alloc(4096, ALIGN_UP((size_t)st.st_size, 4096));
    if (!data)
        return err_errno(err, -ENOMEM, "%s %s", what, path);
    int code = fd_pread_full(fd, data, (size_t)st.st_size, 0);
    if (code < 0) {
        free(data);
        return err_errno(err, code, "%s %s", what, path);
    }
    *ret = data;
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

static int new_shadow(struct vm *vm, struct firmware *fw, struct err *err)
{
    fw->low = aligned_alloc(4096, LOW_ROM_SIZE);
    if (!fw->low)
        abort();
    memset(fw->low, 0xff, LOW_ROM_SIZE);
    uint64_t n = MIN(fw->size, (uint64_t)LOW_ROM_SIZE);
    memcpy(fw->low + LOW_ROM_SIZE - n, fw->image + fw->size - n, n);
    for (unsigned i = 0; i < SEGMENTS; i++) {
        struct mem_window w = segment_window(fw, i);
        int id = mem_add_window(vm->mem, &w, err);
        if (id < 0)
            return id;
        if (!i)
            fw->window = id;
    }
    return bus_map(vm->mmio, "shadow", SHADOW_BASE, SHADOW_END - SHADOW_BASE, &shadow_ops, fw, err);
}

int firmware_new(struct vm *vm, struct err *err)
{
    const struct domain_os *os = &vm->domain->os;
    struct firmware *fw = vm->firmware = xcalloc(1, sizeof *fw);
    fw->mem = vm->mem;
    if (vm->mem->low_size < 2 * MIB)
        return err_set(err, -EINVAL, "a guest with firmware needs at least 2 MiB of memory");
    bool efi = firmware_is_efi(vm->domain);
    const char *path = efi ? nvram_code(vm->domain) : os->loader ? os->loader : BIOS_PATH;
    int code = firmware_read("firmware", path, ROM_MAX, 4096, &fw->image, &fw->size, err);
    if (code < 0)
        return code;
    code = mem_add_rom(vm->mem, 4 * GIB - fw->size, fw->size, fw->image, fw->size, err);
    if (code >= 0 && efi)
        code = nvram_new(vm, fw->size, err);
    return code < 0 ? code : new_shadow(vm, fw, err);
}

int firmware_describe(struct vm *vm, struct err *err)
{
    return tables_add(vm, &vm->firmware->tables, err);
}

void firmware_free(struct firmware *fw)
{
    if (!fw)
        return;
    tables_free(fw->tables);
    free(fw->image);
    free(fw->low);
    free(fw);
}

/* Kernel files: loaded into 32 MiB of RAM as they are and, where that can be, unpacked. */
#include <fcntl.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "machine/loader.h"
#include "target.h"

#define RAM (32 * MIB)

static struct mem *mem;

static void load(const char *path, bool unpack)
{
    struct e820_entry e820[4];
    struct boot_info b = {
        .mem = mem, .kernel = path, .e820 = e820, .cmdline = "console=ttyS0", .rsdp = 0xe0000, .unpack = unpack};
    static struct cpu_state s;
    struct err err = {0};
    b.n_e820 = e820_of_ram(mem, e820);
    cpu_state_reset(&s, true);
    int r = loader_load(&b, &s, &err);
    if (r < 0)
        MUST(err.code == r && strstr(err.msg, path) && !strchr(err.msg, '\n'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[40];
    if (!mem)
        MUST(!mem_new(RAM, 3 * GIB, &mem, NULL));
    autofd int fd = memfd_create("kernel", MFD_CLOEXEC);
    MUST(fd >= 0 && !fd_write_full(fd, data, size));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    load(path, false);
    load(path, true);
    return 0;
}

/*
 * Loaders: a kernel file, its initrd and command line become bytes in guest RAM and the BSP's first state. The kinds of
 * kernel are recognised by content: Linux bzImage (boot protocol 2.06 and later), ELF with a PVH note, Multiboot 1, and
 * ELF64 vmlinux.
 *
 * Called by boards on the main thread before the first vCPU runs, and again at each reset. Kernel files are hostile
 * input: every offset and size in them is checked against the file and against guest RAM.
 */
#ifndef LODGE_MACHINE_LOADER_H
#define LODGE_MACHINE_LOADER_H

#include "base/err.h"
#include "cpu/state.h"
#include "mem/mem.h"

enum e820_type { E820_RAM = 1, E820_RESERVED = 2, E820_ACPI = 3, E820_NVS = 4 };

struct e820_entry {
    uint64_t base, size;
    uint32_t type;
};
#define E820_MAX 64

struct boot_info {
    struct mem *mem;
    const char *kernel;
    const char *initrd;  /* NULL: none */
    const char *cmdline; /* NULL: empty */
    const struct e820_entry *e820;
    unsigned n_e820; /* at most E820_MAX */
    gpa_t rsdp;      /* ACPI root pointer, 0: none */
    bool unpack;     /* guest code is slow: unpack a bzImage here where we can; the kernel then has no KASLR */
};

/*
 * Guest physical memory below 640 KiB that the loaders use: GDT, start info, page tables, command line. Boards keep
 * their own tables out of it (they have 0x9fc00 to 1 MiB).
 */
#define LOADER_LOW_START 0x500
#define LOADER_LOW_END 0x90000

/* Loads everything. `bsp` is the state after cpu_state_reset(); set to enter the kernel. The message names the file at
 * fault. */
int loader_load(const struct boot_info *b, struct cpu_state *bsp, struct err *err);

/*
 * The memory map of a PC without devices: RAM but for [0x9fc00, 1 MiB), which is reserved. Returns the number of
 * entries (at most 4); the board appends what else it reserves.
 */
unsigned e820_of_ram(const struct mem *mem, struct e820_entry ret[4]);

#endif

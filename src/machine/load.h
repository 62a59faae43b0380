/* What the loaders of the several kinds of kernel share. Private to loader.c and load_*.c. */
#ifndef LODGE_MACHINE_LOAD_H
#define LODGE_MACHINE_LOAD_H

#include "machine/loader.h"

/* Where things stand in low memory. */
#define LOAD_GDT 0x500
#define LOAD_START_INFO 0x6000  /* PVH start info and its module list; Multiboot info */
#define LOAD_BOOT_PARAMS 0x7000 /* Linux zero page; PVH and Multiboot memory map */
#define LOAD_PML4 0x9000        /* then a PDPT and four page directories */
#define LOAD_CMDLINE 0x20000
#define LOAD_CMDLINE_MAX 0x10000 /* with the NUL */

#define LOAD_HEAD 8192 /* bytes from the start of a kernel that recognition looks at */

/* A file being loaded. */
struct load_file {
    const char *path;
    int fd;
    uint64_t size;
};

struct load {
    const struct boot_info *b;
    struct load_file kernel;
    uint8_t head[LOAD_HEAD];        /* the first bytes, zero after the end of a shorter file */
    gpa_t kernel_start, kernel_end; /* what the kernel will occupy: nothing else goes there */
};

int load_open(const char *what, const char *path, struct load_file *ret, struct err *err);
/* Reads `len` bytes at `off` of the file into our buffer. The range must lie in the file. */
int load_pread(const struct load_file *f, void *buf, uint64_t len, uint64_t off, struct err *err);
/* The same straight into guest RAM. `part` says what it is, for messages. */
int load_to_guest(struct mem *m, const struct load_file *f, const char *part, uint64_t off, uint64_t len, gpa_t gpa,
                  struct err *err);

/* Highest place of `size` bytes in usable RAM in [min, max), aligned, beside the kernel; 0 when there is none. */
gpa_t load_find_space(const struct load *l, uint64_t size, uint64_t align, gpa_t min, gpa_t max);
/* Is all of [gpa, gpa+len) RAM by the memory map? */
bool load_is_ram(const struct load *l, gpa_t gpa, uint64_t len);

/* Places the initrd below `max`; *ret_size 0 when there is none. */
int load_initrd(const struct load *l, gpa_t max, gpa_t *ret_gpa, uint64_t *ret_size, struct err *err);
/* Puts the command line at LOAD_CMDLINE; at most `max` bytes without the NUL. */
int load_cmdline(const struct load *l, uint64_t max, struct err *err);

/* CPU state: flat 32-bit protected mode, and long mode with 4 GiB mapped one to one. Both write a GDT. */
int load_enter_protected(const struct load *l, struct cpu_state *s, gpa_t entry, struct err *err);
int load_enter_long(const struct load *l, struct cpu_state *s, gpa_t entry, struct err *err);

/* Little-endian fields of `head`; 0 past its end. */
uint32_t load_head32(const struct load *l, unsigned off);
uint16_t load_head16(const struct load *l, unsigned off);

/* The kinds. is_*: by the head. */
bool linux_is(const struct load *l);
int linux_load(struct load *l, struct cpu_state *s, struct err *err);
/* Zero page for a kernel entered by the Linux protocol; `header`, `header_len`: setup header to copy to 0x1f1, or NULL.
 */
int linux_boot_params(const struct load *l, const uint8_t *header, unsigned header_len, gpa_t initrd,
                      uint64_t initrd_size, struct err *err);
/* Unpacks the kernel inside a bzImage whose code starts at `code_off`. False: it is not of a kind that we can; load it
 * as it is. */
bool unpack_linux(struct load *l, uint64_t code_off, gpa_t *ret_entry);
bool multiboot_is(const struct load *l);
int multiboot_load(struct load *l, struct cpu_state *s, struct err *err);

/* ELF images (load_pvh.c). */
struct elf_image {
    bool is64;
    uint64_t entry; /* e_entry, as a physical address where a segment says so */
    gpa_t start, end;
    bool has_pvh;
    uint32_t pvh_entry;
};
bool elf_is(const struct load *l);
/* Reads headers and notes and checks them; loads nothing. */
int elf_parse(struct load *l, struct elf_image *ret, struct err *err);
/* Loads all segments. */
int elf_load(struct load *l, const struct elf_image *e, struct err *err);
int pvh_load(struct load *l, const struct elf_image *e, struct cpu_state *s, struct err *err);
int vmlinux_load(struct load *l, const struct elf_image *e, struct cpu_state *s, struct err *err);

#endif

/*
 * Linear memory of a software vCPU: paging, soft TLB, MMIO. Everything returns 0, or INSN_FAULT with the exception in
 * c->exc
 * (#PF with the right error code, #AC when alignment checking is on); then nothing was transferred that the guest could
 * not have seen half done on real hardware (a store that crosses pages checks both before it writes).
 *
 * Segment checks come before (seg.h). Ordinary accesses to RAM are single host accesses when they do not cross a page,
 * so that x86's memory ordering and atomicity between vCPU threads are the host's own.
 */
#ifndef LODGE_CPU_SOFT_MMU_H
#define LODGE_CPU_SOFT_MMU_H

#include "cpu/soft/cpu.h"

enum mmu_access { MMU_READ, MMU_WRITE, MMU_EXEC };
enum { MMU_IMPLICIT = 8 /* supervisor access whatever CPL is: GDT, IDT, TSS, … (or into the access argument) */ };

int mmu_init(struct soft_cpu *c);
void mmu_free(struct soft_cpu *c);

/* Guest loads and stores at the current privilege. The fast path is inline in mmu_fast.h; these do everything. */
MUST_CHECK int mmu_read(struct soft_cpu *c, uint64_t lin, void *buf, unsigned size);        /* size up to 64 */
MUST_CHECK int mmu_write(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned size); /* size up to 64 */
/* The same for any length (XSAVE areas): page by page, faults before the first byte is written. At most 4096 bytes. */
MUST_CHECK int mmu_read_block(struct soft_cpu *c, uint64_t lin, void *buf, unsigned size);
MUST_CHECK int mmu_write_block(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned size);
/* Supervisor-mode accesses by the CPU itself (descriptor tables, TSS). */
MUST_CHECK int mmu_read_sys(struct soft_cpu *c, uint64_t lin, void *buf, unsigned size);
MUST_CHECK int mmu_write_sys(struct soft_cpu *c, uint64_t lin, const void *buf, unsigned size);

/*
 * For read-modify-write: a host pointer at which `size` bytes of RAM can be read and written with (locked) host
 * instructions. NULL in *ret with result 0 when there is none (MMIO, ROM, crosses a page, code page): then use mmu_read
 * + mmu_write, under soft->split_lock if the instruction is locked. After a store through the pointer nothing more is
 * to be done (dirty marking happened). Write permission is checked first, as the manual demands of RMW.
 */
MUST_CHECK int mmu_rmw(struct soft_cpu *c, uint64_t lin, unsigned size, void **ret);

/* Would a write of `size` bytes (at most 4096) work? Faults as it would, sets A and D, writes nothing. */
MUST_CHECK int mmu_probe_write(struct soft_cpu *c, uint64_t lin, unsigned size, bool implicit);

/*
 * For string instructions and block copies: a host pointer for `access` valid up to the end of lin's page, or NULL in
 * *ret (MMIO, code page when writing). Same permission checks and faults as an access of one byte.
 */
MUST_CHECK int mmu_page(struct soft_cpu *c, uint64_t lin, enum mmu_access access, void **ret);

/*
 * Code: host pointer to the byte at `lin` (to the end of its page) and its guest physical address. *ret_host NULL: code
 * in MMIO; read it by mmu_fetch_slow.
 */
MUST_CHECK int mmu_fetch(struct soft_cpu *c, uint64_t lin, const uint8_t **ret_host, gpa_t *ret_gpa);
MUST_CHECK int mmu_fetch_bytes(struct soft_cpu *c, uint64_t lin, uint8_t *buf, unsigned n);

/* TLB maintenance. `global`: global pages too. */
void mmu_flush(struct soft_cpu *c, bool global);
void mmu_flush_page(struct soft_cpu *c, uint64_t lin);
void mmu_flush_pcid(struct soft_cpu *c, unsigned pcid);
/* CR0, CR3, CR4, EFER, CPL or EFLAGS.AC changed: selects the right view; flushes what `why` demands. */
void mmu_cr3_written(struct soft_cpu *c, uint64_t old, bool noflush);
void mmu_mode_changed(struct soft_cpu *c);
/*
 * A physical page became code: writes to it must take the slow path from now on. This vCPU's TLB only. True when it had
 * an entry through which it may have written since: another vCPU that decoded from the page must then look at it again.
 */
bool mmu_protect_code(struct soft_cpu *c, gpa_t page);
/* The debug registers changed which pages are watched. */
void mmu_debug_changed(struct soft_cpu *c);

/* Walks the page tables without side effects (debugger, monitor). -1 when not mapped. */
int mmu_debug_translate(struct soft_cpu *c, uint64_t lin, gpa_t *ret);

#endif

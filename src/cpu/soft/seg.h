/* Segmentation: from segment and offset to a linear address, and loading segment registers (SDM 3A, ch. 3, 5). */
#ifndef LODGE_CPU_SOFT_SEG_H
#define LODGE_CPU_SOFT_SEG_H

#include "cpu/soft/cpu.h"

/* Full checks for a data access of `size` bytes at `seg`:`off`. 0 and *ret, or INSN_FAULT (#GP(0), #SS(0)). */
int seg_linear_slow(struct soft_cpu *c, unsigned seg, uint64_t off, unsigned size, bool write, uint64_t *ret);
int exc_noncanonical(struct soft_cpu *c, unsigned seg);

/* The same, quick for 64-bit and flat code. */
MUST_CHECK static inline int seg_linear(struct soft_cpu *c, unsigned seg, uint64_t off, unsigned size, bool write,
                                        uint64_t *ret)
{
    if (c->mode & MODE_CS64) {
        uint64_t lin = seg >= FS ? off + c->seg[seg].base : off;
        /* 48-bit canonical: bits 63..47 equal; a run over the edge is caught by the page walk of the second page. */
        if (__builtin_expect((uint64_t)((int64_t)lin >> 47) + 1 > 1, 0))
            return exc_noncanonical(c, seg);
        *ret = lin;
        return 0;
    }
    if ((c->mode & MODE_FLAT) && seg < FS) {
        *ret = (uint32_t)off;
        return 0;
    }
    return seg_linear_slow(c, seg, off, size, write, ret);
}

/* MOV/POP/LxS to a data segment register or SS, with all checks. INSN_NEXT or INSN_FAULT. */
int seg_load(struct soft_cpu *c, unsigned seg, uint16_t sel);
/* Real and v8086 mode: base = sel * 16. */
void seg_load_real(struct soft_cpu *c, unsigned seg, uint16_t sel);

#endif

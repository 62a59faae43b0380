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
    if ((c->mode & MODE_FLAT) && seg < FS && !(write && seg == CS)) {
        *ret = (uint32_t)off;
        return 0;
    }
    return seg_linear_slow(c, seg, off, size, write, ret);
}

/* MOV/POP/LxS to a data segment register or SS, with all checks. INSN_NEXT or INSN_FAULT. */
int seg_load(struct soft_cpu *c, unsigned seg, uint16_t sel);
/* Real and v8086 mode: base = sel * 16. */
void seg_load_real(struct soft_cpu *c, unsigned seg, uint16_t sel);

/* ---- descriptors: seg.c, for the far transfers ---- */

struct seg_desc {
    uint64_t raw;
    uint64_t lin; /* where it stands, for the accessed and busy bits */
};

enum {
    DESC_TYPE_LDT = 2,
    DESC_TYPE_TSS16 = 1,
    DESC_TYPE_CALL16 = 4,
    DESC_TYPE_TASK = 5,
    DESC_TYPE_TSS32 = 9,
    DESC_TYPE_CALL32 = 12
};
#define DESC_BUSY 2

static inline bool sel_null(uint16_t sel)
{
    return !(sel & ~3u);
}
static inline unsigned desc_type(uint64_t raw)
{
    return raw >> 40 & 15;
}
static inline bool desc_s(uint64_t raw)
{
    return raw >> 44 & 1;
}
static inline unsigned desc_dpl(uint64_t raw)
{
    return raw >> 45 & 3;
}
static inline bool desc_p(uint64_t raw)
{
    return raw >> 47 & 1;
}
static inline bool desc_code(uint64_t raw)
{
    return desc_s(raw) && (raw >> 43 & 1);
}
static inline bool desc_conforming(uint64_t raw)
{
    return raw >> 42 & 1;
}
static inline bool desc_writable_data(uint64_t raw)
{
    return desc_s(raw) && !(raw >> 43 & 1) && (raw >> 41 & 1);
}
static inline bool desc_readable(uint64_t raw)
{
    return desc_s(raw) && (!(raw >> 43 & 1) || (raw >> 41 & 1));
}
static inline bool lin_canonical(uint64_t lin)
{
    return (uint64_t)((int64_t)lin >> 47) + 1 <= 1;
}

/* Do the offsets [off, off + size) lie within the segment's limit? */
bool seg_in_limit(const struct soft_seg *s, uint32_t off, unsigned size);
/* Reads the 8-byte descriptor of `sel`. 0, INSN_FAULT (#PF), or -1 when it lies beyond its table. */
MUST_CHECK int seg_desc_get(struct soft_cpu *c, uint16_t sel, struct seg_desc *ret);
/* The same, but -1 becomes exception `vector` with the selector as its error code. */
MUST_CHECK int seg_desc_read(struct soft_cpu *c, uint16_t sel, unsigned vector, struct seg_desc *ret);
/* Bits 32..63 of the base in the upper half of a 16-byte system descriptor. -1: beyond the table, or its type field is
 * not 0. */
MUST_CHECK int seg_desc_upper(struct soft_cpu *c, uint16_t sel, const struct seg_desc *d, uint64_t *ret);
/* The hidden part that goes with a descriptor. */
struct soft_seg seg_from_desc(uint16_t sel, uint64_t raw);
/* Sets the accessed bit in memory (and in d) if it is clear. */
MUST_CHECK int seg_set_accessed(struct soft_cpu *c, struct seg_desc *d);
/* Sets or clears the busy bit of a TSS descriptor. */
MUST_CHECK int seg_set_busy(struct soft_cpu *c, struct seg_desc *d, bool busy);
/* A null selector in a segment register. */
struct soft_seg seg_null(uint16_t sel, unsigned dpl);
/* Checks an SS selector for a stack at privilege `cpl`; `bad` is the vector of its faults (#TS or #GP), `absent`: #SS.
 */
MUST_CHECK int seg_check_ss(struct soft_cpu *c, uint16_t sel, unsigned cpl, unsigned bad, struct seg_desc *ret);
/* After a change to an outer privilege level: data segments that are too privileged become null. */
void seg_drop_inner(struct soft_cpu *c);

#endif

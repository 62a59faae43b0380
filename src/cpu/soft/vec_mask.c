/*
 * Vector instructions that touch memory element by element: masked loads and stores (masked-out elements never fault)
 * and gathers (a fault in the middle leaves the elements before it done and their mask bits cleared). C, because each
 * access goes through the MMU.
 *
 * i->aux is VEX.vvvv (the mask), i->opsize the element's size, i->opcode the number of elements; for gathers i->index
 * is a vector register and i->imm holds the size of an index (bits 0-3), the width of the destination that is not
 * cleared (4-11) and the vector length (12 and up).
 */
#include "cpu/soft/exc.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/seg.h"
#include "cpu/soft/vec.h"

struct ymm {
    uint8_t b[32];
};

static void ymm_get(struct soft_cpu *c, unsigned n, struct ymm *y)
{
    memcpy(y->b, vec_xmm(c, n), 16);
    memcpy(y->b + 16, c->vec.ymm_hi[n], 16);
}
static void ymm_set(struct soft_cpu *c, unsigned n, const struct ymm *y)
{
    memcpy(vec_xmm(c, n), y->b, 16);
    memcpy(c->vec.ymm_hi[n], y->b + 16, 16);
}
static bool mask_bit(const struct ymm *m, unsigned element, unsigned size)
{
    return m->b[element * size + size - 1] & 0x80;
}

static int mask_load(struct soft_cpu *c, const struct insn *i)
{
    struct ymm mask, out = {{0}};
    unsigned size = i->opsize;
    uint64_t ea, lin;
    if (vec_check(c, VEC_AVX))
        return INSN_FAULT;
    ymm_get(c, i->aux, &mask);
    ea = insn_ea(c, i);
    for (unsigned k = 0; k < i->opcode; k++)
        if (mask_bit(&mask, k, size))
            if (seg_linear(c, i->seg, ea + k * size, size, false, &lin) || mmu_read(c, lin, out.b + k * size, size))
                return INSN_FAULT;
    ymm_set(c, i->reg, &out);
    return INSN_NEXT;
}

/* Stores the elements (of `size` bytes) of `data` whose mask bit is set; every page is checked before the first byte is
 * written. */
static int store_masked(struct soft_cpu *c, const struct insn *i, const struct ymm *mask, const struct ymm *data,
                        unsigned n, unsigned size)
{
    uint64_t ea = insn_ea(c, i), lin;
    uint64_t first = 0;
    bool seen = false;
    void *p;
    for (unsigned k = 0; k < n; k++) {
        if (!mask_bit(mask, k, size))
            continue;
        if (seg_linear(c, i->seg, ea + k * size, size, true, &lin))
            return INSN_FAULT;
        if (!seen || (lin + size - 1) >> PAGE_SHIFT != first >> PAGE_SHIFT) {
            if (mmu_page(c, lin, MMU_WRITE, &p))
                return INSN_FAULT;
            if ((lin + size - 1) >> PAGE_SHIFT != lin >> PAGE_SHIFT && mmu_page(c, lin + size - 1, MMU_WRITE, &p))
                return INSN_FAULT;
            first = lin + size - 1;
            seen = true;
        }
    }
    for (unsigned k = 0; k < n; k++) {
        if (!mask_bit(mask, k, size))
            continue;
        if (seg_linear(c, i->seg, ea + k * size, size, true, &lin) || mmu_write(c, lin, data->b + k * size, size))
            return INSN_FAULT;
    }
    return INSN_NEXT;
}

static int mask_store(struct soft_cpu *c, const struct insn *i)
{
    struct ymm mask, data;
    if (vec_check(c, VEC_AVX))
        return INSN_FAULT;
    ymm_get(c, i->aux, &mask);
    ymm_get(c, i->reg, &data);
    return store_masked(c, i, &mask, &data, i->opcode, i->opsize);
}

/* MASKMOVDQU, VMASKMOVDQU, MASKMOVQ: bytes to DS:rDI. */
static int bytes_store(struct soft_cpu *c, const struct insn *i)
{
    struct ymm mask, data;
    uint64_t lin;
    if (vec_check(c, i->aux))
        return INSN_FAULT;
    if (i->aux == VEC_MMX) {
        if (vec_check_pending(c))
            return INSN_FAULT;
        unsigned top = c->vec.fx[FX_FSW + 1] >> 3 & 7;
        /* MMi is physical register i; the image holds them in stack order. */
        memcpy(mask.b, c->vec.fx + FX_ST + 16 * ((i->rm - top) & 7), 8);
        memcpy(data.b, c->vec.fx + FX_ST + 16 * ((i->reg - top) & 7), 8);
        /* All of the quadword must be writable, whatever the mask says; MASKMOVDQU is not so strict. */
        void *p;
        if (vec_address(c, i, 8, 0, true, &lin) || mmu_page(c, lin, MMU_WRITE, &p) ||
            mmu_page(c, lin + 7, MMU_WRITE, &p)) {
            vec_enter_mmx(&c->vec);
            return INSN_FAULT;
        }
        int r = store_masked(c, i, &mask, &data, 8, 1);
        vec_enter_mmx(&c->vec); /* on a fault, too */
        return r;
    }
    if (vec_address(c, i, 1, 0, true, &lin)) /* must be canonical even if no byte is stored */
        return INSN_FAULT;
    ymm_get(c, i->rm, &mask);
    ymm_get(c, i->reg, &data);
    return store_masked(c, i, &mask, &data, 16, 1);
}

static int gather(struct soft_cpu *c, const struct insn *i)
{
    struct ymm mask, dst, index;
    bool done = false;
    unsigned size = i->opsize, isize = i->imm & 15, n = i->opcode, width = i->imm >> 4 & 63, vl = i->imm >> 12;
    if (vec_check(c, VEC_AVX))
        return INSN_FAULT;
    ymm_get(c, i->aux, &mask);
    ymm_get(c, i->reg, &dst);
    ymm_get(c, i->index, &index);
    /* The mask is all sign bits from here on, so that a restart sees whole elements. */
    for (unsigned k = 0; k < vl / size; k++)
        memset(mask.b + k * size, mask_bit(&mask, k, size) ? 0xff : 0, size);
    memset(mask.b + vl, 0, sizeof mask.b - vl);
    for (unsigned k = 0; k < n; k++) {
        if (mask_bit(&mask, k, size)) {
            int64_t x = isize == 8 ? (int64_t)le64_get(index.b + 8 * k) : (int32_t)le32_get(index.b + 4 * k);
            uint64_t ea = i->disp + c->reg[i->base] + (uint64_t)x * i->scale, lin;
            if (i->addrsize == 4)
                ea = (uint32_t)ea;
            if (seg_linear(c, i->seg, ea, size, false, &lin) || mmu_read(c, lin, dst.b + k * size, size)) {
                if (done)
                    memset(dst.b + width, 0, sizeof dst.b - width);
                ymm_set(c, i->reg, &dst);
                ymm_set(c, i->aux, &mask);
                return INSN_FAULT;
            }
            done = true;
        }
        memset(mask.b + k * size, 0, size);
    }
    memset(dst.b + n * size, 0, sizeof dst.b - n * size);
    memset(&mask, 0, sizeof mask);
    ymm_set(c, i->reg, &dst);
    ymm_set(c, i->aux, &mask);
    return INSN_NEXT;
}

static bool claim(struct insn *i, insn_fn *fn, unsigned size, unsigned n)
{
    i->fn = fn;
    i->opsize = size;
    i->opcode = n;
    return true;
}

static bool claim_gather(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
                         unsigned isize, unsigned size)
{
    unsigned vl = z->raw.vex.L ? 32 : 16;
    i->imm = vl << 12 | MAX(vl / MAX(isize, size) * size, 16u) << 4 | isize;
    i->index = ZydisRegisterGetId(ops[1].mem.index);
    i->scale = 1u << z->raw.sib.scale; /* base, displacement and segment are as in any other SIB */
    return claim(i, gather, size, vl / MAX(isize, size));
}

static bool claim_bytes(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops,
                        enum vec_rule rule)
{
    for (unsigned k = 0; k < z->operand_count; k++)
        if (ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY)
            i->seg = ZydisRegisterGetId(ops[k].mem.segment);
    i->base = RDI;
    i->index = INSN_NOREG;
    i->scale = 1;
    i->disp = 0;
    i->addrsize = z->address_width / 8;
    i->aux = rule;
    return claim(i, bytes_store, 1, 0);
}

bool vec_claim_mask(struct insn *i, const ZydisDecodedInstruction *z, const ZydisDecodedOperand *ops)
{
    unsigned vl = z->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX && z->raw.vex.L ? 32 : 16;
    bool store = ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY;

    switch (z->mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
        return claim_bytes(i, z, ops, VEC_MMX);
    case ZYDIS_MNEMONIC_MASKMOVDQU:
        return claim_bytes(i, z, ops, VEC_SSE);
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return claim_bytes(i, z, ops, VEC_AVX);
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
        return claim(i, store ? mask_store : mask_load, 4, vl / 4);
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return claim(i, store ? mask_store : mask_load, 8, vl / 8);
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VPGATHERDD:
        return claim_gather(i, z, ops, 4, 4);
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
        return claim_gather(i, z, ops, 4, 8);
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD:
        return claim_gather(i, z, ops, 8, 4);
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
        return claim_gather(i, z, ops, 8, 8);
    default:
        return false;
    }
}

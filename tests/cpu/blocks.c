/*
 * Random blocks: a dozen instructions of any form in a row, with MOVs in between that aim memory operands at the
 * window, and short forward jumps. Flags, vector and x87 state flow from one to the next; some fault in the middle. On
 * the host natively, on the software CPU through its run loop.
 */
#include <stdio.h>
#include <stdlib.h>

#include "oracle.h"

#define ITEMS_MAX 12

struct block {
    struct testcase t;
    unsigned start[ITEMS_MAX + 1], n; /* where each item begins */
};

bool case_in_block(const struct testcase *t)
{
    if (t->branch || t->undefined || form_must_fault(&t->z) || t->z.meta.category == ZYDIS_CATEGORY_XSAVE ||
        t->z.meta.category == ZYDIS_CATEGORY_XSAVEOPT || t->z.meta.category == ZYDIS_CATEGORY_AVX2GATHER)
        return false;
    switch (t->z.mnemonic) {
    case ZYDIS_MNEMONIC_POPF:
    case ZYDIS_MNEMONIC_POPFD:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
    case ZYDIS_MNEMONIC_ROL: /* the overflow flag after these depends on how the count is given */
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_AAD:
        return false;
    default:
        break;
    }
    for (unsigned k = 0; k < t->z.operand_count; k++)
        if (t->ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY && t->ops[k].mem.segment == ZYDIS_REGISTER_FS)
            return false; /* without its register set in time it would reach this process's own data */
    return true;
}

static unsigned aimed(const struct testcase *t)
{
    unsigned set = 0;
    for (unsigned k = 0; k < t->z.operand_count; k++) {
        const ZydisDecodedOperand *o = &t->ops[k];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            ZydisRegister r[2] = {o->mem.base, o->mem.index};
            for (unsigned j = 0; j < 2; j++) {
                ZydisRegisterClass c = ZydisRegisterGetClass(r[j]);
                if (c >= ZYDIS_REGCLASS_GPR8 && c <= ZYDIS_REGCLASS_GPR64)
                    set |= BIT(ZydisRegisterGetId(r[j]) & 15);
            }
        }
    }
    switch (t->z.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (t->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
            set |= BIT(ZydisRegisterGetId(t->ops[1].reg.value) & 15);
        break;
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        set |= BIT(RAX) | BIT(RDX);
        break;
    default:
        break;
    }
    if (t->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        set |= BIT(RCX);
    return set;
}

static unsigned emit_movs(uint8_t *out, const struct testcase *t, unsigned set, bool m64)
{
    unsigned n = 0;
    for (unsigned r = 0; r < (m64 ? 16u : 8u); r++) {
        if (!(set & BIT(r)))
            continue;
        if (m64)
            out[n++] = 0x48 | r >> 3;
        out[n++] = 0xb8 | (r & 7);
        memcpy(out + n, &t->in.gpr[r], m64 ? 8 : 4);
        n += m64 ? 8 : 4;
    }
    return n;
}

/* Appends one item; false when this draw gave none. */
static bool append(struct block *b, const struct form *f, struct rng *r)
{
    static struct testcase t;
    uint8_t *out = b->t.code + b->t.len;
    unsigned n = 0, jump = 0;
    bool m64 = f->mode == 64;
    if (!case_make(f, r, &t) || !case_in_block(&t))
        return false;
    if (rng_chance(r, 12)) {
        out[0] = 0x70 | rng_below(r, 16); /* Jcc over the item */
        jump = n = 2;
    }
    n += emit_movs(out + n, &t, aimed(&t), m64);
    int64_t moved = (int64_t)t.ip - (int64_t)(b->t.ip + b->t.len + n);
    for (unsigned k = 0; k < t.z.operand_count; k++)
        if (t.ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
            (t.ops[k].mem.base == ZYDIS_REGISTER_RIP || t.ops[k].mem.base == ZYDIS_REGISTER_EIP))
            le32_put(t.code + t.z.raw.disp.offset, le32_get(t.code + t.z.raw.disp.offset) + (uint32_t)moved);
    memcpy(out + n, t.code, t.len);
    n += t.len;
    if (jump)
        out[1] = n - 2;
    b->start[b->n++] = b->t.len;
    b->t.len += n;
    b->start[b->n] = b->t.len;
    return true;
}

static bool block_make(struct block *b, const struct form *forms, unsigned nforms, struct rng *r)
{
    unsigned want = 2 + rng_below(r, ITEMS_MAX - 2);
    memset(b, 0, offsetof(struct block, n) + sizeof b->n);
    /* The first state comes from some case; its instruction does not matter. */
    while (!case_make(&forms[rng_below(r, nforms)], r, &b->t))
        ;
    b->t.len = 0;
    b->t.ip = b->t.in.rip = CODE_TEST + rng_below(r, 64);
    b->t.branch = false;
    memset(&b->t.z, 0, sizeof b->t.z);
    for (unsigned tries = 0; b->n < want && tries < 100; tries++)
        append(b, &forms[rng_below(r, nforms)], r);
    return b->n > 0;
}

static bool run(enum machine_kind kind, struct testcase *t, bool print)
{
    static struct regs h, s;
    static uint8_t hw[WIN_RW_SIZE], sw[WIN_RW_SIZE];
    host_execute(t, &h, hw);
    machine_execute(kind, t, &s, sw);
    /* What is not compared after a fault depends on the instruction that faulted. */
    memset(&t->z, 0, sizeof t->z);
    if (h.vector >= 0 && h.rip - t->ip < t->len) {
        ZydisDecoder d;
        ZydisDecoderInit(&d, t->form->mode == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                         t->form->mode == 64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
        unsigned at = h.rip - t->ip;
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(&d, t->code + at, t->len - at, &t->z, t->ops)))
            memset(&t->z, 0, sizeof t->z);
    }
    return compare(t, &h, &s, hw, sw, print);
}

/* Prints the block up to where it first goes wrong, and how. */
static void explain(enum machine_kind kind, struct block *b, unsigned mode)
{
    ZydisDecoder d;
    ZydisFormatter fmt;
    unsigned items = b->n;
    for (unsigned k = 1; k <= b->n; k++) {
        b->t.len = b->start[k];
        if (!run(kind, &b->t, false)) {
            items = k;
            break;
        }
    }
    b->t.len = b->start[items];
    ZydisDecoderInit(&d, mode == 64 ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LONG_COMPAT_32,
                     mode == 64 ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
    ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
    for (unsigned at = 0; at < b->t.len;) {
        ZydisDecodedInstruction z;
        ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
        char text[128] = "?";
        if (ZYAN_FAILED(ZydisDecoderDecodeFull(&d, b->t.code + at, b->t.len - at, &z, ops)))
            break;
        ZydisFormatterFormatInstruction(&fmt, &z, ops, z.operand_count_visible, text, sizeof text, b->t.ip + at, NULL);
        printf("    %lx  %s\n", b->t.ip + at, text);
        at += z.length;
    }
    run(kind, &b->t, true);
}

unsigned blocks_run(unsigned mode, uint64_t seed, unsigned count, long only)
{
    static struct block b;
    unsigned nforms, bad = 0, done = 0;
    struct form *forms = forms_enumerate(mode, &nforms);
    for (unsigned k = only >= 0 ? (unsigned)only : 0; k < (only >= 0 ? (unsigned)only + 1 : count); k++) {
        struct rng r = {seed * 0x9e3779b97f4a7c15ull + k * 0xd1342543de82ef95ull + mode};
        if (!block_make(&b, forms, nforms, &r))
            continue;
        done++;
        for (unsigned kind = 0; kind < MACHINES; kind++) {
            struct block copy = b;
            if (run(kind, &copy.t, false))
                continue;
            if (bad++ < 10 || only >= 0) {
                printf("  block: --seed %lu --mode %u --block %u, %s\n", seed, mode, k, machine_name(kind));
                explain(kind, &b, mode);
            }
            break;
        }
    }
    printf("%u-bit code: %u blocks, %u differ; seed %lu\n", mode, done, bad, seed);
    free(forms);
    return bad;
}

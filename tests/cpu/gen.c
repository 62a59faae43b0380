/*
 * Makes a random case of an instruction form: register numbers, addressing, immediates and redundant prefixes, then a
 * state in which its memory operands mostly lie in the window, sometimes at its edges, on the read-only page,
 * misaligned or nowhere.
 */
#include "oracle.h"

static ZydisDecoder decoders[2];
static uint8_t pool[65536]; /* interesting numbers */

static uint64_t interesting(struct rng *r)
{
    static const uint64_t table[] = {
        0,
        1,
        2,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fffffff,
        0x80000000,
        0xffffffff,
        0x7fffffffffffffff,
        0x8000000000000000,
        ~0ull,
        ~1ull,
        0x3ff0000000000000,
        /* 1.0 */ 0x7ff0000000000000, /* inf */
        0xfff8000000000000,
        0x7ff4000000000000,
        /* SNaN */ 0x0000000000000001,
        /* denormal */ 0x000fffffffffffff,
        0x3f8000003f800000,
        0x7f8000007f800001,
        0x00000001807fffff,
        0x41e0000000000000,
        /* 2^31 */ 0xc3e0000000000000,
        0x4b0000004f000000,
        0x7f7fffff00800000,
        0x7fefffffffffffff,
        0x0010000000000000,
        0xbff8000040490fdb,
    };
    switch (rng_below(r, 8)) {
    case 0:
    case 1:
        return table[rng_below(r, ARRAY_SIZE(table))];
    case 2:
        return (int64_t)(int32_t)rng64(r);
    case 3:
        return rng64(r) >> rng_below(r, 64);
    case 4: { /* doubles of ordinary size */
        return (rng64(r) & 0x800fffffffffffff) | (uint64_t)(1023 - 40 + rng_below(r, 80)) << 52;
    }
    case 5: {
        uint32_t a = (rng64(r) & 0x807fffff) | (127 - 30 + rng_below(r, 60)) << 23;
        uint32_t b = (rng64(r) & 0x807fffff) | (127 - 30 + rng_below(r, 60)) << 23;
        return (uint64_t)a << 32 | b;
    }
    default:
        return rng64(r);
    }
}

static void init(void)
{
    struct rng r = {12345};
    ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    for (unsigned k = 0; k < sizeof pool; k += 8)
        le64_put(pool + k, interesting(&r));
}

static void random_x87(struct rng *r, struct xstate *x)
{
    uint16_t fcw = 0x7f | rng_below(r, 4) << 10 | (rng_chance(r, 60) ? 3 : rng_below(r, 4)) << 8, fsw;
    if (rng_chance(r, 15))
        fcw &= ~(rng64(r) & 0x3f);
    fsw = rng64(r) & 0x7f7f;
    if (rng_chance(r, 50))
        fsw &= ~0x3f;
    if (!rng_chance(r, 10))
        fsw &= ~0x3f | fcw; /* mostly no exception waits */
    if (fsw & ~fcw & 0x3f)
        fsw |= 0x8080;
    le16_put(x->fx, fcw);
    le16_put(x->fx + 2, fsw);
    x->fx[4] = rng_chance(r, 60) ? 0xff : rng64(r);
    le16_put(x->fx + 6, rng64(r) & 0x7ff);
    le64_put(x->fx + 8, rng64(r) >> 17);
    le64_put(x->fx + 16, rng64(r) >> 17);
    for (unsigned k = 0; k < 8; k++) {
        uint8_t *st = x->fx + 32 + 16 * k;
        uint64_t m = interesting(r);
        uint16_t e;
        switch (rng_below(r, 8)) {
        case 0:
            e = rng_below(r, 2) ? 0 : 0x8000;
            break;
        case 1:
            e = 0x7fff | (rng64(r) & 0x8000);
            break;
        case 2:
            e = rng64(r);
            break;
        case 3:
            m = 0;
            e = rng64(r) & 0x8000;
            break;
        default:
            e = (16383 - 70 + rng_below(r, 140)) | (rng64(r) & 0x8000);
            m |= 1ull << 63;
            break;
        }
        le64_put(st, m);
        le16_put(st + 8, e);
    }
}

static void random_xstate(struct rng *r, struct xstate *x)
{
    memset(x, 0, sizeof *x);
    random_x87(r, x);
    uint32_t mxcsr = 0x1f80 | (rng64(r) & 0x6000);
    if (rng_chance(r, 30))
        mxcsr |= rng64(r) & 0x803f;
    if (rng_chance(r, 20))
        mxcsr |= 0x40;
    if (rng_chance(r, 10))
        mxcsr &= ~(rng64(r) & 0x1f80);
    le32_put(x->fx + 24, mxcsr);
    le32_put(x->fx + 28, 0xffff);
    for (unsigned k = 0; k < 256; k += 8) {
        le64_put(x->fx + 160 + k, interesting(r));
        le64_put(x->ymm_hi + k, interesting(r));
    }
    le64_put(x->header, 7);
    if (rng_chance(r, 5)) { /* so that the CPU knows it is not in use */
        memset(x->ymm_hi, 0, sizeof x->ymm_hi);
        le64_put(x->header, 3);
    }
}

/* ---- bytes ---- */

static unsigned encode(const struct form *f, struct rng *r, uint8_t *b)
{
    unsigned n = 0;
    bool m64 = f->mode == 64;
    uint8_t rxb = m64 ? rng64(r) & 7 : 0;

    if (rng_chance(r, 5))
        b[n++] = 0x67;
    if (rng_chance(r, 4)) {
        static const uint8_t segs[] = {0x3e, 0x36, 0x2e, 0x26, 0x64, 0x65};
        b[n++] = segs[rng_below(r, m64 ? 6 : 4)];
    }
    if (!f->vex && f->mem && rng_chance(r, 12))
        b[n++] = 0xf0;
    if (!f->vex && !f->prefix && rng_chance(r, 3)) {
        static const uint8_t extra[] = {0x66, 0xf2, 0xf3};
        b[n++] = extra[rng_below(r, 3)];
    }
    if (f->vex) {
        uint8_t vvvv = rng64(r) & 15;
        if (f->bytes[2] >> 3 & 1 && rng_chance(r, 50))
            vvvv = 15; /* also the forms that have no such operand */
        if (f->map == 1 && !f->w && rng_chance(r, 30)) {
            b[n++] = 0xc5;
            b[n++] = (m64 ? (~rxb & 4) << 5 : 0x80) | vvvv << 3 | f->l << 2 | f->pp;
            if (!m64)
                b[n - 1] |= 0x40; /* else it is LDS */
        } else {
            b[n++] = 0xc4;
            b[n++] = (~rxb & 7) << 5 | f->map;
            b[n++] = f->w << 7 | vvvv << 3 | f->l << 2 | f->pp;
        }
    } else {
        if (f->prefix)
            b[n++] = f->prefix;
        if (m64 && (f->w || rng_chance(r, 60)))
            b[n++] = 0x40 | f->w << 3 | rxb;
        if (f->map)
            b[n++] = 0x0f;
        if (f->map >= 2)
            b[n++] = f->map == 2 ? 0x38 : 0x3a;
    }
    b[n++] = f->opcode;
    if (f->has_modrm) {
        uint8_t reg = f->reg_free ? rng64(r) & 7 : f->reg;
        uint8_t rm = f->mem ? rng64(r) & 7 : f->rm_free ? rng64(r) & 7 : f->rm;
        if (f->mem && f->rm == 4)
            rm = 4;
        b[n++] = (f->mem ? rng_below(r, 3) : 3) << 6 | reg << 3 | rm;
    }
    for (unsigned k = n; k < 24; k++)
        b[k] = rng64(r);
    return n;
}

/* ---- state ---- */

static uint64_t window_target(struct rng *r, unsigned size, bool aligned)
{
    unsigned s = size ? size : 1;
    uint64_t t;
    unsigned pow2 = 1;
    while (pow2 < s && pow2 < 64)
        pow2 *= 2;
    switch (rng_below(r, 50)) {
    case 0:
    case 1:
        t = WIN_RW + WIN_RW_SIZE - rng_below(r, s + 1);
        break;
    case 2:
        t = WIN_RW - rng_below(r, s + 1);
        break;
    case 3:
    case 4:
        t = WIN_RO + rng_below(r, WIN_RO_SIZE - MIN(s, 4000));
        break;
    case 5:
        t = WIN_RO + WIN_RO_SIZE - rng_below(r, s + 1);
        break;
    case 6:
        t = rng64(r);
        break;
    case 7:
    case 8:
        t = WIN_RW + 4096 - rng_below(r, s + 1);
        break;
    default:
        t = WIN_RW + 1024 + rng_below(r, WIN_RW_SIZE - 2048 - MIN(s, 4000));
        break;
    }
    if (aligned)
        t &= ~(uint64_t)(pow2 - 1);
    else if (rng_chance(r, 60))
        t &= ~(uint64_t)(MAX(pow2, 16u) - 1);
    return t;
}

static uint64_t code_target(struct rng *r, const struct testcase *t)
{
    return t->ip + (rng_chance(r, 50) ? 64 + rng_below(r, 1024) : -(64 + (int64_t)rng_below(r, 1024)));
}

static unsigned gpr_id(ZydisRegister reg)
{
    ZydisRegisterClass k = ZydisRegisterGetClass(reg);
    if (k == ZYDIS_REGCLASS_GPR16 || k == ZYDIS_REGCLASS_GPR32 || k == ZYDIS_REGCLASS_GPR64)
        return ZydisRegisterGetId(reg);
    return 16;
}

static void patch_disp(struct testcase *t, uint64_t v)
{
    if (t->z.raw.disp.size && t->z.raw.disp.offset)
        memcpy(t->code + t->z.raw.disp.offset, &v, t->z.raw.disp.size / 8);
}

/* Makes operand `o` lie at linear address `at`, if it can be arranged. */
static void aim(struct testcase *t, const ZydisDecodedOperand *o, uint64_t at, struct rng *r)
{
    unsigned base = gpr_id(o->mem.base), index = gpr_id(o->mem.index), bits = t->z.address_width;
    uint64_t disp = o->mem.disp.has_displacement ? o->mem.disp.value : 0, scale = o->mem.scale ? o->mem.scale : 1;
    uint64_t *g = t->in.gpr, v, mask = bits == 64 ? ~0ull : bits == 32 ? 0xffffffff : 0xffff;

    if (o->mem.segment == ZYDIS_REGISTER_FS)
        at -= host_fs_base();
    if (o->mem.base == ZYDIS_REGISTER_RIP || o->mem.base == ZYDIS_REGISTER_EIP) {
        patch_disp(t, at - (t->ip + t->len));
    } else if (base < 16) {
        v = at - disp;
        if (index < 16 && index != base) {
            if (rng_chance(r, 50))
                g[index] = rng_below(r, 4096);
            v -= g[index] * scale;
        } else if (index == base) {
            v /= scale + 1;
        }
        g[base] = (g[base] & ~mask) | (v & mask);
    } else if (index < 16) {
        g[index] = (g[index] & ~mask) | rng_below(r, 4096);
        patch_disp(t, at - (g[index] & mask) * scale);
    } else if (t->z.raw.disp.size) {
        patch_disp(t, at);
    } else if (t->z.raw.imm[0].size >= 32 && o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM) {
        memcpy(t->code + t->z.raw.imm[0].offset, &at, t->z.raw.imm[0].size / 8); /* moffs */
    }
}

static uint8_t *window_at(struct testcase *t, uint64_t at, unsigned n)
{
    return at >= WIN_RW && at + n <= WIN_RW + WIN_RW_SIZE ? t->window + (at - WIN_RW) : NULL;
}

static void state_image(struct testcase *t, uint64_t at, struct rng *r)
{
    uint8_t *w = window_at(t, at, sizeof(struct xstate));
    struct xstate x;
    if (!w)
        return;
    random_xstate(r, &x);
    x.header[0] = rng64(r) & 7;
    if (rng_chance(r, 30))
        le64_put(x.header + 8, 1ull << 63 | 7);
    if (rng_chance(r, 5))
        x.header[16 + rng_below(r, 48)] ^= 1u << rng_below(r, 8);
    if (rng_chance(r, 3))
        x.fx[26] = 1;
    memcpy(w, &x, sizeof x);
}

bool case_make(const struct form *f, struct rng *r, struct testcase *t)
{
    static bool done;
    uint8_t bytes[32];
    if (!done)
        init();
    done = true;

    t->form = f;
    t->branch = false;
    encode(f, r, bytes);
    t->ip = CODE_TEST + rng_below(r, 16);
    const ZydisDecoder *d = &decoders[f->mode == 32];
    ZyanStatus status = ZydisDecoderDecodeFull(d, bytes, 15, &t->z, t->ops);
    t->undefined = status == ZYDIS_STATUS_ILLEGAL_LOCK && rng_chance(r, 5);
    uint8_t *lock_at = memchr(bytes, 0xf0, 3);
    if (t->undefined && lock_at) { /* see what it would be without */
        *lock_at = 0x3e;
        status = ZydisDecoderDecodeFull(d, bytes, 15, &t->z, t->ops);
    }
    if (ZYAN_FAILED(status))
        return false;
    if (!form_runnable(&t->z, t->ops))
        return false;
    t->len = t->z.length;
    memcpy(t->code, bytes, 16);
    if (f->mode == 32 && t->z.address_width == 16 && rng_chance(r, 90))
        return false; /* reaches only what is never mapped */

    uint64_t *g = t->in.gpr;
    for (unsigned n = 0; n < 16; n++)
        g[n] = interesting(r);
    g[RSP] = WIN_RW + 4096 + 8 * rng_below(r, 128) - 512;
    t->in.rip = t->ip;
    t->in.rflags = FLAG_1 | FLAG_IF | (rng64(r) & FLAGS_STATUS) | (rng_chance(r, 30) ? FLAG_DF : 0);
    t->in.vector = -1;
    t->in.error = 0;
    t->in.cr2 = 0;
    random_xstate(r, &t->in.x);
    memcpy(t->window, pool + 8 * rng_below(r, (sizeof pool - WIN_RW_SIZE) / 8), WIN_RW_SIZE);
    memcpy(t->window + WIN_RW_SIZE, pool + 4096, WIN_RO_SIZE);

    bool lock = t->z.attributes & ZYDIS_ATTRIB_HAS_LOCK || t->z.mnemonic == ZYDIS_MNEMONIC_XCHG ||
                t->z.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B;
    bool rep = t->z.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
    switch (t->z.meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_UNCOND_BR:
        t->branch = true;
        break;
    default:
        break;
    }
    switch (t->z.mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        if (rng_chance(r, 60)) {
            g[RAX] >>= rng_below(r, 64);
            g[RDX] = rng_chance(r, 50) ? 0 : (int64_t)g[RAX] >> 63;
        }
        break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        if (t->ops[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
            g[gpr_id(t->ops[1].reg.value) & 15] = (int64_t)rng_below(r, 4096) - 2048;
        break;
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
        g[RAX] = rng_below(r, 8);
        g[RDX] = 0;
        break;
    case ZYDIS_MNEMONIC_ENTER:
        t->code[t->z.raw.imm[0].offset + 1] &= 3;
        t->code[t->z.raw.imm[1].offset] &= 0xe3;
        g[RBP] = WIN_RW + 4096 + rng_below(r, 256);
        break;
    default:
        break;
    }

    for (unsigned k = 0; k < t->z.operand_count; k++) {
        const ZydisDecodedOperand *o = &t->ops[k];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && t->branch && o->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
            gpr_id(o->reg.value) < 16 && gpr_id(o->reg.value) != RSP && rng_chance(r, 80))
            g[gpr_id(o->reg.value)] = code_target(r, t);
        if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->imm.is_relative) {
            int64_t to = code_target(r, t) - (t->ip + t->len);
            if (t->z.raw.imm[0].size == 8)
                to = rng_chance(r, 50) ? 40 + (int64_t)rng_below(r, 80) : -40 - (int64_t)rng_below(r, 80);
            memcpy(t->code + t->z.raw.imm[0].offset, &to, t->z.raw.imm[0].size / 8);
        }
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN && gpr_id(o->mem.base) == RSP && rng_chance(r, 90)) {
            if (t->z.meta.category == ZYDIS_CATEGORY_RET && rng_chance(r, 85)) {
                uint8_t *w = window_at(t, g[RSP], 8);
                if (w)
                    le64_put(w, code_target(r, t));
            }
            continue;
        }
        unsigned size = o->size / 8;
        bool big = size > 64;
        uint64_t at = window_target(r, size, lock || (big && rng_chance(r, 90)));
        if (rep && rng_chance(r, 50))
            at = WIN_RW + 2048 + rng_below(r, 4096);
        if (o->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
            for (unsigned e = 0; e < 4; e++) {
                unsigned v = ZydisRegisterGetId(o->mem.index);
                uint8_t *half = (e < 2 ? t->in.x.fx + 160 + 16 * v : t->in.x.ymm_hi + 16 * v) + 8 * (e & 1);
                bool wide = ZYDIS_MNEMONIC_VGATHERQPD == t->z.mnemonic || ZYDIS_MNEMONIC_VGATHERQPS == t->z.mnemonic ||
                            ZYDIS_MNEMONIC_VPGATHERQD == t->z.mnemonic || ZYDIS_MNEMONIC_VPGATHERQQ == t->z.mnemonic;
                int64_t a = (int64_t)rng_below(r, 256) - 128, b = (int64_t)rng_below(r, 256) - 128;
                le64_put(half, wide ? (uint64_t)a : (uint64_t)(uint32_t)a | (uint64_t)(uint32_t)b << 32);
            }
        if (o->mem.segment == ZYDIS_REGISTER_FS && (gpr_id(o->mem.base) == 16 || t->z.address_width != 64))
            return false; /* would reach this process's own thread data */
        aim(t, o, at, r);
        if (t->branch && window_at(t, at, 8) && rng_chance(r, 85))
            le64_put(window_at(t, at, 8), code_target(r, t));
        switch (t->z.mnemonic) {
        case ZYDIS_MNEMONIC_FXRSTOR:
        case ZYDIS_MNEMONIC_FXRSTOR64:
        case ZYDIS_MNEMONIC_XRSTOR:
        case ZYDIS_MNEMONIC_XRSTOR64:
            state_image(t, at, r);
            break;
        case ZYDIS_MNEMONIC_LDMXCSR:
        case ZYDIS_MNEMONIC_VLDMXCSR:
            if (window_at(t, at, 4) && rng_chance(r, 80))
                le32_put(window_at(t, at, 4), rng64(r) & 0xffff);
            break;
        default:
            break;
        }
    }
    if (rep)
        g[RCX] = rng_below(r, 24);
    if (t->z.mnemonic == ZYDIS_MNEMONIC_POPF || t->z.mnemonic == ZYDIS_MNEMONIC_POPFD ||
        t->z.mnemonic == ZYDIS_MNEMONIC_POPFQ) {
        uint8_t *w = window_at(t, g[RSP], 8);
        if (!w)
            return false;
        le64_put(w, le64_get(w) & ~(uint64_t)(FLAG_TF | FLAG_AC | FLAG_NT));
    }
    if (t->z.meta.category == ZYDIS_CATEGORY_XSAVE || t->z.meta.category == ZYDIS_CATEGORY_XSAVEOPT)
        if (g[RAX] > 7 || g[RDX]) /* was needed for the address: would ask for components that only one side has */
            return false;
    if (f->mode == 32)
        for (unsigned n = 0; n < 16; n++)
            g[n] = n < 8 ? (uint32_t)g[n] : 0;
    if (t->undefined) {
        t->code[lock_at - bytes] = 0xf0;
        return true;
    }
    /* Operand values and lengths may have changed with what was patched. */
    return ZYAN_SUCCESS(ZydisDecoderDecodeFull(d, t->code, t->len, &t->z, t->ops)) && t->z.length == t->len;
}

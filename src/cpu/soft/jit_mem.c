/*
 * Operands: guest registers, guest memory through the inline TLB, and where the status flags are. See jit.h for the
 * conventions.
 */
#include <stddef.h>

#include "cpu/soft/jit.h"
#include "cpu/soft/mmu_fast.h"

#define GS(field) op_gs((int32_t)offsetof(struct soft_cpu, field))

static struct opnd slot_of(unsigned n)
{
    return op_gs((int32_t)(offsetof(struct soft_cpu, gpr) + 8 * n));
}

struct opnd jit_greg(unsigned n)
{
    return jit_in_host(n) ? op_reg(jit_host(n)) : slot_of(n);
}

unsigned jit_get(struct jit *j, unsigned n, unsigned t)
{
    if (jit_in_host(n))
        return jit_host(n);
    e_load(&j->e, t, slot_of(n));
    return t;
}

void jit_put(struct jit *j, unsigned n, unsigned host)
{
    if (!jit_in_host(n))
        e_store(&j->e, slot_of(n), host);
}

/* ---- flags ---- */

/* Overwrites JIT_T1. */
static void cc_save(struct jit *j)
{
    e_mov(&j->e, JIT_T1, RAX);
    e_bytes(&j->e, "\x9f\x0f\x90\xc0", 4); /* lahf; seto al */
    e_op(&j->e, 0x89, 2, RAX, GS(cc));
    e_mov(&j->e, RAX, JIT_T1);
}

static void cc_load(struct jit *j)
{
    e_store(&j->e, GS(jit.tmp), RAX);
    e_op(&j->e, OP_0F | 0xb7, 4, RAX, GS(cc)); /* movzx */
    e_bytes(&j->e, "\x04\x7f\x9e", 3);         /* add al, 0x7f; sahf */
    e_load(&j->e, RAX, GS(jit.tmp));
}

void jit_flags_save(struct jit *j, unsigned need)
{
    if (j->fl == JIT_FL_HOST && need == INSN_FLAG_C) {
        struct opnd ah = GS(cc);
        ah.disp++;
        e_op(&j->e, OP_0F | 0x92, 1, 0, ah); /* setc */
    } else if (j->fl == JIT_FL_HOST && need) {
        cc_save(j);
    }
    j->fl = need ? JIT_FL_CC : JIT_FL_DEAD;
}

void jit_flags_clobber(struct jit *j)
{
    jit_flags_save(j, j->live[j->k]);
}

void jit_flags_host(struct jit *j, unsigned need)
{
    if (need && j->fl == JIT_FL_CC) {
        if (need == INSN_FLAG_C) {
            e_ext(&j->e, OP_0F | 0xba, 4, 4, GS(cc)); /* bt */
            e8(&j->e, 8);
        } else {
            cc_load(j);
        }
    }
    j->fl = JIT_FL_HOST;
}

void jit_flags_native(struct jit *j)
{
    jit_flags_host(j, (j->live[j->k + 1] & ~j->i->flags_write) | j->i->flags_read);
}

/* ---- memory ---- */

bool jit_mem_ok(const struct jit *j, const struct insn *i)
{
    if (!(j->b->mode & MODE_CS64) && (i->seg == CS || i->seg >= FS)) /* not writable; not flat */
        return false;
    if (i->flags & INSN_F_RIPREL && (i->disp > INT32_MAX - 8192))
        return false;
    return i->disp == (int32_t)i->disp && i->addrsize >= 4 && !(i->addrsize == 4 && (i->flags & INSN_F_RIPREL));
}

struct opnd jit_address(struct jit *j, const struct insn *i)
{
    struct opnd o = {.mem = true, .base = HOST_NONE, .index = HOST_NONE, .disp = (int32_t)i->disp};
    if (i->base == INSN_RIP) {
        e_load(&j->e, JIT_T0, GS(jit.code_base));
        o.base = JIT_T0;
        o.disp += j->off;
        return o;
    }
    if (i->base != INSN_NOREG)
        o.base = (uint8_t)jit_get(j, i->base, JIT_T0);
    if (i->index != INSN_NOREG) {
        o.index = (uint8_t)jit_get(j, i->index, JIT_T1);
        o.scale = (uint8_t)__builtin_ctz(i->scale);
    }
    return o;
}

/* JIT_T0 holds the linear address. */
static struct opnd check(struct jit *j, unsigned size, bool write)
{
    struct emit *e = &j->e;
    e_op(e, 0x89, 4, JIT_T0, op_reg(JIT_T1));
    e_ext(e, 0xc1, 4, 5, op_reg(JIT_T1)); /* shr */
    e8(e, PAGE_SHIFT - 5);
    e_alu_imm(e, 4, 4, op_reg(JIT_T1), (TLB_ENTRIES - 1) << 5);
    e_op(e, 0x03, 8, JIT_T1, GS(jit.tlb));
    e_op(e, 0x03, 8, JIT_T0, op_mem(JIT_T1, write ? offsetof(struct tlb_entry, w) : offsetof(struct tlb_entry, r)));
    e_alu_imm(e, 7, 8, op_reg(JIT_T0), (int32_t)(PAGE_SIZE - size));
    jit_slow_if(j, CC_COND_A, true);
    e_load(e, JIT_T1, op_mem(JIT_T1, offsetof(struct tlb_entry, host)));
    return op_mem2(JIT_T0, JIT_T1, 0);
}

struct opnd jit_mem(struct jit *j, const struct insn *i, unsigned size, bool write)
{
    jit_flags_clobber(j);
    e_op(&j->e, 0x8d, i->addrsize, JIT_T0, jit_address(j, i));
    if (i->seg >= FS)
        e_op(&j->e, 0x03, 8, JIT_T0, op_gs((int32_t)(offsetof(struct soft_cpu, seg) + i->seg * sizeof(struct soft_seg) +
                                                     offsetof(struct soft_seg, base))));
    return check(j, size, write);
}

struct opnd jit_linear_mem(struct jit *j, unsigned seg, unsigned size, bool write)
{
    if (seg >= FS)
        e_op(&j->e, 0x03, 8, JIT_T0, op_gs((int32_t)(offsetof(struct soft_cpu, seg) + seg * sizeof(struct soft_seg) +
                                                     offsetof(struct soft_seg, base))));
    return check(j, size, write);
}

struct opnd jit_base_mem(struct jit *j, unsigned base, int32_t disp, unsigned size, bool write)
{
    jit_flags_clobber(j);
    e_op(&j->e, 0x8d, jit_word(j), JIT_T0, op_mem(jit_host(base), disp));
    return check(j, size, write);
}

struct opnd jit_stack_mem(struct jit *j, int32_t disp, unsigned size, bool write)
{
    return jit_base_mem(j, RSP, disp, size, write);
}

struct opnd jit_mem_narrow(struct jit *j, struct opnd m)
{
    e_lea(&j->e, JIT_T0, m);
    return op_mem(JIT_T0, 0);
}

/* ---- the handler ---- */

void jit_slow_at(struct jit *j, uint8_t *site, bool back)
{
    j->slow[j->n_slow++] = (struct jit_slow){.site = site, .insn = (uint16_t)j->k, .back = back};
}

void jit_slow_if(struct jit *j, unsigned cond, bool back)
{
    jit_slow_at(j, e_jcc(&j->e, cond), back);
}

void jit_slow_live(struct jit *j, uint8_t *site, unsigned live)
{
    j->slow[j->n_slow++] = (struct jit_slow){.site = site, .resume = j->e.p, .insn = (uint16_t)j->k, .live = (uint8_t)live};
}

void jit_target(struct jit *j, uint8_t *rel32, const void *rx)
{
    e_target(rel32, j->base + ((const uint8_t *)rx - j->rx));
}

/* What the C functions behind both thunks are told: instruction k and where it is. Flags are in cc, before and after. */
static void call(struct jit *j, unsigned k, unsigned live, const uint8_t *thunk)
{
    const struct insn *i = &j->b->insn[k];
    int32_t off = (int32_t)(j->b->gpa & (PAGE_SIZE - 1));
    for (unsigned n = 0; n < k; n++)
        off += j->b->insn[n].len;
    e_imm32(&j->e, JIT_T0, (uint32_t)(((const uint8_t *)i - j->c->blocks->arena) / 8) | live << JIT_LIVE_SHIFT);
    e_imm32(&j->e, JIT_T1, (uint32_t)off);
    jit_target(j, e_call(&j->e), thunk);
}

void jit_handler_call(struct jit *j, unsigned k)
{
    call(j, k, 0, j->c->jit_cache->thunk.handler);
}

void jit_live_call(struct jit *j, unsigned k, unsigned live)
{
    call(j, k, live, j->c->jit_cache->thunk.live);
}

void jit_by_handler(struct jit *j)
{
    jit_flags_clobber(j);
    jit_handler_call(j, j->k);
    j->fl = JIT_FL_CC;
}

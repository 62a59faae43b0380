/*
 * A decoded block becomes host code: which flags live where, the instructions one by one, the ways out. The table of what is
 * lowered natively is here.
 */
#include "cpu/soft/interp.h"
#include "cpu/soft/jit.h"

#define GS(field) op_gs((int32_t)offsetof(struct soft_cpu, field))

/* clang-format off */
#define M(name) [ZYDIS_MNEMONIC_##name]
static const struct jit_row table[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
    M(ADD) = {jit_alu, ALU_ADD}, M(OR) = {jit_alu, ALU_OR}, M(ADC) = {jit_alu, ALU_ADC}, M(SBB) = {jit_alu, ALU_SBB},
    M(AND) = {jit_alu, ALU_AND}, M(SUB) = {jit_alu, ALU_SUB}, M(XOR) = {jit_alu, ALU_XOR}, M(CMP) = {jit_alu, ALU_CMP},
    M(TEST) = {jit_test}, M(INC) = {jit_incdec, 0}, M(DEC) = {jit_incdec, 1}, M(NOT) = {jit_notneg, 0}, M(NEG) = {jit_notneg, 1},
    M(DIV) = {jit_div, 0}, M(IDIV) = {jit_div, 1}, M(CMPXCHG) = {jit_cmpxchg}, M(CMPXCHG8B) = {jit_cmpxchgb}, M(CMPXCHG16B) = {jit_cmpxchgb},
    M(XADD) = {jit_xadd}, M(PUSHFQ) = {jit_pushf},
    M(CLI) = {jit_cli, 0, true}, M(STI) = {jit_sti, 0, true}, M(SWAPGS) = {jit_swapgs, 0, true}, M(STAC) = {jit_set_ac, 1, true},
    M(CLAC) = {jit_set_ac, 0, true}, M(RDTSC) = {jit_rdtsc, 0, true}, M(RDTSCP) = {jit_rdtsc, 1, true},
    M(MUL) = {jit_mul, 0}, M(IMUL) = {jit_mul, 1},
    M(ROL) = {jit_shift, 0}, M(ROR) = {jit_shift, 1}, M(RCL) = {jit_shift, 2}, M(RCR) = {jit_shift, 3}, M(SHL) = {jit_shift, 4},
    M(SHR) = {jit_shift, 5}, M(SAR) = {jit_shift, 7}, M(SHLD) = {jit_shiftd}, M(SHRD) = {jit_shiftd},
    M(SARX) = {jit_shiftx, 2}, M(SHLX) = {jit_shiftx, 1}, M(SHRX) = {jit_shiftx, 3}, M(RORX) = {jit_shiftx, 0},
    M(BT) = {jit_bt, 0}, M(BTS) = {jit_bt, 1}, M(BTR) = {jit_bt, 2}, M(BTC) = {jit_bt, 3},
    M(BSF) = {jit_scan, 0}, M(BSR) = {jit_scan, 1}, M(TZCNT) = {jit_scan, 2}, M(LZCNT) = {jit_scan, 3}, M(POPCNT) = {jit_scan, 4},
    M(ANDN) = {jit_bmi, 0}, M(BEXTR) = {jit_bmi, 1}, M(BZHI) = {jit_bmi, 2}, M(PDEP) = {jit_bmi, 3}, M(PEXT) = {jit_bmi, 4},
    M(BLSI) = {jit_bmi, 5}, M(BLSR) = {jit_bmi, 6}, M(BLSMSK) = {jit_bmi, 7}, M(MULX) = {jit_bmi, 8},
    M(MOV) = {jit_mov}, M(MOVNTI) = {jit_mov}, M(MOVZX) = {jit_movx, 0}, M(MOVSX) = {jit_movx, 1}, M(MOVSXD) = {jit_movx, 2},
    M(LEA) = {jit_lea}, M(XCHG) = {jit_xchg}, M(BSWAP) = {jit_bswap},
    M(CBW) = {jit_convert}, M(CWDE) = {jit_convert}, M(CDQE) = {jit_convert}, M(CWD) = {jit_convert}, M(CDQ) = {jit_convert}, M(CQO) = {jit_convert},
    M(CMOVO) = {jit_cmov}, M(CMOVNO) = {jit_cmov}, M(CMOVB) = {jit_cmov}, M(CMOVNB) = {jit_cmov}, M(CMOVZ) = {jit_cmov},
    M(CMOVNZ) = {jit_cmov}, M(CMOVBE) = {jit_cmov}, M(CMOVNBE) = {jit_cmov}, M(CMOVS) = {jit_cmov}, M(CMOVNS) = {jit_cmov},
    M(CMOVP) = {jit_cmov}, M(CMOVNP) = {jit_cmov}, M(CMOVL) = {jit_cmov}, M(CMOVNL) = {jit_cmov}, M(CMOVLE) = {jit_cmov}, M(CMOVNLE) = {jit_cmov},
    M(SETO) = {jit_setcc}, M(SETNO) = {jit_setcc}, M(SETB) = {jit_setcc}, M(SETNB) = {jit_setcc}, M(SETZ) = {jit_setcc},
    M(SETNZ) = {jit_setcc}, M(SETBE) = {jit_setcc}, M(SETNBE) = {jit_setcc}, M(SETS) = {jit_setcc}, M(SETNS) = {jit_setcc},
    M(SETP) = {jit_setcc}, M(SETNP) = {jit_setcc}, M(SETL) = {jit_setcc}, M(SETNL) = {jit_setcc}, M(SETLE) = {jit_setcc}, M(SETNLE) = {jit_setcc},
    M(JO) = {jit_jcc}, M(JNO) = {jit_jcc}, M(JB) = {jit_jcc}, M(JNB) = {jit_jcc}, M(JZ) = {jit_jcc}, M(JNZ) = {jit_jcc},
    M(JBE) = {jit_jcc}, M(JNBE) = {jit_jcc}, M(JS) = {jit_jcc}, M(JNS) = {jit_jcc}, M(JP) = {jit_jcc}, M(JNP) = {jit_jcc},
    M(JL) = {jit_jcc}, M(JNL) = {jit_jcc}, M(JLE) = {jit_jcc}, M(JNLE) = {jit_jcc},
    M(JMP) = {jit_jmp}, M(CALL) = {jit_call_near}, M(RET) = {jit_ret},
    M(PUSH) = {jit_push}, M(POP) = {jit_pop}, M(LEAVE) = {jit_leave},
    M(NOP) = {jit_nop}, M(ENDBR64) = {jit_nop}, M(ENDBR32) = {jit_nop}, M(PREFETCHNTA) = {jit_nop}, M(PREFETCHT0) = {jit_nop},
    M(PREFETCHT1) = {jit_nop}, M(PREFETCHT2) = {jit_nop}, M(PREFETCHW) = {jit_nop}, M(LFENCE) = {jit_nop}, M(SFENCE) = {jit_nop},
};
#undef M
/* clang-format on */

const struct jit_row *jit_row(unsigned mnemonic)
{
    return &table[mnemonic];
}

/* What would reach registers 8 to 15 in 64-bit code: by clearing all, or by a bit of an immediate that 32-bit code ignores. */
static bool eight_registers(unsigned mnemonic)
{
    return mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || mnemonic == ZYDIS_MNEMONIC_VZEROALL || mnemonic == ZYDIS_MNEMONIC_VBLENDVPS ||
           mnemonic == ZYDIS_MNEMONIC_VBLENDVPD || mnemonic == ZYDIS_MNEMONIC_VPBLENDVB;
}

static jit_lower *lowering(const struct jit *j, const struct insn *i)
{
    const struct jit_row *r = &table[i->mnemonic];
    if (i->flags & INSN_F_SYSTEM)
        return r->system ? r->lower : NULL;
    if (!(j->b->mode & MODE_CS64) && eight_registers(i->mnemonic))
        return NULL;
    return r->lower && !r->system ? r->lower : jit_vec;
}

static void liveness(struct jit *j)
{
    const struct soft_block *b = j->b;
    unsigned live = INSN_FLAGS_ALL;
    j->live[b->n] = (uint8_t)live;
    for (unsigned k = b->n; k-- > 0;) {
        const struct insn *i = &b->insn[k];
        live = (live & ~i->flags_write) | i->flags_read;
        if (j->c->vcpu.engine->cfg.jit_exact)
            live = INSN_FLAGS_ALL;
        j->live[k] = (uint8_t)live;
    }
}

/* What stands behind the block: handlers for what the fast paths refuse. */
static void slow_paths(struct jit *j)
{
    for (unsigned k = 0; k < j->n_slow; k++) {
        struct jit_slow *s = &j->slow[k];
        e_target(s->site, j->e.p);
        if (s->live) {
            jit_live_call(j, s->insn, s->live);
            e_target(e_jmp(&j->e), s->resume);
            continue;
        }
        jit_handler_call(j, s->insn);
        if (!s->back) {
            e8(&j->e, 0x0f); /* ud2: the handler always leaves */
            e8(&j->e, 0x0b);
            continue;
        }
        j->fl = JIT_FL_CC;
        if (s->fl == JIT_FL_HOST)
            jit_flags_host(j, j->live[s->insn + 1]);
        e_target(e_jmp(&j->e), s->resume);
    }
}

/* The entry for flags in cc, that for flags in the host's with a look for events, and the plain one. */
static uint8_t *entries(struct jit *j, struct jit_code *k)
{
    struct emit *e = &j->e;
    unsigned live = j->live[0];
    k->check_at = (uint32_t)(e->p - j->c->jit_cache->rw);
    if (live) {
        j->fl = JIT_FL_HOST;
        jit_flags_save(j, live);
    }
    k->saved_at = (uint32_t)(e->p - j->c->jit_cache->rw);
    e_op(e, 0x3b, 8, RSP, GS(jit.limit));
    uint8_t *attention = e_jcc(e, CC_COND_BE);
    j->fl = JIT_FL_CC;
    jit_flags_host(j, live);
    k->direct_at = (uint32_t)(e->p - j->c->jit_cache->rw);
    return attention;
}

uint8_t *jit_emit_block(struct soft_cpu *c, const struct soft_block *b, uint32_t id, uint8_t *rw, uint8_t *rx, struct jit_code *code)
{
    struct soft_jit *s = c->jit_cache;
    struct jit j = {.e = {rw}, .c = c, .b = b, .id = id, .rx = rx, .base = rw};
    liveness(&j);
    uint8_t *attention = entries(&j, code), *body = j.e.p;
    j.off = (int32_t)(b->gpa & (PAGE_SIZE - 1));
    for (j.k = 0; j.k < b->n; j.k++) {
        const struct insn *i = j.i = &b->insn[j.k];
        unsigned slow = j.n_slow;
        struct emit before = j.e;
        enum jit_flags fl = j.fl;
        jit_lower *lower = lowering(&j, i);
        bool last = j.k + 1 == b->n;
        if (last && j.e.p - body < 5) { /* room for the jump that diverts the entry, beside a link */
            e_bytes(&j.e, "\x0f\x1f\x44\x00\x00", 5);
            before = j.e;
        }
        if (!lower || !lower(&j, i, table[i->mnemonic].arg)) {
            j.e = before;
            j.fl = fl;
            j.n_slow = slow;
            jit_by_handler(&j);
        }
        for (; slow < j.n_slow; slow++) {
            if (j.slow[slow].live)
                continue;
            j.slow[slow].resume = j.e.p;
            j.slow[slow].fl = (uint8_t)j.fl;
        }
        j.off += i->len;
    }
    if (!j.ended) {
        j.k = b->n - 1u;
        if (j.e.p - body < 5)
            e_bytes(&j.e, "\x0f\x1f\x44\x00\x00", 5);
        jit_exit_to(&j, j.off);
    }
    slow_paths(&j);
    for (unsigned n = 0; n < j.n_links; n++) {
        uint8_t *stub = j.e.p;
        e_target(j.link[n].site, stub);
        e_imm32(&j.e, JIT_T0, id << 1 | n);
        jit_target(&j, e_jmp(&j.e), j.link[n].saved ? s->thunk.link_saved : s->thunk.link_direct);
        code->link[n].site = (uint32_t)(j.link[n].site - s->rw);
        code->link[n].stub = (uint32_t)(stub - s->rw);
        code->link[n].off = j.link[n].off;
        code->link[n].saved = j.link[n].saved;
    }
    e_target(attention, j.e.p);
    code->out_saved_at = (uint32_t)(j.e.p - s->rw);
    e_imm32(&j.e, JIT_T0, id);
    jit_target(&j, e_jmp(&j.e), s->thunk.out_saved);
    code->out_direct_at = (uint32_t)(j.e.p - s->rw);
    e_imm32(&j.e, JIT_T0, id);
    jit_target(&j, e_jmp(&j.e), s->thunk.out_direct);
    return j.e.p;
}

/*
 * The registers as gdb numbers them, and the target description that says so (gdb manual, "Target Descriptions" and
 * "i386 Features"). One table makes both. The XSAVE image is in standard format (SDM 1, 13.4.1).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "monitor/gdb_private.h"

enum kind { GPR, RIP, FLAGS, SEL, ST, FPU, XMM, MXCSR, SEG_BASE, KERNEL_GS, CONTROL };
enum { FCTRL, FSTAT, FTAG, FISEG, FIOFF, FOSEG, FOOFF, FOP };
enum { XSAVE_BV = 512, XSAVE_ST = 32, XSAVE_XMM = 160, XSAVE_MXCSR = 24 };

struct reg {
    const char *name, *type;
    uint8_t size, kind;
    uint16_t arg;
};

#define FIELD(f) offsetof(struct cpu_state, f)
static const struct reg regs[] = {
    {"rax", "int64", 8, GPR, 0},
    {"rbx", "int64", 8, GPR, 3},
    {"rcx", "int64", 8, GPR, 1},
    {"rdx", "int64", 8, GPR, 2},
    {"rsi", "int64", 8, GPR, 6},
    {"rdi", "int64", 8, GPR, 7},
    {"rbp", "data_ptr", 8, GPR, 5},
    {"rsp", "data_ptr", 8, GPR, 4},
    {"r8", "int64", 8, GPR, 8},
    {"r9", "int64", 8, GPR, 9},
    {"r10", "int64", 8, GPR, 10},
    {"r11", "int64", 8, GPR, 11},
    {"r12", "int64", 8, GPR, 12},
    {"r13", "int64", 8, GPR, 13},
    {"r14", "int64", 8, GPR, 14},
    {"r15", "int64", 8, GPR, 15},
    {"rip", "code_ptr", 8, RIP},
    {"eflags", "i386_eflags", 4, FLAGS},
    {"cs", "int32", 4, SEL, CS},
    {"ss", "int32", 4, SEL, SS},
    {"ds", "int32", 4, SEL, DS},
    {"es", "int32", 4, SEL, ES},
    {"fs", "int32", 4, SEL, FS},
    {"gs", "int32", 4, SEL, GS},
    {"st0", "i387_ext", 10, ST, 0},
    {"st1", "i387_ext", 10, ST, 1},
    {"st2", "i387_ext", 10, ST, 2},
    {"st3", "i387_ext", 10, ST, 3},
    {"st4", "i387_ext", 10, ST, 4},
    {"st5", "i387_ext", 10, ST, 5},
    {"st6", "i387_ext", 10, ST, 6},
    {"st7", "i387_ext", 10, ST, 7},
    {"fctrl", "int", 4, FPU, FCTRL},
    {"fstat", "int", 4, FPU, FSTAT},
    {"ftag", "int", 4, FPU, FTAG},
    {"fiseg", "int", 4, FPU, FISEG},
    {"fioff", "int", 4, FPU, FIOFF},
    {"foseg", "int", 4, FPU, FOSEG},
    {"fooff", "int", 4, FPU, FOOFF},
    {"fop", "int", 4, FPU, FOP},
    {"xmm0", "vec128", 16, XMM, 0},
    {"xmm1", "vec128", 16, XMM, 1},
    {"xmm2", "vec128", 16, XMM, 2},
    {"xmm3", "vec128", 16, XMM, 3},
    {"xmm4", "vec128", 16, XMM, 4},
    {"xmm5", "vec128", 16, XMM, 5},
    {"xmm6", "vec128", 16, XMM, 6},
    {"xmm7", "vec128", 16, XMM, 7},
    {"xmm8", "vec128", 16, XMM, 8},
    {"xmm9", "vec128", 16, XMM, 9},
    {"xmm10", "vec128", 16, XMM, 10},
    {"xmm11", "vec128", 16, XMM, 11},
    {"xmm12", "vec128", 16, XMM, 12},
    {"xmm13", "vec128", 16, XMM, 13},
    {"xmm14", "vec128", 16, XMM, 14},
    {"xmm15", "vec128", 16, XMM, 15},
    {"mxcsr", "i386_mxcsr", 4, MXCSR},
    {"fs_base", "int64", 8, SEG_BASE, FS},
    {"gs_base", "int64", 8, SEG_BASE, GS},
    {"k_gs_base", "int64", 8, KERNEL_GS},
    {"cr0", "int64", 8, CONTROL, FIELD(cr0)},
    {"cr2", "int64", 8, CONTROL, FIELD(cr2)},
    {"cr3", "int64", 8, CONTROL, FIELD(cr3)},
    {"cr4", "int64", 8, CONTROL, FIELD(cr4)},
    {"cr8", "int64", 8, CONTROL, FIELD(cr8)},
    {"efer", "int64", 8, CONTROL, FIELD(efer)},
};
const unsigned gdb_regs = ARRAY_SIZE(regs);

unsigned gdb_reg_size(unsigned n)
{
    return regs[n].size;
}

/* FXSAVE keeps one bit a register: empty or not; gdb has two, of which it needs "valid" (0) and "empty" (3). */
static uint32_t fpu_get(const uint8_t *x, unsigned what)
{
    uint32_t tags = 0;
    switch (what) {
    case FCTRL:
        return le16_get(x);
    case FSTAT:
        return le16_get(x + 2);
    case FTAG:
        for (unsigned i = 0; i < 8; i++)
            tags |= x[4] & BIT(i) ? 0 : 3u << (2 * i);
        return tags;
    case FIOFF:
        return le32_get(x + 8);
    case FISEG:
        return le16_get(x + 12);
    case FOOFF:
        return le32_get(x + 16);
    case FOSEG:
        return le16_get(x + 20);
    default:
        return le16_get(x + 6);
    }
}

static void fpu_set(uint8_t *x, unsigned what, uint32_t v)
{
    switch (what) {
    case FCTRL:
        le16_put(x, v);
        break;
    case FSTAT:
        le16_put(x + 2, v);
        break;
    case FTAG:
        x[4] = 0;
        for (unsigned i = 0; i < 8; i++)
            x[4] |= (v >> (2 * i) & 3) == 3 ? 0 : BIT(i);
        break;
    case FIOFF:
        le32_put(x + 8, v);
        break;
    case FISEG:
        le16_put(x + 12, v);
        break;
    case FOOFF:
        le32_put(x + 16, v);
        break;
    case FOSEG:
        le16_put(x + 20, v);
        break;
    default:
        le16_put(x + 6, v);
        break;
    }
}

/* The place of an MSR's value, or NULL. */
static uint64_t *kernel_gs(const struct cpu_state *s)
{
    for (unsigned i = 0; i < s->nmsrs; i++)
        if (s->msr[i].index == MSR_KERNEL_GS_BASE)
            return (uint64_t *)&s->msr[i].value;
    return NULL;
}

unsigned gdb_reg_get(const struct cpu_state *s, unsigned n, uint8_t *ret)
{
    const struct reg *r = &regs[n];
    uint64_t v = 0;
    switch (r->kind) {
    case GPR:
        v = s->gpr[r->arg];
        break;
    case RIP:
        v = s->rip;
        break;
    case FLAGS:
        v = s->rflags;
        break;
    case SEL:
        v = s->seg[r->arg].selector;
        break;
    case FPU:
        v = fpu_get(s->xsave, r->arg);
        break;
    case MXCSR:
        v = le32_get(s->xsave + XSAVE_MXCSR);
        break;
    case SEG_BASE:
        v = s->seg[r->arg].base;
        break;
    case KERNEL_GS:
        v = kernel_gs(s) ? *kernel_gs(s) : 0;
        break;
    case CONTROL:
        memcpy(&v, (const char *)s + r->arg, sizeof v);
        break;
    case ST:
        memcpy(ret, s->xsave + XSAVE_ST + 16 * r->arg, r->size);
        return r->size;
    case XMM:
        memcpy(ret, s->xsave + XSAVE_XMM + 16 * r->arg, r->size);
        return r->size;
    }
    memcpy(ret, &v, r->size);
    return r->size;
}

int gdb_reg_set(struct cpu_state *s, unsigned n, const uint8_t *bytes)
{
    const struct reg *r = &regs[n];
    uint64_t v = 0;
    memcpy(&v, bytes, MIN(r->size, sizeof v));
    switch (r->kind) {
    case GPR:
        s->gpr[r->arg] = v;
        break;
    case RIP:
        s->rip = v;
        break;
    case FLAGS:
        s->rflags = (s->rflags & ~0xffffffffull) | v | 2;
        break;
    case SEL: /* its hidden part would not fit */
        return v == s->seg[r->arg].selector ? 0 : -EINVAL;
    case SEG_BASE:
        s->seg[r->arg].base = v;
        break;
    case KERNEL_GS:
        if (!kernel_gs(s))
            return -EINVAL;
        *kernel_gs(s) = v;
        break;
    case CONTROL:
        memcpy((char *)s + r->arg, &v, sizeof v);
        break;
    case FPU:
        fpu_set(s->xsave, r->arg, (uint32_t)v);
        s->xsave[XSAVE_BV] |= 1;
        break;
    case ST:
        memcpy(s->xsave + XSAVE_ST + 16 * r->arg, bytes, r->size);
        s->xsave[XSAVE_BV] |= 1;
        break;
    case MXCSR:
        if (v & ~0xffffull)
            return -EINVAL;
        le32_put(s->xsave + XSAVE_MXCSR, (uint32_t)v);
        s->xsave[XSAVE_BV] |= 2;
        break;
    case XMM:
        memcpy(s->xsave + XSAVE_XMM + 16 * r->arg, bytes, r->size);
        s->xsave[XSAVE_BV] |= 2;
        break;
    }
    return 0;
}

static const char flags_type[] =
    "<flags id=\"i386_eflags\" size=\"4\"><field name=\"CF\" start=\"0\" end=\"0\"/><field name=\"\" start=\"1\" end=\"1\"/>"
    "<field name=\"PF\" start=\"2\" end=\"2\"/><field name=\"AF\" start=\"4\" end=\"4\"/><field name=\"ZF\" start=\"6\" "
    "end=\"6\"/><field name=\"SF\" start=\"7\" end=\"7\"/><field name=\"TF\" start=\"8\" end=\"8\"/><field name=\"IF\" "
    "start=\"9\" end=\"9\"/><field name=\"DF\" start=\"10\" end=\"10\"/><field name=\"OF\" start=\"11\" end=\"11\"/><field "
    "name=\"NT\" start=\"14\" end=\"14\"/><field name=\"RF\" start=\"16\" end=\"16\"/><field name=\"VM\" start=\"17\" "
    "end=\"17\"/><field name=\"AC\" start=\"18\" end=\"18\"/><field name=\"VIF\" start=\"19\" end=\"19\"/><field name=\"VIP\" "
    "start=\"20\" end=\"20\"/><field name=\"ID\" start=\"21\" end=\"21\"/></flags>\n";
static const char sse_types[] =
    "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/><vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>"
    "<vector id=\"v16i8\" type=\"int8\" count=\"16\"/><vector id=\"v8i16\" type=\"int16\" count=\"8\"/>"
    "<vector id=\"v4i32\" type=\"int32\" count=\"4\"/><vector id=\"v2i64\" type=\"int64\" count=\"2\"/>"
    "<union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>"
    "<field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>"
    "<field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>"
    "<field name=\"uint128\" type=\"uint128\"/></union>\n"
    "<flags id=\"i386_mxcsr\" size=\"4\"><field name=\"IE\" start=\"0\" end=\"0\"/><field name=\"DE\" start=\"1\" "
    "end=\"1\"/><field name=\"ZE\" start=\"2\" end=\"2\"/><field name=\"OE\" start=\"3\" end=\"3\"/><field name=\"UE\" "
    "start=\"4\" end=\"4\"/><field name=\"PE\" start=\"5\" end=\"5\"/><field name=\"DAZ\" start=\"6\" end=\"6\"/><field "
    "name=\"IM\" start=\"7\" end=\"7\"/><field name=\"DM\" start=\"8\" end=\"8\"/><field name=\"ZM\" start=\"9\" "
    "end=\"9\"/><field name=\"OM\" start=\"10\" end=\"10\"/><field name=\"UM\" start=\"11\" end=\"11\"/><field name=\"PM\" "
    "start=\"12\" end=\"12\"/><field name=\"FZ\" start=\"15\" end=\"15\"/></flags>\n";

char *gdb_regs_xml(void)
{
    static const struct {
        uint8_t first_kind;
        const char *name, *types;
    } features[] = {
        {GPR, "org.gnu.gdb.i386.core", flags_type},
        {XMM, "org.gnu.gdb.i386.sse", sse_types},
        {SEG_BASE, "org.gnu.gdb.i386.segments", ""},
        {KERNEL_GS, "org.lodge.x86.system", ""},
    };
    char *text;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        abort();
    fputs("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n"
          "<target><architecture>i386:x86-64</architecture>\n",
          f);
    unsigned next = 0;
    for (unsigned i = 0; i < gdb_regs; i++) {
        if (next < ARRAY_SIZE(features) && regs[i].kind == features[next].first_kind) {
            fprintf(f, "%s<feature name=\"%s\">\n%s", next ? "</feature>\n" : "", features[next].name,
                    features[next].types);
            next++;
        }
        fprintf(f, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>\n", regs[i].name, regs[i].size * 8, regs[i].type);
    }
    fputs("</feature></target>\n", f);
    fclose(f);
    return text;
}

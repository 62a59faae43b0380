/*
 * oracle [--full] [--count N] [--seed S] [--only MNEMONIC] [--mode 32|64] [--case FORM.N] [--blocks N] [--block N]
 * [--undefined] [--verbose]
 *
 * Runs random cases of every instruction form on the host CPU and on the software CPU and compares registers, defined
 * flags, vector and x87 state, memory and faults. Without options a sample that takes seconds; --full takes minutes. A
 * failure prints what reproduces it.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "oracle.h"

static struct {
    uint64_t seed;
    unsigned count, mode, verbose;
    bool undefined;
    unsigned blocks;
    long block;
    const char *only;
    long form, draw;
} opt = {.seed = 1, .count = 3, .form = -1, .blocks = 2000, .block = -1};

static void hex(const char *what, const uint8_t *b, unsigned n)
{
    printf("    %s", what);
    for (unsigned k = 0; k < n; k++)
        printf("%02x", b[n - 1 - k]);
    printf("\n");
}

/* Flags that count: what the instruction leaves undefined does not. */
static uint64_t flags_mask(const struct testcase *t)
{
    uint64_t mask = FLAGS_STATUS | FLAG_DF | FLAG_IF | FLAG_IOPL | FLAG_ID;
    return t->z.cpu_flags && !opt.undefined ? mask & ~(uint64_t)t->z.cpu_flags->undefined : mask;
}

/* Accessed piece by piece, in an order that is the CPU's own affair. */
static bool in_pieces(const struct testcase *t)
{
    switch (t->z.mnemonic) {
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
        return true;
    default:
        return false;
    }
}

/* Several operations in one: those behind the one that raised an unmasked exception may or may not have left flags. */
static bool is_dot_product(const struct testcase *t)
{
    return t->z.mnemonic == ZYDIS_MNEMONIC_DPPS || t->z.mnemonic == ZYDIS_MNEMONIC_DPPD ||
           t->z.mnemonic == ZYDIS_MNEMONIC_VDPPS || t->z.mnemonic == ZYDIS_MNEMONIC_VDPPD;
}

/* Ten bytes are stored as eight and two: of a store into two pages, the first part may be there when the second faults.
 */
static bool stores_in_two(const struct testcase *t)
{
    return t->z.mnemonic == ZYDIS_MNEMONIC_FSTP || t->z.mnemonic == ZYDIS_MNEMONIC_FBSTP;
}

/* After a fault in the middle of a gather the upper half may or may not be clear already. */
static bool is_gather(const struct testcase *t)
{
    return t->z.meta.category == ZYDIS_CATEGORY_AVX2GATHER;
}

/* Not told by the manual: which page faults first or whether a page does that no byte is stored to, and how much of
 * POPA is done before it faults. */
static bool is_vague(const struct testcase *t, const struct regs *h, const struct regs *s)
{
    switch (t->z.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        return (h->vector == EXC_PF || s->vector == EXC_PF) &&
               ((t->in.gpr[RDI] & 4095) > 4080 || h->vector != s->vector);
    case ZYDIS_MNEMONIC_XRSTOR: /* looks at pieces of a bad image on a bad page in its own order */
    case ZYDIS_MNEMONIC_XRSTOR64:
        return h->vector >= 0 && s->vector >= 0;
    case ZYDIS_MNEMONIC_POPA:
    case ZYDIS_MNEMONIC_POPAD:
        return h->vector == EXC_PF && s->vector == EXC_PF;
    default:
        return false;
    }
}

#define DIFF(...)                                                                                                      \
    do {                                                                                                               \
        if (print)                                                                                                     \
            printf(__VA_ARGS__);                                                                                       \
        same = false;                                                                                                  \
    } while (0)

bool compare(const struct testcase *t, const struct regs *h, const struct regs *s, const uint8_t *hw, const uint8_t *sw,
             bool print)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    bool same = true;
    unsigned ngpr = t->form->mode == 64 ? 16 : 8;
    uint64_t mask = t->form->mode == 64 ? ~0ull : 0xffffffff;

    if (is_vague(t, h, s))
        return true;
    uint32_t error = h->error;
    uint64_t cr2_mask = ~0ull;
    if (h->cr2 >> 63)
        error &= ~PFERR_P | s->error; /* the kernel says so of all its addresses */
    for (unsigned k = 0; k < t->z.operand_count; k++)
        if (t->ops[k].type == ZYDIS_OPERAND_TYPE_MEMORY && (t->ops[k].size > 256 || in_pieces(t)))
            cr2_mask = ~4095ull;
    if (h->vector != s->vector)
        DIFF("    exception: host %d (error %x, cr2 %lx), soft %d (error %x, cr2 %lx)\n", h->vector, h->error, h->cr2,
             s->vector, s->error, s->cr2);
    else if (h->vector >= 0 && error != s->error)
        DIFF("    error code: host %x, soft %x (exception %d)\n", h->error, s->error, h->vector);
    if (h->vector == EXC_PF && s->vector == EXC_PF && (h->cr2 ^ s->cr2) & cr2_mask)
        DIFF("    cr2: host %lx, soft %lx\n", h->cr2, s->cr2);
    if (h->rip != s->rip)
        DIFF("    rip: host %lx, soft %lx\n", h->rip, s->rip);
    for (unsigned n = 0; n < ngpr; n++)
        if ((h->gpr[n] ^ s->gpr[n]) & mask)
            DIFF("    %s: before %lx, host %lx, soft %lx\n", names[n], t->in.gpr[n], h->gpr[n], s->gpr[n]);
    if (h->vector < 0 && (h->rflags ^ s->rflags) & flags_mask(t))
        DIFF("    rflags: before %lx, host %lx, soft %lx, differ %lx\n", t->in.rflags, h->rflags, s->rflags,
             (h->rflags ^ s->rflags) & flags_mask(t));
    static const struct {
        const char *name;
        uint16_t at, len;
    } parts[] = {{"fcw", 0, 2}, {"fsw", 2, 2},  {"ftw", 4, 1},   {"fop", 6, 2},
                 {"fip", 8, 8}, {"fdp", 16, 8}, {"mxcsr", 24, 4}};
    for (unsigned k = 0; k < ARRAY_SIZE(parts); k++) {
        if (!memcmp(h->x.fx + parts[k].at, s->x.fx + parts[k].at, parts[k].len))
            continue;
        /* With an unmasked overflow or underflow, whether precision was lost too is not told exactly. */
        if (parts[k].at == 24 && h->vector == EXC_XM &&
            ((le32_get(h->x.fx + 24) ^ le32_get(s->x.fx + 24)) == 0x20 || is_dot_product(t)))
            continue;
        DIFF("    %s:\n", parts[k].name);
        if (print) {
            hex("before ", t->in.x.fx + parts[k].at, parts[k].len);
            hex("host   ", h->x.fx + parts[k].at, parts[k].len);
            hex("soft   ", s->x.fx + parts[k].at, parts[k].len);
        }
    }
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(h->x.fx + 32 + 16 * n, s->x.fx + 32 + 16 * n, 10)) {
            DIFF("    st%u:\n", n);
            if (print) {
                hex("before ", t->in.x.fx + 32 + 16 * n, 10);
                hex("host   ", h->x.fx + 32 + 16 * n, 10);
                hex("soft   ", s->x.fx + 32 + 16 * n, 10);
            }
        }
    for (unsigned n = 0; n < 16; n++)
        for (unsigned half = 0; half < 2; half++) {
            const uint8_t *a = half ? h->x.ymm_hi + 16 * n : h->x.fx + 160 + 16 * n;
            const uint8_t *b = half ? s->x.ymm_hi + 16 * n : s->x.fx + 160 + 16 * n;
            if (half && h->vector == EXC_PF && is_gather(t))
                continue;
            if (memcmp(a, b, 16)) {
                DIFF("    %s%u:\n", half ? "upper ymm" : "xmm", n);
                if (print) {
                    hex("before ", half ? t->in.x.ymm_hi + 16 * n : t->in.x.fx + 160 + 16 * n, 16);
                    hex("host   ", a, 16);
                    hex("soft   ", b, 16);
                }
            }
        }
    if (memcmp(hw, sw, WIN_RW_SIZE) && !(h->vector == EXC_PF && stores_in_two(t))) {
        unsigned shown = 0;
        for (unsigned k = 0; k < WIN_RW_SIZE; k++)
            if (hw[k] != sw[k] && shown++ < 8)
                DIFF("    memory at %llx: before %02x, host %02x, soft %02x\n", WIN_RW + k, t->window[k], hw[k], sw[k]);
    }
    return same;
}

static void describe(const struct testcase *t, unsigned form, unsigned draw)
{
    ZydisFormatter fmt;
    char text[128] = "?";
    ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterFormatInstruction(&fmt, &t->z, t->ops, t->z.operand_count_visible, text, sizeof text, t->ip, NULL);
    printf("  %u-bit %s [", t->form->mode, text);
    for (unsigned k = 0; k < t->len; k++)
        printf("%s%02x", k ? " " : "", t->code[k]);
    printf("]  --seed %lu --mode %u --case %u.%u\n", opt.seed, t->form->mode, form, draw);
}

struct tally {
    unsigned long run, skipped, failed, faults;
};

static void run_form(const struct form *f, unsigned index, struct tally *sum, unsigned *bad_of_form)
{
    static struct testcase t;
    static struct regs h, s;
    static uint8_t hw[WIN_RW_SIZE], sw[WIN_RW_SIZE];
    unsigned first = opt.form >= 0 ? (unsigned)opt.draw : 0, last = opt.form >= 0 ? first + 1 : opt.count;

    for (unsigned draw = first; draw < last; draw++) {
        struct rng r = {opt.seed * 0x2545f4914f6cdd1dull + index * 0x9e3779b97f4a7c15ull * 7 +
                        draw * 0xd1342543de82ef95ull};
        if (!case_make(f, &r, &t)) {
            sum->skipped++;
            continue;
        }
        host_execute(&t, &h, hw);
        soft_execute(&t, &s, sw);
        sum->run++;
        sum->faults += h.vector >= 0;
        bool same = compare(&t, &h, &s, hw, sw, false);
        if (same && case_in_block(&t)) {
            enum machine_kind kind = draw % 2 ? MACHINE_TRANSLATOR_EXACT : MACHINE_TRANSLATOR;
            machine_execute(kind, &t, &s, sw);
            same = compare(&t, &h, &s, hw, sw, false);
            if (!same)
                printf("  %s:\n", machine_name(kind));
        }
        if (opt.verbose > 1 || (opt.form >= 0 && opt.verbose) ||
            (!same && (*bad_of_form < (opt.verbose ? 3 : 1)) && sum->failed < 2000)) {
            describe(&t, index, draw);
            if (opt.verbose)
                printf("    host: exception %d (error %x, cr2 %lx), rip %lx; soft: %d (%x, %lx), rip %lx\n", h.vector,
                       h.error, h.cr2, h.rip, s.vector, s.error, s.cr2, s.rip);
            compare(&t, &h, &s, hw, sw, true);
        }
        if (!same) {
            sum->failed++;
            ++*bad_of_form;
        }
    }
}

static int run_mode(unsigned mode)
{
    unsigned n, bad_forms = 0, forms = 0;
    struct form *f = forms_enumerate(mode, &n);
    struct tally sum = {0};
    for (unsigned k = 0; k < n; k++) {
        unsigned bad = 0;
        if (opt.only && strcasecmp(opt.only, ZydisMnemonicGetString(f[k].mnemonic)))
            continue;
        if (opt.form >= 0 && (unsigned)opt.form != k)
            continue;
        forms++;
        run_form(&f[k], k, &sum, &bad);
        bad_forms += bad > 0;
    }
    printf("%u-bit code: %u forms, %lu cases (%lu faulted), %lu differ in %u forms; seed %lu\n", mode, forms, sum.run,
           sum.faults, sum.failed, bad_forms, opt.seed);
    free(f);
    return sum.failed || (opt.count && !sum.run);
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {{"full", no_argument, NULL, 'f'},
                                          {"count", required_argument, NULL, 'n'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"only", required_argument, NULL, 'o'},
                                          {"mode", required_argument, NULL, 'm'},
                                          {"case", required_argument, NULL, 'c'},
                                          {"verbose", no_argument, NULL, 'v'},
                                          {"undefined", no_argument, NULL, 'u'},
                                          {"blocks", required_argument, NULL, 'b'},
                                          {"block", required_argument, NULL, 'B'},
                                          {0}};
    int o;
    while ((o = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (o) {
        case 'f':
            opt.count = 1000;
            opt.blocks = 1000000;
            break;
        case 'n':
            opt.count = strtoul(optarg, NULL, 0);
            break;
        case 's':
            opt.seed = strtoull(optarg, NULL, 0);
            break;
        case 'o':
            opt.only = optarg;
            break;
        case 'm':
            opt.mode = strtoul(optarg, NULL, 0);
            break;
        case 'c':
            if (sscanf(optarg, "%ld.%ld", &opt.form, &opt.draw) != 2)
                return 2;
            break;
        case 'b':
            opt.blocks = strtoul(optarg, NULL, 0);
            break;
        case 'B':
            opt.block = strtol(optarg, NULL, 0);
            break;
        case 'u':
            opt.undefined = true;
            break;
        case 'v':
            opt.verbose++;
            break;
        default:
            return 2;
        }
    }
#ifdef __SANITIZE_ADDRESS__
    printf("skipped: the sanitizer's shadow lies where random 32-bit addresses point\n");
    return 77;
#endif
    if (!__builtin_cpu_supports("avx")) {
        printf("skipped: the harness needs a host with AVX\n");
        return 77;
    }
    if (host_setup() || soft_setup() || machine_setup()) {
        printf("cannot set up: are addresses %llx to %llx free?\n", WIN_BASE, AREA_BASE);
        return 77;
    }
    int bad = 0;
    for (unsigned mode = 64; mode >= 32; mode -= 32) {
        if (opt.mode && opt.mode != mode)
            continue;
        if (opt.block < 0)
            bad |= run_mode(mode);
        if (!opt.only && opt.form < 0)
            bad |= blocks_run(mode, opt.seed, opt.blocks, opt.block) > 0;
    }
    return bad;
}

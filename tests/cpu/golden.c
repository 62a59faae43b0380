/*
 * Golden code generation: for small pieces of guest code, the host code that the translator makes of them and its length, in a file that is
 * read by people. A change of the translator shows there as a difference; `golden FILE --update` takes it over.
 *
 * The file: a line `guest: BYTES  # what it is`, then what is made of it, up to an empty line. Of the host code only the straight line
 * from the entry with flags in the host's registers is shown, not the slow paths behind it. gs: offsets are shown by name.
 */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/engine.h"
#include "cpu/soft/jit.h"
#include "cpu/soft/vec_live.h"

static struct soft_cpu *c;

static int setup(void)
{
    static const struct cpu_bus bus;
    static struct clock clk;
    static struct engine_config cfg = {.bus = &bus, .clock = &clk, .cpus = 1};
    const struct engine_ops *ops;
    struct engine *engine;
    struct vcpu *v;
    struct err err = {0};
    char why[200];
    clock_init(&clk, 0);
    cfg.cpu.model = "max";
    cfg.cpu.topology = (struct cpu_topology){.cpus = 1, .sockets = 1, .dies = 1, .cores = 1, .threads = 1};
    if (mem_new(MIB, 3 * GIB, &cfg.mem, &err) || engine_choose("soft", &ops, why, &err) || ops->create(&cfg, &engine, &err) ||
        ops->vcpu_create(engine, 0, &v, &err)) {
        printf("%s\n", err.msg);
        return -1;
    }
    c = soft_cpu_of(v);
    return 0;
}

static int never(struct soft_cpu *cpu, const struct insn *i)
{
    return INSN_END;
}

/* A block of the guest's code at the start of the arena. */
static struct soft_block *block_of(const uint8_t *code, unsigned len)
{
    struct soft_block *b = (struct soft_block *)(void *)c->blocks->arena;
    memset(b, 0, sizeof *b);
    b->gpa = 0x1100;
    b->mode = MODE_CS64 | MODE_SS32 | MODE_PE | MODE_LMA | MODE_FLAT;
    for (unsigned at = 0; at < len;) {
        if (b->n == BLOCK_INSNS_MAX)
            return NULL;
        int n = insn_decode(c, code + at, len - at, b->mode, &b->insn[b->n]);
        if (n <= 0)
            return NULL;
        b->n++;
        at += (unsigned)n;
    }
    b->bytes = b->looked = (uint16_t)len;
    b->insn[b->n].fn = never;
    memcpy(&b->insn[b->n + 1], code, len);
    return b;
}

static const char *field_name(int64_t off, char buf[32])
{
    static const char *const reg[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                        "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
#define FIELD(f) {offsetof(struct soft_cpu, f), #f}
    static const struct {
        size_t off;
        const char *name;
    } fields[] = {FIELD(cc),       FIELD(rip),           FIELD(vec_live),     FIELD(jit.limit),  FIELD(jit.tlb),
                  FIELD(jit.tmp),  FIELD(jit.code_base), FIELD(jit.x87_base), FIELD(jit.target), FIELD(seg[FS].base),
                  FIELD(seg[GS].base)};
#undef FIELD
    size_t gpr = offsetof(struct soft_cpu, gpr);
    if (off >= (int64_t)gpr && off < (int64_t)(gpr + 128) && (off - gpr) % 8 == 0)
        return reg[(off - gpr) / 8];
    for (unsigned k = 0; k < ARRAY_SIZE(fields); k++)
        if ((int64_t)fields[k].off == off)
            return fields[k].name;
    snprintf(buf, 32, "?");
    return buf;
}

/* One host instruction as text; true: the last one. */
static bool line(FILE *out, const ZydisFormatter *f, const ZydisDecodedInstruction *z, ZydisDecodedOperand *ops)
{
    char text[128], buf[32];
    for (unsigned k = 0; k < z->operand_count_visible; k++)
        if (ops[k].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && ops[k].imm.is_relative) { /* where code ends up is of no interest */
            fprintf(out, "    %-8s ...\n", ZydisMnemonicGetString(z->mnemonic));
            return z->mnemonic == ZYDIS_MNEMONIC_JMP;
        }
    ZydisFormatterFormatInstruction(f, z, ops, z->operand_count_visible, text, sizeof text, 0, NULL);
    for (unsigned k = 0; k < z->operand_count_visible; k++) {
        char *open = strstr(text, "gs:[0x");
        if (ops[k].type != ZYDIS_OPERAND_TYPE_MEMORY || ops[k].mem.segment != ZYDIS_REGISTER_GS || !open)
            continue;
        char *close = strchr(open, ']');
        if (ops[k].mem.base == ZYDIS_REGISTER_NONE && close) {
            fprintf(out, "    %.*sgs:[%s]%s\n", (int)(open - text), text, field_name(ops[k].mem.disp.value, buf), close + 1);
            return false;
        }
    }
    fprintf(out, "    %s\n", text);
    return z->mnemonic == ZYDIS_MNEMONIC_JMP || z->mnemonic == ZYDIS_MNEMONIC_RET;
}

static bool translate(FILE *out, const uint8_t *code, unsigned len)
{
    ZydisDecoder d;
    ZydisFormatter f;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
    struct soft_jit *s = c->jit_cache;
    struct jit_code k = {0};
    struct soft_block *b = block_of(code, len);
    if (!b)
        return false;
    ZydisDecoderInit(&d, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterSetProperty(&f, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
    jit_emit_block(c, b, 1, s->rw + s->used, s->rx + s->used, &k);
    unsigned bytes = 0;
    for (const uint8_t *p = s->rw + k.direct_at;; p += z.length) {
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&d, p, 15, &z, ops)))
            return false;
        if (line(out, &f, &z, ops))
            break;
        bytes += z.length;
    }
    fprintf(out, "    = %u guest bytes, %u host bytes\n", len, bytes);
    return true;
}

static unsigned parse_bytes(const char *s, uint8_t out[64])
{
    unsigned n = 0, v;
    int used;
    while (n < 64 && sscanf(s, " %2x%n", &v, &used) == 1) {
        out[n++] = (uint8_t)v;
        s += used;
    }
    return n;
}

static char *read_file(const char *name)
{
    FILE *f = fopen(name, "re");
    char *text = calloc(1, MIB);
    if (!f || !text || fread(text, 1, MIB - 1, f) == 0) {
        printf("%s cannot be read\n", name);
        exit(1);
    }
    fclose(f);
    return text;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    if (!vec_live_supported() || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2")) {
        printf("SKIP: the expectations are for a CPU with AVX2, FMA and BMI2\n");
        return 77;
    }
    if (setup() < 0)
        return 1;
    char *want = read_file(argv[1]), *got = NULL;
    size_t size;
    FILE *out = open_memstream(&got, &size);
    for (const char *p = want; *p;) {
        const char *end = strchr(p, '\n');
        size_t len = end ? (size_t)(end - p) : strlen(p);
        uint8_t code[64];
        if (p[0] == '#')
            fprintf(out, "%.*s\n", (int)len, p);
        if (!strncmp(p, "guest:", 6)) {
            fprintf(out, "\n%.*s\n", (int)len, p);
            if (!translate(out, code, parse_bytes(p + 6, code))) {
                printf("cannot translate: %.*s\n", (int)len, p);
                return 1;
            }
        }
        p += len + (end != NULL);
    }
    fclose(out);
    if (argc > 2 && !strcmp(argv[2], "--update")) {
        FILE *f = fopen(argv[1], "we");
        if (!f || fputs(got, f) == EOF || fclose(f)) {
            printf("%s cannot be written\n", argv[1]);
            return 1;
        }
        return 0;
    }
    if (!strcmp(want, got))
        return 0;
    char name[] = "/tmp/golden.XXXXXX", command[512];
    int fd = mkstemp(name);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
    if (f) {
        fputs(got, f);
        fclose(f);
        snprintf(command, sizeof command, "diff -u '%s' %s", argv[1], name);
        if (system(command) < 0)
            printf("no diff\n");
        remove(name);
    }
    printf("the translator makes other code than expected; if that is meant: %s %s --update\n", argv[0], argv[1]);
    return 1;
}

/*
 * Runs one instruction on the software CPU: decoded and executed as its run loop does, in a CPU set up like the host
 * process: CPL 3, flat segments with the kernel's selectors, and page tables that map the window and the code area
 * where the host has them.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cpu/soft/cpu.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/flags.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/vec.h"
#include "oracle.h"

#define RAM_SIZE (4 * MIB)
#define PT_BASE 0x100000
#define WIN_GPA 0x200000
#define CODE_GPA 0x210000

static struct soft_cpu *cpu;
static struct soft_engine *engine;
static struct mem *ram;
static uint8_t *rw;

static uint64_t bus_read(void *opaque, unsigned n, gpa_t gpa, unsigned size)
{
    return ~0ull;
}
static void bus_write(void *opaque, unsigned n, gpa_t gpa, unsigned size, uint64_t val)
{
}
static const struct cpu_bus bus = {.mmio_read = bus_read, .mmio_write = bus_write};

static void put_entry(uint64_t table, unsigned n, uint64_t v)
{
    le64_put(ram->ram + table + 8 * n, v);
}

static void map_page(uint64_t lin, uint64_t gpa, uint64_t bits)
{
    uint64_t pt = PT_BASE + (lin == CODE_BASE || lin - CODE_BASE < CODE_SIZE ? 0x4000 : 0x3000);
    put_entry(PT_BASE, lin >> 39 & 511, (PT_BASE + 0x1000) | 7);
    put_entry(PT_BASE + 0x1000, lin >> 30 & 511, (PT_BASE + 0x2000) | 7);
    put_entry(PT_BASE + 0x2000, lin >> 21 & 511, pt | 7);
    put_entry(pt, lin >> 12 & 511, gpa | bits | 1 | 4);
}

static void set_seg(unsigned n, uint16_t sel, uint32_t attr)
{
    cpu->seg[n] = (struct soft_seg){.base = 0, .limit = 0xffffffff, .sel = sel, .attr = attr};
}

int soft_setup(void)
{
    struct err err;
    engine = calloc(1, sizeof *engine);
    cpu = aligned_alloc(4096, ALIGN_UP(sizeof *cpu, 4096));
    if (!engine || !cpu || mem_new(RAM_SIZE, 3 * GIB, &ram, &err))
        return -1;
    memset(cpu, 0, sizeof *cpu);
    engine->engine.cfg.mem = ram;
    engine->engine.cfg.bus = &bus;
    engine->engine.cfg.cpus = 1;
    engine->cpu = &cpu;
    pthread_mutex_init(&engine->split_lock, NULL);
    engine->page_gen = calloc(RAM_SIZE / PAGE_SIZE, sizeof *engine->page_gen);
    engine->code_lines = calloc(RAM_SIZE / PAGE_SIZE, sizeof *engine->code_lines);
    engine->vec_cache = vec_cache_new(NULL);
    cpu->vcpu.engine = &engine->engine;
    cpu->soft = engine;
    pthread_mutex_init(&cpu->wprotect.lock, NULL);

    for (unsigned p = 0; p < 2; p++)
        map_page(WIN_RW + p * 4096, WIN_GPA + p * 4096, 2);
    map_page(WIN_RO, WIN_GPA + 0x2000, 0);
    for (unsigned p = 0; p < CODE_SIZE / 4096; p++)
        map_page(CODE_BASE + p * 4096, CODE_GPA + p * 4096, 0);
    rw = ram->ram + WIN_GPA;

    cpu->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    cpu->cr3 = PT_BASE;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    cpu->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    cpu->xcr0 = XCR0_X87 | XCR0_SSE | XCR0_AVX;
    cpu->pat = 0x0007040600070406;
    cpu->rflags_rest = FLAG_1 | FLAG_IF;
    cpu->cpl = 3;
    if (mmu_init(cpu))
        return -1;
    vec_reset(cpu);
    return cpu->soft->vec_cache ? 0 : -1;
}

static void set_mode(unsigned mode)
{
    static unsigned current;
    if (mode == current)
        return;
    current = mode;
    uint32_t data = 3 | SEG_ATTR_S | 3 << 5 | SEG_ATTR_P | SEG_ATTR_DB | SEG_ATTR_G;
    uint32_t text = 11 | SEG_ATTR_S | 3 << 5 | SEG_ATTR_P | SEG_ATTR_G;
    set_seg(CS, mode == 64 ? 0x33 : 0x23, text | (mode == 64 ? SEG_ATTR_L : SEG_ATTR_DB));
    set_seg(SS, 0x2b, data);
    set_seg(DS, 0x2b, data);
    set_seg(ES, 0x2b, data);
    set_seg(FS, 0, data);
    set_seg(GS, 0, data);
    cpu->seg[FS].base = host_fs_base();
    soft_mode_changed(cpu);
}

void soft_execute(const struct testcase *t, struct regs *after, uint8_t win[WIN_RW_SIZE])
{
    struct insn i;
    uint8_t bytes[32];
    int r;

    memcpy(rw, t->window, sizeof t->window);
    set_mode(t->form->mode);
    memcpy(cpu->gpr, t->in.gpr, sizeof cpu->gpr);
    cpu->rip = t->ip;
    flags_set_status(cpu, t->in.rflags & FLAGS_STATUS);
    cpu->rflags_rest = t->in.rflags & ~(uint64_t)FLAGS_STATUS;
    cpu->int_shadow = false;
    cpu->cr2 = 0;
    memset(&cpu->exc, 0, sizeof cpu->exc);
    vec_set_xsave(cpu, (const uint8_t *)&t->in.x);

    memset(bytes, 0xcc, sizeof bytes);
    memcpy(bytes, t->code, t->len);
    insn_decode(cpu, bytes, sizeof bytes, cpu->mode, &i);
    unsigned tries = 0;
    do {
        r = i.fn(cpu, &i);
    } while (r == INSN_JUMP && cpu->rip == t->ip && !t->branch && ++tries < 100000);
    if (r == INSN_NEXT || r == INSN_BREAK || r == INSN_FALL)
        cpu->rip += i.len;

    memcpy(after->gpr, cpu->gpr, sizeof after->gpr);
    after->rip = t->form->mode == 32 ? (uint32_t)cpu->rip : cpu->rip;
    after->rflags = flags_get(cpu);
    static uint8_t image[CPU_XSAVE_SIZE];
    vec_get_xsave(cpu, image);
    memcpy(&after->x, image, sizeof after->x);
    after->vector = -1;
    after->error = 0;
    after->cr2 = 0;
    if (r == INSN_FAULT) {
        after->vector = cpu->exc.vector;
        after->error = cpu->exc.has_error ? cpu->exc.error : 0;
        after->cr2 = cpu->exc.cr2;
    }
    memcpy(win, rw, WIN_RW_SIZE);
}

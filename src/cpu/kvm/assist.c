/*
 * Instructions that this host's KVM cannot emulate: the software interpreter executes them on the vCPU's state, and KVM
 * goes on. Some hosts' KVM emulates all kernel code and lacks such as CMPXCHG16B, INT3 and XSAVE; every host's KVM may
 * meet an odd instruction on MMIO.
 *
 * On the vCPU's thread, inside vcpu_run. The interpreter keeps no decoded code here (soft_cpu.uncached) and drops its
 * TLB each time, as the guest changes both behind its back. Interrupts stay with KVM. One instruction at a time, so
 * that accesses to KVM's own interrupt controllers come to KVM; but where the vector state had to be fetched it pays to go on (to and
 * fro costs 80 us where this was measured, an instruction less than 1), with what works on registers and RAM only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "cpu/kvm/kvm.h"
#include "cpu/soft/blocks.h"
#include "cpu/soft/exc.h"
#include "cpu/soft/insn.h"
#include "cpu/soft/mmu.h"
#include "cpu/soft/sys.h"

extern const struct engine_ops soft_engine_ops;

/* What instructions can read or change beside registers. */
static const uint32_t assist_msrs[] = {MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP,   MSR_STAR,   MSR_LSTAR,
                                       MSR_CSTAR,       MSR_FMASK,        MSR_KERNEL_GS_BASE, MSR_TSC_AUX};

#define XSAVE_HEADER 512
#define XSAVE_AVX 576
#define XSAVE_AVX_END 832
#define XSAVE_OURS 7ull

struct kvm_assist {
    struct kvm_vcpu *v;
    struct cpu_bus bus;
    struct engine *engine; /* a software engine of one CPU */
    struct soft_cpu *cpu;
    struct cpu_state before, after;
    uint64_t cr8, apic_base;
    ZydisDecoder decoder;
    bool syncing; /* state is being copied: APIC MSRs need no look into KVM */
};

static const struct cpu_bus *machine_bus(const struct kvm_assist *a)
{
    return a->v->vcpu.engine->cfg.bus;
}

static uint64_t assist_pio_read(void *o, unsigned cpu, uint16_t port, unsigned size)
{
    struct kvm_assist *a = o;
    return machine_bus(a)->pio_read(machine_bus(a)->opaque, a->v->vcpu.index, port, size);
}

static void assist_pio_write(void *o, unsigned cpu, uint16_t port, unsigned size, uint64_t val)
{
    struct kvm_assist *a = o;
    machine_bus(a)->pio_write(machine_bus(a)->opaque, a->v->vcpu.index, port, size, val);
}

static uint64_t assist_mmio_read(void *o, unsigned cpu, gpa_t gpa, unsigned size)
{
    struct kvm_assist *a = o;
    return machine_bus(a)->mmio_read(machine_bus(a)->opaque, a->v->vcpu.index, gpa, size);
}

static void assist_mmio_write(void *o, unsigned cpu, gpa_t gpa, unsigned size, uint64_t val)
{
    struct kvm_assist *a = o;
    machine_bus(a)->mmio_write(machine_bus(a)->opaque, a->v->vcpu.index, gpa, size, val);
}

static bool assist_irq_pending(void *o, unsigned cpu)
{
    return false;
}

static int assist_irq_ack(void *o, unsigned cpu)
{
    return -1;
}

static uint64_t assist_cr8_read(void *o, unsigned cpu)
{
    return ((struct kvm_assist *)o)->cr8;
}

static void assist_cr8_write(void *o, unsigned cpu, uint64_t val)
{
    ((struct kvm_assist *)o)->cr8 = val;
}

static int assist_apic_read(void *o, unsigned cpu, uint32_t msr, uint64_t *ret)
{
    struct kvm_assist *a = o;
    *ret = a->apic_base;
    if (msr == MSR_APIC_BASE)
        return 0;
    *ret = 0;
    return a->syncing ? 0 : kvm_get_msr(a->v, msr, ret) < 0 ? -1 : 0;
}

static int assist_apic_write(void *o, unsigned cpu, uint32_t msr, uint64_t val)
{
    struct kvm_assist *a = o;
    if (a->syncing)
        return 0;
    if (kvm_set_msr(a->v, msr, val) < 0)
        return -1;
    if (msr == MSR_APIC_BASE)
        a->apic_base = val;
    return 0;
}

static void assist_timer_expired(void *o, unsigned cpu)
{
}

static void assist_init_taken(void *o, unsigned cpu)
{
}

static int assist_new(struct kvm_vcpu *v, struct err *err)
{
    struct kvm_assist *a = xcalloc(1, sizeof *a);
    struct vcpu *soft;

    a->v = v;
    a->bus = (struct cpu_bus){
        .opaque = a,
        .pio_read = assist_pio_read,
        .pio_write = assist_pio_write,
        .mmio_read = assist_mmio_read,
        .mmio_write = assist_mmio_write,
        .irq_pending = assist_irq_pending,
        .irq_ack = assist_irq_ack,
        .cr8_read = assist_cr8_read,
        .cr8_write = assist_cr8_write,
        .apic_msr_read = assist_apic_read,
        .apic_msr_write = assist_apic_write,
        .timer_expired = assist_timer_expired,
        .init_taken = assist_init_taken,
    };
    struct engine_config cfg = v->vcpu.engine->cfg;
    cfg.bus = &a->bus;
    cfg.cpus = 1;
    cfg.cpu.features = NULL; /* KVM may know features that the interpreter does not */
    cfg.cpu.model = "max";
    int r = soft_engine_ops.create(&cfg, &a->engine, err);
    if (r >= 0)
        r = soft_engine_ops.vcpu_create(a->engine, 0, &soft, err);
    v->assist = a;
    if (r < 0) {
        kvm_assist_free(v);
        return r;
    }
    a->cpu = (struct soft_cpu *)soft;
    a->cpu->uncached = true;
    ZydisDecoderInit(&a->decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    return 0;
}

void kvm_assist_free(struct kvm_vcpu *v)
{
    if (!v->assist)
        return;
    soft_engine_ops.destroy(v->assist->engine);
    free(v->assist);
    v->assist = NULL;
}

/* What the instruction works on beside KVM_PART_CORE. Every part costs system calls, so it is worth a look. */
static unsigned parts_of(const struct insn *i)
{
    switch (i->mnemonic) {
    case ZYDIS_MNEMONIC_INT3:
    case ZYDIS_MNEMONIC_INT1:
    case ZYDIS_MNEMONIC_INT:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_MOVBE:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
    case ZYDIS_MNEMONIC_INVPCID:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_CALL:
        return 0;
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_SYSENTER:
    case ZYDIS_MNEMONIC_SYSEXIT:
    case ZYDIS_MNEMONIC_SWAPGS:
    case ZYDIS_MNEMONIC_RDMSR:
    case ZYDIS_MNEMONIC_WRMSR:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
    case ZYDIS_MNEMONIC_RDPID:
        return KVM_PART_MSRS | KVM_PART_TSC;
    default:
        return KVM_PART_VEC;
    }
}

static int put_soft(struct kvm_assist *a, struct err *err)
{
    a->syncing = true;
    atomic_store(&a->cpu->pending, 0);
    int r = soft_set_state(a->cpu, &a->before, err);
    a->syncing = false;
    return r;
}

/* At the page fault handler; see syscall.c. */
static int enter_syscall(struct kvm_assist *a, struct err *err)
{
    uint64_t frame[6];
    if (mmu_read_sys(a->cpu, a->before.gpr[RSP], frame, sizeof frame))
        return 0; /* the handler's own business */
    return kvm_syscall_enter(a->v, frame, &a->before) ? put_soft(a, err) : 0;
}

/* Fills the interpreter's CPU; *ret_parts: which parts beside the core it got, and must give back. */
static int read_state(struct kvm_assist *a, unsigned *ret_parts, struct err *err)
{
    struct cpu_state *s = &a->before;
    unsigned parts = 0;
    int r = kvm_get_core_at_exit(a->v, s, err);

    if (r < 0)
        return r;
    s->nmsrs = 0;
    s->run_state = CPU_RUNNABLE;
    a->cr8 = s->cr8;
    a->apic_base = s->apic_base;
    r = put_soft(a, err);
    if (r >= 0 && a->v->pf_handler && s->rip == a->v->pf_handler)
        r = enter_syscall(a, err);
    if (r < 0)
        return r;
    if (!a->cpu->exc_valid) {
        uint64_t lin = a->cpu->mode & MODE_CS64 ? a->cpu->rip : (uint32_t)(a->cpu->seg[CS].base + a->cpu->rip);
        const struct soft_block *b = block_find(a->cpu, lin);
        parts = b ? parts_of(&b->insn[0]) : 0;
    }
    if (s->rflags & FLAG_TF)
        parts |= KVM_PART_DEBUG;
    *ret_parts = parts;
    if (!parts)
        return 0;
    r = kvm_get_parts(a->v, s, parts & ~KVM_PART_MSRS, err);
    if (r >= 0 && (parts & KVM_PART_MSRS)) {
        for (unsigned i = 0; i < ARRAY_SIZE(assist_msrs); i++)
            cpu_state_set_msr(s, assist_msrs[i], 0);
        kvm_read_msrs(a->v, s->msr, s->nmsrs);
    }
    return r < 0 ? r : put_soft(a, err);
}

static int write_msrs(struct kvm_assist *a, struct err *err)
{
    for (unsigned i = 0; i < ARRAY_SIZE(assist_msrs); i++) {
        const uint64_t *was = cpu_state_msr(&a->before, assist_msrs[i]), *is = cpu_state_msr(&a->after, assist_msrs[i]);
        int r = was && is && *is != *was ? kvm_set_msr(a->v, assist_msrs[i], *is) : 0;
        if (r < 0)
            return err_errno(err, r, "KVM does not take MSR 0x%x", assist_msrs[i]);
    }
    return 0;
}

/* The parts of the XSAVE area that the interpreter does not know stay. False: nothing changed. */
static bool merge_vec(struct kvm_assist *a)
{
    struct cpu_state *s = &a->after;
    uint64_t had = le64_get(a->before.xsave + XSAVE_HEADER), has = le64_get(s->xsave + XSAVE_HEADER);
    uint8_t *x = a->before.xsave;

    if (!memcmp(x, s->xsave, XSAVE_HEADER) && !memcmp(x + XSAVE_AVX, s->xsave + XSAVE_AVX, XSAVE_AVX_END - XSAVE_AVX) &&
        !((had ^ has) & XSAVE_OURS) && s->xcr0 == a->before.xcr0)
        return false;
    memcpy(x, s->xsave, XSAVE_HEADER);
    memcpy(x + XSAVE_AVX, s->xsave + XSAVE_AVX, XSAVE_AVX_END - XSAVE_AVX);
    le64_put(x + XSAVE_HEADER, (had & ~XSAVE_OURS) | (has & XSAVE_OURS));
    memcpy(s->xsave, x, sizeof s->xsave);
    return true;
}

/* Whether the memory operand, if there is one, is RAM. In 64-bit mode. */
static bool works_on_ram(struct soft_cpu *c, const struct insn *i)
{
    gpa_t gpa;
    if (!(i->flags & INSN_F_MEM))
        return true;
    uint64_t lin = insn_ea(c, i) + (i->seg == FS || i->seg == GS ? c->seg[i->seg].base : 0);
    if (mmu_debug_translate(c, lin, &gpa) < 0)
        return false;
    const struct mem_range *r = mem_find(c->vcpu.engine->cfg.mem, gpa);
    return r && !r->rom;
}

/* Computing, and nothing that KVM or the machine would want to know of. */
static bool is_plain(const ZydisDecodedInstruction *z)
{
    switch (z->meta.isa_ext) {
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
        return true;
    case ZYDIS_ISA_EXT_BASE:
        break;
    default:
        return false;
    }
    switch (z->meta.category) {
    case ZYDIS_CATEGORY_BINARY:
    case ZYDIS_CATEGORY_LOGICAL:
    case ZYDIS_CATEGORY_SHIFT:
    case ZYDIS_CATEGORY_ROTATE:
    case ZYDIS_CATEGORY_COND_BR:
    case ZYDIS_CATEGORY_NOP:
    case ZYDIS_CATEGORY_WIDENOP:
        return true;
    case ZYDIS_CATEGORY_MISC:
        return z->mnemonic == ZYDIS_MNEMONIC_LEA;
    case ZYDIS_CATEGORY_DATAXFER: /* but control, debug and segment registers */
        return z->mnemonic == ZYDIS_MNEMONIC_MOVZX || z->mnemonic == ZYDIS_MNEMONIC_MOVSX ||
               z->mnemonic == ZYDIS_MNEMONIC_MOVSXD || z->mnemonic == ZYDIS_MNEMONIC_BSWAP ||
               (z->mnemonic == ZYDIS_MNEMONIC_MOV && z->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && z->opcode != 0x8c &&
                z->opcode != 0x8e);
    default:
        return false;
    }
}

static void go_on(struct kvm_assist *a)
{
    enum { MOST = 512 };
    struct soft_cpu *c = a->cpu;
    unsigned n = 0;
    for (; n < MOST && (c->mode & MODE_CS64) && !c->shutdown && !c->slow_step; n++) {
        ZydisDecodedInstruction z;
        const struct soft_block *b = block_find(c, c->rip);
        uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
        if (!b || mmu_fetch_bytes(c, c->rip, bytes, b->insn[0].len) ||
            ZYAN_FAILED(ZydisDecoderDecodeInstruction(&a->decoder, NULL, bytes, b->insn[0].len, &z)) || !is_plain(&z) ||
            !works_on_ram(c, &b->insn[0]))
            break;
        soft_step(c);
    }
    atomic_fetch_add_explicit(&a->v->assisted, n, memory_order_relaxed);
}

static int write_state(struct kvm_assist *a, unsigned got, struct err *err)
{
    struct cpu_state *s = &a->after;
    unsigned parts = 0;

    a->syncing = true;
    soft_get_state(a->cpu, s);
    a->syncing = false;
    if (got & KVM_PART_MSRS) {
        int r = write_msrs(a, err);
        if (r < 0)
            return r;
    }
    if ((got & KVM_PART_VEC) && merge_vec(a))
        parts |= KVM_PART_VEC;
    if ((got & KVM_PART_DEBUG) && memcmp(s->dr, a->before.dr, sizeof s->dr))
        parts |= KVM_PART_DEBUG;
    if (s->run_state == CPU_HALTED)
        parts |= KVM_PART_RUN;
    int r = parts ? kvm_set_parts(a->v, s, parts, err) : 0;
    return r < 0 ? r : kvm_set_core_at_entry(a->v, s, err);
}

int kvm_assist_read(struct kvm_vcpu *v, uint64_t lin, void *buf, unsigned size)
{
    struct err err = {0};
    int r = v->assist ? 0 : assist_new(v, &err);
    if (r < 0)
        return r;
    struct kvm_assist *a = v->assist;
    r = kvm_get_parts(v, &a->before, KVM_PART_CORE, &err);
    if (r < 0)
        return r;
    a->before.nmsrs = 0;
    a->before.run_state = CPU_RUNNABLE;
    r = put_soft(a, &err);
    if (r >= 0 && mmu_read_sys(a->cpu, lin, buf, size))
        r = -EFAULT;
    return r;
}

int kvm_assist_step(struct kvm_vcpu *v, struct err *err)
{
    unsigned parts = 0;
    int r = v->assist ? 0 : assist_new(v, err);
    if (r < 0)
        return r;
    struct kvm_assist *a = v->assist;
    r = read_state(a, &parts, err);
    if (r < 0)
        return r;
    if (a->cpu->exc_valid) {
        a->cpu->exc_valid = false;
        exc_deliver(a->cpu);
    } else {
        soft_step(a->cpu);
        bool debugged = v->debug.step || v->debug.n_breaks || v->debug.n_watches;
        if ((parts & KVM_PART_VEC) && !debugged)
            go_on(a);
    }
    atomic_fetch_add_explicit(&v->assisted, 1, memory_order_relaxed);
    if (a->cpu->shutdown)
        return 1;
    r = write_state(a, parts, err);
    if (r >= 0)
        kvm_syscall_look(v, a->after.idt.base);
    return r;
}

/*
 * The KVM engine's virtual machine: creation, memory slots, dirty log, the guest's clock, and the table of the engine's
 * operations. Main thread.
 */
#include "cpu/kvm/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"

/* Four pages that KVM needs below 4 GiB, out of everybody's way. */
#define IDENTITY_MAP_ADDR 0xfeffc000ull
#define TSS_ADDR 0xfeffd000ul

static void on_kick(int sig)
{
}

/* The same for every VM in the process: the signal only interrupts KVM_RUN. */
static void catch_kicks(void)
{
    struct sigaction sa = {.sa_handler = on_kick};
    sigemptyset(&sa.sa_mask);
    sigaction(KVM_KICK_SIGNAL, &sa, NULL);
}

/* Device memory: whose writes are always logged. */
static bool shown(const struct kvm_engine *k, const struct mem_range *r)
{
    const struct mem *m = k->engine.cfg.mem;
    uint64_t off = (uint64_t)(r->host - m->ram);
    return !r->rom && off >= m->ram_size && off < m->fd_size;
}

static void shown_sync(void *opaque);

static int set_slot(struct kvm_engine *k, unsigned i, const struct mem_range *r)
{
    struct kvm_userspace_memory_region slot = {
        .slot = i,
        .flags = (r->rom && k->has_readonly_mem ? KVM_MEM_READONLY : 0) |
                 (!r->rom && (k->dirty_logging || shown(k, r)) ? KVM_MEM_LOG_DIRTY_PAGES : 0),
        .guest_phys_addr = r->base,
        .memory_size = r->size,
        .userspace_addr = (uintptr_t)r->host,
    };
    return ioctl(k->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0 ? -errno : 0;
}

static bool same_range(const struct mem_range *a, const struct mem_range *b)
{
    return a->base == b->base && a->size == b->size && a->host == b->host && a->rom == b->rom;
}

/* Makes KVM's slots what the layout says: first away with what is no more, then what is new. */
static int set_slots(struct kvm_engine *k)
{
    int code = 0;
    pthread_mutex_lock(&k->slot_lock);
    const struct mem_layout *l = mem_layout(k->engine.cfg.mem);
    for (unsigned i = 0; i < MEM_RANGES_MAX; i++) {
        bool there = !k->slot[i].size;
        for (unsigned j = 0; j < l->n && !there; j++)
            there = same_range(&k->slot[i], &l->range[j]);
        if (there)
            continue;
        k->slot[i].size = 0;
        set_slot(k, i, &k->slot[i]);
    }
    for (unsigned j = 0; j < l->n; j++) {
        int at = -1;
        bool there = false;
        for (unsigned i = 0; i < MEM_RANGES_MAX && !there; i++) {
            there = k->slot[i].size && same_range(&k->slot[i], &l->range[j]);
            if (!k->slot[i].size && at < 0)
                at = (int)i;
        }
        if (there || at < 0)
            continue;
        k->slot[at] = l->range[j];
        int r = set_slot(k, (unsigned)at, &l->range[j]);
        if (r < 0) {
            k->slot[at].size = 0;
            code = r;
        }
    }
    pthread_mutex_unlock(&k->slot_lock);
    return code;
}

static void layout_changed(void *opaque)
{
    int r = set_slots(opaque);
    if (r < 0)
        log_warn("KVM does not take the guest's memory layout: %s", strerror(-r));
}

static int check_extensions(struct kvm_engine *k, struct err *err)
{
    static const struct {
        int cap;
        const char *name;
    } need[] = {
        {KVM_CAP_USER_MEMORY, "user memory"},
        {KVM_CAP_IRQCHIP, "in-kernel interrupt controllers"},
        {KVM_CAP_PIT2, "in-kernel PIT"},
        {KVM_CAP_SIGNAL_MSI, "MSI"},
        {KVM_CAP_IRQFD, "irqfd"},
        {KVM_CAP_IOEVENTFD, "ioeventfd"},
        {KVM_CAP_XSAVE, "XSAVE state"},
        {KVM_CAP_VCPU_EVENTS, "vCPU events"},
        {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
        {KVM_CAP_IRQ_ROUTING, "interrupt routing"},
    };
    for (unsigned i = 0; i < ARRAY_SIZE(need); i++)
        if (ioctl(k->vm, KVM_CHECK_EXTENSION, need[i].cap) <= 0)
            return err_set(err, -ENOTSUP, "/dev/kvm lacks %s", need[i].name);
    k->has_sregs2 = ioctl(k->vm, KVM_CHECK_EXTENSION, KVM_CAP_SREGS2) > 0;
    k->has_sync_regs =
        (ioctl(k->vm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_VALID_FIELDS) == KVM_SYNC_X86_VALID_FIELDS;
    k->has_any_length_eventfd = ioctl(k->vm, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD_ANY_LENGTH) > 0;
    k->has_readonly_mem = ioctl(k->vm, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
    int most = ioctl(k->vm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    if (most > 0 && k->engine.cfg.cpus > (unsigned)most)
        return err_set(err, -EINVAL, "KVM gives a guest at most %d CPUs, not %u", most, k->engine.cfg.cpus);
    return 0;
}

static void kvm_destroy(struct engine *e)
{
    struct kvm_engine *k = kvm_engine_of(e);
    if (!k)
        return;
    if (e->cfg.mem->layout_opaque == k) {
        e->cfg.mem->layout_changed = NULL;
        e->cfg.mem->shown_sync = NULL;
        e->cfg.mem->layout_opaque = NULL;
    }
    for (unsigned i = 0; k->cpu && i < e->cfg.cpus; i++)
        kvm_vcpu_free(k->cpu[i]);
    free(k->cpu);
    if (k->vm >= 0)
        close(k->vm);
    if (k->dev >= 0)
        close(k->dev);
    pthread_mutex_destroy(&k->irq_lock);
    pthread_mutex_destroy(&k->slot_lock);
    free(k);
}

static int init(struct kvm_engine *k, struct err *err)
{
    uint64_t identity = IDENTITY_MAP_ADDR;

    k->dev = kvm_open(err);
    if (k->dev < 0)
        return k->dev;
    k->vm = ioctl(k->dev, KVM_CREATE_VM, 0);
    if (k->vm < 0)
        return err_errno(err, -errno, "KVM_CREATE_VM");
    int size = ioctl(k->dev, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (size < (int)sizeof(struct kvm_run))
        return err_set(err, -ENOTSUP, "/dev/kvm: unusable size of the run area");
    k->run_size = (size_t)size;
    int r = check_extensions(k, err);
    if (r < 0)
        return r;
    if (ioctl(k->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 || ioctl(k->vm, KVM_SET_TSS_ADDR, TSS_ADDR) < 0)
        return err_errno(err, -errno, "KVM_SET_TSS_ADDR");
    if (k->engine.cfg.cpus > 255) {
        struct kvm_enable_cap cap = {.cap = KVM_CAP_X2APIC_API,
                                     .args = {KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK}};
        if (ioctl(k->vm, KVM_ENABLE_CAP, &cap) < 0)
            return err_errno(err, -errno, "KVM: more than 255 CPUs");
    }
    /* For user code too, where KVM would give the guest #UD. Older kernels cannot: user code must do without the odd
     * instruction there. */
    struct kvm_enable_cap fail = {.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args = {1}};
    ioctl(k->vm, KVM_ENABLE_CAP, &fail);
    r = kvm_irq_init(k, err);
    if (r < 0)
        return r;
    r = set_slots(k);
    if (r < 0)
        return err_errno(err, r, "KVM does not take the guest's memory");
    k->engine.cfg.mem->layout_opaque = k;
    k->engine.cfg.mem->layout_changed = layout_changed;
    kvm_syscall_init(k);
    k->engine.cfg.mem->shown_sync = shown_sync;
    int khz = ioctl(k->vm, KVM_GET_TSC_KHZ, 0);
    k->engine.tsc_khz = khz > 0 ? (uint32_t)khz : 0;
    catch_kicks();
    return kvm_build_cpuid(k, err);
}

static int kvm_create(const struct engine_config *cfg, struct engine **ret, struct err *err)
{
    struct kvm_engine *k = xcalloc(1, sizeof *k);
    k->engine = (struct engine){.ops = &kvm_engine_ops, .cfg = *cfg};
    k->dev = k->vm = -1;
    k->cpu = xcalloc(MAX(cfg->cpus, 1u), sizeof *k->cpu);
    pthread_mutex_init(&k->irq_lock, NULL);
    pthread_mutex_init(&k->slot_lock, NULL);
    int r = init(k, err);
    if (r < 0) {
        kvm_destroy(&k->engine);
        return r;
    }
    *ret = &k->engine;
    return 0;
}

/* KVM's TSC runs on while the guest's clock stands; put it and KVM's clock back where they were. */
void kvm_clock_changed(struct engine *e, bool running)
{
    struct kvm_engine *k = kvm_engine_of(e);

    if (!running && !k->clock_stopped) {
        k->clock_stopped = ioctl(k->vm, KVM_GET_CLOCK, &k->clock) == 0;
        if (k->cpu[0] && kvm_get_msr(k->cpu[0], MSR_TSC, &k->stopped_tsc) < 0)
            k->stopped_tsc = 0;
        for (unsigned i = 0; i < e->cfg.cpus; i++)
            if (k->cpu[i]) /* fails with EINVAL where the guest has no KVM clock */
                ioctl(k->cpu[i]->fd, KVM_KVMCLOCK_CTRL, 0);
    } else if (running && k->clock_stopped) {
        k->clock_stopped = false;
        k->clock.flags = 0;
        ioctl(k->vm, KVM_SET_CLOCK, &k->clock);
        for (unsigned i = 0; k->stopped_tsc && i < e->cfg.cpus; i++)
            if (k->cpu[i])
                kvm_set_msr(k->cpu[i], MSR_TSC, k->stopped_tsc);
    }
}

static int log_dirty(struct kvm_engine *k, bool on)
{
    k->dirty_logging = on;
    int code = 0;
    pthread_mutex_lock(&k->slot_lock);
    for (unsigned i = 0; i < MEM_RANGES_MAX && !code; i++)
        if (k->slot[i].size && !k->slot[i].rom)
            code = set_slot(k, i, &k->slot[i]);
    pthread_mutex_unlock(&k->slot_lock);
    return code;
}

/* Takes KVM's log of slot `i` into the page flags. */
static int read_log(struct kvm_engine *k, unsigned i)
{
    struct mem *m = k->engine.cfg.mem;
    const struct mem_range *r = &k->slot[i];
    uint64_t pages = r->size / PAGE_SIZE, words = (pages + 63) / 64;
    autofree uint64_t *bits = calloc(words, 8);
    if (!bits)
        return -ENOMEM;
    struct kvm_dirty_log log = {.slot = i, .dirty_bitmap = bits};
    if (ioctl(k->vm, KVM_GET_DIRTY_LOG, &log) < 0)
        return -errno;
    for (uint64_t w = 0; w < words; w++)
        for (uint64_t b = bits[w]; b; b &= b - 1)
            mem_page_dirty(m, r->host + (w * 64 + (unsigned)__builtin_ctzll(b)) * PAGE_SIZE);
    return 0;
}

/* The first call after tracking was switched on starts KVM's log; the first one after it was switched off ends it. */
static int kvm_dirty_sync(struct engine *e, struct err *err)
{
    struct kvm_engine *k = kvm_engine_of(e);
    bool want = atomic_load(&e->cfg.mem->dirty_tracking);
    int r = 0;

    if (want != k->dirty_logging) {
        r = log_dirty(k, want);
        return r < 0 ? err_errno(err, r, "KVM's dirty log") : 0;
    }
    pthread_mutex_lock(&k->slot_lock);
    for (unsigned i = 0; want && i < MEM_RANGES_MAX && !r; i++)
        if (k->slot[i].size && !k->slot[i].rom)
            r = read_log(k, i);
    pthread_mutex_unlock(&k->slot_lock);
    return r < 0 ? err_errno(err, r, "KVM_GET_DIRTY_LOG") : 0;
}

static void shown_sync(void *opaque)
{
    struct kvm_engine *k = opaque;
    pthread_mutex_lock(&k->slot_lock);
    for (unsigned i = 0; i < MEM_RANGES_MAX; i++)
        if (k->slot[i].size && shown(k, &k->slot[i]))
            read_log(k, i);
    pthread_mutex_unlock(&k->slot_lock);
}

static void kvm_arm_timer(struct vcpu *v, uint64_t ns)
{
}

static uint64_t kvm_tsc(struct vcpu *v)
{
    uint64_t tsc = 0;
    return kvm_get_msr(kvm_vcpu_of(v), MSR_TSC, &tsc) < 0 ? 0 : tsc;
}

static int kvm_get_state(struct vcpu *v, struct cpu_state *s, struct err *err)
{
    memset(s, 0, sizeof *s);
    return kvm_get_parts(kvm_vcpu_of(v), s, KVM_PART_ALL, err);
}

static int kvm_set_state(struct vcpu *v, const struct cpu_state *s, struct err *err)
{
    return kvm_set_parts(kvm_vcpu_of(v), s, KVM_PART_ALL, err);
}

static void kvm_info(struct engine *e, char *buf, size_t size)
{
    static const struct {
        unsigned reason;
        const char *name;
    } names[] = {{KVM_EXIT_IO, "port I/O"},
                 {KVM_EXIT_MMIO, "MMIO"},
                 {KVM_EXIT_INTR, "interrupted"},
                 {KVM_EXIT_HLT, "halt"},
                 {KVM_EXIT_SHUTDOWN, "shutdown"},
                 {KVM_EXIT_INTERNAL_ERROR, "not emulated by KVM"},
                 {KVM_EXIT_SYSTEM_EVENT, "system event"}};
    struct kvm_engine *k = kvm_engine_of(e);
    size_t n = 0;

    if (size)
        buf[0] = 0;
    for (unsigned i = 0; i < e->cfg.cpus; i++) {
        for (unsigned j = 0; k->cpu[i] && j < ARRAY_SIZE(names) && n < size; j++) {
            uint64_t count = atomic_load(&k->cpu[i]->exits[names[j].reason]);
            int w = count ? snprintf(buf + n, size - n, "CPU %u: %llu exits: %s\n", i, (unsigned long long)count,
                                     names[j].name)
                          : 0;
            n += w > 0 ? (size_t)w : 0;
        }
        uint64_t assisted = k->cpu[i] && n < size ? atomic_load(&k->cpu[i]->assisted) : 0;
        int w = assisted ? snprintf(buf + n, size - n, "CPU %u: %llu instructions interpreted\n", i,
                                    (unsigned long long)assisted)
                         : 0;
        n += w > 0 ? (size_t)w : 0;
    }
}

const struct engine_ops kvm_engine_ops = {
    .name = "kvm",
    .summary = "hardware virtualization by /dev/kvm",
    .kernel_irqchip = true,
    .probe = kvm_probe,
    .create = kvm_create,
    .destroy = kvm_destroy,
    .vcpu_create = kvm_vcpu_create,
    .vcpu_run = kvm_vcpu_run,
    .vcpu_kick = kvm_vcpu_kick,
    .vcpu_signal = kvm_vcpu_signal,
    .vcpu_arm_timer = kvm_arm_timer,
    .vcpu_tsc = kvm_tsc,
    .get_state = kvm_get_state,
    .set_state = kvm_set_state,
    .clock_changed = kvm_clock_changed,
    .irq_line = kvm_irq_line,
    .msi = kvm_msi,
    .msi_bind_fd = kvm_msi_bind_fd,
    .msi_unbind_fd = kvm_msi_unbind_fd,
    .ioeventfd = kvm_ioeventfd,
    .dirty_sync = kvm_dirty_sync,
    .info = kvm_info,
    .set_debug = kvm_set_debug,
    .debug_hit = kvm_debug_hit,
    .irqchip_get = kvm_irqchip_get,
    .irqchip_set = kvm_irqchip_set,
    .irqchip_reset = kvm_irqchip_reset,
};

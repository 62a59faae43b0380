/*
 * Is there a /dev/kvm, may we use it, and does it run guest code at hardware speed? Some hosts offer one that emulates
 * every instruction; there the software engine is faster. So a little protected-mode loop is timed: first a few hundred
 * instructions, more only where those were quick. Main thread; one to three milliseconds.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cpu/kvm/kvm.h"

#define MIPS_USABLE 200.0
#define LOOP_BASE 0x1000
#define LOOP_FIRST 250         /* rounds of two instructions */
#define LOOP_BUDGET_NS 1000000 /* for the longest run */
#define LOOP_MOST 200000

int kvm_open(struct err *err)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        int v = ioctl(fd, KVM_GET_API_VERSION, 0);
        if (v == KVM_API_VERSION)
            return fd;
        close(fd);
        return err_set(err, -ENOTSUP, "/dev/kvm speaks API version %d, not %d", v, KVM_API_VERSION);
    }
    switch (errno) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return err_set(err, -errno,
                       "there is no /dev/kvm (no hardware virtualization, or the kvm modules are not loaded)");
    case EACCES:
    case EPERM:
        return err_set(
            err, -errno,
            "/dev/kvm: permission denied (add yourself to group kvm: sudo adduser $USER kvm, then log in again)");
    default:
        return err_errno(err, -errno, "/dev/kvm");
    }
}

/* A VM with one page and one vCPU. */
struct little {
    int vm, vcpu;
    uint8_t *page;
    struct kvm_run *run;
    size_t run_size;
};

static void little_free(struct little *l)
{
    if (l->run)
        munmap(l->run, l->run_size);
    if (l->page)
        munmap(l->page, PAGE_SIZE);
    if (l->vcpu >= 0)
        close(l->vcpu);
    if (l->vm >= 0)
        close(l->vm);
}

static int little_make(struct little *l, int dev)
{
    static const uint8_t code[] = {
        0x49,       /* again: dec ecx */
        0x75, 0xfd, /* jnz again */
        0xe6, 0x80, /* out 0x80, al */
    };
    struct kvm_sregs s;
    int size = ioctl(dev, KVM_GET_VCPU_MMAP_SIZE, 0);

    l->vm = ioctl(dev, KVM_CREATE_VM, 0);
    if (l->vm < 0 || size <= 0)
        return -errno;
    void *p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return -errno;
    l->page = p;
    memcpy(l->page, code, sizeof code);
    struct kvm_userspace_memory_region slot = {
        .guest_phys_addr = LOOP_BASE, .memory_size = PAGE_SIZE, .userspace_addr = (uintptr_t)p};
    if (ioctl(l->vm, KVM_SET_TSS_ADDR, 0xfeffd000ul) < 0 || ioctl(l->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
        return -errno;
    l->vcpu = ioctl(l->vm, KVM_CREATE_VCPU, 0);
    if (l->vcpu < 0)
        return -errno;
    p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, l->vcpu, 0);
    if (p == MAP_FAILED)
        return -errno;
    l->run = p;
    l->run_size = (size_t)size;
    if (ioctl(l->vcpu, KVM_GET_SREGS, &s) < 0)
        return -errno;
    struct kvm_segment seg = {.limit = ~0u, .selector = 0x10, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    s.ds = s.es = s.ss = s.fs = s.gs = seg;
    seg.selector = 8;
    seg.type = 11;
    s.cs = seg;
    s.cr0 |= CR0_PE;
    return ioctl(l->vcpu, KVM_SET_SREGS, &s) < 0 ? -errno : 0;
}

/* This thread's CPU time, guest code included: a busy host must not look like a slow KVM. */
static uint64_t cpu_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Nanoseconds that `rounds` of the loop take, with the exits around them; 0 when it does not run. */
static uint64_t little_run(struct little *l, uint64_t rounds)
{
    struct kvm_regs r = {.rip = LOOP_BASE, .rflags = FLAG_1, .rcx = rounds};
    if (ioctl(l->vcpu, KVM_SET_REGS, &r) < 0)
        return 0;
    uint64_t start = cpu_ns();
    int rc = ioctl(l->vcpu, KVM_RUN, 0);
    uint64_t ns = cpu_ns() - start;
    return rc < 0 || l->run->exit_reason != KVM_EXIT_IO ? 0 : MAX(ns, 1ull);
}

/* The better of two runs: an interrupt of the host may fall into one. */
static uint64_t little_time(struct little *l, uint64_t rounds)
{
    uint64_t a = little_run(l, rounds), b = a ? little_run(l, rounds) : 0;
    return MIN(a, b);
}

static double measure(struct little *l)
{
    /* The first run also faults the page in. */
    uint64_t rounds = LOOP_FIRST, ns = little_run(l, 1) ? little_time(l, rounds) : 0;
    while (ns && rounds < LOOP_MOST) {
        uint64_t next = MIN(rounds * LOOP_BUDGET_NS / 2 / ns, (uint64_t)LOOP_MOST);
        if (next < rounds * 8)
            break;
        rounds = next;
        ns = little_time(l, rounds);
    }
    return ns ? (double)rounds * 2 * 1000 / (double)ns : 0;
}

void kvm_probe(struct engine_probe *ret)
{
    struct err err = {0};
    struct little l = {.vm = -1, .vcpu = -1};
    *ret = (struct engine_probe){.usable = false};
    autofd int dev = kvm_open(&err);

    if (dev < 0) {
        snprintf(ret->why, sizeof ret->why, "%s", err.msg);
        return;
    }
    int r = little_make(&l, dev);
    if (r < 0)
        snprintf(ret->why, sizeof ret->why, "/dev/kvm cannot make a virtual machine: %s", strerror(-r));
    else
        ret->mips = measure(&l);
    little_free(&l);
    if (r < 0)
        return;
    ret->usable = ret->mips >= MIPS_USABLE;
    if (ret->usable)
        snprintf(ret->why, sizeof ret->why, "/dev/kvm runs guest code at hardware speed");
    else if (ret->mips > 0)
        snprintf(ret->why, sizeof ret->why,
                 "/dev/kvm emulates, at %.1f million instructions a second: the software engine is faster", ret->mips);
    else
        snprintf(ret->why, sizeof ret->why, "/dev/kvm does not run guest code");
}

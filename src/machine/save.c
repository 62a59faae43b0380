/*
 * A stopped machine as a stream, and a new machine from one: RAM, then the state of everything. It does not say on which engine the
 * machine ran. What comes in is treated as hostile: lengths are bounded before anything is taken, and each object's loader checks
 * what its values mean. Main thread.
 *
 *     "LODGEVM\n", version (32 bits)
 *     runs of memory: offset in the memory file (RAM, then devices' memory), length, bytes …; the last one has length 0. What no run
 *     holds is 0.
 *     length of the state, then the objects (state/state.h) in the order of objects()
 *
 * Numbers are little-endian, 64 bits but the version.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "dev/pci.h"
#include "machine/save.h"

#define MAGIC "LODGEVM\n"
#define VERSION 1
#define STATE_MAX (64 * MIB)
#define RUN_MAX (4 * MIB)

/* ---- what the machines must have in common ---- */

struct saved_machine {
    uint64_t clock, ram_size, memory_size; /* all of the memory file */
    uint32_t cpus, tsc_khz;
    uint8_t board[16];
};
static const struct state_field machine_fields[] = {
    STATE_U(struct saved_machine, clock),       STATE_U(struct saved_machine, ram_size),
    STATE_U(struct saved_machine, memory_size), STATE_U(struct saved_machine, cpus),
    STATE_U(struct saved_machine, tsc_khz),     STATE_RAW(struct saved_machine, board),
    STATE_END,
};
static const struct state_desc machine_desc = {"machine", 1, 1, machine_fields, NULL, NULL};

static struct saved_machine machine_of(struct vm *vm)
{
    struct saved_machine m = {
        .clock = clock_now(&vm->clock),
        .ram_size = vm->mem->ram_size,
        .memory_size = vm->mem->fd_size,
        .cpus = vm->n_cpus,
        .tsc_khz = vm->engine->tsc_khz,
    };
    memccpy(m.board, vm->board->name, 0, sizeof m.board);
    return m;
}

static int check_machine(struct vm *vm, const struct saved_machine *m, struct err *err)
{
    struct saved_machine own = machine_of(vm);
    if (memcmp(m->board, own.board, sizeof own.board))
        return err_set(err, -EINVAL, "the saved guest has another machine type than %s", vm->board->name);
    if (m->cpus != own.cpus)
        return err_set(err, -EINVAL, "the saved guest has %u vCPUs, this one %u", m->cpus, own.cpus);
    if (m->ram_size != own.ram_size)
        return err_set(err, -EINVAL, "the saved guest has %llu MiB of memory, this one %llu",
                       (unsigned long long)(m->ram_size / MIB), (unsigned long long)(own.ram_size / MIB));
    if (m->memory_size != own.memory_size)
        return err_set(err, -EINVAL, "the saved guest's devices have other memory than this one's");
    /* Nobody here scales the TSC; two measurements of the same one differ by less. */
    uint32_t off = m->tsc_khz > own.tsc_khz ? m->tsc_khz - own.tsc_khz : own.tsc_khz - m->tsc_khz;
    if (off > own.tsc_khz / 500)
        return err_set(err, -ENOTSUP, "the saved guest's TSC runs at %u kHz, this host's at %u", m->tsc_khz, own.tsc_khz);
    if (m->clock > INT64_MAX)
        return err_set(err, -EINVAL, "the saved guest's clock cannot be");
    return 0;
}

/* ---- devices ---- */

struct pci_pass {
    struct state_writer *w;
    struct state_reader *r;
    int code;
    struct err *err;
};

static void pass_pci(void *opaque, struct pci_dev *d)
{
    struct pci_pass *p = opaque;
    if (p->w)
        state_save(p->w, &pci_dev_state, d->dev.id, d);
    else if (p->code >= 0)
        p->code = state_load(p->r, &pci_dev_state, d->dev.id, d, p->err);
}

static bool is_saved(const struct device *d)
{
    return d->type->state && !is_irqchip(d);
}

static void save_devices(struct vm *vm, struct state_writer *w)
{
    struct pci_pass pass = {.w = w};
    if (vm->pci) {
        state_save(w, &pci_bus_state, "", vm->pci);
        pci_walk(vm->pci, pass_pci, &pass);
    }
    for (struct device *d = vm->devices; d; d = d->next)
        if (is_saved(d))
            state_save(w, d->type->state, d->id, d);
}

static int load_devices(struct vm *vm, struct state_reader *r, struct err *err)
{
    struct pci_pass pass = {.r = r, .err = err};
    if (vm->pci) {
        int code = state_load(r, &pci_bus_state, "", vm->pci, err);
        if (code < 0)
            return code;
        pci_walk(vm->pci, pass_pci, &pass);
    }
    int code = pass.code;
    for (struct device *d = vm->devices; d && code >= 0; d = d->next)
        if (is_saved(d))
            code = state_load(r, d->type->state, d->id, d, err);
    return MIN(code, 0);
}

/* ---- vCPUs ---- */

static int save_cpus(struct vm *vm, struct state_writer *w, struct err *err)
{
    autofree struct cpu_state *s = xcalloc(1, sizeof *s);
    autofree struct saved_cpu *c = xcalloc(1, sizeof *c);
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        int code = vm->ops->get_state(vm->cpu[i].vcpu, s, err);
        if (code < 0)
            return code;
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        saved_cpu_from(c, s);
        state_save(w, &saved_cpu_desc, name, c);
    }
    return 0;
}

static int set_cpus(struct vm *vm, const struct cpu_state *s, struct err *err)
{
    int code = 0;
    for (unsigned i = 0; i < vm->n_cpus && code >= 0; i++)
        if ((code = vm->ops->set_state(vm->cpu[i].vcpu, &s[i], err)) < 0)
            err_prefix(err, "vCPU %u", i);
    return code;
}

static int load_cpus(struct vm *vm, struct state_reader *r, struct cpu_state *s, struct err *err)
{
    autofree struct saved_cpu *c = xcalloc(1, sizeof *c);
    for (unsigned i = 0; i < vm->n_cpus; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        int code = state_load(r, &saved_cpu_desc, name, c, err);
        if (code < 0 || (code = saved_cpu_to(c, &s[i], err)) < 0)
            return code;
    }
    return set_cpus(vm, s, err);
}

/* ---- all objects ---- */

static int save_objects(struct vm *vm, struct state_writer *w, struct err *err)
{
    struct saved_machine m = machine_of(vm);
    state_save(w, &machine_desc, "", &m);
    save_devices(vm, w);
    int code = save_cpus(vm, w, err);
    return code < 0 ? code : save_irqchip(vm, w, err);
}

static int load_objects(struct vm *vm, struct state_reader *r, struct err *err)
{
    struct saved_machine m;
    int code = state_load(r, &machine_desc, "", &m, err);
    if (code < 0 || (code = check_machine(vm, &m, err)) < 0)
        return code;
    clock_init(&vm->clock, m.clock);
    /* Lines that devices raise here are overwritten by what the interrupt controllers were told before. */
    if ((code = load_devices(vm, r, err)) < 0)
        return code;
    autofree struct cpu_state *s = xcalloc(vm->n_cpus, sizeof *s);
    if ((code = load_cpus(vm, r, s, err)) < 0 || (code = load_irqchip(vm, r, s, err)) < 0)
        return code;
    if (r->pos != r->len)
        return err_set(err, -EINVAL, "the saved guest has more state than this one");
    /* A TSC deadline is only taken by an APIC whose timer is in that mode. */
    return vm->ops->kernel_irqchip ? set_cpus(vm, s, err) : 0;
}

/* ---- the stream ---- */

static int put64(int fd, uint64_t v)
{
    uint8_t b[8];
    le64_put(b, v);
    return fd_write_full(fd, b, sizeof b);
}

static int get64(int fd, uint64_t *ret)
{
    uint8_t b[8];
    int code = fd_read_full(fd, b, sizeof b);
    *ret = code < 0 ? 0 : le64_get(b);
    return code;
}

static bool is_zero(const uint8_t *p, size_t n)
{
    return !p[0] && !memcmp(p, p + 1, n - 1);
}

/* Holes of the file were never touched. */
static int save_ram(const struct mem *m, int fd)
{
    uint64_t at = 0;
    int code = 0;
    while (at < m->fd_size && code >= 0) {
        off_t data = lseek(m->fd, (off_t)at, SEEK_DATA);
        if (data < 0)
            break;
        off_t hole = lseek(m->fd, data, SEEK_HOLE);
        uint64_t end = hole < 0 ? m->fd_size : (uint64_t)hole;
        for (at = (uint64_t)data; at < end && code >= 0;) {
            uint64_t from = at;
            if (is_zero(m->ram + at, PAGE_SIZE)) {
                at += PAGE_SIZE;
                continue;
            }
            while (at < end && at - from < RUN_MAX && !is_zero(m->ram + at, PAGE_SIZE))
                at += PAGE_SIZE;
            if ((code = put64(fd, from)) >= 0 && (code = put64(fd, at - from)) >= 0)
                code = fd_write_full(fd, m->ram + from, at - from);
        }
    }
    return code < 0 ? code : (code = put64(fd, 0)) < 0 ? code : put64(fd, 0);
}

static int load_ram(struct mem *m, int fd, struct err *err)
{
    if (fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)m->fd_size) < 0)
        return err_errno(err, -errno, "cannot clear the guest's memory");
    for (;;) {
        uint64_t from, len;
        int code = get64(fd, &from);
        if (code < 0 || (code = get64(fd, &len)) < 0)
            return err_errno(err, code, "saved memory");
        if (!len)
            return 0;
        if (len > RUN_MAX || len % PAGE_SIZE || from % PAGE_SIZE || from > m->fd_size || len > m->fd_size - from)
            return err_set(err, -EINVAL, "saved memory: a run of 0x%llx bytes at 0x%llx cannot be",
                           (unsigned long long)len, (unsigned long long)from);
        if ((code = fd_read_full(fd, m->ram + from, len)) < 0)
            return err_errno(err, code, "saved memory");
    }
}

int vm_save(struct vm *vm, int fd, struct err *err)
{
    if (vm->status == VM_RUNNING)
        return err_set(err, -EBUSY, "the guest must be stopped to be saved");
    if (vm->domain->n_filesystems)
        return err_set(err, -ENOTSUP, "a guest with a share cannot be saved: the files it has open are the host's");
    struct state_writer w = {0};
    uint8_t head[12] = MAGIC;
    le32_put(head + 8, VERSION);
    int code = save_objects(vm, &w, err);
    if (code >= 0) {
        if ((code = fd_write_full(fd, head, sizeof head)) < 0 || (code = save_ram(vm->mem, fd)) < 0 ||
            (code = put64(fd, w.len)) < 0 || (code = fd_write_full(fd, w.data, w.len)) < 0)
            err_errno(err, code, "cannot write the guest's state");
    }
    state_writer_free(&w);
    return MIN(code, 0);
}

static int load_state(struct vm *vm, int fd, struct err *err)
{
    uint64_t len;
    int code = get64(fd, &len);
    if (code < 0)
        return err_errno(err, code, "saved state");
    if (len > STATE_MAX)
        return err_set(err, -EINVAL, "saved state: %llu bytes cannot be", (unsigned long long)len);
    autofree uint8_t *data = xcalloc(1, len + 1);
    if ((code = fd_read_full(fd, data, len)) < 0)
        return err_errno(err, code, "saved state");
    struct state_reader r = {data, len, 0};
    return load_objects(vm, &r, err);
}

int vm_load(struct vm *vm, int fd, struct err *err)
{
    uint8_t head[12];
    if (vm->status != VM_PRELAUNCH)
        return err_set(err, -EBUSY, "only a guest that has not run yet can become a saved one");
    int code = fd_read_full(fd, head, sizeof head);
    if (code < 0 || memcmp(head, MAGIC, 8))
        return err_set(err, -EINVAL, "this is not a saved guest");
    if (le32_get(head + 8) != VERSION)
        return err_set(err, -ENOTSUP, "a saved guest of version %u; this is for version %u", le32_get(head + 8), VERSION);
    if (vm->ops->clock_changed)
        vm->ops->clock_changed(vm->engine, false); /* TSC and clocks stand as they are loaded */
    if ((code = load_ram(vm->mem, fd, err)) >= 0)
        code = load_state(vm, fd, err);
    return MIN(code, 0);
}

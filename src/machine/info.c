/* What people and the monitor ask of a machine. Main thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "dev/virtio/balloon.h"
#include "machine/machine.h"

enum vm_status vm_status(const struct vm *vm)
{
    return vm->status;
}

int vm_exit_status(const struct vm *vm)
{
    return atomic_load(&vm->exit_status);
}

const char *vm_engine_name(const struct vm *vm)
{
    return vm->ops->name;
}

const char *vm_engine_why(const struct vm *vm)
{
    return vm->engine_why;
}

int vm_vcpu_tid(const struct vm *vm, unsigned cpu)
{
    return cpu < vm->n_cpus ? atomic_load(&vm->cpu[cpu].tid) : 0;
}

int vm_vcpu_state(struct vm *vm, unsigned cpu, struct cpu_state *s, struct err *err)
{
    if (cpu >= vm->n_cpus)
        return err_set(err, -EINVAL, "there is no vCPU %u", cpu);
    bool running = vm->status == VM_RUNNING;
    if (running)
        vcpus_hold(vm);
    int code = vm->ops->get_state(vm->cpu[cpu].vcpu, s, err);
    if (running)
        vcpus_release(vm);
    return code;
}

unsigned vm_disks(const struct vm *vm, struct vm_disk *ret, unsigned max)
{
    unsigned n = 0;
    for (unsigned i = 0; i < vm->n_blks && n < max; i++) {
        const struct blk *blk = vm->blks[i];
        ret[n++] = (struct vm_disk){&vm->domain->disks[i], blk ? blk->driver : "raw", blk ? blk->size : 0, !blk || blk->read_only,
                                     blk ? blk->count : NULL};
    }
    return n;
}

int vm_disk_resize(struct vm *vm, const char *target, uint64_t size, struct err *err)
{
    if (!strncmp(target, "drive-", 6))
        target += 6;
    for (unsigned i = 0; i < vm->n_blks; i++)
        if (vm->blks[i] && vm->domain->disks[i].target && !strcmp(vm->domain->disks[i].target, target))
            return blk_resize(vm->blks[i], size, err);
    return err_set(err, -ENODEV, "Cannot find device='%s'", target);
}

unsigned vm_ptys(const struct vm *vm, const char **ret_names, unsigned max)
{
    unsigned n = 0;
    for (unsigned i = 0; i < vm->n_chardevs && n < max; i++)
        if (chardev_path(vm->chardevs[i]))
            ret_names[n++] = chardev_path(vm->chardevs[i]);
    return n;
}

int vm_read_phys(struct vm *vm, uint64_t gpa, void *buf, size_t len)
{
    return mem_read(vm->mem, gpa, buf, len);
}

int vm_write_phys(struct vm *vm, uint64_t gpa, const void *buf, size_t len)
{
    return mem_write(vm->mem, gpa, buf, len);
}

int vm_vcpu_set_state(struct vm *vm, unsigned cpu, const struct cpu_state *s, struct err *err)
{
    if (cpu >= vm->n_cpus)
        return err_set(err, -EINVAL, "there is no vCPU %u", cpu);
    if (vm->status == VM_RUNNING)
        return err_set(err, -EBUSY, "the guest runs");
    return vm->ops->set_state(vm->cpu[cpu].vcpu, s, err);
}

/* ---- texts ---- */

struct text {
    FILE *f;
    char *s;
    size_t len;
};

static struct text *text_new(struct text *t)
{
    *t = (struct text){0};
    t->f = open_memstream(&t->s, &t->len);
    if (!t->f)
        abort();
    return t;
}

static char *text_take(struct text *t)
{
    fclose(t->f);
    return t->s;
}

static void pci_line(void *opaque, struct pci_dev *d)
{
    struct text *t = opaque;
    fprintf(t->f, "  Bus  0, device %3u, function %u:\n    %04x:%04x class %06x  %s\n", d->devfn >> 3, d->devfn & 7,
            d->info->vendor, d->info->device, d->info->class_code, d->dev.id);
    for (unsigned i = 0; i < PCI_BARS; i++) {
        uint32_t bar = le32_get(&d->config[0x10 + 4 * i]);
        if (!bar)
            continue;
        if (bar & 1)
            fprintf(t->f, "      BAR%u: I/O at 0x%04x\n", i, bar & ~3u);
        else if ((bar & 6) == 4 && i + 1 < PCI_BARS) {
            fprintf(t->f, "      BAR%u: 64 bit memory at 0x%08x%08x\n", i, le32_get(&d->config[0x14 + 4 * i]), bar & ~15u);
            i++;
        } else
            fprintf(t->f, "      BAR%u: 32 bit memory at 0x%08x\n", i, bar & ~15u);
    }
}

char *vm_info_pci(struct vm *vm)
{
    struct text t;
    text_new(&t);
    if (vm->pci)
        pci_walk(vm->pci, pci_line, &t);
    else
        fprintf(t.f, "this board has no PCI bus\n");
    return text_take(&t);
}

char *vm_info_engine(struct vm *vm)
{
    char buf[4096] = "";
    if (vm->ops->info)
        vm->ops->info(vm->engine, buf, sizeof buf);
    return xasprintf("engine %s: %s\n%s", vm->ops->name, vm->engine_why, buf);
}

/* ---- balloon ---- */

int vm_balloon_set(struct vm *vm, uint64_t bytes, struct err *err)
{
    if (!vm->balloon)
        return err_set(err, -ENODEV, "the guest has no balloon device");
    if (!bytes || bytes > vm->mem->ram_size)
        return err_set(err, -EINVAL, "balloon target %llu is not between 1 and the guest's %llu bytes",
                       (unsigned long long)bytes, (unsigned long long)vm->mem->ram_size);
    virtio_balloon_set_target(vm->balloon, bytes);
    return 0;
}

int vm_balloon_get(struct vm *vm, uint64_t *ret_actual, struct err *err)
{
    if (!vm->balloon)
        return err_set(err, -ENODEV, "the guest has no balloon device");
    *ret_actual = virtio_balloon_actual(vm->balloon);
    return 0;
}

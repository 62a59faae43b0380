/*
 * The order in which firmware tries devices, as Open Firmware device paths: the form that SeaBIOS and OVMF read from
 * fw_cfg's "bootorder". <boot order> of the devices comes first; without any, <os><boot dev>.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "machine/firmware.h"
#include "machine/machine.h"

void boot_entry_add(struct vm *vm, enum boot_kind kind, unsigned order, char *path)
{
    vm->boot = realloc(vm->boot, (vm->n_boot + 1) * sizeof *vm->boot);
    if (!vm->boot)
        abort();
    vm->boot[vm->n_boot++] = (struct boot_entry){kind, order, path};
}

static void append(char **text, const char *path)
{
    char *old = *text;
    *text = xasprintf("%s%s%s", old ? old : "", old ? "\n" : "", path);
    free(old);
}

static bool ordered(const struct vm *vm)
{
    for (unsigned i = 0; i < vm->n_boot; i++)
        if (vm->boot[i].order)
            return true;
    return false;
}

static char *by_device(const struct vm *vm)
{
    char *text = NULL;
    for (unsigned last = 0;;) {
        const struct boot_entry *next = NULL;
        for (unsigned i = 0; i < vm->n_boot; i++)
            if (vm->boot[i].order > last && (!next || vm->boot[i].order < next->order))
                next = &vm->boot[i];
        if (!next)
            return text;
        append(&text, next->path);
        last = next->order;
    }
}

static char *by_kind(const struct vm *vm)
{
    static const char *const names[] = {[BOOT_DISK] = "hd", [BOOT_CDROM] = "cdrom", [BOOT_NETWORK] = "network", [BOOT_FLOPPY] = "fd"};
    const struct domain_os *os = &vm->domain->os;
    char *text = NULL;
    for (unsigned k = 0; k < os->n_boot; k++)
        for (unsigned i = 0; i < vm->n_boot; i++)
            if (!strcmp(os->boot[k], names[vm->boot[i].kind]))
                append(&text, vm->boot[i].path);
    /* A disk comes before the network where nothing is said. */
    for (unsigned i = 0; i < vm->n_boot && !os->n_boot; i++)
        if (vm->boot[i].kind != BOOT_NETWORK)
            append(&text, vm->boot[i].path);
    return text;
}

char *boot_order(const struct vm *vm)
{
    return ordered(vm) ? by_device(vm) : by_kind(vm);
}

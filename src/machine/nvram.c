/*
 * UEFI's two pieces: which template of variables belongs to which code, and the guest's own copy in a file, which is
 * made when it is not there.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "dev/pflash.h"
#include "machine/firmware.h"
#include "machine/machine.h"

#define OVMF "/usr/share/OVMF/"
#define CODE_DEFAULT OVMF "OVMF_CODE_4M.fd"

/* Debian's images. Those that want system management mode (for Secure Boot) stop without it, and there is none here. */
static const struct {
    const char *code, *vars;
    bool smm;
} images[] = {
    {CODE_DEFAULT, OVMF "OVMF_VARS_4M.fd", false},
    {OVMF "OVMF_CODE.fd", OVMF "OVMF_VARS.fd", false},
    {OVMF "OVMF_CODE_4M.secboot.fd", OVMF "OVMF_VARS_4M.fd", true},
    {OVMF "OVMF_CODE_4M.ms.fd", OVMF "OVMF_VARS_4M.ms.fd", true},
    {OVMF "OVMF_CODE_4M.snakeoil.fd", OVMF "OVMF_VARS_4M.snakeoil.fd", true},
    {OVMF "OVMF_CODE.secboot.fd", OVMF "OVMF_VARS.fd", true},
    {OVMF "OVMF_CODE.ms.fd", OVMF "OVMF_VARS.ms.fd", true},
};

const char *nvram_code(const struct domain *d)
{
    return d->os.loader ? d->os.loader : CODE_DEFAULT;
}

static int find_template(const struct domain *d, const char **ret, struct err *err)
{
    const char *code = nvram_code(d);
    for (unsigned i = 0; i < ARRAY_SIZE(images); i++) {
        if (strcmp(images[i].code, code))
            continue;
        if (images[i].smm)
            return err_set(err, -ENOTSUP,
                           "firmware %s: Secure Boot's build needs system management mode, which this machine has not; "
                           "%s does not",
                           code, CODE_DEFAULT);
        *ret = images[i].vars;
    }
    if (d->os.loader_secure == DOMAIN_ON)
        return err_set(err, -ENOTSUP, "<loader secure='yes'> needs system management mode, which this machine has not");
    if (d->os.nvram_template)
        *ret = d->os.nvram_template;
    return 0;
}

/* The guest's file, as big as the template; *ret_fd -1 where it has none. */
static int open_copy(const char *path, const char *template, uint8_t **data, uint64_t *size, int *ret_fd,
                     struct err *err)
{
    autofd int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int code;
    if (fd >= 0) {
        if (!template)
            code = err_set(err, -EINVAL, "nvram %s is not there, and no template is known to make it from", path);
        else if ((code = firmware_read("nvram template", template, PFLASH_MAX, PFLASH_BLOCK, data, size, err)) >= 0)
            code = fd_write_full(fd, *data, *size) < 0 ? err_errno(err, -EIO, "nvram %s", path) : 0;
        if (code < 0)
            unlink(path);
    } else {
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            return err_errno(err, -errno, "nvram %s", path);
        code = firmware_read("nvram", path, PFLASH_MAX, PFLASH_BLOCK, data, size, err);
    }
    if (code < 0)
        return code;
    *ret_fd = fd_take(fd);
    return 0;
}

int nvram_new(struct vm *vm, uint64_t code_size, struct err *err)
{
    const struct domain *d = vm->domain;
    const char *template = NULL;
    autofree uint8_t *data = NULL;
    uint64_t size = 0;
    int fd = -1, code = find_template(d, &template, err);
    if (code < 0)
        return code;
    if (d->os.nvram)
        code = open_copy(d->os.nvram, template, &data, &size, &fd, err);
    else if (template)
        code = firmware_read("nvram template", template, PFLASH_MAX, PFLASH_BLOCK, &data, &size, err);
    else
        return 0; /* one image with everything, and nowhere to keep variables */
    if (code < 0)
        return code;
    struct pflash_config cfg = {.id = "nvram", .data = data, .size = (uint32_t)size, .fd = fd};
    struct pflash *p;
    if ((code = pflash_new(&cfg, &p, err)) < 0) {
        fd_closep(&fd);
        return code;
    }
    vm_add_device(vm, pflash_device(p));
    return pflash_map(p, vm->mmio, 4 * GIB - code_size - size, err);
}

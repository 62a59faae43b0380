/* Host bridge and LPC bridge: registers that remember. See pci_host.h. Config accesses come under the PCI bus's lock.
 */
#include "dev/pci_host.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/fd.h"

struct chip {
    struct pci_dev pci; /* first */
    struct pci_chip_config cfg;
};

static void config_written(struct pci_dev *d, unsigned off, unsigned len)
{
    struct chip *c = (struct chip *)d;
    if (c->cfg.written)
        c->cfg.written(c->cfg.opaque, d, off, len);
}

static void chip_reset(struct device *dev)
{
    struct pci_dev *d = (struct pci_dev *)dev;
    pci_dev_reset(d);
    if (dev->type == &pci_lpc_type) {
        d->config[LPC_PMBASE] = 1; /* it is a port base */
        memset(&d->config[LPC_PIRQA_ROUT], 0x80, 4);
        memset(&d->config[LPC_PIRQE_ROUT], 0x80, 4);
    } else {
        d->config[MCH_SMRAM] = 0x02;
    }
    config_written(d, 0, 256);
}

static void destroy(struct device *dev)
{
    pci_dev_remove((struct pci_dev *)dev);
    free(dev);
}

static int chip_new(const struct pci_chip_config *cfg, const struct device_type *type, const char *id, int devfn,
                    const struct pci_info *info, struct pci_dev **ret, struct err *err)
{
    struct chip *c = xcalloc(1, sizeof *c);
    device_init(&c->pci.dev, type, id);
    c->cfg = *cfg;
    c->pci.config_written = config_written;
    int code = pci_dev_add(&c->pci, cfg->bus, devfn, info, err);
    if (code < 0) {
        free(c);
        return code;
    }
    *ret = &c->pci;
    return 0;
}

int pci_host_new(const struct pci_chip_config *cfg, struct pci_dev **ret, struct err *err)
{
    static const struct pci_info info = {
        .vendor = 0x8086, .device = 0x29c0, .subsys_vendor = 0x1af4, .subsys_id = 0x1100, .class_code = 0x060000};
    int code = chip_new(cfg, &pci_host_type, "pci-host", 0, &info, ret, err);
    if (code < 0)
        return code;
    uint8_t *wmask = (*ret)->wmask;
    le64_put(&wmask[MCH_PCIEXBAR], 0x0000000ffc000007ull);
    memset(&wmask[MCH_PAM0], 0x33, 7);
    wmask[MCH_PAM0] = 0x30;
    wmask[MCH_SMRAM] = 0x70; /* not the fixed compatible segment; D_LCK does not lock */
    chip_reset(&(*ret)->dev);
    return 0;
}

int pci_lpc_new(const struct pci_chip_config *cfg, struct pci_dev **ret, struct err *err)
{
    static const struct pci_info info = {.vendor = 0x8086,
                                         .device = 0x2918,
                                         .subsys_vendor = 0x1af4,
                                         .subsys_id = 0x1100,
                                         .class_code = 0x060100,
                                         .revision = 2};
    int code = chip_new(cfg, &pci_lpc_type, "lpc", LPC_DEVFN, &info, ret, err);
    if (code < 0)
        return code;
    uint8_t *wmask = (*ret)->wmask;
    (*ret)->config[0x0e] = 0x80; /* header type: more functions may follow */
    le32_put(&wmask[LPC_PMBASE], 0x0000ff80);
    wmask[LPC_ACPI_CNTL] = 0x87;
    memset(&wmask[LPC_PIRQA_ROUT], 0x8f, 4);
    memset(&wmask[LPC_PIRQE_ROUT], 0x8f, 4);
    memset(&wmask[0x80], 0xff, 0x14); /* LPC I/O decode ranges */
    memset(&wmask[0xa0], 0xff, 0x10); /* GEN_PMCON */
    le32_put(&wmask[LPC_RCBA], 0xffffc001);
    chip_reset(&(*ret)->dev);
    return 0;
}

/* The registers are saved with the PCI function, before this: what they say comes into effect. */
static int post_load(void *obj, uint32_t version, struct err *err)
{
    config_written(obj, 0, 256);
    return 0;
}

static const struct state_field no_fields[] = {STATE_END};
static const struct state_desc host_state = {"pci-host", 1, 1, no_fields, NULL, post_load};
static const struct state_desc lpc_state = {"lpc", 1, 1, no_fields, NULL, post_load};

const struct device_type pci_host_type = {
    .name = "pci-host",
    .summary = "PCI host bridge (Q35)",
    .state = &host_state,
    .reset = chip_reset,
    .destroy = destroy,
};
const struct device_type pci_lpc_type = {
    .name = "lpc",
    .summary = "ISA bridge (ICH9 LPC)",
    .state = &lpc_state,
    .reset = chip_reset,
    .destroy = destroy,
};

/* The controller's registers and ports: AHCI 1.3.1, chapter 3. See ahci.h. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "dev/ahci_priv.h"

#define ABAR_SIZE 0x1000u
#define PORT_BASE 0x100u
#define PORT_SIZE 0x80u
/* 64-bit addresses, queueing, command list override, AHCI only, 3 Gbit/s, 32 slots. */
#define CAP (BIT(31) | BIT(30) | BIT(24) | BIT(18) | 2u << 20 | 31u << 8 | (AHCI_PORTS - 1))
#define VERSION 0x00010300u

enum { GHC_RESET = BIT(0), GHC_IE = BIT(1), GHC_AE = BIT(31) };
enum { CMD_ST = BIT(0), CMD_CLO = BIT(3), CMD_FRE = BIT(4), CMD_FR = BIT(14), CMD_CR = BIT(15), CMD_ATAPI = BIT(24) };
#define CMD_WRITABLE                                                                                                   \
    (CMD_ST | BIT(1) | BIT(2) | CMD_CLO | CMD_FRE | CMD_ATAPI | BIT(25) | BIT(26) | BIT(27) | 0xf0000000u)
enum { SSTS_UP = 0x123, SERR_EXCHANGED = BIT(26) };
enum { FIS_D2H = 0x40, FIS_D2H_LEN = 20 };

/* ---- interrupts ---- */

static void update_irq(struct ahci *a)
{
    a->is = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (a->port[i].is & a->port[i].ie)
            a->is |= BIT(i);
    pci_set_intx(&a->pci, (a->ghc & GHC_IE) && a->is);
}

void ahci_interrupt(struct ahci_port *p, uint32_t bits)
{
    p->is |= bits;
    update_irq(p->a);
}

void ahci_send_d2h(struct ahci_port *p, uint8_t status, uint8_t error, bool interrupt)
{
    uint8_t fis[FIS_D2H_LEN] = {0x34, interrupt ? 0x40 : 0, status, error};
    p->status = status;
    p->error = error;
    memcpy(fis + 4, p->lba, sizeof p->lba);
    fis[12] = p->count;
    uint32_t lost = (p->cmd & CMD_FRE) && mem_write(p->a->mem, p->fb + FIS_D2H, fis, sizeof fis) < 0 ? IS_HBF : 0;
    if (interrupt || lost)
        ahci_interrupt(p, lost | (interrupt ? IS_DHR : 0) | (status & ST_ERR ? IS_TFE : 0));
}

/* ---- ports ---- */

bool ahci_running(const struct ahci_port *p)
{
    return (p->cmd & CMD_ST) && p->drive.present;
}

/* What is under way is nobody's any more. */
static void forget(struct ahci_port *p)
{
    p->ci = p->sact = 0;
    for (unsigned i = 0; i < AHCI_SLOTS; i++)
        if (p->slot[i].busy)
            p->slot[i].stale = true;
}

void ahci_drive_reset(struct ahci_port *p)
{
    static const uint8_t disk[3] = {1, 0, 0}, packet[3] = {1, 0x14, 0xeb};
    p->sig = 0xffffffff;
    p->status = 0x7f;
    p->error = 0;
    if (!p->drive.present)
        return;
    memcpy(p->lba, p->drive.cdrom ? packet : disk, 3);
    p->count = 1;
    p->multiple = 0;
    p->write_cache = 1;
    p->sig = p->drive.cdrom ? 0xeb140101 : 0x00000101;
    scsi_reset(&p->lun);
    ahci_send_d2h(p, ST_RDY | ST_SEEK, 1, true);
}

static void port_link(struct ahci_port *p, bool interrupt)
{
    p->ssts = p->drive.present ? SSTS_UP : 0;
    if (!p->drive.present) {
        p->status = 0x7f;
        return;
    }
    p->serr |= SERR_EXCHANGED;
    ahci_drive_reset(p);
    if (interrupt)
        ahci_interrupt(p, IS_PC);
}

static void port_reset(struct ahci_port *p)
{
    forget(p);
    p->clb = p->fb = 0;
    p->is = p->ie = p->sctl = p->serr = p->cmd = 0;
    p->srst = 0;
    port_link(p, false);
    p->is = 0;
}

static void process_all(void *opaque);

static void post(struct ahci *a)
{
    if (a->posted || a->paused)
        return;
    a->posted = true;
    loop_post(a->loop, process_all, a);
}

static void process_all(void *opaque)
{
    struct ahci *a = opaque;
    pthread_mutex_lock(&a->lock);
    a->posted = false;
    a->processing = true;
    for (unsigned i = 0; i < AHCI_PORTS && !a->paused; i++)
        ahci_port_process(&a->port[i]);
    a->processing = false;
    pthread_mutex_unlock(&a->lock);
}

void ahci_again(struct ahci *a)
{
    post(a);
}

static void write_cmd(struct ahci_port *p, uint32_t val)
{
    uint32_t old = p->cmd;
    p->cmd = (p->cmd & ~CMD_WRITABLE) | (val & CMD_WRITABLE);
    if (p->cmd & CMD_CLO) {
        p->status &= (uint8_t) ~(ST_BSY | ST_DRQ);
        p->cmd &= ~CMD_CLO;
    }
    p->cmd = p->cmd & CMD_FRE ? p->cmd | CMD_FR : p->cmd & ~CMD_FR;
    p->cmd = p->cmd & CMD_ST ? p->cmd | CMD_CR : p->cmd & ~CMD_CR;
    if ((old & CMD_ST) && !(p->cmd & CMD_ST))
        forget(p);
    if (!(old & CMD_FRE) && (p->cmd & CMD_FRE) && p->drive.present) /* the signature waits for somebody to take it */
        ahci_send_d2h(p, p->status, p->error, false);
}

static void write_sctl(struct ahci_port *p, uint32_t val)
{
    unsigned before = p->sctl & 15, now = val & 15;
    p->sctl = val & 0xfff;
    if (now == 1 && before != 1) {
        forget(p);
        p->ssts = 0;
        p->status = 0x7f;
    } else if (now == 0 && before == 1) {
        port_link(p, true);
    }
}

static uint32_t port_read(const struct ahci_port *p, unsigned reg)
{
    switch (reg) {
    case 0x00:
        return (uint32_t)p->clb;
    case 0x04:
        return (uint32_t)(p->clb >> 32);
    case 0x08:
        return (uint32_t)p->fb;
    case 0x0c:
        return (uint32_t)(p->fb >> 32);
    case 0x10:
        return p->is;
    case 0x14:
        return p->ie;
    case 0x18:
        return p->cmd;
    case 0x20:
        return (uint32_t)p->error << 8 | p->status;
    case 0x24:
        return p->sig;
    case 0x28:
        return p->ssts;
    case 0x2c:
        return p->sctl;
    case 0x30:
        return p->serr;
    case 0x34:
        return p->sact;
    case 0x38:
        return p->ci;
    }
    return 0;
}

static void port_write(struct ahci_port *p, unsigned reg, uint32_t val)
{
    switch (reg) {
    case 0x00:
        p->clb = (p->clb & ~0xffffffffull) | (val & ~0x3ffu);
        break;
    case 0x04:
        p->clb = (uint32_t)p->clb | (uint64_t)val << 32;
        break;
    case 0x08:
        p->fb = (p->fb & ~0xffffffffull) | (val & ~0xffu);
        break;
    case 0x0c:
        p->fb = (uint32_t)p->fb | (uint64_t)val << 32;
        break;
    case 0x10:
        p->is &= ~val;
        update_irq(p->a);
        break;
    case 0x14:
        p->ie = val & 0xfdc000ff;
        update_irq(p->a);
        break;
    case 0x18:
        write_cmd(p, val);
        break;
    case 0x2c:
        write_sctl(p, val);
        break;
    case 0x30:
        p->serr &= ~val;
        break;
    case 0x34:
        if (p->cmd & CMD_ST)
            p->sact |= val;
        break;
    case 0x38:
        if (p->cmd & CMD_ST)
            p->ci |= val;
        if (p->ci && ahci_running(p))
            post(p->a);
        break;
    }
}

/* ---- the controller ---- */

static void hba_reset(struct ahci *a)
{
    a->ghc = GHC_AE;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        port_reset(&a->port[i]);
    update_irq(a);
}

static uint64_t abar_read(void *opaque, uint64_t off64, unsigned size)
{
    struct ahci *a = opaque;
    unsigned off = (unsigned)off64 & ~3u;
    uint32_t val = 0;
    pthread_mutex_lock(&a->lock);
    if (off >= PORT_BASE && (off - PORT_BASE) / PORT_SIZE < AHCI_PORTS)
        val = port_read(&a->port[(off - PORT_BASE) / PORT_SIZE], (off - PORT_BASE) % PORT_SIZE);
    else if (off == 0x00)
        val = CAP;
    else if (off == 0x04)
        val = a->ghc;
    else if (off == 0x08)
        val = a->is;
    else if (off == 0x0c)
        val = BIT(AHCI_PORTS) - 1;
    else if (off == 0x10)
        val = VERSION;
    pthread_mutex_unlock(&a->lock);
    return val >> (off64 & 3) * 8;
}

static void abar_write(void *opaque, uint64_t off, unsigned size, uint64_t val)
{
    struct ahci *a = opaque;
    if (size != 4 || (off & 3))
        return; /* registers are written whole */
    pthread_mutex_lock(&a->lock);
    if (off >= PORT_BASE && (off - PORT_BASE) / PORT_SIZE < AHCI_PORTS) {
        port_write(&a->port[(off - PORT_BASE) / PORT_SIZE], (off - PORT_BASE) % PORT_SIZE, (uint32_t)val);
    } else if (off == 0x04) {
        if (val & GHC_RESET)
            hba_reset(a);
        else
            a->ghc = GHC_AE | ((uint32_t)val & GHC_IE);
        update_irq(a);
    } else if (off == 0x08) {
        update_irq(a); /* summary bits follow the ports' */
    }
    pthread_mutex_unlock(&a->lock);
}

static const struct bus_ops abar_ops = {abar_read, abar_write, 1, 4};

/* ---- media ---- */

static void scsi_eject(void *opaque, bool open)
{
    struct ahci_port *p = opaque;
    if (p->a->tray)
        p->a->tray(p->a->opaque, p->index, open);
}

static int open_queue(struct ahci_port *p, struct blk *blk, struct err *err)
{
    p->io = blk ? blk_queue_new(blk, p->a->loop, err) : NULL;
    return blk && !p->io ? (err && err->code ? err->code : -EIO) : 0;
}

int ahci_change(struct pci_dev *d, unsigned port, struct blk *blk, bool force, struct err *err)
{
    struct ahci *a = (struct ahci *)d;
    struct ahci_port *p = port < AHCI_PORTS ? &a->port[port] : NULL;
    if (!p || !p->drive.cdrom)
        return err_set(err, -EINVAL, "not a drive with removable media");
    if (p->lun.locked && !force)
        return err_set(err, -EBUSY, "%s: the guest has locked the tray", p->id);
    if (p->io)
        blk_drain(p->io);
    struct blk_queue *old = p->io;
    int code = open_queue(p, blk, err);
    if (code < 0) {
        p->io = old;
        return code;
    }
    blk_queue_free(old);
    blk_close(p->drive.blk);
    pthread_mutex_lock(&a->lock);
    p->drive.blk = blk;
    scsi_change(&p->lun, blk);
    pthread_mutex_unlock(&a->lock);
    return 0;
}

/* ---- life ---- */

static void drain(struct ahci *a)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        while (a->port[i].io && a->port[i].busy) /* one completion may submit the next */
            blk_drain(a->port[i].io);
}

static void ahci_pause(struct device *dev, bool paused)
{
    struct ahci *a = (struct ahci *)dev;
    pthread_mutex_lock(&a->lock);
    a->paused = paused;
    if (!paused)
        post(a);
    pthread_mutex_unlock(&a->lock);
    if (paused)
        drain(a);
}

static void ahci_reset(struct device *dev)
{
    struct ahci *a = (struct ahci *)dev;
    drain(a);
    pci_dev_reset(&a->pci);
    pthread_mutex_lock(&a->lock);
    hba_reset(a);
    pthread_mutex_unlock(&a->lock);
}

static void ahci_destroy(struct device *dev)
{
    struct ahci *a = (struct ahci *)dev;
    drain(a);
    loop_unpost(a->loop, a);
    pci_dev_remove(&a->pci);
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *p = &a->port[i];
        for (unsigned k = 0; k < AHCI_SLOTS; k++)
            ahci_slot_free(&p->slot[k]);
        blk_queue_free(p->io);
        blk_close(p->drive.blk);
    }
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* Slots of NCQ commands that were accepted but had not completed cannot be in a state: saving drains first. */
static int ahci_post_load(void *obj, uint32_t version, struct err *err)
{
    struct ahci *a = obj;
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *p = &a->port[i];
        p->clb &= ~0x3ffull;
        p->fb &= ~0xffull;
        p->lun.tray_open &= 1;
        p->lun.locked &= 1;
    }
    a->ghc = GHC_AE | (a->ghc & GHC_IE);
    update_irq(a);
    return 0;
}

#define PORT_FIELD(n, name, field, kind, count)                                                                        \
    {                                                                                                                  \
        "port" #n "." name, kind, offsetof(struct ahci, port[n].field),                                                \
            sizeof(((struct ahci *)0)->port[n].field) / (count), count, 1                                              \
    }
#define PORT_FIELDS(n)                                                                                                 \
    PORT_FIELD(n, "clb", clb, STATE_UINT, 1), PORT_FIELD(n, "fb", fb, STATE_UINT, 1),                                  \
        PORT_FIELD(n, "is", is, STATE_UINT, 1), PORT_FIELD(n, "ie", ie, STATE_UINT, 1),                                \
        PORT_FIELD(n, "cmd", cmd, STATE_UINT, 1), PORT_FIELD(n, "sctl", sctl, STATE_UINT, 1),                          \
        PORT_FIELD(n, "ssts", ssts, STATE_UINT, 1), PORT_FIELD(n, "serr", serr, STATE_UINT, 1),                        \
        PORT_FIELD(n, "sact", sact, STATE_UINT, 1), PORT_FIELD(n, "ci", ci, STATE_UINT, 1),                            \
        PORT_FIELD(n, "sig", sig, STATE_UINT, 1), PORT_FIELD(n, "status", status, STATE_UINT, 1),                      \
        PORT_FIELD(n, "error", error, STATE_UINT, 1), PORT_FIELD(n, "srst", srst, STATE_UINT, 1),                      \
        PORT_FIELD(n, "multiple", multiple, STATE_UINT, 1), PORT_FIELD(n, "write_cache", write_cache, STATE_UINT, 1),  \
        PORT_FIELD(n, "lba", lba, STATE_BYTES, 1), PORT_FIELD(n, "count", count, STATE_UINT, 1),                       \
        PORT_FIELD(n, "tray_open", lun.tray_open, STATE_UINT, 1), PORT_FIELD(n, "locked", lun.locked, STATE_UINT, 1),  \
        PORT_FIELD(n, "attention", lun.attention, STATE_UINT, 1), PORT_FIELD(n, "sense", lun.sense, STATE_BYTES, 1)

static const struct state_field ahci_fields[] = {
    STATE_U(struct ahci, ghc),
    PORT_FIELDS(0),
    PORT_FIELDS(1),
    PORT_FIELDS(2),
    PORT_FIELDS(3),
    PORT_FIELDS(4),
    PORT_FIELDS(5),
    STATE_END,
};
static const struct state_desc ahci_state = {"ahci", 1, 1, ahci_fields, NULL, ahci_post_load};

const struct device_type ahci_type = {
    .name = "ahci",
    .summary = "SATA controller (ICH9 AHCI) with disks and CD drives",
    .state = &ahci_state,
    .reset = ahci_reset,
    .destroy = ahci_destroy,
    .pause = ahci_pause,
};

int ahci_new(const struct ahci_config *cfg, struct pci_dev **ret, struct err *err)
{
    static const struct pci_info base = {
        .vendor = 0x8086,
        .device = 0x2922,
        .subsys_vendor = 0x1af4,
        .subsys_id = 0x1100,
        .class_code = 0x010601,
        .revision = 2,
        .interrupt_pin = 1,
        .bar = {[5] = {.size = ABAR_SIZE, .ops = &abar_ops}},
    };
    struct ahci *a = xcalloc(1, sizeof *a);
    device_init(&a->pci.dev, &ahci_type, cfg->id);
    pthread_mutex_init(&a->lock, NULL);
    a->info = base;
    a->mem = cfg->mem;
    a->loop = cfg->loop;
    a->tray = cfg->tray;
    a->opaque = cfg->opaque;
    a->paused = true; /* until the machine runs */
    int code = pci_dev_add(&a->pci, cfg->bus, cfg->devfn, &a->info, err);
    for (unsigned i = 0; i < AHCI_PORTS && code >= 0; i++) {
        struct ahci_port *p = &a->port[i];
        p->a = a;
        p->index = i;
        code = open_queue(p, cfg->drive[i].blk, err);
        if (code < 0)
            break;
        p->drive = cfg->drive[i];
        snprintf(p->id, sizeof p->id, "%s", cfg->drive[i].id ? cfg->drive[i].id : "");
        scsi_init(&p->lun, p->drive.blk, p->drive.cdrom, p->drive.serial);
        p->lun.eject = scsi_eject;
        p->lun.opaque = p;
        for (unsigned k = 0; k < AHCI_SLOTS; k++)
            p->slot[k] = (struct ahci_slot){.port = p, .tag = k};
    }
    if (code < 0) {
        for (unsigned i = 0; i < AHCI_PORTS; i++)
            a->port[i].drive.blk = NULL; /* stay the caller's */
        ahci_destroy(&a->pci.dev);
        return code;
    }
    hba_reset(a);
    *ret = &a->pci;
    return 0;
}

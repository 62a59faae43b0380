/*
 * Commands of a port: from the command list to the image and back (AHCI 1.3.1, chapters 4 and 5; ATA8-ACS; ATAPI by
 * scsi.c). With the controller's lock on the loop's thread, but for completions of images, which take it unless they
 * come from inside a submission.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/iov.h"
#include "base/log.h"
#include "dev/ahci_priv.h"

#define FIS_LEN 64u
#define PIO_SETUP 0x20u
#define SDB 0x58u

enum {
    ATA_TRIM = 0x06,
    ATA_PACKET = 0xa0,
    ATA_IDENTIFY_PACKET = 0xa1,
    ATA_READ_FPDMA = 0x60,
    ATA_WRITE_FPDMA = 0x61,
    ATA_IDENTIFY = 0xec,
};

void ahci_slot_free(struct ahci_slot *s)
{
    free(s->iov);
    free(s->piece);
    free(s->trim);
}

/* ---- ends ---- */

static void put_transferred(struct ahci_slot *s, uint64_t len)
{
    (void)!mem_write32(s->port->a->mem, s->header + 4, (uint32_t)len); /* a header in ROM: the guest's own fault */
}

static void end(struct ahci_slot *s, uint8_t status, uint8_t error)
{
    struct ahci_port *p = s->port;
    p->ci &= ~BIT(s->tag);
    ahci_send_d2h(p, status, error, true);
}

static void good(struct ahci_slot *s)
{
    end(s, ST_RDY | ST_SEEK, 0);
}

static void aborted(struct ahci_slot *s)
{
    end(s, ST_RDY | ST_SEEK | ST_ERR, ERR_ABORT);
}

/* A queued command: Set Device Bits, which says which tags are done. After an error the port waits for the driver. */
static void end_queued(struct ahci_slot *s, uint8_t error)
{
    struct ahci_port *p = s->port;
    uint8_t fis[8] = {0xa1, 0x40, (uint8_t)(ST_RDY & 0x77), error};
    fis[2] |= error ? ST_ERR : 0;
    p->ci &= ~BIT(s->tag);
    if (!error) {
        p->sact &= ~BIT(s->tag);
        le32_put(fis + 4, BIT(s->tag));
    }
    p->status = (uint8_t)(ST_RDY | ST_SEEK | (error ? ST_ERR : 0));
    p->error = error;
    uint32_t lost = (p->cmd & BIT(4)) && mem_write(p->a->mem, p->fb + SDB, fis, sizeof fis) < 0 ? IS_HBF : 0;
    ahci_interrupt(p, IS_SDB | lost | (error ? IS_TFE : 0));
}

/* Data came by PIO: the FIS that announces it ends the command. */
static void end_pio_in(struct ahci_slot *s, uint64_t len)
{
    struct ahci_port *p = s->port;
    uint8_t fis[20] = {0x5f, 0x60, ST_RDY | ST_SEEK | ST_DRQ};
    fis[15] = ST_RDY | ST_SEEK;
    le16_put(fis + 16, (uint16_t)len);
    p->ci &= ~BIT(s->tag);
    p->status = ST_RDY | ST_SEEK;
    p->error = 0;
    uint32_t lost = (p->cmd & BIT(4)) && mem_write(p->a->mem, p->fb + PIO_SETUP, fis, sizeof fis) < 0 ? IS_HBF : 0;
    ahci_interrupt(p, IS_PS | lost);
}

/* The state of a packet command: sense key in the error register, interrupt reason in the count. */
static void end_packet(struct ahci_slot *s, uint8_t status)
{
    struct ahci_port *p = s->port;
    p->count = 3;
    end(s, (uint8_t)(ST_RDY | ST_SEEK | (status ? ST_ERR : 0)),
        status ? (uint8_t)(p->lun.sense[2] << 4 | ERR_ABORT) : 0);
}

/* ---- memory ---- */

/* The pieces of guest memory for `len` bytes. False: there are not so many, too many pieces, or no RAM. */
static bool gather(struct ahci_slot *s, uint16_t entries, gpa_t table, uint64_t len, bool to_guest)
{
    struct mem *m = s->port->a->mem;
    uint8_t e[16];
    s->n_iov = s->n_pieces = 0;
    if (!s->iov) {
        s->iov = xcalloc(AHCI_PIECES_MAX, sizeof *s->iov);
        s->piece = xcalloc(AHCI_PIECES_MAX, sizeof *s->piece);
    }
    for (unsigned i = 0; i < entries && len; i++) {
        if (s->n_pieces == AHCI_PIECES_MAX || mem_read(m, table + 0x80 + 16ull * i, e, sizeof e) < 0)
            return false;
        uint64_t n = (le32_get(e + 12) & 0x3fffff) + 1ull;
        n = MIN(n, len);
        gpa_t at = le64_get(e);
        if (mem_iov(m, at, n, to_guest, s->iov, &s->n_iov, AHCI_PIECES_MAX) < 0)
            return false;
        s->piece[s->n_pieces++] = (struct ahci_piece){at, (uint32_t)n};
        len -= n;
    }
    return !len;
}

static void wrote(struct ahci_slot *s)
{
    for (unsigned i = 0; i < s->n_pieces; i++)
        mem_wrote(s->port->a->mem, s->piece[i].gpa, s->piece[i].len);
}

struct header {
    uint16_t entries;
    bool write;
    gpa_t table;
};

/* As much of `len` bytes as the guest has room for; the number, or -1. */
static int64_t reply(struct ahci_slot *s, const struct header *h, const void *data, uint64_t len)
{
    uint8_t e[16];
    uint64_t room = 0;
    for (unsigned i = 0; i < h->entries && room < len; i++) {
        if (mem_read(s->port->a->mem, h->table + 0x80 + 16ull * i, e, sizeof e) < 0)
            return -1;
        room += (le32_get(e + 12) & 0x3fffff) + 1ull;
    }
    len = MIN(len, room);
    if (!gather(s, h->entries, h->table, len, true))
        return -1;
    iov_write(s->iov, s->n_iov, 0, data, len);
    wrote(s);
    return (int64_t)len;
}

/* ---- the image's side ---- */

static void trim_next(struct ahci_slot *s);

static void completed(struct ahci_slot *s, int ret)
{
    struct ahci_port *p = s->port;
    bool write = s->req.op != BLK_READ;
    s->busy = false;
    p->busy--;
    if (ret < 0)
        log_warn("disk %s: %s of %llu bytes at %llu failed: %s", p->id, write ? "write" : "read",
                 (unsigned long long)s->req.len, (unsigned long long)s->req.offset, strerror(-ret));
    if (s->req.op == BLK_READ && ret >= 0)
        wrote(s);
    if (s->stale) {
        s->stale = false;
        ahci_again(p->a);
        return;
    }
    if (ret >= 0 && s->trim_at < s->trim_len) {
        trim_next(s);
        return;
    }
    if (ret >= 0)
        put_transferred(s, s->req.op == BLK_READ || s->req.op == BLK_WRITE ? s->req.len : 0);
    if (s->ncq)
        end_queued(s, ret < 0 ? ERR_DATA : 0);
    else if (s->atapi)
        end_packet(s, ret < 0 ? scsi_failed(&p->lun, ret, write) : SCSI_GOOD);
    else if (ret < 0)
        end(s, ST_RDY | ST_SEEK | ST_ERR, ERR_DATA);
    else
        good(s);
}

static void done(struct blk_req *req, int ret)
{
    struct ahci_slot *s = (struct ahci_slot *)req;
    struct ahci *a = s->port->a;
    bool locked = a->processing; /* this is the loop's thread, and no other completes while it submits */
    if (!locked)
        pthread_mutex_lock(&a->lock);
    completed(s, ret);
    if (!locked)
        pthread_mutex_unlock(&a->lock);
}

static void submit(struct ahci_slot *s, enum blk_op op, uint64_t offset, uint64_t len, unsigned flags)
{
    struct ahci_port *p = s->port;
    s->req = (struct blk_req){.op = op, .flags = flags, .offset = offset, .len = len, .done = done};
    if (op == BLK_READ || op == BLK_WRITE) {
        s->req.iov = s->iov;
        s->req.niov = s->n_iov;
    }
    s->busy = true;
    p->busy++;
    bool outer = p->a->processing;
    p->a->processing = true;
    blk_submit(p->io, &s->req);
    blk_kick(p->io);
    p->a->processing = outer;
}

/* ---- DATA SET MANAGEMENT ---- */

/* The next range that is not empty: 48 bits of LBA, 16 of count. */
static void trim_next(struct ahci_slot *s)
{
    struct ahci_port *p = s->port;
    uint64_t sectors = p->drive.blk->size / SECTOR;
    while (s->trim_at < s->trim_len) {
        uint64_t entry = le64_get(s->trim + s->trim_at), lba = entry & 0xffffffffffffull, n = entry >> 48;
        s->trim_at += 8;
        if (!n)
            continue;
        if (lba > sectors || n > sectors - lba) {
            s->trim_at = s->trim_len;
            aborted(s);
            return;
        }
        submit(s, BLK_DISCARD, lba * SECTOR, n * SECTOR, 0);
        return;
    }
    good(s);
}

static void trim(struct ahci_slot *s, const struct header *h, const uint8_t *fis)
{
    struct ahci_port *p = s->port;
    unsigned sectors = le16_get(fis + 12);
    if (!(fis[3] & 1) || !sectors || sectors > AHCI_TRIM_MAX || p->drive.blk->read_only || !p->drive.blk->can_discard ||
        !gather(s, h->entries, h->table, sectors * SECTOR, false)) {
        aborted(s);
        return;
    }
    if (!s->trim)
        s->trim = xcalloc(AHCI_TRIM_MAX, SECTOR);
    s->trim_len = (unsigned)iov_read(s->iov, s->n_iov, 0, s->trim, sectors * SECTOR);
    s->trim_at = 0;
    trim_next(s);
}

/* ---- what the drive is ---- */

/* Texts in IDENTIFY have their bytes swapped. */
static void put_text(uint8_t *to, const char *text, unsigned n)
{
    size_t len = strlen(text);
    for (unsigned i = 0; i < n; i++)
        to[i ^ 1] = i < len ? (uint8_t)text[i] : ' ';
}

static void identify(const struct ahci_port *p, uint8_t *id)
{
    const struct blk *blk = p->drive.blk;
    char serial[21];
    memset(id, 0, SECTOR);
#define WORD(n, v) le16_put(id + 2 * (n), (uint16_t)(v))
    snprintf(serial, sizeof serial, "%s", *p->lun.serial ? p->lun.serial : p->id);
    put_text(id + 20, serial, 20);
    put_text(id + 46, LODGE_VERSION, 8);
    put_text(id + 54, p->drive.cdrom ? "LODGE DVD-ROM" : "LODGE HARDDISK", 40);
    WORD(49, 0x0f00); /* LBA, DMA, IORDY */
    WORD(53, 7);
    WORD(63, 0x07);
    WORD(64, 3);
    for (unsigned i = 65; i <= 68; i++)
        WORD(i, 120);
    WORD(76, p->drive.cdrom ? 0x0006 : 0x0106); /* SATA generations 1 and 2, NCQ */
    WORD(80, 0xf0);
    WORD(88, 0x203f | 0x20);
    WORD(93, 0);
    if (p->drive.cdrom) {
        WORD(0, 0x85c0); /* removable CD drive, 12-byte packets */
        WORD(82, 0x4210);
        WORD(83, 0x4000);
        WORD(84, 0x4000);
        WORD(85, 0x4210);
        WORD(87, 0x4000);
    } else {
        uint64_t sectors = blk->size / SECTOR;
        uint32_t small = (uint32_t)MIN(sectors, 0x0fffffffull);
        uint32_t cylinders = (uint32_t)MIN(MAX(sectors / (16 * 63), 2ull), 16383ull);
        WORD(0, 0x0040);
        WORD(1, cylinders);
        WORD(3, 16);
        WORD(6, 63);
        WORD(47, 0x8010);
        WORD(54, cylinders);
        WORD(55, 16);
        WORD(56, 63);
        le32_put(id + 114, cylinders * 16 * 63);
        WORD(59, p->multiple ? 0x100 | p->multiple : 0);
        le32_put(id + 120, small);
        WORD(69, blk->can_discard ? 0x4020 : 0); /* deterministic zeros after TRIM */
        WORD(75, AHCI_SLOTS - 1);
        WORD(82, 0x4060); /* write cache, look-ahead, NOP */
        WORD(83, 0x7400); /* 48 bits, FLUSH CACHE and EXT */
        WORD(84, 0x4040); /* FUA */
        WORD(85, 0x4040 | (p->write_cache ? 0x20 : 0));
        WORD(86, 0x3400);
        WORD(87, 0x4040);
        le64_put(id + 200, sectors);
        if (blk->physical_size > SECTOR)
            WORD(106, 0x6000 | (31 - __builtin_clz(blk->physical_size / SECTOR)));
        WORD(169, blk->can_discard);
        WORD(105, blk->can_discard ? AHCI_TRIM_MAX : 0);
        WORD(217, 1); /* does not rotate */
    }
#undef WORD
    uint8_t sum = 0xa5;
    for (unsigned i = 0; i < SECTOR - 2; i++)
        sum = (uint8_t)(sum + id[i]);
    id[510] = 0xa5;
    id[511] = (uint8_t)-sum;
}

/* ---- disks ---- */

static void transfer(struct ahci_slot *s, const struct header *h, const uint8_t *fis, bool write, bool lba48, bool fua)
{
    struct ahci_port *p = s->port;
    const struct blk *blk = p->drive.blk;
    uint64_t lba = fis[4] | (uint64_t)fis[5] << 8 | (uint64_t)fis[6] << 16, count;
    if (s->ncq)
        count = (uint64_t)(fis[3] | fis[11] << 8);
    else
        count = lba48 ? le16_get(fis + 12) : fis[12];
    if (lba48)
        lba |= (uint64_t)fis[8] << 24 | (uint64_t)fis[9] << 32 | (uint64_t)fis[10] << 40;
    else
        lba |= (uint64_t)(fis[7] & 15) << 24;
    if (!count)
        count = lba48 ? 65536 : 256;
    uint64_t sectors = blk->size / SECTOR;
    bool bad = lba > sectors || count > sectors - lba || (write && blk->read_only) || !(fis[7] & 0x40);
    if (bad || !gather(s, h->entries, h->table, count * SECTOR, !write)) {
        if (s->ncq)
            end_queued(s, bad ? ERR_ID | ERR_ABORT : ERR_ABORT);
        else
            end(s, ST_RDY | ST_SEEK | ST_ERR, bad ? ERR_ID | ERR_ABORT : ERR_ABORT);
        return;
    }
    submit(s, write ? BLK_WRITE : BLK_READ, lba * SECTOR, count * SECTOR,
           write && (fua || !p->write_cache) ? BLK_REQ_FUA : 0);
}

static void set_features(struct ahci_slot *s, const uint8_t *fis)
{
    switch (fis[3]) {
    case 0x02:
    case 0x82:
        s->port->write_cache = fis[3] == 0x02;
        break;
    case 0x03: /* transfer mode */
    case 0x10:
    case 0x90: /* SATA features */
    case 0x55:
    case 0xaa: /* look-ahead */
    case 0x66:
    case 0xcc: /* power-on defaults */
        break;
    default:
        aborted(s);
        return;
    }
    good(s);
}

static void identify_command(struct ahci_slot *s, const struct header *h)
{
    uint8_t id[SECTOR];
    identify(s->port, id);
    int64_t n = reply(s, h, id, sizeof id);
    if (n < 0) {
        aborted(s);
        return;
    }
    put_transferred(s, (uint64_t)n);
    end_pio_in(s, (uint64_t)n);
}

static void disk_command(struct ahci_slot *s, const struct header *h, const uint8_t *fis)
{
    struct ahci_port *p = s->port;
    switch (fis[2]) {
    case 0x20:
    case 0xc4:
    case 0xc8:
        transfer(s, h, fis, false, false, false);
        break;
    case 0x24:
    case 0x25:
    case 0x29:
        transfer(s, h, fis, false, true, false);
        break;
    case 0x30:
    case 0xc5:
    case 0xca:
        transfer(s, h, fis, true, false, false);
        break;
    case 0x34:
    case 0x35:
    case 0x39:
    case 0x3d:
    case 0xce:
        transfer(s, h, fis, true, true, fis[2] == 0x3d || fis[2] == 0xce);
        break;
    case ATA_READ_FPDMA:
    case ATA_WRITE_FPDMA:
        s->ncq = true;
        transfer(s, h, fis, fis[2] == ATA_WRITE_FPDMA, true, fis[7] & 0x80);
        break;
    case 0xe7:
    case 0xea: /* FLUSH CACHE */
        submit(s, BLK_FLUSH, 0, 0, 0);
        break;
    case ATA_TRIM:
        trim(s, h, fis);
        break;
    case ATA_IDENTIFY:
        identify_command(s, h);
        break;
    case 0xc6: /* SET MULTIPLE MODE */
        p->multiple = fis[12] <= 16 ? fis[12] : 0;
        good(s);
        break;
    case 0xef:
        set_features(s, fis);
        break;
    case 0x10: /* RECALIBRATE, READ VERIFY, INITIALIZE DEVICE PARAMETERS, STANDBY and IDLE, in old and new codes */
    case 0x40:
    case 0x42:
    case 0x91:
    case 0xe0 ... 0xe3:
    case 0xe6:
        good(s);
        break;
    case 0xe5: /* CHECK POWER MODE: active */
        p->count = 0xff;
        good(s);
        break;
    case 0x27:
    case 0xf8: { /* READ NATIVE MAX ADDRESS */
        uint64_t last = p->drive.blk->size / SECTOR - 1;
        for (unsigned i = 0; i < 3; i++)
            p->lba[i] = (uint8_t)(last >> 8 * i);
        good(s);
        break;
    }
    default:
        aborted(s);
    }
}

/* ---- packets ---- */

static void packet(struct ahci_slot *s, const struct header *h, const uint8_t *cdb)
{
    struct ahci_port *p = s->port;
    struct scsi_result *r = &p->a->result;
    s->atapi = true;
    scsi_command(&p->lun, cdb, r);
    if (r->status == SCSI_GOOD && r->action == SCSI_REPLY) {
        int64_t n = r->len ? reply(s, h, r->reply, r->len) : 0;
        put_transferred(s, (uint64_t)MAX(n, 0));
    } else if (r->status == SCSI_GOOD && r->action == SCSI_READ) {
        if (p->io && gather(s, h->entries, h->table, r->len, true)) {
            submit(s, BLK_READ, r->offset, r->len, 0);
            return;
        }
        r->status = scsi_failed(&p->lun, -EIO, false);
    }
    end_packet(s, r->status);
}

static void cd_command(struct ahci_slot *s, const struct header *h, const uint8_t *fis, const uint8_t *cdb)
{
    struct ahci_port *p = s->port;
    switch (fis[2]) {
    case ATA_PACKET:
        packet(s, h, cdb);
        break;
    case ATA_IDENTIFY_PACKET:
        identify_command(s, h);
        break;
    case 0x08: /* DEVICE RESET */
        p->ci &= ~BIT(s->tag);
        ahci_drive_reset(p);
        break;
    case 0xef:
        set_features(s, fis);
        break;
    case ATA_IDENTIFY: /* refused with the signature of a packet device */
        p->lba[1] = 0x14;
        p->lba[2] = 0xeb;
        aborted(s);
        break;
    case 0xe0 ... 0xe3:
    case 0xe6:
        good(s);
        break;
    default:
        aborted(s);
    }
}

/* ---- the command list ---- */

/* A register FIS that changes the control register only: software reset when SRST goes down again. */
static void control(struct ahci_slot *s, const uint8_t *fis)
{
    struct ahci_port *p = s->port;
    bool srst = fis[15] & 4, was = p->srst;
    p->ci &= ~BIT(s->tag);
    p->srst = srst;
    if (srst)
        p->status = ST_BSY;
    else if (was)
        ahci_drive_reset(p);
    else
        p->status &= (uint8_t)~ST_BSY;
}

static void start(struct ahci_slot *s)
{
    struct ahci_port *p = s->port;
    struct mem *m = p->a->mem;
    uint8_t head[16], table[FIS_LEN + 16];
    s->header = p->clb + 32ull * s->tag;
    s->ncq = s->atapi = false;
    s->trim_at = s->trim_len = 0;
    struct header h = {0};
    if (mem_read(m, s->header, head, sizeof head) < 0 ||
        mem_read(m, h.table = le64_get(head + 8) & ~0x7full, table, sizeof table) < 0) {
        p->ci &= ~BIT(s->tag);
        ahci_interrupt(p, IS_HBF);
        return;
    }
    h.entries = le16_get(head + 2);
    h.write = head[0] & 0x40;
    if (table[0] != 0x27) { /* not a register FIS to the device */
        aborted(s);
        return;
    }
    if (!(table[1] & 0x80)) {
        control(s, table);
        return;
    }
    uint8_t cdb[SCSI_CDB_MAX] = {0};
    memcpy(cdb, table + FIS_LEN, 12);
    memcpy(p->lba, table + 4, 3);
    p->count = table[12];
    if (p->drive.cdrom)
        cd_command(s, &h, table, cdb);
    else
        disk_command(s, &h, table);
}

void ahci_port_process(struct ahci_port *p)
{
    for (unsigned i = 0; i < AHCI_SLOTS && ahci_running(p); i++)
        if ((p->ci & BIT(i)) && !p->slot[i].busy)
            start(&p->slot[i]);
}

/* See scsi.h. Numbers of commands and pages are those of SPC-4, SBC-3 and MMC-6. Lengths in a CDB only ever cut
 * replies. */
#include "dev/scsi.h"

#include <errno.h>
#include <stdio.h>

#include "base/bits.h"

enum { KEY_NONE = 0, KEY_NOT_READY = 2, KEY_MEDIUM = 3, KEY_ILLEGAL = 5, KEY_ATTENTION = 6, KEY_PROTECT = 7 };
#define UNMAP_RANGES_MAX 255u
#define UNMAP_BLOCKS_MAX 0x3fffffu

static void be16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}
static void be32(uint8_t *p, uint32_t v)
{
    be16(p, (uint16_t)(v >> 16));
    be16(p + 2, (uint16_t)v);
}
static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}
static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static void set_sense(struct scsi_lun *l, uint8_t key, uint8_t asc, uint8_t ascq)
{
    memset(l->sense, 0, sizeof l->sense);
    l->sense[0] = 0x70;
    l->sense[2] = key;
    l->sense[7] = SCSI_SENSE_LEN - 8;
    l->sense[12] = asc;
    l->sense[13] = ascq;
}

static void fail(struct scsi_lun *l, struct scsi_result *r, uint8_t key, uint8_t asc, uint8_t ascq)
{
    set_sense(l, key, asc, ascq);
    r->action = SCSI_REPLY;
    r->status = SCSI_CHECK_CONDITION;
    r->len = 0;
}

static void bad_field(struct scsi_lun *l, struct scsi_result *r)
{
    fail(l, r, KEY_ILLEGAL, 0x24, 0);
}

static void answer(struct scsi_result *r, unsigned have, uint64_t allowed)
{
    r->action = SCSI_REPLY;
    r->len = MIN(have, allowed);
}

uint32_t scsi_block_size(const struct scsi_lun *l)
{
    return l->cdrom ? 2048 : l->blk ? l->blk->block_size : 512;
}

static uint64_t blocks(const struct scsi_lun *l)
{
    return l->blk ? l->blk->size / scsi_block_size(l) : 0;
}

static bool medium(const struct scsi_lun *l)
{
    return l->blk && !l->tray_open;
}

static void no_medium(struct scsi_lun *l, struct scsi_result *r)
{
    fail(l, r, KEY_NOT_READY, 0x3a, l->tray_open ? 2 : 1);
}

/* ---- what it is ---- */

static void pad(uint8_t *to, const char *text, unsigned n)
{
    size_t len = strlen(text);
    for (unsigned i = 0; i < n; i++)
        to[i] = i < len ? (uint8_t)text[i] : ' ';
}

static unsigned vital_page(const struct scsi_lun *l, uint8_t page, uint8_t *p)
{
    static const uint8_t cd_pages[] = {0x00, 0x80, 0x83}, disk_pages[] = {0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2};
    unsigned n = (unsigned)strlen(l->serial);
    p[0] = l->cdrom ? 5 : 0;
    p[1] = page;
    switch (page) {
    case 0x00:
        p[3] = l->cdrom ? sizeof cd_pages : sizeof disk_pages;
        memcpy(p + 4, l->cdrom ? cd_pages : disk_pages, p[3]);
        break;
    case 0x80:
        p[3] = (uint8_t)n;
        memcpy(p + 4, l->serial, n);
        break;
    case 0x83: /* by vendor: T10's form */
        p[3] = (uint8_t)(4 + 8 + n);
        p[4] = 2;
        p[5] = 1;
        p[7] = (uint8_t)(8 + n);
        pad(p + 8, l->vendor, 8);
        memcpy(p + 16, l->serial, n);
        break;
    case 0xb0: /* block limits */
        if (l->cdrom)
            return 0;
        p[3] = 0x3c;
        if (l->blk && l->blk->can_discard) {
            be32(p + 20, UNMAP_BLOCKS_MAX);
            be32(p + 24, UNMAP_RANGES_MAX);
        }
        be32(p + 36 + 4, UNMAP_BLOCKS_MAX); /* WRITE SAME: the low half */
        break;
    case 0xb1: /* does not rotate */
        if (l->cdrom)
            return 0;
        p[3] = 0x3c;
        p[5] = 1;
        break;
    case 0xb2: /* thin provisioning */
        if (l->cdrom)
            return 0;
        p[3] = 4;
        p[5] = l->blk && l->blk->can_discard ? 0xe0 : 0;
        p[6] = l->blk && l->blk->can_discard ? 2 : 0;
        break;
    default:
        return 0;
    }
    return p[3] + 4u;
}

static void inquiry(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    uint8_t *p = r->reply;
    if (cdb[1] & 1) {
        unsigned n = vital_page(l, cdb[2], p);
        if (!n)
            bad_field(l, r);
        else
            answer(r, n, get16(cdb + 3));
        return;
    }
    if (cdb[2]) {
        bad_field(l, r);
        return;
    }
    p[0] = l->cdrom ? 5 : 0;
    p[1] = l->cdrom ? 0x80 : 0;
    p[2] = 5; /* SPC-3 */
    p[3] = 2;
    p[4] = 36 - 5;
    p[7] = l->cdrom ? 0 : 2; /* command queueing */
    pad(p + 8, l->vendor, 8);
    pad(p + 16, l->product, 16);
    pad(p + 32, LODGE_VERSION, 4);
    answer(r, 36, get16(cdb + 3));
}

static void request_sense(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    memcpy(r->reply, l->sense, SCSI_SENSE_LEN);
    r->reply[0] = 0x70;
    r->reply[7] = SCSI_SENSE_LEN - 8;
    set_sense(l, KEY_NONE, 0, 0);
    answer(r, SCSI_SENSE_LEN, cdb[4]);
}

/* ---- mode pages ---- */

static unsigned mode_page(const struct scsi_lun *l, uint8_t page, bool changeable, uint8_t *p)
{
    static const struct {
        uint8_t page, len;
        bool cd, disk;
    } pages[] = {{0x01, 10, true, true}, {0x08, 18, false, true}, {0x0e, 14, true, false}, {0x2a, 20, true, false}};
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(pages); i++) {
        uint8_t *q = p + n;
        if ((page != 0x3f && page != pages[i].page) || !(l->cdrom ? pages[i].cd : pages[i].disk))
            continue;
        memset(q, 0, pages[i].len + 2u);
        q[0] = pages[i].page;
        q[1] = pages[i].len;
        n += pages[i].len + 2u;
        if (changeable)
            continue;
        if (pages[i].page == 0x08)
            q[2] = 4; /* write cache */
        if (pages[i].page == 0x01 && l->cdrom)
            q[3] = 1;
        if (pages[i].page == 0x2a) {
            q[2] = 0x3b; /* reads everything */
            q[4] = 0x70;
            q[6] = (uint8_t)(0x29 | (l->locked ? 2 : 0)); /* tray, may eject and lock */
            be16(q + 8, 706 * 4);
            be16(q + 12, 512);
            be16(q + 14, 706 * 4);
        }
    }
    return n;
}

static void mode_sense(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    bool ten = cdb[0] == 0x5a;
    uint8_t *p = r->reply, head = ten ? 8 : 4;
    bool protect = !l->cdrom && l->blk && l->blk->read_only;
    unsigned control = cdb[2] >> 6;
    if (control == 3) {
        fail(l, r, KEY_ILLEGAL, 0x39, 0); /* nothing is saved */
        return;
    }
    unsigned n = mode_page(l, cdb[2] & 0x3f, control == 1, p + head);
    if (!n) {
        bad_field(l, r);
        return;
    }
    uint8_t type = l->cdrom ? 0 : (uint8_t)(0x10 | (protect ? 0x80 : 0)); /* DPO and FUA */
    if (ten) {
        be16(p, (uint16_t)(head + n - 2));
        p[2] = l->cdrom ? (medium(l) ? 0x01 : 0x70) : 0;
        p[3] = type;
    } else {
        p[0] = (uint8_t)(head + n - 1);
        p[2] = type;
    }
    answer(r, head + n, ten ? get16(cdb + 7) : cdb[4]);
}

/* ---- reading and writing ---- */

static void transfer(struct scsi_lun *l, struct scsi_result *r, bool write, uint64_t lba, uint64_t count, bool fua)
{
    uint32_t bs = scsi_block_size(l);
    if (!medium(l)) {
        no_medium(l, r);
    } else if (write && (l->cdrom || l->blk->read_only)) {
        fail(l, r, KEY_PROTECT, 0x27, 0);
    } else if (lba > blocks(l) || count > blocks(l) - lba) {
        fail(l, r, KEY_ILLEGAL, 0x21, 0);
    } else {
        r->action = write ? SCSI_WRITE : SCSI_READ;
        r->flags = fua && write ? SCSI_F_FUA : 0;
        r->offset = lba * bs;
        r->len = count * bs;
        if (!count)
            answer(r, 0, 0);
    }
}

static void read_capacity(struct scsi_lun *l, struct scsi_result *r)
{
    if (!medium(l)) {
        no_medium(l, r);
        return;
    }
    uint64_t last = MAX(blocks(l), 1ull) - 1;
    be32(r->reply, (uint32_t)MIN(last, 0xffffffffull));
    be32(r->reply + 4, scsi_block_size(l));
    answer(r, 8, 8);
}

static void read_capacity16(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    if ((cdb[1] & 0x1f) != 0x10) {
        bad_field(l, r);
        return;
    }
    if (!medium(l)) {
        no_medium(l, r);
        return;
    }
    uint64_t last = MAX(blocks(l), 1ull) - 1;
    be32(r->reply, (uint32_t)(last >> 32));
    be32(r->reply + 4, (uint32_t)last);
    be32(r->reply + 8, scsi_block_size(l));
    if (l->blk->physical_size > l->blk->block_size)
        r->reply[13] = (uint8_t)(31 - __builtin_clz(l->blk->physical_size / l->blk->block_size));
    r->reply[14] = l->blk->can_discard ? 0xc0 : 0; /* thin, reads zeros */
    answer(r, 32, get32(cdb + 10));
}

static void write_same(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    bool sixteen = cdb[0] == 0x93, ndob = sixteen && (cdb[1] & 1);
    uint64_t lba = sixteen ? get64(cdb + 2) : get32(cdb + 2), count = sixteen ? get32(cdb + 10) : get16(cdb + 7);
    /* With UNMAP, or without data: zeroes. What else it may hold is not looked at. */
    if (l->cdrom || !l->blk || !((cdb[1] & 8) || ndob) || !count || count > UNMAP_BLOCKS_MAX) {
        bad_field(l, r);
        return;
    }
    transfer(l, r, true, lba, count, false);
    if (r->action == SCSI_WRITE)
        r->action = SCSI_DISCARD;
}

int scsi_unmap_range(const struct scsi_lun *l, const uint8_t *list, uint64_t len, unsigned i, uint64_t *ret_offset,
                     uint64_t *ret_len)
{
    uint64_t at = 8 + 16ull * i, end = len >= 8 ? MIN(len, 8ull + get16(list + 2)) : 0;
    if (at + 16 > end || i >= UNMAP_RANGES_MAX)
        return 0;
    uint64_t lba = get64(list + at), count = get32(list + at + 8);
    if (!l->blk || lba > blocks(l) || count > blocks(l) - lba)
        return -1;
    *ret_offset = lba * scsi_block_size(l);
    *ret_len = count * scsi_block_size(l);
    return 1;
}

/* ---- discs ---- */

static void put_address(uint8_t *p, uint32_t lba, bool msf)
{
    if (!msf) {
        be32(p, lba);
        return;
    }
    lba += 150;
    p[1] = (uint8_t)(lba / 75 / 60);
    p[2] = (uint8_t)(lba / 75 % 60);
    p[3] = (uint8_t)(lba % 75);
}

static void read_toc(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    bool msf = cdb[1] & 2;
    uint8_t *p = r->reply, format = cdb[2] & 15;
    unsigned n = 4;
    if (!medium(l)) {
        no_medium(l, r);
        return;
    }
    if (!format)
        format = cdb[9] >> 6;
    p[2] = p[3] = 1;
    if (format == 0) { /* one data track, and the lead-out */
        uint8_t start = cdb[6];
        if (start > 1 && start != 0xaa) {
            bad_field(l, r);
            return;
        }
        if (start <= 1) {
            p[n + 1] = 0x14;
            p[n + 2] = 1;
            put_address(p + n + 4, 0, msf);
            n += 8;
        }
        p[n + 1] = 0x16;
        p[n + 2] = 0xaa;
        put_address(p + n + 4, (uint32_t)blocks(l), msf);
        n += 8;
    } else if (format == 1) { /* the only session */
        p[n + 1] = 0x14;
        p[n + 2] = 1;
        put_address(p + n + 4, 0, msf);
        n += 8;
    } else {
        bad_field(l, r);
        return;
    }
    be16(p, (uint16_t)(n - 2));
    answer(r, n, get16(cdb + 7));
}

static void get_configuration(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    uint8_t *p = r->reply;
    bool dvd = blocks(l) > 360000, there = medium(l);
    unsigned n = 8;
    be16(p + 6, there ? (dvd ? 0x10 : 0x08) : 0);
    /* The profiles, core, and what every drive that removes a medium has. */
    static const uint8_t core[8] = {0, 1, 0x03, 8, 0, 0, 0, 8}, removable[8] = {0, 3, 0x03, 4, 0x29};
    uint8_t profiles[12] = {0, 0, 0x03, 8, 0, 0x10, 0, 0, 0, 0x08, 0, 0};
    profiles[6] = there && dvd;
    profiles[10] = there && !dvd;
    memcpy(p + n, profiles, sizeof profiles);
    n += sizeof profiles;
    memcpy(p + n, core, sizeof core);
    n += sizeof core + 4; /* and four bytes of the core's own */
    memcpy(p + n, removable, sizeof removable);
    n += sizeof removable;
    be32(p, n - 4);
    answer(r, n, get16(cdb + 7));
}

static void get_event(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    uint8_t *p = r->reply;
    if (!(cdb[1] & 1)) { /* asynchronous notification is not there */
        bad_field(l, r);
        return;
    }
    p[3] = 0x10; /* media events are known */
    if (cdb[4] & 0x10) {
        be16(p, 6);
        p[2] = 4;
        p[4] = l->attention == 0x28 ? 2 : 0; /* new medium */
        p[5] = (uint8_t)((l->tray_open ? 1 : 0) | (l->blk ? 2 : 0));
        answer(r, 8, get16(cdb + 7));
    } else {
        be16(p, 2);
        p[2] = 0x80;
        answer(r, 4, get16(cdb + 7));
    }
}

static void disc_information(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    uint8_t *p = r->reply;
    if (!medium(l)) {
        no_medium(l, r);
        return;
    }
    be16(p, 32);
    p[2] = 0x0e; /* complete, last session complete */
    p[3] = p[4] = p[5] = p[6] = 1;
    p[7] = 0x20;
    answer(r, 34, get16(cdb + 7));
}

static void start_stop(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    bool load_eject = cdb[4] & 2, start = cdb[4] & 1;
    answer(r, 0, 0);
    if (!l->cdrom || !load_eject || l->tray_open == !start)
        return;
    if (!start && l->locked) {
        fail(l, r, KEY_ILLEGAL, 0x53, 2); /* removal prevented */
        return;
    }
    l->tray_open = !start;
    if (l->eject)
        l->eject(l->opaque, !start);
}

/* ---- all of them ---- */

static bool attention_waits(const uint8_t *cdb)
{
    return cdb[0] != 0x12 && cdb[0] != 0x03 && cdb[0] != 0x4a && cdb[0] != 0x46 && cdb[0] != 0xa0;
}

static void report_luns(const uint8_t *cdb, struct scsi_result *r)
{
    be32(r->reply, 8);
    answer(r, 16, get32(cdb + 6));
}

static void cd_command(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    switch (cdb[0]) {
    case 0x43:
        read_toc(l, cdb, r);
        break;
    case 0x46:
        get_configuration(l, cdb, r);
        break;
    case 0x4a:
        get_event(l, cdb, r);
        break;
    case 0x51:
        disc_information(l, cdb, r);
        break;
    case 0xbb: /* speed */
        answer(r, 0, 0);
        break;
    case 0xbd: /* mechanism */
        be16(r->reply + 6, 0);
        answer(r, 8, get16(cdb + 8));
        break;
    case 0xbe: { /* READ CD: user data of data sectors */
        uint64_t count = get32(cdb + 5) & 0xffffff;
        if ((cdb[9] & 0xf8) == 0x10)
            transfer(l, r, false, get32(cdb + 2), count, false);
        else if (!(cdb[9] & 0xf8))
            answer(r, 0, 0);
        else
            bad_field(l, r);
        break;
    }
    default:
        fail(l, r, KEY_ILLEGAL, 0x20, 0);
    }
}

static void disk_command(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    switch (cdb[0]) {
    case 0x35:
    case 0x91: /* SYNCHRONIZE CACHE */
        r->action = SCSI_FLUSH;
        break;
    case 0x0a:
        transfer(l, r, true, get32(cdb) & 0x1fffff, cdb[4] ? cdb[4] : 256, false);
        break;
    case 0x2a:
    case 0x2e:
        transfer(l, r, true, get32(cdb + 2), get16(cdb + 7), cdb[1] & 8);
        break;
    case 0xaa:
        transfer(l, r, true, get32(cdb + 2), get32(cdb + 6), cdb[1] & 8);
        break;
    case 0x8a:
    case 0x8e:
        transfer(l, r, true, get64(cdb + 2), get32(cdb + 10), cdb[1] & 8);
        break;
    case 0x2f:
    case 0x8f: /* VERIFY: what can be read is right */
        answer(r, 0, 0);
        break;
    case 0x41:
    case 0x93:
        write_same(l, cdb, r);
        break;
    case 0x42:
        r->action = SCSI_UNMAP;
        r->len = get16(cdb + 7);
        if (!l->blk || !l->blk->can_discard || l->blk->read_only)
            bad_field(l, r);
        break;
    case 0x15:
    case 0x55: /* MODE SELECT: nothing can be changed */
        r->action = SCSI_IGNORE;
        r->len = cdb[0] == 0x15 ? cdb[4] : get16(cdb + 7);
        break;
    default:
        fail(l, r, KEY_ILLEGAL, 0x20, 0);
    }
}

void scsi_command(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *r)
{
    memset(r, 0, sizeof *r);
    if (l->attention && attention_waits(cdb)) {
        fail(l, r, KEY_ATTENTION, l->attention, 0);
        l->attention = 0;
        return;
    }
    switch (cdb[0]) {
    case 0x00: /* TEST UNIT READY */
        if (!medium(l))
            no_medium(l, r);
        break;
    case 0x03:
        request_sense(l, cdb, r);
        break;
    case 0x12:
        inquiry(l, cdb, r);
        break;
    case 0x1a:
    case 0x5a:
        mode_sense(l, cdb, r);
        break;
    case 0x1b:
        start_stop(l, cdb, r);
        break;
    case 0x1e:
        l->locked = cdb[4] & 1;
        break;
    case 0x25:
        read_capacity(l, r);
        break;
    case 0x9e:
        read_capacity16(l, cdb, r);
        break;
    case 0x08:
        transfer(l, r, false, get32(cdb) & 0x1fffff, cdb[4] ? cdb[4] : 256, false);
        break;
    case 0x28:
        transfer(l, r, false, get32(cdb + 2), get16(cdb + 7), false);
        break;
    case 0xa8:
        transfer(l, r, false, get32(cdb + 2), get32(cdb + 6), false);
        break;
    case 0x88:
        transfer(l, r, false, get64(cdb + 2), get32(cdb + 10), false);
        break;
    case 0x2b: /* SEEK */
        break;
    case 0xa0:
        report_luns(cdb, r);
        break;
    default:
        (l->cdrom ? cd_command : disk_command)(l, cdb, r);
    }
}

uint8_t scsi_failed(struct scsi_lun *l, int error, bool write)
{
    if (error == -ENOSPC)
        set_sense(l, KEY_PROTECT, 0x27, 7);
    else
        set_sense(l, KEY_MEDIUM, write ? 0x0c : 0x11, 0);
    return SCSI_CHECK_CONDITION;
}

void scsi_change(struct scsi_lun *l, struct blk *blk)
{
    l->blk = blk;
    l->tray_open = !blk;
    l->attention = 0x28; /* not ready to ready, medium may have changed */
}

void scsi_reset(struct scsi_lun *l)
{
    l->locked = 0;
    l->attention = 0x29; /* power on or reset */
    set_sense(l, KEY_NONE, 0, 0);
}

void scsi_init(struct scsi_lun *l, struct blk *blk, bool cdrom, const char *serial)
{
    memset(l, 0, sizeof *l);
    l->blk = blk;
    l->cdrom = cdrom;
    snprintf(l->vendor, sizeof l->vendor, "LODGE");
    snprintf(l->product, sizeof l->product, cdrom ? "DVD-ROM" : "DISK");
    snprintf(l->serial, sizeof l->serial, "%s", serial ? serial : "");
    scsi_reset(l);
}

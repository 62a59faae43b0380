/*
 * A SCSI logical unit: a disk (SBC-3) or a CD/DVD drive (MMC-6), both by SPC-4. It understands command blocks and says
 * what is to be done; the device that carries them (ATAPI, virtio-scsi, USB mass storage) moves the data. No thread and
 * no lock of its own: the carrier's.
 */
#ifndef LODGE_DEV_SCSI_H
#define LODGE_DEV_SCSI_H

#include "block/block.h"
#include "dev/device.h"

#define SCSI_CDB_MAX 16
#define SCSI_SENSE_LEN 18
#define SCSI_REPLY_MAX 4096

enum { SCSI_GOOD = 0, SCSI_CHECK_CONDITION = 2 };

/* What a command comes to. */
enum scsi_action {
    SCSI_REPLY,   /* `reply`, `len` bytes, to the initiator (none: just the status) */
    SCSI_READ,    /* `len` bytes at `offset` of the image */
    SCSI_WRITE,   /* the same to it; SCSI_F_FUA in flags */
    SCSI_FLUSH,   /* all that was written */
    SCSI_UNMAP,   /* the initiator's `len` bytes are a list for scsi_unmap_range() */
    SCSI_DISCARD, /* zeroes over [offset, offset + len), deallocating */
    SCSI_IGNORE,  /* takes `len` bytes that have no effect */
};
enum { SCSI_F_FUA = 1 };

struct scsi_lun {
    struct blk *blk; /* NULL: no medium; not owned */
    bool cdrom;
    char vendor[9], product[17], serial[21];
    uint8_t tray_open, locked, attention; /* attention: an additional sense code of 6/xx to report, 0 none */
    uint8_t sense[SCSI_SENSE_LEN];
    /* Optional: the guest wants the medium out, or in again. */
    void (*eject)(void *opaque, bool open);
    void *opaque;
};

struct scsi_result {
    enum scsi_action action;
    uint8_t status;
    unsigned flags;
    uint64_t offset, len;
    uint8_t reply[SCSI_REPLY_MAX];
};

void scsi_init(struct scsi_lun *l, struct blk *blk, bool cdrom, const char *serial);
void scsi_reset(struct scsi_lun *l);
/* Executes a command block of SCSI_CDB_MAX bytes (zeros behind its end). Sense data is in l->sense after CHECK
 * CONDITION. */
void scsi_command(struct scsi_lun *l, const uint8_t *cdb, struct scsi_result *ret);
/* The transfer that a command asked for has failed. Sets sense data; returns the status. */
uint8_t scsi_failed(struct scsi_lun *l, int error, bool write);
/* Entry `i` of an UNMAP parameter list: 1, 0 when there is none, -1: it is not on the medium. */
int scsi_unmap_range(const struct scsi_lun *l, const uint8_t *list, uint64_t len, unsigned i, uint64_t *ret_offset,
                     uint64_t *ret_len);
/* Another medium, or none. The tray closes with a new one. */
void scsi_change(struct scsi_lun *l, struct blk *blk);
uint32_t scsi_block_size(const struct scsi_lun *l);

#endif

/* The inside of the SATA controller, for ahci.c (registers, ports) and ahci_cmd.c (commands) only. */
#ifndef LODGE_DEV_AHCI_PRIV_H
#define LODGE_DEV_AHCI_PRIV_H

#include <pthread.h>

#include "base/bits.h"
#include "dev/ahci.h"
#include "dev/scsi.h"

#define AHCI_SLOTS 32
#define AHCI_PIECES_MAX 1024u /* of one transfer */
#define AHCI_TRIM_MAX 8u      /* sectors of ranges in one command */
#define SECTOR 512u

enum { /* PxIS */
       IS_DHR = BIT(0),
       IS_PS = BIT(1),
       IS_SDB = BIT(3),
       IS_PC = BIT(6),
       IS_OF = BIT(24),
       IS_HBF = BIT(29),
       IS_TFE = BIT(30),
};
enum {
    ST_ERR = 1,
    ST_DRQ = 8,
    ST_SEEK = 0x10,
    ST_DF = 0x20,
    ST_RDY = 0x40,
    ST_BSY = 0x80,
    ERR_ABORT = 4,
    ERR_ID = 0x10,
    ERR_DATA = 0x40
};

struct ahci;
struct ahci_port;

struct ahci_piece {
    gpa_t gpa;
    uint32_t len;
};

struct ahci_slot {
    struct blk_req req; /* first */
    struct ahci_port *port;
    unsigned tag;
    bool busy;  /* the image works on it; the guest may have forgotten it meanwhile: */
    bool stale; /* its port was stopped or reset */
    bool ncq, atapi;
    gpa_t header;
    struct iovec *iov;
    struct ahci_piece *piece;
    unsigned n_iov, n_pieces;
    uint8_t *trim; /* ranges of DATA SET MANAGEMENT or UNMAP */
    unsigned trim_len, trim_at;
};

struct ahci_port {
    struct ahci *a;
    unsigned index;
    struct ahci_drive drive; /* id and serial are not kept */
    char id[32];
    struct blk_queue *io;
    struct scsi_lun lun;
    struct ahci_slot slot[AHCI_SLOTS];
    unsigned busy; /* slots the image works on */

    /* Guest-visible. */
    uint64_t clb, fb;
    uint32_t is, ie, cmd, sctl, ssts, serr, sact, ci, sig;
    uint8_t status, error, srst, multiple, write_cache;
    uint8_t lba[3], count; /* of the task file: what the next register FIS carries */
};

struct ahci {
    struct pci_dev pci; /* first */
    struct pci_info info;
    pthread_mutex_t lock;
    struct mem *mem;
    struct loop *loop;
    void (*tray)(void *opaque, unsigned port, bool open);
    void *opaque;
    bool posted, processing, paused;
    struct scsi_result result;
    struct ahci_port port[AHCI_PORTS];

    uint32_t ghc, is;
};

/* ahci_cmd.c, with the lock, on the loop's thread: takes up what the port's CI asks for. */
void ahci_port_process(struct ahci_port *p);
void ahci_slot_free(struct ahci_slot *s);

/* ahci.c, with the lock. */
void ahci_interrupt(struct ahci_port *p, uint32_t bits);
/* Device-to-host register FIS; also the port's task file. */
void ahci_send_d2h(struct ahci_port *p, uint8_t status, uint8_t error, bool interrupt);
/* The drive comes out of its reset, and says what it is. */
void ahci_drive_reset(struct ahci_port *p);
bool ahci_running(const struct ahci_port *p);
/* Looks at all ports again, soon. */
void ahci_again(struct ahci *a);

#endif

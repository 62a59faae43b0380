/*
 * A guest's description: libvirt's domain XML as plain data. It is the one description of a guest: command line options
 * become one, lodge-vm reads one. Four steps, each in a file of its own: parse (text -> struct), defaults (fill in what
 * was left out), check (is it something we can run), format (struct -> text). No step prints, opens devices or keeps
 * state.
 *
 * Strings are owned by the struct and NULL when absent. What the struct has no field for is kept as it stood (struct
 * domain_unknown), written back by domain_format() and reported by domain_each_unknown().
 */
#ifndef LODGE_DOMAIN_DOMAIN_H
#define LODGE_DOMAIN_DOMAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DOMAIN_LODGE_NS "https://lodge.dev/schemas/domain/1.0"

struct xml_node;

/* <domain type>: kvm; qemu (as libvirt calls execution in software) is our soft engine; auto is <lodge:engine
 * name='auto'/>. */
enum domain_engine { DOMAIN_ENGINE_NONE, DOMAIN_ENGINE_AUTO, DOMAIN_ENGINE_KVM, DOMAIN_ENGINE_SOFT };

/* The board, from <os><type machine>: 'q35' and 'pc-q35-*' are q35, 'micro' and 'microvm' are micro. */
enum domain_board { DOMAIN_BOARD_NONE, DOMAIN_BOARD_Q35, DOMAIN_BOARD_MICRO, DOMAIN_BOARD_OTHER };

enum domain_action {
    DOMAIN_ACTION_NONE,
    DOMAIN_ACTION_DESTROY,
    DOMAIN_ACTION_RESTART,
    DOMAIN_ACTION_PRESERVE,
    DOMAIN_ACTION_RENAME_RESTART,
    DOMAIN_ACTION_COREDUMP_DESTROY,
    DOMAIN_ACTION_COREDUMP_RESTART,
};

enum domain_tristate { DOMAIN_DEFAULT, DOMAIN_ON, DOMAIN_OFF };

/* XML that has no field: attributes and elements, each with the path of its parent relative to the owner ("" or
 * "driver"). */
struct domain_unknown_item {
    char *path;
    char *attr, *value;    /* an attribute, or */
    struct xml_node *node; /* an element */
    int line;
};
struct domain_unknown {
    struct domain_unknown_item *items;
    unsigned n_items;
};

enum domain_cpu_mode {
    DOMAIN_CPU_NONE,
    DOMAIN_CPU_HOST_PASSTHROUGH, /* all that the engine offers */
    DOMAIN_CPU_HOST_MODEL,
    DOMAIN_CPU_CUSTOM, /* `model` */
    DOMAIN_CPU_MAXIMUM,
};

struct domain_cpu_feature {
    char *name;
    char *policy; /* force, require, optional: on; disable, forbid: off */
    bool on;
};

struct domain_cpu {
    enum domain_cpu_mode mode;
    char *model;
    char *match, *check, *migratable, *fallback; /* as written */
    struct domain_cpu_feature *features;
    unsigned n_features;
    unsigned sockets, dies, cores, threads; /* 0: not given */
    struct domain_unknown unknown;
};

struct domain_os {
    char *type; /* "hvm" */
    char *arch; /* "x86_64" */
    char *machine;
    enum domain_board board;
    char *firmware;    /* the attribute: "efi" or "bios" */
    char *loader;      /* path */
    char *loader_type; /* "rom", "pflash" */
    enum domain_tristate loader_readonly, loader_secure;
    char *nvram;          /* the guest's own copy of the variables; NULL: kept in memory only */
    char *nvram_template; /* what it is made of when it is not there */
    enum domain_tristate bootmenu;
    unsigned bootmenu_timeout; /* ms */
    char *kernel, *initrd, *cmdline;
    char **boot; /* "hd", "cdrom", "network" in order */
    unsigned n_boot;
    struct domain_unknown unknown;
};

struct domain_timer {
    char *name;       /* rtc, pit, hpet, tsc, kvmclock, … */
    char *tickpolicy; /* as written */
    enum domain_tristate present;
    struct domain_unknown unknown;
};

struct domain_clock {
    char *offset; /* "utc", "localtime" … */
    struct domain_timer *timers;
    unsigned n_timers;
    struct domain_unknown unknown;
};

enum domain_disk_type { DOMAIN_DISK_FILE, DOMAIN_DISK_BLOCK, DOMAIN_DISK_OTHER };
enum domain_disk_device { DOMAIN_DISK_DISK, DOMAIN_DISK_CDROM, DOMAIN_DISK_FLOPPY, DOMAIN_DISK_LUN };
enum domain_disk_cache {
    DOMAIN_CACHE_DEFAULT,
    DOMAIN_CACHE_NONE,
    DOMAIN_CACHE_WRITETHROUGH,
    DOMAIN_CACHE_WRITEBACK,
    DOMAIN_CACHE_DIRECTSYNC,
    DOMAIN_CACHE_UNSAFE,
};
enum domain_disk_io { DOMAIN_IO_DEFAULT, DOMAIN_IO_THREADS, DOMAIN_IO_NATIVE, DOMAIN_IO_URING };
enum domain_bus {
    DOMAIN_BUS_NONE,
    DOMAIN_BUS_VIRTIO,
    DOMAIN_BUS_SATA,
    DOMAIN_BUS_SCSI,
    DOMAIN_BUS_USB,
    DOMAIN_BUS_IDE,
    DOMAIN_BUS_FDC
};

struct domain_disk {
    enum domain_disk_type type;
    enum domain_disk_device device;
    char *type_name; /* as written, for types we do not run */
    char *source;    /* file or block device; NULL: an empty drive */
    char *format;    /* <driver type>: raw, qcow2, … */
    char *driver_name;
    enum domain_disk_cache cache;
    enum domain_disk_io io;
    enum domain_tristate discard_unmap; /* <driver discard='unmap|ignore'> */
    unsigned iothread;                  /* 1…, 0: none (main loop) */
    unsigned queues;                    /* 0: the device's default */
    char *target;                       /* vda … */
    enum domain_bus bus;
    char *serial;
    bool readonly;
    bool shareable;
    unsigned boot_order; /* 0: none */
    struct domain_unknown unknown;
    int line;
};

enum domain_net_type { DOMAIN_NET_USER, DOMAIN_NET_ETHERNET, DOMAIN_NET_NETWORK, DOMAIN_NET_BRIDGE, DOMAIN_NET_OTHER };
enum domain_nic_model { DOMAIN_NIC_NONE, DOMAIN_NIC_VIRTIO, DOMAIN_NIC_OTHER };

/* <range start end to exclude='yes'>: host ports start…end go to the guest's to… */
struct domain_port_range {
    uint16_t start, end, to; /* end 0: one port; to 0: same number */
    bool exclude;
};
struct domain_port_forward {
    char *proto;         /* tcp, udp */
    char *address, *dev; /* on the host */
    struct domain_port_range *ranges;
    unsigned n_ranges;
};

struct domain_interface {
    enum domain_net_type type;
    char *type_name; /* as written */
    bool has_mac;
    uint8_t mac[6];
    char *backend;     /* <backend type>: "passt" */
    char *backend_log; /* <backend logFile> */
    char *source;      /* network or bridge, by type */
    char *source_dev;  /* <source dev> of type user: host interface that passt takes its addresses from */
    char *target;      /* tap device */
    enum domain_tristate target_managed; /* <target managed='no'>: the tap is there already */
    enum domain_nic_model model;
    char *model_name;
    char *driver_name;
    unsigned queues; /* 0: one pair */
    struct domain_port_forward *forwards;
    unsigned n_forwards;
    unsigned mtu; /* 0: default */
    enum domain_tristate link_up;
    unsigned boot_order;
    struct domain_unknown unknown;
    int line;
};

/* Where a serial port or console leads. See ui/chardev.h. */
enum domain_chardev_type {
    DOMAIN_CHARDEV_NULL,
    DOMAIN_CHARDEV_PTY,
    DOMAIN_CHARDEV_FILE,  /* path, append */
    DOMAIN_CHARDEV_UNIX,  /* path; listens (mode='bind') or connects (mode='connect') */
    DOMAIN_CHARDEV_STDIO, /* the process's own terminal; libvirt's name is 'stdio' too */
    DOMAIN_CHARDEV_OTHER,
};
struct domain_chardev {
    enum domain_chardev_type type;
    char *type_name;
    char *path;   /* of a pty: what a running guest has got */
    bool append;
    bool connect; /* unix: connect instead of listen */
    bool has_mode; /* unix: the document says which */
};

enum domain_console_target { DOMAIN_CONSOLE_SERIAL, DOMAIN_CONSOLE_VIRTIO, DOMAIN_CONSOLE_OTHER };

/* <serial>: a 16550 at ISA `port` 0-3. */
struct domain_serial {
    struct domain_chardev chardev;
    int port;          /* -1: not given (before defaults) */
    char *target_type; /* isa-serial … */
    char *model;       /* <model name> */
    struct domain_unknown unknown;
    int line;
};
/* <console>: target type serial is another name for serial 0, virtio is a virtio-console port. */
struct domain_console {
    struct domain_chardev chardev;
    enum domain_console_target target;
    char *target_type;
    int port;
    struct domain_unknown unknown;
    int line;
};

/* <channel> with target type virtio: a named byte channel, /dev/virtio-ports/NAME in the guest. Others are kept as XML only. */
struct domain_channel {
    struct domain_chardev chardev; /* unix without a path: leads nowhere until somebody gives it one */
    char *name;                    /* org.qemu.guest_agent.0 … */
    struct domain_unknown unknown;
    int line;
};

struct domain_rng {
    char *model;         /* virtio */
    char *backend_model; /* random, builtin */
    char *source;        /* /dev/urandom */
    uint64_t rate_bytes; /* 0: no limit; per rate_period_ms */
    unsigned rate_period_ms;
    struct domain_unknown unknown;
    int line;
};

enum domain_balloon_model { DOMAIN_BALLOON_DEFAULT, DOMAIN_BALLOON_NONE, DOMAIN_BALLOON_VIRTIO, DOMAIN_BALLOON_OTHER };
struct domain_balloon {
    bool present; /* the element is there */
    enum domain_balloon_model model;
    char *model_name;
    unsigned stats_period; /* seconds, 0: off */
    enum domain_tristate autodeflate, free_page_reporting;
    struct domain_unknown unknown;
};

enum domain_fs_type { DOMAIN_FS_MOUNT, DOMAIN_FS_OTHER };
/* <filesystem>: a 9p share of a host directory. */
struct domain_filesystem {
    enum domain_fs_type type;
    char *type_name;
    char *accessmode;  /* passthrough, mapped, squash */
    char *driver_type; /* NULL, path: 9p; virtiofs */
    char *source;      /* directory */
    char *target;      /* mount tag */
    bool readonly;
    struct domain_unknown unknown;
    int line;
};

/* <graphics>: a VNC server. */
struct domain_graphics {
    char *type;
    int port, websocket; /* -1: a free one, 0: none */
    enum domain_tristate autoport;
    char *listen; /* address */
    char *socket; /* path, instead of a port */
    bool as_attr, as_child; /* how either is written: as attributes, as <listen> */
    char *passwd;
    char *share_policy; /* allow-exclusive, force-shared, ignore */
    char *keymap;
    struct domain_unknown unknown;
    int line;
};

struct domain_video {
    char *model;   /* vga (bochs is the same), virtio, none */
    unsigned vram; /* KiB, 0: default */
    unsigned heads;
    char *primary;
    unsigned width, height; /* 0: default */
    struct domain_unknown unknown;
    int line;
};

/* <input>: keyboard, mouse, tablet on ps2, usb or virtio. A PS/2 keyboard and mouse are always there. */
struct domain_input {
    char *type, *bus;
    struct domain_unknown unknown;
    int line;
};

/* <panic>: isa is the pvpanic device at port 0x505. */
struct domain_panic {
    char *model; /* isa, pvpanic … */
    struct domain_unknown unknown;
};

struct domain {
    enum domain_engine engine;
    uint64_t engine_chaos; /* <lodge:engine chaos=>: seed of random changes of how code is executed; 0: none */
    bool engine_perf_map;  /* <lodge:engine perf-map=>: say to perf what guest code is where */
    char *type_name; /* <domain type> as written */
    int id;          /* of a running guest; 0: none */
    char *name;
    bool has_uuid;
    uint8_t uuid[16];
    char *title, *description;
    uint64_t memory;               /* bytes */
    uint64_t current_memory;       /* bytes, 0: same */
    unsigned vcpus, vcpus_current; /* at most; at start (0: same) */
    unsigned iothreads;            /* I/O threads 1…iothreads */

    struct domain_os os;
    struct domain_cpu cpu;
    struct domain_clock clock;

    /* <features> */
    bool has_features;
    enum domain_tristate acpi, apic, pae, vmport;

    enum domain_action on_poweroff, on_reboot, on_crash;
    enum domain_tristate suspend_to_mem, suspend_to_disk; /* <pm> */

    char *emulator; /* <devices><emulator> */
    struct domain_disk *disks;
    unsigned n_disks;
    struct domain_interface *interfaces;
    unsigned n_interfaces;
    struct domain_serial *serials;
    unsigned n_serials;
    struct domain_console *consoles;
    unsigned n_consoles;
    struct domain_channel *channels;
    unsigned n_channels;
    struct domain_rng *rngs;
    unsigned n_rngs;
    struct domain_balloon balloon;
    struct domain_filesystem *filesystems;
    unsigned n_filesystems;
    struct domain_graphics *graphics;
    unsigned n_graphics;
    struct domain_video *videos;
    unsigned n_videos;
    struct domain_input *inputs;
    unsigned n_inputs;
    struct domain_panic *panics;
    unsigned n_panics;

    struct domain_unknown unknown; /* paths are relative to <domain>: "", "devices", "features", … */
};

struct domain *domain_new(void);
/* NULL-safe. */
void domain_free(struct domain *d);

/*
 * Parses a document. `name` (the file's name) stands in front of messages: "guest.xml:14: …". Only what the document
 * says is in *ret; the caller goes on with domain_defaults() and domain_check(), and frees it.
 */
int domain_parse(const char *xml, size_t len, const char *name, struct domain **ret, struct err *err);
int domain_parse_file(const char *path, struct domain **ret, struct err *err);
/* Reads `fd` (not owned) from its start to its end. */
int domain_parse_fd(int fd, const char *name, struct domain **ret, struct err *err);

/* Fills in everything that was left out and that has a default; what is given stays. Twice is the same as once. */
void domain_defaults(struct domain *d);

/* Is this, with its defaults, a guest that lodge-vm can run? 0, or -errno with the first thing that is wrong. */
int domain_check(const struct domain *d, const char *name, struct err *err);

/* The part of domain_check() that a definition must pass to be kept: identity and size, not whether we have its devices. */
int domain_check_definition(const struct domain *d, const char *name, struct err *err);

/* live.c. Makes it the document of a running guest: its id, and names (<alias>) for devices that have none. */
void domain_live(struct domain *d, int id);
/* Its pseudo terminals are gone; it will get new ones. */
void domain_forget_ptys(struct domain *d);
/* Takes what only a running guest has out of a document: id, names we gave, pseudo terminals. */
void domain_inactive(struct domain *d);

/* The document as libvirt would write it; the caller frees it. */
char *domain_format(const struct domain *d);

/* Calls fn for each attribute ("@name") and element that is kept but has no effect; `path` as in
 * "devices/disk/driver/@discard". */
void domain_each_unknown(const struct domain *d, void (*fn)(void *opaque, int line, const char *path), void *opaque);

/* Appends a zeroed member to one of the arrays above: struct domain_disk *k = DOMAIN_ADD(d, disks); */
#define DOMAIN_ADD(owner, array)                                                                                       \
    ((__typeof__((owner)->array))domain_grow((void **)&(owner)->array, &(owner)->n_##array, sizeof *(owner)->array))
void *domain_grow(void **array, unsigned *n, size_t size);

/* Sets a string field, freeing the old value; value may be NULL. */
void domain_set(char **field, const char *value);

/* The words used in XML for our enums; NULL when there is none. */
const char *domain_engine_name(enum domain_engine e);
const char *domain_action_name(enum domain_action a);
const char *domain_cache_name(enum domain_disk_cache c);
const char *domain_io_name(enum domain_disk_io io);
const char *domain_bus_name(enum domain_bus b);
const char *domain_chardev_name(enum domain_chardev_type t);
const char *domain_cpu_mode_name(enum domain_cpu_mode m);
const char *domain_disk_device_name(enum domain_disk_device d);
/* The enum's value for a word, or -1. */
int domain_engine_find(const char *s);
int domain_action_find(const char *s);
int domain_cache_find(const char *s);
int domain_io_find(const char *s);
int domain_bus_find(const char *s);
int domain_chardev_find(const char *s);
int domain_cpu_mode_find(const char *s);
int domain_disk_device_find(const char *s);

#endif

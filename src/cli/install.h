/*
 * Making a guest: virt-install's options become a domain, its disks, and the life of an installation. install.c has the
 * options and the flow, install_xml.c the document, install_media.c what is booted from, install_disk.c the storage.
 */
#ifndef LODGE_CLI_INSTALL_H
#define LODGE_CLI_INSTALL_H

#include "cli/osinfo.h"
#include "cli/vsh.h"
#include "domain/xml.h"

#define INSTALL_REPEAT_MAX 64

/* Everything given, as it was typed; NULL: not given. */
struct install {
    struct vsh v;
    /* lists: NULL-terminated */
    const char *disk[INSTALL_REPEAT_MAX + 1], *network[INSTALL_REPEAT_MAX + 1], *graphics[INSTALL_REPEAT_MAX + 1];
    const char *video[INSTALL_REPEAT_MAX + 1], *console[INSTALL_REPEAT_MAX + 1], *serial[INSTALL_REPEAT_MAX + 1];
    const char *channel[INSTALL_REPEAT_MAX + 1], *controller[INSTALL_REPEAT_MAX + 1], *input[INSTALL_REPEAT_MAX + 1];
    const char *other[INSTALL_REPEAT_MAX + 1];      /* further devices: value */
    const char *other_kind[INSTALL_REPEAT_MAX + 1]; /* and their element */
    const char *xml[INSTALL_REPEAT_MAX + 1], *extra_args[INSTALL_REPEAT_MAX + 1],
        *initrd_inject[INSTALL_REPEAT_MAX + 1];
    const char *name, *memory, *vcpus, *cpu, *metadata, *description, *uuid, *os_variant, *os_type;
    const char *cdrom, *location, *boot, *cloud_init, *unattended, *install, *virt_type, *arch, *machine, *features,
        *clock;
    const char *events, *iothreads, *memorybacking, *numatune, *memtune, *cputune, *pm, *seclabel, *sysinfo;
    const char *autoconsole, *print_xml, *check;
    int wait; /* minutes; -1: for ever; INT_MIN: not given */
    bool pxe, import, autostart, transient, noreboot, dry_run, noautoconsole, quiet, destroy_on_exit, want_unattended;
    bool want_cloud_init;
    /* found out */
    struct osinfo os;
    bool session, started, virtio_only;
    char *kernel, *initrd, *args; /* of the first boot, from --location */
    char *cloud_image;            /* the disk that configures a cloud image */
    char *temporary[4];           /* files to remove when all is over */
    unsigned n_temporary;
    char *made[INSTALL_REPEAT_MAX]; /* images made, to be removed when nothing comes of it */
    unsigned n_made;
};

/* "ERROR    ..." on stderr, as virt-install has it. Returns false. */
bool install_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void install_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Sets what `path` names below `n`: "driver@cache", "@device", "serial", "source/host@name". Makes what is missing. */
void install_set(struct xml_node *n, const char *path, const char *value);
/*
 * Sets "key=value" from a device's sub-options: `aliases` (pairs: key, path; NULL at the end) tells what the short ones
 * are; keys with dots are paths themselves. False: said that there is no such key.
 */
bool install_option(struct xml_node *n, const char *const *aliases, const char *key, const char *value,
                    const char *what);

/* install_disk.c: adds --disk's element; makes the volume unless it is a dry run. */
bool install_disk(struct install *in, struct xml_node *devices, const char *spec, bool make);
/* The pool of a directory: one that is there, or a new one for it. False: said why. */
bool install_directory_pool(struct vsh *v, const char *dir, rp_pool *ret);
/* A target name that no disk has yet: "vda". */
void install_disk_target(const struct xml_node *devices, struct xml_node *disk, const char *bus);

/* install_xml.c: the document; `first`: of the installation, else of the life afterwards. NULL: said why. */
struct xml_node *install_document(struct install *in, bool first);

/* install_media.c: gets kernel and initrd from --location, makes the cloud-init disk. */
bool install_media(struct install *in);
void install_media_forget(struct install *in);

/* The programs; `program` for messages. Exit status. */
int install_main(const char *program, int argc, char **argv);
int clone_main(const char *program, int argc, char **argv);

/* iso.c: copies one file of an ISO 9660 image. 0 or -errno. */
int iso_extract(const char *image, const char *path, int out);

#endif

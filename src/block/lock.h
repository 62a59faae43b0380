/*
 * Image locks, the same bytes that QEMU locks (its file driver's): open-file-description read locks on byte 100+i for
 * each permission i that a user holds, and on 200+i for each that it does not share; a conflict is one's 100+i meeting
 * another's 200+i.
 */
#ifndef LODGE_BLOCK_LOCK_H
#define LODGE_BLOCK_LOCK_H

#include <stdbool.h>

/*
 * Locks the open file `fd` for reading, and for writing if `write`; nobody else may write meanwhile. -EBUSY when
 * somebody does, or (write) when somebody uses it at all; -ENOTSUP where the file system has no such locks. Closing
 * `fd` ends it.
 */
int lock_image(int fd, bool write);

/* The same with sets of permission bits (BLK_PERM_* of node.h): those held, and those that others must not have. */
int lock_image_perms(int fd, unsigned held, unsigned unshared);

#endif

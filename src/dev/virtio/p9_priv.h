/* What the parts of the 9P server share: files, the client's names for them (fids), and one request being answered. */
#ifndef LODGE_DEV_VIRTIO_P9_PRIV_H
#define LODGE_DEV_VIRTIO_P9_PRIV_H

#include <dirent.h>
#include <sys/stat.h>

#include "dev/virtio/p9_server.h"
#include "dev/virtio/p9_wire.h"

#define P9_MSIZE_MAX (512 * 1024)
#define P9_MSIZE_MIN 4096
#define P9_REQUEST_MAX 16384 /* longest request that is no write: 16 names of 255, or a link of 4095 bytes */
#define P9_REPLY_MAX 65536   /* longest answer that is no read */
#define P9_XATTR_MAX 65536
#define P9_FIDS_MAX 65536
#define P9_BUCKETS 1024

/* A file, and where it was found. Reference counted: clones of a fid share it, and files found in it hold it. */
struct p9_node {
    struct p9_server *server;
    unsigned refs;
    int fd; /* O_PATH */
    mode_t type;
    dev_t dev;
    ino_t ino;
    struct p9_node *parent; /* NULL: the root */
    char *name;             /* in parent, when it was found */
};

struct p9_fid {
    uint32_t fid;
    struct p9_fid *next;
    struct p9_node *node;
    uint32_t uid; /* the user who attached */
    int io;       /* opened file, -1 */
    bool writable;
    DIR *dir; /* opened directory; owns its descriptor */
    long dir_pos;
    /* An extended attribute being read, or written and set when the fid is clunked. */
    uint8_t *xattr;
    size_t xattr_len, xattr_have;
    int xattr_flags;
    char *xattr_name; /* NULL: being read */
};

struct p9_server {
    int proc; /* /proc/self/fd */
    bool readonly, root_user;
    uint32_t msize; /* 0: no version agreed upon */
    unsigned nfids;
    unsigned nfds, fds_max; /* descriptors held for the client; a client must not use up those of the process */
    struct p9_node *root;
    struct p9_fid *bucket[P9_BUCKETS];
    uint8_t request[P9_REQUEST_MAX], reply[P9_REPLY_MAX];
};

struct p9_req {
    struct p9_server *s;
    struct p9_in in;
    struct p9_out out;
    const struct iovec *out_iov, *in_iov; /* the whole request, the room for the whole answer */
    unsigned nout, nin;
    size_t out_len, in_len;
    size_t extra; /* bytes already in the answer behind `out` (read) */
};

/* Every handler: 0 with the answer's body in r->out, or -errno. */
typedef int p9_handler(struct p9_req *r);

/* p9_server.c */
struct p9_fid *p9_fid_find(struct p9_server *s, uint32_t fid);
int p9_fid_new(struct p9_server *s, uint32_t fid, struct p9_node *node, uint32_t uid, struct p9_fid **ret);
struct p9_node *p9_node_ref(struct p9_node *n);
void p9_node_unref(struct p9_node *n);
/* A node of an O_PATH descriptor, which it takes over, also on failure. */
int p9_node_new(struct p9_server *s, int fd, struct p9_node *parent, const char *name, struct p9_node **ret);
/* The file `name` in `dir`, or -errno. */
int p9_node_open(struct p9_node *dir, const char *name, struct p9_node **ret);
/* Whether a name may be created or removed in a directory: 0 or -errno. */
int p9_name_check(const char *name);
/* Reads a fid and finds it; NULL: there is none (-EBADF). */
struct p9_fid *p9_get_fid(struct p9_req *r);
/* Opens what the descriptor `fd` (O_PATH) holds. A descriptor or -errno. */
int p9_reopen(struct p9_server *s, int fd, int flags);
void p9_put_qid(struct p9_req *r, const struct stat *st);
void p9_put_node_qid(struct p9_req *r, const struct p9_node *n);
uint64_t p9_qid_path(const struct p9_server *s, dev_t dev, ino_t ino);

/* p9_file.c */
p9_handler p9_lopen, p9_lcreate, p9_read, p9_write, p9_readdir, p9_fsync, p9_lock, p9_getlock;
/* p9_dir.c */
p9_handler p9_symlink, p9_mknod, p9_mkdir, p9_link, p9_rename, p9_renameat, p9_unlinkat;
int p9_node_remove(struct p9_req *r, struct p9_node *n);
/* p9_attr.c */
p9_handler p9_getattr, p9_setattr, p9_statfs, p9_readlink, p9_xattrwalk, p9_xattrcreate;
int p9_xattr_commit(struct p9_server *s, struct p9_fid *f);

#endif

#include "mem/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"

/* Replaced layouts that may pile up before mem_collect() is asked for. */
#define OLD_MAX 256

/* ---- windows ---- */

static void layout_add(struct mem_layout *l, const struct mem_range *r)
{
    if (r->size && l->n < MEM_RANGES_MAX)
        l->range[l->n++] = *r;
}

/* Takes [base, base+size) out of all ranges. */
static void layout_cut(struct mem_layout *l, gpa_t base, uint64_t size)
{
    struct mem_layout in = *l;
    l->n = 0;
    for (unsigned i = 0; i < in.n; i++) {
        struct mem_range r = in.range[i];
        gpa_t end = r.base + r.size, cut_end = base + size;
        if (base >= end || r.base >= cut_end) {
            layout_add(l, &r);
            continue;
        }
        if (r.base < base)
            layout_add(l, &(struct mem_range){r.base, base - r.base, r.host, r.fd_offset, r.rom});
        if (end > cut_end) {
            uint64_t skip = cut_end - r.base;
            layout_add(l, &(struct mem_range){cut_end, end - cut_end, r.host + skip, r.fd_offset + skip, r.rom});
        }
    }
}

/* Joins what continues each other, and puts the largest first: lookups meet it soonest. */
static void layout_tidy(struct mem_layout *l)
{
    for (unsigned i = 0; i < l->n; i++)
        for (unsigned j = 0; j < l->n; j++) {
            struct mem_range *a = &l->range[i], *b = &l->range[j];
            if (i == j || a->base + a->size != b->base || a->host + a->size != b->host || a->rom != b->rom)
                continue;
            a->size += b->size;
            *b = l->range[--l->n];
            i = 0;
            j = (unsigned)-1;
        }
    for (unsigned i = 1; i < l->n; i++)
        for (unsigned j = i; j && l->range[j].size > l->range[j - 1].size; j--) {
            struct mem_range t = l->range[j];
            l->range[j] = l->range[j - 1];
            l->range[j - 1] = t;
        }
}

/* Makes the layout of the windows and puts it in place. With the lock held. */
static void publish(struct mem *m)
{
    struct mem_layout *l = xcalloc(1, sizeof *l);
    for (unsigned i = 0; i < m->n_windows; i++) {
        const struct mem_window *w = &m->window[i];
        if (w->kind == MEM_OFF)
            continue;
        layout_cut(l, w->base, w->size);
        bool in_fd = w->kind != MEM_HOLE && (uintptr_t)w->host - (uintptr_t)m->ram < m->fd_size;
        uint64_t off = in_fd ? (uint64_t)(w->host - m->ram) : 0;
        if (w->kind != MEM_HOLE)
            layout_add(l, &(struct mem_range){w->base, w->size, w->host, off, w->kind == MEM_ROM});
    }
    layout_tidy(l);
    struct mem_layout *old = atomic_exchange(&m->layout, l);
    if (!old)
        return;
    old->next = m->old;
    m->old = old;
    m->n_old++;
}

static bool window_ok(const struct mem_window *w)
{
    return w->kind == MEM_OFF || (w->size && w->size % PAGE_SIZE == 0 && w->base % PAGE_SIZE == 0 &&
                                  w->base + (w->size - 1) >= w->base && w->base + w->size <= UINT64_MAX - PAGE_SIZE);
}

static void changed(struct mem *m, bool collect)
{
    if (m->layout_changed)
        m->layout_changed(m->layout_opaque);
    if (collect && m->collect_due)
        m->collect_due(m->collect_opaque);
}

int mem_add_window(struct mem *m, const struct mem_window *w, struct err *err)
{
    if (!window_ok(w))
        return err_set(err, -EINVAL, "memory at 0x%llx: bad size", (unsigned long long)w->base);
    pthread_mutex_lock(&m->lock);
    int id = m->n_windows < MEM_WINDOWS_MAX ? (int)m->n_windows++ : -ENOSPC;
    if (id >= 0) {
        m->window[id] = *w;
        publish(m);
    }
    pthread_mutex_unlock(&m->lock);
    if (id < 0)
        return err_set(err, id, "more than %d areas of guest memory", MEM_WINDOWS_MAX);
    changed(m, false);
    return id;
}

int mem_set_windows(struct mem *m, unsigned id, const struct mem_window *w, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (!window_ok(&w[i]))
            return -EINVAL;
    pthread_mutex_lock(&m->lock);
    bool same = true, collect = false;
    for (unsigned i = 0; i < n && same; i++) {
        const struct mem_window *o = &m->window[id + i];
        same = o->kind == w[i].kind &&
               (o->kind == MEM_OFF || (o->base == w[i].base && o->size == w[i].size && o->host == w[i].host));
    }
    if (!same) {
        memcpy(&m->window[id], w, n * sizeof *w);
        publish(m);
        collect = m->n_old % OLD_MAX == 0;
    }
    pthread_mutex_unlock(&m->lock);
    if (!same)
        changed(m, collect);
    return 0;
}

void mem_collect(struct mem *m)
{
    pthread_mutex_lock(&m->lock);
    for (struct mem_layout *l; (l = m->old);) {
        m->old = l->next;
        free(l);
    }
    m->n_old = 0;
    pthread_mutex_unlock(&m->lock);
}

/* ---- making ---- */

int mem_new(uint64_t size, uint64_t low_max, struct mem **ret, struct err *err)
{
    return mem_new_with_device(size, low_max, 0, ret, err);
}

int mem_new_with_device(uint64_t size, uint64_t low_max, uint64_t device, struct mem **ret, struct err *err)
{
    if (!size || size % PAGE_SIZE || device % PAGE_SIZE)
        return err_set(err, -EINVAL, "memory size %llu is not a multiple of 4096", (unsigned long long)size);
    struct mem *m = xcalloc(1, sizeof *m);
    pthread_mutex_init(&m->lock, NULL);
    m->fd = -1;
    m->ram = MAP_FAILED;
    m->ram_size = size;
    m->fd_size = size + device;
    m->low_size = MIN(size, low_max);
    int code = 0;
    m->fd = memfd_create("lodge-ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (m->fd < 0 || ftruncate(m->fd, (off_t)m->fd_size) < 0)
        code = err_errno(err, -errno, "cannot make %llu MiB of guest memory", (unsigned long long)(size / MIB));
    if (!code) {
        fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
        m->ram = mmap(NULL, m->fd_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
        if (m->ram == MAP_FAILED)
            code = err_errno(err, -errno, "cannot map %llu MiB of guest memory", (unsigned long long)(size / MIB));
    }
    if (!code) {
        m->page_flags = mmap(NULL, m->fd_size / PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (m->page_flags == MAP_FAILED) {
            m->page_flags = NULL;
            code = err_errno(err, -errno, "cannot map page flags");
        }
    }
    if (code) {
        mem_free(m);
        return code;
    }
    m->window[m->n_windows++] = (struct mem_window){MEM_RAM, 0, m->low_size, m->ram};
    if (size > m->low_size)
        m->window[m->n_windows++] =
            (struct mem_window){MEM_RAM, MEM_HIGH_BASE, size - m->low_size, m->ram + m->low_size};
    publish(m);
    *ret = m;
    return 0;
}

void mem_free(struct mem *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->n_roms; i++)
        munmap(m->rom[i].host, m->rom[i].size);
    if (m->page_flags)
        munmap(m->page_flags, m->fd_size / PAGE_SIZE);
    if (m->ram != MAP_FAILED)
        munmap(m->ram, m->fd_size);
    fd_closep(&m->fd);
    mem_collect(m);
    free(atomic_load(&m->layout));
    pthread_mutex_destroy(&m->lock);
    free(m);
}

int mem_add_rom(struct mem *m, gpa_t base, uint64_t size, const void *data, uint64_t len, struct err *err)
{
    if (!size || size % PAGE_SIZE || base % PAGE_SIZE || len > size)
        return err_set(err, -EINVAL, "ROM at 0x%llx: bad size", (unsigned long long)base);
    const struct mem_layout *l = mem_layout(m);
    for (unsigned i = 0; i < l->n; i++)
        if (base < l->range[i].base + l->range[i].size && l->range[i].base < base + size)
            return err_errno(err, -EEXIST, "ROM at 0x%llx", (unsigned long long)base);
    if (m->n_roms == ARRAY_SIZE(m->rom))
        return err_errno(err, -ENOSPC, "ROM at 0x%llx", (unsigned long long)base);
    uint8_t *host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (host == MAP_FAILED)
        return err_errno(err, -errno, "cannot map a ROM");
    memcpy(host, data, len);
    m->rom[m->n_roms].host = host;
    m->rom[m->n_roms++].size = size;
    int code = mem_add_window(m, &(struct mem_window){MEM_ROM, base, size, host}, err);
    return MIN(code, 0);
}

/* The host bytes at gpa, and how many of `len` lie together there. NULL: no memory. */
static uint8_t *piece(const struct mem *m, gpa_t gpa, uint64_t *len, bool *rom)
{
    const struct mem_range *r = mem_find(m, gpa);
    if (!r)
        return NULL;
    uint64_t off = gpa - r->base;
    *len = MIN(*len, r->size - off);
    *rom = r->rom;
    return r->host + off;
}

int mem_read(const struct mem *m, gpa_t gpa, void *buf, uint64_t len)
{
    for (uint8_t *p = buf; len;) {
        uint64_t n = len;
        bool rom;
        const uint8_t *host = piece(m, gpa, &n, &rom);
        if (!host)
            return -EFAULT;
        memcpy(p, host, n);
        p += n;
        gpa += n;
        len -= n;
    }
    return 0;
}

int mem_write(struct mem *m, gpa_t gpa, const void *buf, uint64_t len)
{
    for (const uint8_t *p = buf; len;) {
        uint64_t n = len;
        bool rom;
        uint8_t *host = piece(m, gpa, &n, &rom);
        if (!host)
            return -EFAULT;
        if (!rom) {
            memcpy(host, p, n);
            mem_wrote(m, gpa, n);
        }
        p += n;
        gpa += n;
        len -= n;
    }
    return 0;
}

int mem_set(struct mem *m, gpa_t gpa, uint8_t byte, uint64_t len)
{
    while (len) {
        uint64_t n = len;
        bool rom;
        uint8_t *host = piece(m, gpa, &n, &rom);
        if (!host)
            return -EFAULT;
        if (!rom) {
            memset(host, byte, n);
            mem_wrote(m, gpa, n);
        }
        gpa += n;
        len -= n;
    }
    return 0;
}

#define ACCESSOR(bits)                                                                                                 \
    int mem_read##bits(const struct mem *m, gpa_t gpa, uint##bits##_t *ret)                                            \
    {                                                                                                                  \
        uint64_t n = bits / 8;                                                                                         \
        bool rom;                                                                                                      \
        const uint8_t *host = gpa % (bits / 8) ? NULL : piece(m, gpa, &n, &rom);                                       \
        if (!host)                                                                                                     \
            return mem_read(m, gpa, ret, bits / 8);                                                                    \
        *ret = le##bits##toh(__atomic_load_n((const uint##bits##_t *)host, __ATOMIC_ACQUIRE));                         \
        return 0;                                                                                                      \
    }                                                                                                                  \
    int mem_write##bits(struct mem *m, gpa_t gpa, uint##bits##_t v)                                                    \
    {                                                                                                                  \
        uint64_t n = bits / 8;                                                                                         \
        bool rom;                                                                                                      \
        v = htole##bits(v);                                                                                            \
        uint8_t *host = gpa % (bits / 8) ? NULL : piece(m, gpa, &n, &rom);                                             \
        if (!host)                                                                                                     \
            return mem_write(m, gpa, &v, bits / 8);                                                                    \
        if (rom)                                                                                                       \
            return 0;                                                                                                  \
        __atomic_store_n((uint##bits##_t *)host, v, __ATOMIC_RELEASE);                                                 \
        mem_wrote(m, gpa, bits / 8);                                                                                   \
        return 0;                                                                                                      \
    }
ACCESSOR(16)
ACCESSOR(32)
ACCESSOR(64)

int mem_iov(const struct mem *m, gpa_t gpa, uint64_t len, bool write, struct iovec *iov, unsigned *niov, unsigned max)
{
    while (len) {
        uint64_t n = len;
        bool rom;
        uint8_t *host = piece(m, gpa, &n, &rom);
        if (!host || (rom && write))
            return -EFAULT;
        if (*niov == max)
            return -E2BIG;
        iov[(*niov)++] = (struct iovec){host, n};
        gpa += n;
        len -= n;
    }
    return 0;
}

void mem_wrote(struct mem *m, gpa_t gpa, uint64_t len)
{
    while (len) {
        const struct mem_range *r = mem_find(m, gpa);
        uint64_t n = MIN(len, PAGE_SIZE - gpa % PAGE_SIZE);
        if (r && !r->rom) {
            const uint8_t *host = r->host + (gpa - r->base);
            mem_page_dirty(m, host);
            uint8_t flags = atomic_load_explicit(&m->page_flags[mem_page_index(m, host)], memory_order_acquire);
            if ((flags & MEM_PAGE_CODE) && m->code_written)
                m->code_written(m->code_opaque, gpa, n);
        }
        gpa += n;
        len -= n;
    }
}

void mem_track_dirty(struct mem *m, bool on)
{
    atomic_store(&m->dirty_tracking, on);
}

void mem_take_dirty(struct mem *m, uint64_t *bitmap)
{
    uint64_t pages = m->ram_size / PAGE_SIZE;
    memset(bitmap, 0, ALIGN_UP(pages, 64) / 8);
    for (uint64_t i = 0; i < pages; i++)
        if (atomic_load_explicit(&m->page_flags[i], memory_order_relaxed) & MEM_PAGE_DIRTY)
            if (atomic_fetch_and(&m->page_flags[i], (uint8_t)~MEM_PAGE_DIRTY) & MEM_PAGE_DIRTY)
                bitmap[i / 64] |= 1ull << (i % 64);
}

bool mem_take_shown(struct mem *m, uint64_t *bitmap)
{
    uint64_t first = m->ram_size / PAGE_SIZE, pages = m->fd_size / PAGE_SIZE - first;
    bool any = false;
    if (m->shown_sync)
        m->shown_sync(m->layout_opaque);
    memset(bitmap, 0, ALIGN_UP(pages, 64) / 8);
    for (uint64_t i = 0; i < pages; i++)
        if (atomic_load_explicit(&m->page_flags[first + i], memory_order_relaxed) & MEM_PAGE_SHOWN) {
            atomic_fetch_and(&m->page_flags[first + i], (uint8_t)~MEM_PAGE_SHOWN);
            bitmap[i / 64] |= 1ull << (i % 64);
            any = true;
        }
    if (any && m->shown_cleared)
        m->shown_cleared(m->layout_opaque);
    return any;
}

int mem_discard(struct mem *m, gpa_t gpa, uint64_t len)
{
    if (gpa % PAGE_SIZE || len % PAGE_SIZE)
        return -EINVAL;
    while (len) {
        const struct mem_range *r = mem_find(m, gpa);
        if (!r || r->rom)
            return -EFAULT;
        uint64_t off = gpa - r->base, n = MIN(len, r->size - off);
        if (fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(r->fd_offset + off), (off_t)n) < 0)
            return -errno;
        mem_wrote(m, gpa, n);
        gpa += n;
        len -= n;
    }
    return 0;
}

/*
 * The code cache of a vCPU: one memory mapped twice, writable and executable, never both at once. Code is appended; when the
 * cache is full, all of it is forgotten and the generation changes. Only the vCPU's thread writes to it, while it is not
 * in generated code or in a helper called from there that comes back behind what is changed.
 *
 * When a page's code is written, the entries of its translations are overwritten with jumps to their exits; so no link needs to
 * be followed backwards. When the block turns out unchanged, they are put back.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/soft/jit.h"
#include "cpu/soft/mmu_fast.h"
#include "cpu/soft/vec.h"
#include "cpu/soft/vec_live.h"

/* What one vCPU may use; pages are only taken as code is written. */
#define CACHE_SIZE (16 * MIB)
#define CODES_MAX 65536u

int jit_init(struct soft_cpu *c, struct err *err)
{
    struct soft_jit *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, -ENOMEM, "no memory for the translator");
    c->jit_cache = s;
    pthread_mutex_init(&s->lock, NULL);
    s->rw = s->rx = MAP_FAILED;
    s->code = MAP_FAILED;
    s->page_code = MAP_FAILED;
    s->size = CACHE_SIZE;
    s->ram_pages = c->vcpu.engine->cfg.mem->fd_size >> PAGE_SHIFT;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    /* One memory at two addresses. (perf looks for names of code in what is called /dev/zero, as this is, but not in a memfd.) */
    s->rw = mmap(NULL, s->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (s->rw != MAP_FAILED)
        s->rx = mremap(s->rw, 0, s->size, MREMAP_MAYMOVE);
    if (s->rx != MAP_FAILED && mprotect(s->rx, s->size, PROT_READ | PROT_EXEC) < 0)
        return err_errno(err, -errno, "cannot map a code cache");
    s->code = mmap(NULL, CODES_MAX * sizeof *s->code, PROT_READ | PROT_WRITE, flags, -1, 0);
    s->page_code = mmap(NULL, s->ram_pages * sizeof *s->page_code, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (s->rw == MAP_FAILED || s->rx == MAP_FAILED || s->code == MAP_FAILED || s->page_code == MAP_FAILED)
        return err_errno(err, -errno, "cannot map a code cache");
    s->vec = vec_live_supported();
    s->generation = 1;
    s->n_code = 1; /* 0: none */
    jit_thunks_emit(c);
    s->first = s->used;
    return 0;
}

void jit_free(struct soft_cpu *c)
{
    struct soft_jit *s = c->jit_cache;
    if (!s)
        return;
    if (s->rw != MAP_FAILED)
        munmap(s->rw, s->size);
    if (s->rx != MAP_FAILED)
        munmap(s->rx, s->size);
    if (s->code != MAP_FAILED)
        munmap(s->code, CODES_MAX * sizeof *s->code);
    if (s->page_code != MAP_FAILED)
        munmap((void *)s->page_code, s->ram_pages * sizeof *s->page_code);
    free(s->x87);
    pthread_mutex_destroy(&s->lock);
    free(s);
    c->jit_cache = NULL;
}

static void keys_forget(struct soft_cpu *c)
{
    struct soft_jit *s = c->jit_cache;
    memset(c->jit.jump, 0, sizeof c->jit.jump);
    memset(s->keys, 0, sizeof s->keys);
    s->next_key = 0;
    c->jit.key = 0; /* to be chosen anew */
}

void jit_flush(struct soft_cpu *c)
{
    struct soft_jit *s = c->jit_cache;
    if (!s || s->n_code == 1)
        return;
    for (uint32_t k = 1; k < s->n_code; k++)
        s->page_code[s->code[k].page] = s->page_code[s->code[k].page2] = 0;
    s->n_code = 1;
    s->n_x87 = 0;
    s->used = s->first;
    s->generation++;
    s->flushes++;
    keys_forget(c);
}

/* ---- code that was written ---- */

static void entry_divert(struct soft_jit *s, uint8_t kept[5], uint32_t at, uint32_t to)
{
    uint8_t *p = s->rw + at;
    memcpy(kept, p, 5);
    *p = 0xe9;
    e_target(p + 1, s->rw + to);
}

static void divert(struct soft_jit *s, struct jit_code *k)
{
    if (k->stale || block_valid(k->b)) /* looked at since it was written */
        return;
    k->stale = true;
    entry_divert(s, k->kept[0], k->saved_at, k->out_saved_at);
    entry_divert(s, k->kept[1], k->direct_at, k->out_direct_at);
    if (k->check_at != k->saved_at)
        entry_divert(s, k->kept[2], k->check_at, k->out_direct_at);
}

static void unlink_out(struct soft_jit *s, struct jit_code *k)
{
    for (unsigned n = 0; n < 2; n++)
        if (k->link[n].site)
            e_target(s->rw + k->link[n].site, s->rw + k->link[n].stub);
}

void jit_revived(struct soft_cpu *c, struct soft_block *b)
{
    struct soft_jit *s = c->jit_cache;
    struct jit_code *k = s ? jit_code_of(c, b) : NULL;
    if (!k || !k->stale)
        return;
    k->stale = false;
    s->revived++;
    memcpy(s->rw + k->saved_at, k->kept[0], 5);
    memcpy(s->rw + k->direct_at, k->kept[1], 5);
    if (k->check_at != k->saved_at)
        memcpy(s->rw + k->check_at, k->kept[2], 5);
    unlink_out(s, k); /* where it led to may be other code now */
}

static void drop_page(struct soft_jit *s, uint64_t page)
{
    for (uint32_t id = s->page_code[page]; id;) {
        struct jit_code *k = &s->code[id];
        divert(s, k);
        id = k->page == page ? k->next : k->next2;
    }
    s->drops++;
}

void jit_take_drops(struct soft_cpu *c)
{
    struct soft_jit *s = c->jit_cache;
    pthread_mutex_lock(&s->lock);
    unsigned n = s->n_dropped;
    bool all = s->all_dropped;
    uint64_t page[ARRAY_SIZE(s->dropped)];
    memcpy(page, s->dropped, n * sizeof page[0]);
    s->n_dropped = 0;
    s->all_dropped = false;
    pthread_mutex_unlock(&s->lock);
    if (all) {
        for (uint32_t k = 1; k < s->n_code; k++)
            divert(s, &s->code[k]);
        return;
    }
    for (unsigned k = 0; k < n; k++)
        drop_page(s, page[k]);
}

void jit_page_dropped(struct soft_engine *e, uint64_t page)
{
    for (unsigned k = 0; k < e->engine.cfg.cpus; k++) {
        struct soft_cpu *c = e->cpu[k];
        struct soft_jit *s = c ? c->jit_cache : NULL;
        if (!s || !atomic_load(&s->page_code[page]))
            continue;
        pthread_mutex_lock(&s->lock);
        if (s->n_dropped < ARRAY_SIZE(s->dropped))
            s->dropped[s->n_dropped++] = page;
        else
            s->all_dropped = true;
        pthread_mutex_unlock(&s->lock);
        pending_add(c, PEND_CODE);
    }
}

/* ---- the x87 instruction pointer ---- */

void jit_x87_note(struct jit *j)
{
    struct soft_jit *s = j->c->jit_cache;
    uint32_t at = (uint32_t)(j->e.p - s->rw);
    while (s->n_x87 && s->x87[s->n_x87 - 1].at >= at)
        s->n_x87--; /* of a block that was given up */
    if (s->n_x87 == s->max_x87) {
        size_t max = s->max_x87 ? 2 * s->max_x87 : 256;
        struct jit_x87 *p = reallocarray(s->x87, max, sizeof *p);
        if (!p)
            return; /* the guest sees a pointer of ours; it is of no use to it */
        s->x87 = p;
        s->max_x87 = max;
    }
    s->x87[s->n_x87++] = (struct jit_x87){at, j->off};
}

void jit_x87_pointer(struct soft_cpu *c)
{
    struct soft_jit *s = c->jit_cache;
    uint64_t at = le64_get(c->vec.fx + FX_FIP) - (uintptr_t)s->rx;
    size_t low = 0, high = s->n_x87;
    if (at >= s->used)
        return;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (s->x87[mid].at < at)
            low = mid + 1;
        else
            high = mid;
    }
    uint64_t rip = low < s->n_x87 && s->x87[low].at == at ? c->jit.x87_base + (uint64_t)(int64_t)s->x87[low].off : 0;
    le64_put(c->vec.fx + FX_FIP, rip);
}

/* ---- entering ---- */

/* The number of a pair of mappings and mode. */
static uint32_t key_id(struct soft_cpu *c, uint64_t epoch, bool global)
{
    struct soft_jit *s = c->jit_cache;
    uint32_t mode = c->mode | (global ? BIT(31) : 0);
    unsigned h = (unsigned)(epoch * 5 + mode * 7) % ARRAY_SIZE(s->keys);
    if (s->keys[h].id && s->keys[h].epoch == epoch && s->keys[h].mode == mode)
        return s->keys[h].id;
    if (s->next_key >= 0xfffe)
        keys_forget(c);
    s->keys[h].id = ++s->next_key;
    s->keys[h].epoch = epoch;
    s->keys[h].mode = mode;
    return s->keys[h].id;
}

void jit_key_select(struct soft_cpu *c)
{
    struct soft_jit *s = c->jit_cache;
    if (s->key_epoch == c->code_epoch && s->key_mode == c->mode && s->key_global == c->mmu->global_epoch && c->jit.key)
        return;
    uint32_t before = s->next_key, local = key_id(c, c->code_epoch, false), first = local;
    if (!(c->mode & MODE_USER))
        first = key_id(c, c->mmu->global_epoch, true);
    if (s->next_key < before) /* numbers began anew in between */
        local = key_id(c, c->code_epoch, false);
    s->key_epoch = c->code_epoch;
    s->key_mode = c->mode;
    s->key_global = c->mmu->global_epoch;
    c->jit.key = (uint64_t)first << 48;
    c->jit.key2 = (uint64_t)local << 48;
    c->jit.spread = first * 0x85ebca6bu;
    c->jit.spread2 = local * 0x85ebca6bu;
}

static struct jit_jump *jump_entry(struct soft_cpu *c, uint64_t lin, bool local)
{
    uint32_t h = (uint32_t)lin * JIT_JUMP_FACTOR ^ (local ? c->jit.spread2 : c->jit.spread);
    return &c->jit.jump[h >> JIT_JUMP_SHIFT];
}

/* The other way of the pair. */
static struct jit_jump *jump_other(struct soft_cpu *c, struct jit_jump *j)
{
    return &c->jit.jump[(j - c->jit.jump) ^ 1];
}

uint64_t jit_jump_find(struct soft_cpu *c, uint64_t lin)
{
    for (unsigned local = 0; local < 2; local++) {
        uint64_t key = lin ^ (local ? c->jit.key2 : c->jit.key);
        struct jit_jump *j = jump_entry(c, lin, local);
        if (j->key == key)
            return j->host;
        j = jump_other(c, j);
        if (j->key == key)
            return j->host;
    }
    return 0;
}

void jit_jump_put(struct soft_cpu *c, uint64_t lin, const struct jit_code *to)
{
    bool local = c->jit.key == c->jit.key2 || !mmu_fetched_global(c, lin) ||
                 (to->b->cross && !mmu_fetched_global(c, (lin | (PAGE_SIZE - 1)) + 1));
    struct jit_jump *j = jump_entry(c, lin, local), new = {lin ^ (local ? c->jit.key2 : c->jit.key),
                                                           (uintptr_t)c->jit_cache->rx + to->saved_at};
    if (j->key != new.key)
        *jump_other(c, j) = *j;
    *j = new;
}

void jit_jump_drop(struct soft_cpu *c, uint64_t lin)
{
    for (unsigned local = 0; local < 2; local++) {
        struct jit_jump *j = jump_entry(c, lin, local);
        j->key = 0;
        jump_other(c, j)->key = 0;
    }
}

bool jit_translate(struct soft_cpu *c, struct soft_block *b)
{
    struct soft_jit *s = c->jit_cache;
    struct mem *m = c->vcpu.engine->cfg.mem;
    const struct mem_range *r = mem_find(m, b->gpa), *r2 = b->cross ? mem_find(m, b->gpa2) : r;
    if (b->once || b->broken || !jit_mode_ok(b->mode) || !r || r->rom || !r2 || r2->rom) {
        b->no_jit = true;
        return false;
    }
    if (s->size - s->used < JIT_BLOCK_ROOM || s->n_code == CODES_MAX)
        jit_flush(c);
    uint32_t id = s->n_code++;
    struct jit_code *k = &s->code[id];
    memset(k, 0, sizeof *k);
    k->b = b;
    k->off = b->gpa & (PAGE_SIZE - 1);
    k->page = k->page2 = mem_page_index(m, r->host + (b->gpa - r->base));
    if (b->cross)
        k->page2 = mem_page_index(m, r2->host + (b->gpa2 - r2->base));
    uint8_t *end = jit_emit_block(c, b, id, s->rw + s->used, s->rx + s->used, k);
    if (c->soft->perf_map >= 0)
        jit_perf_map_add(c, s->rx + s->used, (size_t)(end - s->rw) - s->used, c->rip);
    s->used = ALIGN_UP((size_t)(end - s->rw), 16);
    k->next = s->page_code[k->page];
    atomic_store(&s->page_code[k->page], id);
    if (k->page2 != k->page) {
        k->next2 = s->page_code[k->page2];
        atomic_store(&s->page_code[k->page2], id);
    }
    divert(s, k); /* if it was written meanwhile: nobody will have told */
    b->jit = id;
    b->jit_generation = s->generation;
    s->translated++;
    return true;
}

/*
 * A guest's page tables, for people: reading at guest virtual addresses, and listing what is mapped (Intel SDM volume
 * 3, 4.3 to 4.5). The tables are the guest's and may hold anything: the number of tables looked at is limited.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "monitor/paging.h"
#include "monitor/private.h"

#define CR0_PG BIT64(31)
#define CR4_PAE BIT64(5)
#define CR4_LA57 BIT64(12)
#define EFER_LMA BIT64(10)
#define PTE_P BIT64(0)
#define PTE_W BIT64(1)
#define PTE_U BIT64(2)
#define PTE_PS BIT64(7)
#define ADDR_MASK 0x000ffffffffff000ull
#define TABLES_MAX 20000

struct walk {
    const struct paging *p;
    uint64_t root;
    unsigned levels;     /* 2 (32-bit), 3 (PAE), 4, 5 */
    unsigned index_bits; /* 9, or 10 for 32-bit paging */
    unsigned entry_size;
    bool large; /* CR4.PSE or more: large pages exist */
};

static int paging_init(struct paging *ret, struct monitor *m, unsigned cpu, struct err *err)
{
    *ret = (struct paging){.read_phys = m->vm.ops->read_phys, .opaque = m->vm.opaque};
    return m->vm.ops->paging(m->vm.opaque, cpu, &ret->regs, err);
}

static void walk_init(struct walk *w, const struct paging *p)
{
    const struct monitor_paging *r = &p->regs;
    *w = (struct walk){.p = p, .index_bits = 9, .entry_size = 8, .large = true};
    if (r->efer & EFER_LMA) {
        w->levels = r->cr4 & CR4_LA57 ? 5 : 4;
        w->root = r->cr3 & ADDR_MASK;
    } else if (r->cr4 & CR4_PAE) {
        w->levels = 3;
        w->root = r->cr3 & 0xffffffe0;
    } else {
        w->levels = 2;
        w->index_bits = 10;
        w->entry_size = 4;
        w->large = r->cr4 & BIT64(4);
        w->root = r->cr3 & 0xfffff000;
    }
}

static unsigned shift_of(const struct walk *w, unsigned level)
{
    return 12 + w->index_bits * (level - 1);
}

static unsigned entries_of(const struct walk *w, unsigned level)
{
    return level == 3 && w->levels == 3 ? 4 : 1u << w->index_bits;
}

static bool is_leaf(const struct walk *w, unsigned level, uint64_t pte)
{
    return level == 1 || (level <= (w->levels > 3 ? 3 : 2) && w->large && (pte & PTE_PS));
}

static uint64_t leaf_address(const struct walk *w, unsigned level, uint64_t pte)
{
    if (w->entry_size == 4 && level == 2) /* PSE-36 */
        return (pte & 0xffc00000) | (pte & 0x1fe000) << 19;
    return pte & ADDR_MASK & ~(BIT64(shift_of(w, level)) - 1);
}

static int translate(const struct walk *w, uint64_t gva, uint64_t *ret_gpa)
{
    uint64_t table = w->root;
    for (unsigned level = w->levels; level; level--) {
        unsigned shift = shift_of(w, level);
        uint64_t pte = 0, index = gva >> shift & (entries_of(w, level) - 1);
        if (w->p->read_phys(w->p->opaque, table + index * w->entry_size, &pte, w->entry_size) < 0 ||
            !(pte & PTE_P))
            return -EFAULT;
        if (is_leaf(w, level, pte)) {
            *ret_gpa = leaf_address(w, level, pte) | (gva & (BIT64(shift) - 1));
            return 0;
        }
        table = pte & ADDR_MASK;
    }
    return -EFAULT;
}

int paging_translate(const struct paging *p, uint64_t gva, uint64_t *ret_gpa)
{
    struct walk w;
    *ret_gpa = gva;
    if (!(p->regs.cr0 & CR0_PG))
        return 0;
    walk_init(&w, p);
    return translate(&w, gva, ret_gpa);
}

int paging_read(struct monitor *m, unsigned cpu, uint64_t gva, void *buf, size_t len, struct err *err)
{
    struct paging p;
    int r = paging_init(&p, m, cpu, err);
    if (r < 0)
        return r;
    for (size_t done = 0; done < len;) {
        uint64_t at = gva + done, gpa;
        size_t n = MIN(len - done, (size_t)(4096 - (at & 4095)));
        if (paging_translate(&p, at, &gpa) < 0 || p.read_phys(p.opaque, gpa, (char *)buf + done, n) < 0)
            return err_set(err, -EFAULT, "Cannot access memory at address 0x%llx", (unsigned long long)at);
        done += n;
    }
    return 0;
}

/* Listing: neighbours with the same rights become one line. */

struct range {
    uint64_t start, end;
    unsigned rights;
    bool open;
};

static void range_end(struct range *r, struct text *t)
{
    if (r->open)
        text_printf(t, "%016llx-%016llx %016llx %c%c%c\r\n", (unsigned long long)r->start, (unsigned long long)r->end,
                    (unsigned long long)(r->end - r->start), r->rights & PTE_U ? 'u' : '-', 'r',
                    r->rights & PTE_W ? 'w' : '-');
    r->open = false;
}

static void range_add(struct range *r, struct text *t, uint64_t at, uint64_t size, unsigned rights)
{
    if (!r->open || r->end != at || r->rights != rights) {
        range_end(r, t);
        *r = (struct range){at, at, rights, true};
    }
    r->end = at + size;
}

static void list_table(const struct walk *w, unsigned level, uint64_t table, uint64_t base, unsigned rights,
                       unsigned *budget, struct range *r, struct text *t)
{
    uint8_t page[4096];
    size_t bytes = entries_of(w, level) * w->entry_size;
    if (!*budget || t->full || w->p->read_phys(w->p->opaque, table, page, bytes) < 0)
        return;
    (*budget)--;
    for (unsigned i = 0; i < entries_of(w, level); i++) {
        uint64_t pte = w->entry_size == 8 ? le64_get(page + i * 8) : le32_get(page + i * 4);
        uint64_t at = base + ((uint64_t)i << shift_of(w, level));
        if (w->levels > 3 && level == w->levels && i >= 256) /* canonical */
            at |= ~0ull << (12 + 9 * w->levels);
        if (!(pte & PTE_P))
            continue;
        unsigned own = level == 3 && w->levels == 3 ? PTE_W | PTE_U : pte & (PTE_W | PTE_U);
        if (is_leaf(w, level, pte))
            range_add(r, t, at, BIT64(shift_of(w, level)), rights & own);
        else
            list_table(w, level - 1, pte & ADDR_MASK, at, rights & own, budget, r, t);
    }
}

void paging_list(struct monitor *m, unsigned cpu, struct text *t)
{
    struct walk w;
    struct paging p;
    struct range r = {0};
    struct err err = {0};
    unsigned budget = TABLES_MAX;
    if (paging_init(&p, m, cpu, &err) < 0) {
        text_printf(t, "%s\r\n", err.msg);
        return;
    }
    if (!(p.regs.cr0 & CR0_PG)) {
        text_printf(t, "PG disabled\r\n");
        return;
    }
    walk_init(&w, &p);
    list_table(&w, w.levels, w.root, 0, PTE_W | PTE_U, &budget, &r, t);
    range_end(&r, t);
    if (!budget)
        text_printf(t, "… more page tables than can be listed\r\n");
}

/* The page walker (SDM 3A, ch. 4): one translation, with permission checks and accessed/dirty updates. Called by mmu.c
 * only. */
#ifndef LODGE_CPU_SOFT_WALK_H
#define LODGE_CPU_SOFT_WALK_H

#include "cpu/soft/cpu.h"
#include "cpu/soft/mmu.h"

struct walk_request {
    uint64_t lin;
    enum mmu_access access;
    bool user;  /* user-mode access */
    bool smap;  /* supervisor data accesses to user pages are forbidden */
    bool probe; /* debugger: no permission checks, no side effects */
};

/* What the paging structures say about the page of `lin`. */
struct walk_result {
    gpa_t gpa; /* of lin itself */
    bool user, writable, nx, global, dirty;
    unsigned page_shift; /* 12, 21, 22, 30 */
    uint32_t error;      /* error code when the walk failed */
};

/* 0, or -1 with ret->error. */
int walk_page(struct soft_cpu *c, const struct walk_request *q, struct walk_result *ret);

/* May this page, found by a walk, be accessed so? The rules of SDM 3A 4.6 without side effects. */
bool walk_allows(const struct soft_cpu *c, const struct walk_result *w, enum mmu_access access, bool user, bool smap);

/* Loads the four PDPTEs of PAE paging from `cr3`. 0, or -1 when a reserved bit is set (nothing loaded then). */
int walk_load_pdptes(struct soft_cpu *c, uint64_t cr3);

#endif

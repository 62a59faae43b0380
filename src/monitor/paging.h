/* Translation of a guest's virtual addresses by its page tables, for people and debuggers; see paging.c. */
#ifndef LODGE_MONITOR_PAGING_H
#define LODGE_MONITOR_PAGING_H

#include "monitor/monitor.h"

struct paging {
    struct monitor_paging regs;
    int (*read_phys)(void *opaque, uint64_t gpa, void *buf, size_t len); /* 0 or -EFAULT */
    void *opaque;
};

/* 0, or -EFAULT where nothing is mapped. Rights are not looked at, and nothing is written. */
int paging_translate(const struct paging *p, uint64_t gva, uint64_t *ret_gpa);

#endif

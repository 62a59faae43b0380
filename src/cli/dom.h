/* What the verbs on domains share. */
#ifndef LODGE_CLI_DOM_H
#define LODGE_CLI_DOM_H

#include "cli/vsh.h"

enum { DOM_NOSTATE, DOM_RUNNING, DOM_BLOCKED, DOM_PAUSED, DOM_SHUTDOWN, DOM_SHUTOFF, DOM_CRASHED, DOM_SUSPENDED };
enum { DOM_LIVE = 1, DOM_CONFIG = 2 }; /* which document a change is for */
enum { DOM_XML_SECURE = 1, DOM_XML_INACTIVE = 2, DOM_XML_UPDATE_CPU = 4, DOM_XML_MIGRATABLE = 8 };

const char *dom_state_text(int state);
const char *dom_reason_text(int state, int reason);
/* Its state, or -1 and v->error. */
int dom_state(struct vsh *v, const rp_domain *dom, int *ret_reason);
/* 1, 0, or -1 and v->error. */
int dom_flag(struct vsh *v, int proc, const rp_domain *dom);
/* The number of the host's CPUs, or -1 and v->error. */
int host_cpus(struct vsh *v);
/* "1.500" and *unit "MiB". */
double pretty_size(unsigned long long bytes, const char **unit);
/* A bitmap as "0-3,7". The caller frees it. */
char *cpu_list(const uint8_t *map, unsigned bytes);
/* Prints a parameter's line "name           : value". */
void print_param(const rp_param *p);

#endif

/*
 * dnsmasq for one network: DHCP, router advertisements and DNS on its bridge. It is a process of its own that outlives the daemon; its
 * files are NAME.conf, .hosts (static leases), .names (DNS), .leases and .pid in the network's directories.
 */
#ifndef LODGE_HOSTNET_DNSMASQ_H
#define LODGE_HOSTNET_DNSMASQ_H

#include <sys/types.h>
#include <time.h>

#include "domain/network.h"

/* Where a network's files are. */
struct hostnet_dirs {
    const char *state; /* outlives a reboot: leases */
    const char *run;
};

/* The configuration, as text for the caller to free. */
char *dnsmasq_conf(const struct network *n, const char *bridge, const struct hostnet_dirs *dirs);
char *dnsmasq_hosts(const struct network *n); /* static leases */
char *dnsmasq_names(const struct network *n); /* as in /etc/hosts */

/* Does the network need one at all? */
bool dnsmasq_wanted(const struct network *n);
/* Writes the files and starts it; when it returns 0, it serves. */
int dnsmasq_start(const struct network *n, const char *bridge, const struct hostnet_dirs *dirs, struct err *err);
/* Its process, 0: it does not run. */
pid_t dnsmasq_pid(const struct network *n, const struct hostnet_dirs *dirs);
/* Ends it and waits for that (at most 2 s). */
void dnsmasq_stop(const struct network *n, const struct hostnet_dirs *dirs);
/* Takes over a changed network: by a signal where that is enough, else by a new process, which keeps the leases. */
int dnsmasq_update(const struct network *n, const char *bridge, const struct hostnet_dirs *dirs, struct err *err);
/* Removes the files, leases too if `forget`. */
void dnsmasq_remove_files(const struct network *n, const struct hostnet_dirs *dirs, bool forget);

struct dnsmasq_lease {
    time_t expires; /* 0: never */
    uint8_t mac[6];
    bool has_mac;
    struct ipaddr ip;
    char name[256]; /* "" : none */
    char id[600];   /* client id or DUID; "": none */
    uint32_t iaid;
};
/* The leases that are now, in an array for the caller to free; the number. No file is none. */
unsigned dnsmasq_leases(const struct network *n, const struct hostnet_dirs *dirs, struct dnsmasq_lease **ret);
/* The path of the leases' file; the caller frees it. */
char *dnsmasq_lease_file(const struct network *n, const struct hostnet_dirs *dirs);

#endif

/* IPv4 and IPv6 addresses and subnets as values. */
#ifndef LODGE_BASE_IPADDR_H
#define LODGE_BASE_IPADDR_H

#include <stdbool.h>
#include <stdint.h>

#define IPADDR_TEXT_MAX 46 /* an address as text, with its NUL */

struct ipaddr {
    uint8_t bits;     /* 32: IPv4, 128: IPv6, 0: none */
    uint8_t bytes[16]; /* in network order; the first 4 for IPv4 */
};

/* 0, or -EINVAL: not an address in text form. */
int ipaddr_parse(const char *text, struct ipaddr *ret);
/* `buf` has IPADDR_TEXT_MAX bytes; returns it. */
const char *ipaddr_format(const struct ipaddr *a, char *buf);
/* <0, 0, >0 as memcmp(); different families differ. */
int ipaddr_compare(const struct ipaddr *a, const struct ipaddr *b);
/* The first `prefix` bits of the address, the others zero. */
struct ipaddr ipaddr_mask(const struct ipaddr *a, unsigned prefix);
/* The last address of the subnet: the broadcast address for IPv4. */
struct ipaddr ipaddr_last(const struct ipaddr *a, unsigned prefix);
/* Is `a` in the subnet `net`/`prefix`? */
bool ipaddr_in(const struct ipaddr *a, const struct ipaddr *net, unsigned prefix);
/* Have two subnets an address in common? */
bool ipaddr_overlap(const struct ipaddr *a, unsigned prefix_a, const struct ipaddr *b, unsigned prefix_b);
/* The address `n` further on; wraps. */
struct ipaddr ipaddr_add(const struct ipaddr *a, uint32_t n);
/* How many addresses from `a` to `b`, both included, at most UINT32_MAX; 0 when b < a or the families differ. */
uint32_t ipaddr_span(const struct ipaddr *a, const struct ipaddr *b);
/* The prefix of a netmask such as 255.255.255.0, or -EINVAL. */
int ipaddr_netmask_prefix(const struct ipaddr *mask);

/* "52:54:00:12:34:56" (also with '-'); 0 or -EINVAL. */
int mac_parse(const char *text, uint8_t *ret_6);
/* `buf` has 18 bytes; returns it. */
const char *mac_format(const uint8_t *mac, char *buf);

#endif

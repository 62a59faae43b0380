/* See ipaddr.h. */
#include "base/ipaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

int ipaddr_parse(const char *text, struct ipaddr *ret)
{
    struct ipaddr a = {0};
    if (inet_pton(AF_INET, text, a.bytes) == 1)
        a.bits = 32;
    else if (inet_pton(AF_INET6, text, a.bytes) == 1)
        a.bits = 128;
    else
        return -EINVAL;
    *ret = a;
    return 0;
}

const char *ipaddr_format(const struct ipaddr *a, char *buf)
{
    if (!a->bits || !inet_ntop(a->bits == 32 ? AF_INET : AF_INET6, a->bytes, buf, IPADDR_TEXT_MAX))
        buf[0] = 0;
    return buf;
}

int ipaddr_compare(const struct ipaddr *a, const struct ipaddr *b)
{
    if (a->bits != b->bits)
        return a->bits < b->bits ? -1 : 1;
    return memcmp(a->bytes, b->bytes, a->bits / 8);
}

/* The address with all bits after the prefix set to `fill`. */
static struct ipaddr with_host_bits(const struct ipaddr *a, unsigned prefix, uint8_t fill)
{
    struct ipaddr r = *a;
    for (unsigned i = 0; i < a->bits / 8u; i++) {
        unsigned keep = prefix > i * 8 ? prefix - i * 8 : 0;
        uint8_t mask = keep >= 8 ? 0xff : (uint8_t)(0xff00 >> keep);
        r.bytes[i] = (a->bytes[i] & mask) | (fill & ~mask);
    }
    return r;
}

struct ipaddr ipaddr_mask(const struct ipaddr *a, unsigned prefix)
{
    return with_host_bits(a, prefix, 0);
}

struct ipaddr ipaddr_last(const struct ipaddr *a, unsigned prefix)
{
    return with_host_bits(a, prefix, 0xff);
}

bool ipaddr_in(const struct ipaddr *a, const struct ipaddr *net, unsigned prefix)
{
    struct ipaddr x = ipaddr_mask(a, prefix), y = ipaddr_mask(net, prefix);
    return a->bits && !ipaddr_compare(&x, &y);
}

bool ipaddr_overlap(const struct ipaddr *a, unsigned prefix_a, const struct ipaddr *b, unsigned prefix_b)
{
    return ipaddr_in(a, b, prefix_a < prefix_b ? prefix_a : prefix_b);
}

struct ipaddr ipaddr_add(const struct ipaddr *a, uint32_t n)
{
    struct ipaddr r = *a;
    uint64_t carry = n;
    for (unsigned i = a->bits / 8u; i-- && carry;) {
        carry += r.bytes[i];
        r.bytes[i] = (uint8_t)carry;
        carry >>= 8;
    }
    return r;
}

uint32_t ipaddr_span(const struct ipaddr *a, const struct ipaddr *b)
{
    if (a->bits != b->bits || ipaddr_compare(a, b) > 0)
        return 0;
    uint64_t n = 0;
    for (unsigned i = 0; i < a->bits / 8u; i++) {
        n = (n << 8) + b->bytes[i] - a->bytes[i];
        if ((int64_t)n > UINT32_MAX)
            return UINT32_MAX;
    }
    return n >= UINT32_MAX ? UINT32_MAX : (uint32_t)n + 1;
}

int ipaddr_netmask_prefix(const struct ipaddr *mask)
{
    unsigned prefix = 0;
    while (prefix < mask->bits && mask->bytes[prefix / 8] & (0x80 >> prefix % 8))
        prefix++;
    for (unsigned i = prefix; i < mask->bits; i++)
        if (mask->bytes[i / 8] & (0x80 >> i % 8))
            return -EINVAL;
    return (int)prefix;
}

int mac_parse(const char *text, uint8_t *ret_6)
{
    unsigned m[6];
    char sep[5], end;
    int n = sscanf(text, "%2x%c%2x%c%2x%c%2x%c%2x%c%2x%c", &m[0], &sep[0], &m[1], &sep[1], &m[2], &sep[2], &m[3], &sep[3],
                   &m[4], &sep[4], &m[5], &end);
    if (n != 11 || strlen(text) > 17)
        return -EINVAL;
    for (int i = 0; i < 5; i++)
        if (sep[i] != ':' && sep[i] != '-')
            return -EINVAL;
    for (int i = 0; i < 6; i++)
        ret_6[i] = (uint8_t)m[i];
    return 0;
}

const char *mac_format(const uint8_t *mac, char *buf)
{
    snprintf(buf, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
    return buf;
}

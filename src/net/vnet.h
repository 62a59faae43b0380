/*
 * struct virtio_net_hdr, version 1 (virtio 1.2, 5.1.6): offsets of its little-endian fields, and the checksum work it
 * asks for.
 */
#ifndef LODGE_NET_VNET_H
#define LODGE_NET_VNET_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum {
    VNET_FLAGS = 0,
    VNET_GSO_TYPE = 1,
    VNET_HDR_LEN = 2,
    VNET_GSO_SIZE = 4,
    VNET_CSUM_START = 6,
    VNET_CSUM_OFFSET = 8,
    VNET_NUM_BUFFERS = 10,
};
enum { VNET_F_NEEDS_CSUM = 1, VNET_F_DATA_VALID = 2 };
enum {
    VNET_GSO_NONE = 0,
    VNET_GSO_TCPV4 = 1,
    VNET_GSO_UDP = 3,
    VNET_GSO_TCPV6 = 4,
    VNET_GSO_UDP_L4 = 5,
    VNET_GSO_ECN = 0x80
};

/* Internet checksum (RFC 1071), not yet complemented, of the bytes of the list from `off` to its end. */
uint16_t vnet_sum(const struct iovec *iov, unsigned niov, size_t off);

#endif

/*
 * Frames from a guest: the ACK that passt leaves out stays in its room, and a checksum over pieces is that of the
 * whole. The first byte says where the frame is cut.
 */
#include "base/bits.h"
#include "net/passt_ack.h"
#include "net/vnet.h"
#include "target.h"

static uint16_t slow_sum(const uint8_t *p, size_t len)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += i % 2 ? p[i] : (uint32_t)p[i] << 8;
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    size_t cut = data[0] % size, off = data[1] % size;
    const uint8_t *frame = data + 1;
    size_t len = size - 1;
    uint8_t *ack = malloc(PASST_ACK_MAX);
    MUST(ack);
    size_t n = passt_ack(frame, len, ack);
    MUST(n <= PASST_ACK_MAX && (!n || n >= 14 + 20 + 20));
    free(ack);
    cut = MIN(cut, len);
    off = MIN(off, len);
    struct iovec iov[3] = {{(void *)frame, cut}, {(void *)frame, 0}, {(void *)(frame + cut), len - cut}};
    uint16_t got = vnet_sum(iov, 3, off), want = slow_sum(frame + off, len - off);
    MUST(got == want || (got ^ want) == 0xffff); /* both are zero where one is 0 and the other 0xffff */
    return 0;
}

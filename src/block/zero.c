/* Looking for zeroes: the inner loop of copying images. */
#include <string.h>

#include "base/bits.h"
#include "block/copy.h"

/* A buffer is zero if its first bytes are and it equals itself shifted by them: memcmp is as fast as the machine can. */
bool blk_is_zero(const void *buf, size_t len)
{
    const uint8_t *p = buf;
    size_t head = MIN(len, (size_t)16);
    for (size_t i = 0; i < head; i++)
        if (p[i])
            return false;
    return len <= head || !memcmp(p, p + head, len - head);
}

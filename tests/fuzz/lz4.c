/* LZ4 blocks and frames, into room of several sizes: never more than fits, and a smaller room gives the beginning. */
#include "base/bits.h"
#include "machine/lz4.h"
#include "target.h"

#define ROOM 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const size_t rooms[] = {0, 1, 17, 1000};
    static uint8_t all[2][ROOM];
    long most[2] = {lz4_block(data, size, all[0], ROOM), lz4_legacy(data, size, all[1], ROOM)};
    for (unsigned i = 0; i < 2 * ARRAY_SIZE(rooms); i++) {
        size_t room = rooms[i / 2];
        uint8_t *dst = malloc(MAX(room, 1));
        MUST(dst && most[i % 2] <= ROOM);
        long n = i % 2 ? lz4_legacy(data, size, dst, room) : lz4_block(data, size, dst, room);
        MUST(n <= (long)room);
        if (most[i % 2] >= 0)
            MUST(n == MIN(most[i % 2], (long)room) && !memcmp(dst, all[i % 2], (size_t)n));
        free(dst);
    }
    return 0;
}

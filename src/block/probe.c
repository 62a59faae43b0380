/* Image formats by their magic numbers. A guest can write any of them into a raw disk: so what is found only ever makes
 * us refuse. */
#include <string.h>

#include "base/bits.h"
#include "block/driver.h"

static const struct {
    const char *format, *magic;
    unsigned offset, len;
} magics[] = {
    {"qcow2", "QFI\xfb\0\0\0\x02", 0, 8},
    {"qcow2", "QFI\xfb\0\0\0\x03", 0, 8},
    {"qcow", "QFI\xfb", 0, 4},
    {"vmdk", "KDMV", 0, 4},
    {"vmdk", "COWD", 0, 4},
    {"vmdk", "# Disk DescriptorFile", 0, 21},
    {"vhdx", "vhdxfile", 0, 8},
    {"vpc", "conectix", 0, 8},
    {"vdi", "\x7f\x10\xda\xbe", 64, 4},
    {"luks", "LUKS\xba\xbe", 0, 6},
    {"qed", "QED\0", 0, 4},
    {"parallels", "WithoutFreeSpace", 0, 16},
    {"parallels", "WithouFreSpacExt", 0, 16},
    {"bochs", "Bochs Virtual HD Image", 0, 22},
};

const char *blk_probe(const uint8_t *head, size_t len)
{
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++)
        if (magics[i].offset + magics[i].len <= len && !memcmp(head + magics[i].offset, magics[i].magic, magics[i].len))
            return magics[i].format;
    return NULL;
}

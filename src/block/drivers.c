/* Every image format Lodge opens. Adding one is: its file, one line here, its tests. */
#include "block/driver.h"

const struct blk_driver *const blk_drivers[] = {
    &blk_raw,
    NULL,
};

/* Every image format and protocol. Adding one is: its file, one line here, its tests. */
#include "block/driver.h"

const struct blk_driver *const blk_drivers[] = {
    /* protocols */
    &blk_file,
    &blk_curl,
    &blk_nbd,
    /* formats */
    &blk_qcow2,
    &blk_raw,
    &blk_parallels,
    &blk_qed,
    &blk_vdi,
    &blk_vhdx,
    &blk_vmdk,
    &blk_vpc,
    NULL,
};

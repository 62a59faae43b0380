#include "dev/virtio/p9.h"
#include <errno.h>
int virtio_p9_new(const struct virtio_p9_config *cfg, struct virtio_dev **ret, struct err *err) { return err_set(err, -ENOTSUP, "no 9p yet"); }

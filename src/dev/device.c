#include "dev/device.h"

#include <stdio.h>

void device_init(struct device *dev, const struct device_type *type, const char *id)
{
    dev->type = type;
    dev->next = NULL;
    snprintf(dev->id, sizeof dev->id, "%s", id);
}

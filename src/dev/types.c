/* Every kind of device Lodge has. Adding a device is: its file, one line here, a test script, a fuzz target. */
#include "dev/device.h"
#include "dev/acpi_pm.h"
#include "dev/ahci.h"
#include "dev/debugcon.h"
#include "dev/debugexit.h"
#include "dev/fw_cfg.h"
#include "dev/ged.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/ioapic.h"
#include "dev/lapic.h"
#include "dev/pci_host.h"
#include "dev/pflash.h"
#include "dev/pic.h"
#include "dev/pit.h"
#include "dev/port92.h"
#include "dev/pvpanic.h"
#include "dev/rtc.h"
#include "dev/uart.h"
#include "dev/vga.h"
#include "dev/virtio/balloon.h"
#include "dev/virtio/blk.h"
#include "dev/virtio/console.h"
#include "dev/virtio/net.h"
#include "dev/virtio/p9.h"
#include "dev/virtio/rng.h"
#include "dev/virtio/virtio_mmio.h"
#include "dev/virtio/virtio_pci.h"

const struct device_type *const device_types[] = {
    &acpi_pm_type,
    &ahci_type,
    &debugcon_type,
    &debugexit_type,
    &fw_cfg_type,
    &ged_type,
    &hpet_type,
    &i8042_type,
    &ioapic_type,
    &lapic_type,
    &pci_host_type,
    &pci_lpc_type,
    &pflash_type,
    &pic_type,
    &pit_type,
    &port92_type,
    &pvpanic_type,
    &rtc_type,
    &uart_type,
    &vga_type,
    &virtio_balloon_type,
    &virtio_blk_type,
    &virtio_console_type,
    &virtio_mmio_type,
    &virtio_net_type,
    &virtio_p9_type,
    &virtio_pci_type,
    &virtio_rng_type,
    NULL,
};

/* The DSDT: what the board's devices are and which addresses and interrupts they have. */
#include <stdio.h>

#include "machine/acpi_priv.h"

static void isa_device(struct aml *a, const char *hid, unsigned uid)
{
    aml_name_eisaid(a, "_HID", hid);
    aml_name_int(a, "_UID", uid);
    aml_name_int(a, "_STA", 0xf);
}

/* A routing table (6.2.13): what each slot's pins lead to. */
static void routing(struct aml *a, const char *name, const unsigned to[4])
{
    aml_name(a, name);
    size_t prt = aml_open_package(a, 32 * 4);
    for (unsigned slot = 0; slot < 32; slot++) {
        for (unsigned pin = 0; pin < 4; pin++) {
            size_t e = aml_open_package(a, 4);
            aml_int(a, slot << 16 | 0xffff);
            aml_int(a, pin);
            aml_int(a, 0);
            aml_int(a, to[(slot + pin) % 4]);
            aml_close(a, e);
        }
    }
    aml_close(a, prt);
}

static void pci_root(struct aml *a, const struct acpi_config *c)
{
    struct aml r = {0};
    size_t dev = aml_open_device(a, "PCI0");
    aml_name_eisaid(a, "_HID", "PNP0A08");
    aml_name_eisaid(a, "_CID", "PNP0A03");
    aml_name_int(a, "_UID", 0);
    aml_name_int(a, "_BBN", 0);
    aml_name_int(a, "_SEG", 0);
    res_bus_window(&r, 0, (uint16_t)((c->ecam_buses ? c->ecam_buses : 256) - 1));
    res_io(&r, 0xcf8, 8);
    res_io_window(&r, 0, 0xcf7);
    res_io_window(&r, 0xd00, 0xffff);
    if (c->mem32_last > c->mem32_first)
        res_mem_window32(&r, c->mem32_first, c->mem32_last);
    if (c->mem64_last > c->mem64_first)
        res_mem_window64(&r, c->mem64_first, c->mem64_last);
    aml_name_crs(a, &r);

    routing(a, "PRTA", c->intx_gsi);
    routing(a, "PRTP", c->intx_isa);
    /* Method (_PRT) { If (PICF) { Return (PRTA) } Return (PRTP) } */
    size_t prt = aml_open_method(a, "_PRT", 0);
    aml_byte(a, 0xa0);
    size_t mark = a->len;
    aml_path(a, "PICF");
    aml_byte(a, 0xa4);
    aml_path(a, "PRTA");
    aml_close(a, mark);
    aml_byte(a, 0xa4);
    aml_path(a, "PRTP");
    aml_close(a, prt);

    /*
     * Method (_OSC, 4, Serialized) { CreateDWordField (Arg3, 8, CDW3); CDW3 &= 0x1d; Return (Arg3) }: the guest may run
     * all of PCI Express itself (6.2.11.3) but for hot plug by ACPI.
     */
    size_t osc = aml_open_method(a, "_OSC", 4);
    aml_byte(a, 0x8a);
    aml_byte(a, 0x6b);
    aml_int(a, 8);
    aml_path(a, "CDW3");
    aml_byte(a, 0x7b);
    aml_path(a, "CDW3");
    aml_int(a, 0x1d);
    aml_path(a, "CDW3");
    aml_byte(a, 0xa4);
    aml_byte(a, 0x6b);
    aml_close(a, osc);
    aml_close(a, dev);

    /* The kernel wants ECAM claimed by a motherboard device before it believes the MCFG. */
    if (c->ecam_base) {
        dev = aml_open_device(a, "MB00");
        isa_device(a, "PNP0C02", 0);
        res_memory32(&r, (uint32_t)c->ecam_base, c->ecam_buses << 20);
        aml_name_crs(a, &r);
        aml_close(a, dev);
    }
}

static void uarts(struct aml *a, const struct acpi_config *c)
{
    static const uint16_t port[4] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
    for (unsigned i = 0; i < 4; i++) {
        struct aml r = {0};
        char name[5];
        if (!(c->uarts & (1u << i)))
            continue;
        snprintf(name, sizeof name, "COM%u", i + 1);
        size_t dev = aml_open_device(a, name);
        isa_device(a, "PNP0501", i + 1);
        res_io(&r, port[i], 8);
        res_irq_edge(&r, i % 2 ? 3 : 4);
        aml_name_crs(a, &r);
        aml_close(a, dev);
    }
}

static void isa_devices(struct aml *a, const struct acpi_config *c)
{
    struct aml r = {0};
    size_t dev;
    if (c->rtc) {
        dev = aml_open_device(a, "RTC0");
        isa_device(a, "PNP0B00", 0);
        res_io(&r, 0x70, 2);
        res_irq_edge(&r, 8);
        aml_name_crs(a, &r);
        aml_close(a, dev);
    }
    if (c->i8042) {
        dev = aml_open_device(a, "KBD0");
        isa_device(a, "PNP0303", 0);
        res_io(&r, 0x60, 1);
        res_io(&r, 0x64, 1);
        res_irq_edge(&r, 1);
        aml_name_crs(a, &r);
        aml_close(a, dev);
        dev = aml_open_device(a, "MOU0");
        isa_device(a, "PNP0F13", 0);
        res_irq_edge(&r, 12);
        aml_name_crs(a, &r);
        aml_close(a, dev);
    }
    uarts(a, c);
    if (c->hpet_base) {
        dev = aml_open_device(a, "HPET");
        isa_device(a, "PNP0103", 0);
        res_memory32(&r, (uint32_t)c->hpet_base, 0x400);
        aml_name_crs(a, &r);
        aml_close(a, dev);
    }
    if (c->pvpanic_port) {
        dev = aml_open_device(a, "PVPN");
        aml_name_str(a, "_HID", "QEMU0001");
        aml_name_int(a, "_STA", 0xf);
        res_io(&r, c->pvpanic_port, 1);
        aml_name_crs(a, &r);
        aml_close(a, dev);
    }
    if (c->fw_cfg_port) {
        dev = aml_open_device(a, "FWCF");
        aml_name_str(a, "_HID", "QEMU0002");
        aml_name_int(a, "_STA", 0xb);
        res_io(&r, c->fw_cfg_port, 12);
        aml_name_crs(a, &r);
        aml_close(a, dev);
    }
}

static void virtio_mmio(struct aml *a, const struct acpi_config *c)
{
    for (unsigned i = 0; i < c->n_virtio_mmio && i < ACPI_MMIO_DEVICES_MAX; i++) {
        const struct acpi_mmio_device *d = &c->virtio_mmio[i];
        struct aml r = {0};
        char name[5];
        snprintf(name, sizeof name, "VR%02u", i);
        size_t dev = aml_open_device(a, name);
        aml_name_str(a, "_HID", "LNRO0005");
        aml_name_int(a, "_UID", i);
        aml_name_int(a, "_CCA", 1);
        res_memory32(&r, (uint32_t)d->base, d->size);
        res_interrupt(&r, d->gsi);
        aml_name_crs(a, &r);
        aml_close(a, dev);
    }
}

static void notify_if(struct aml *a, unsigned bit, const char *button)
{
    /* If (Local0 & bit) { Notify (button, 0x80) } */
    aml_byte(a, 0xa0);
    size_t mark = a->len;
    aml_byte(a, 0x7b);
    aml_byte(a, 0x60);
    aml_int(a, bit);
    aml_byte(a, 0);
    aml_byte(a, 0x86);
    aml_path(a, button);
    aml_int(a, 0x80);
    aml_close(a, mark);
}

/* Generic Event Device and control-method buttons, for hardware-reduced machines. */
static void event_device(struct aml *a, const struct acpi_config *c)
{
    struct aml r = {0};
    size_t dev = aml_open_device(a, "PWRB");
    aml_name_eisaid(a, "_HID", "PNP0C0C");
    aml_close(a, dev);
    dev = aml_open_device(a, "SLPB");
    aml_name_eisaid(a, "_HID", "PNP0C0E");
    aml_close(a, dev);

    dev = aml_open_device(a, "GED0");
    aml_name_str(a, "_HID", "ACPI0013");
    aml_name_int(a, "_UID", 0);
    res_interrupt(&r, c->ged_gsi);
    aml_name_crs(a, &r);
    /* OperationRegion (EREG, SystemMemory, ged_base, 4) Field (EREG, DWordAcc, NoLock, WriteAsZeros) { ESEL, 32 } */
    aml_byte(a, 0x5b);
    aml_byte(a, 0x80);
    aml_path(a, "EREG");
    aml_byte(a, 0);
    aml_int(a, c->ged_base);
    aml_int(a, 4);
    aml_byte(a, 0x5b);
    aml_byte(a, 0x81);
    size_t mark = a->len;
    aml_path(a, "EREG");
    aml_byte(a, 0x43);
    aml_path(a, "ESEL");
    aml_byte(a, 32);
    aml_close(a, mark);
    size_t evt = aml_open_method(a, "_EVT", 1);
    aml_byte(a, 0x70); /* Store (ESEL, Local0) */
    aml_path(a, "ESEL");
    aml_byte(a, 0x60);
    notify_if(a, 1, "PWRB");
    notify_if(a, 2, "SLPB");
    aml_close(a, evt);
    aml_close(a, dev);
}

void acpi_dsdt(struct aml *a, const struct acpi_config *c)
{
    if (c->pci) { /* Name (PICF, 0)  Method (_PIC, 1) { Store (Arg0, PICF) }: the system says that it uses APICs (5.8.1) */
        aml_name_int(a, "PICF", 0);
        size_t pic = aml_open_method(a, "\\_PIC", 1);
        aml_byte(a, 0x70);
        aml_byte(a, 0x68);
        aml_path(a, "PICF");
        aml_close(a, pic);
    }
    size_t sb = aml_open_scope(a, "\\_SB_");
    if (c->pci)
        pci_root(a, c);
    isa_devices(a, c);
    virtio_mmio(a, c);
    if (c->hw_reduced && c->ged_base)
        event_device(a, c);
    aml_close(a, sb);

    aml_name(a, "\\_S5_");
    size_t s5 = aml_open_package(a, 4);
    aml_int(a, c->s5_type);
    aml_int(a, c->s5_type);
    aml_int(a, 0);
    aml_int(a, 0);
    aml_close(a, s5);
}

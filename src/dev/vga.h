/*
 * Standard VGA, as QEMU and Bochs have it: an IBM VGA (text, planar and 256-colour modes), the Bochs DISPI registers
 * for linear modes of up to 32 bits a pixel, a PCI function 1234:1111 with the video memory in BAR 0 and registers in
 * BAR 2, EDID. The video memory is device memory of struct mem; linear writes are seen by its page flags.
 *
 * Registers and the window at 0xa0000 come from vCPU threads under one lock; the picture is drawn on the main thread.
 */
#ifndef LODGE_DEV_VGA_H
#define LODGE_DEV_VGA_H

#include "dev/pci.h"
#include "ui/display.h"

#define VGA_MEM_MIN (256 * KIB)

struct vga_config {
    const char *id;
    struct pci_bus *bus;
    int devfn; /* -1: any */
    struct mem *mem;
    uint64_t vram_size; /* power of two, at m->ram + m->ram_size */
    struct ui_display *display;
    unsigned width, height; /* what EDID prefers; 0: 1280x800 */
};

/* Makes it with its PCI function. */
int vga_new(const struct vga_config *cfg, struct pci_dev **ret, struct err *err);
/* VGA ports, DISPI ports and the window at 0xa0000. */
int vga_map(struct pci_dev *vga, struct bus *pio, struct bus *mmio, struct err *err);

extern const struct device_type vga_type;

#endif

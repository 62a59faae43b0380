/*
 * A little ACPI Machine Language writer (ACPI 6.5, ch. 20): appends opcodes and objects to a growing buffer. Objects
 * with a length nest: every aml_open_*() returns a mark that aml_close() takes. Private to acpi*.c.
 */
#ifndef LODGE_MACHINE_AML_H
#define LODGE_MACHINE_AML_H

#include <stddef.h>
#include <stdint.h>

struct aml {
    uint8_t *data;
    size_t len, cap;
};
void aml_free(struct aml *a);

void aml_byte(struct aml *a, uint8_t v);
void aml_bytes(struct aml *a, const void *p, size_t len);
/* A name path of 4-letter segments without dots, e.g. "\\_SB_" or "PCI0". */
void aml_path(struct aml *a, const char *path);

size_t aml_open_scope(struct aml *a, const char *path);
size_t aml_open_device(struct aml *a, const char *name);
size_t aml_open_method(struct aml *a, const char *name, unsigned args);
size_t aml_open_package(struct aml *a, unsigned elements);
void aml_close(struct aml *a, size_t mark);

/* Data objects, alone (in packages) or named. */
void aml_int(struct aml *a, uint64_t v);
void aml_str(struct aml *a, const char *s);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0A03" */
void aml_name(struct aml *a, const char *name); /* Name (name, what follows) */
void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_str(struct aml *a, const char *name, const char *s);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

/* Resource descriptors (6.4), collected in an aml of their own; aml_name_crs() writes them as Name (_CRS, Buffer) and
 * frees them. */
void res_io(struct aml *r, uint16_t base, uint8_t len);
void res_irq_edge(struct aml *r, unsigned irq);  /* ISA: edge, active high */
void res_interrupt(struct aml *r, uint32_t gsi); /* level, active high, exclusive */
void res_memory32(struct aml *r, uint32_t base, uint32_t len);
void res_bus_window(struct aml *r, uint16_t first, uint16_t last);
void res_io_window(struct aml *r, uint16_t first, uint16_t last);
void res_mem_window32(struct aml *r, uint32_t first, uint32_t last);
void res_mem_window64(struct aml *r, uint64_t first, uint64_t last); /* prefetchable */
void aml_name_crs(struct aml *a, struct aml *r);

#endif

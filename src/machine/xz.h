/* Decompression of XZ streams, by the system's liblzma, which is loaded when it is needed: few guests do. */
#ifndef LODGE_MACHINE_XZ_H
#define LODGE_MACHINE_XZ_H

#include <stddef.h>
#include <stdint.h>

#define XZ_MAGIC "\xfd" "7zXZ"

/* Unpacks a stream. Stops early at `dst_cap`. Returns the bytes written; -EINVAL: it is broken, -ENOSYS: there is no liblzma. */
long xz_stream(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_cap);

#endif

/* Decompression of LZ4 blocks and of the "legacy frame" that Linux kernels are packed in. Pure functions; input is
 * hostile. */
#ifndef LODGE_MACHINE_LZ4_H
#define LODGE_MACHINE_LZ4_H

#include <stddef.h>
#include <stdint.h>

#define LZ4_LEGACY_MAGIC 0x184c2102u

/*
 * Unpacks one block (LZ4 Block Format 1.6). Stops early when `dst_cap` bytes are written. Returns the bytes written, or
 * -EINVAL when the block is broken.
 */
long lz4_block(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_cap);

/*
 * Unpacks a legacy frame: magic, then blocks with a 32-bit length before each. Stops early at `dst_cap`; what follows
 * the last block that makes sense is ignored (the kernel's build appends the size). Returns the bytes written, or
 * -EINVAL.
 */
long lz4_legacy(const uint8_t *src, size_t src_len, uint8_t *dst, size_t dst_cap);

#endif

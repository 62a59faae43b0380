/* Small arithmetic that everybody needs. Little-endian accessors for wire data: wire structs are never host structs. */
#ifndef LODGE_BASE_BITS_H
#define LODGE_BASE_BITS_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n) (1u << (n))
#define BIT64(n) (1ull << (n))
#undef MIN /* sys/param.h, which XDR headers bring, has the same */
#undef MAX
/* Each argument is evaluated once: one may be a call whose answer changes. */
#define MIN(a, b) BITS_PICK(a, <, b, __COUNTER__)
#define MAX(a, b) BITS_PICK(a, >, b, __COUNTER__)
#define BITS_PICK(a, op, b, n) BITS_PICK_(a, op, b, n)
#define BITS_PICK_(a, op, b, n)                                                                                        \
    ({                                                                                                                 \
        __typeof__(a) pick_a##n = (a);                                                                                 \
        __typeof__(b) pick_b##n = (b);                                                                                 \
        pick_a##n op pick_b##n ? pick_a##n : pick_b##n;                                                                \
    })
#define ALIGN_UP(x, a) (((x) + ((a) - 1)) & ~((__typeof__(x))(a) - 1))
#define ALIGN_DOWN(x, a) ((x) & ~((__typeof__(x))(a) - 1))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define MUST_CHECK __attribute__((warn_unused_result))

#define KIB (1ull << 10)
#define MIB (1ull << 20)
#define GIB (1ull << 30)

static inline uint16_t le16_get(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return le16toh(v);
}
static inline uint32_t le32_get(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return le32toh(v);
}
static inline uint64_t le64_get(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}
static inline void le16_put(void *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof v);
}
static inline void le32_put(void *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof v);
}
static inline void le64_put(void *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof v);
}

/* The low `size` (1, 2, 4, 8) bytes of v. */
static inline uint64_t bits_trunc(uint64_t v, unsigned size)
{
    return size >= 8 ? v : v & ((1ull << (size * 8)) - 1);
}

#endif

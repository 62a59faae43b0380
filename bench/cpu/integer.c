/* Integer work: sorting, zlib, a hash table of strings, a sieve, a mix like CoreMark's, SHA-256 in plain C, loads and
 * stores in L1. */
#include "cpubench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* ---- sort: quicksort of 4096 numbers, insertion sort for the rest ---- */

#define SORT_N 4096
static uint32_t sort_from[SORT_N], sort_in[SORT_N];

static void quicksort(uint32_t *a, size_t n)
{
    while (n > 12) {
        uint32_t x = a[0], y = a[n / 2], z = a[n - 1];
        uint32_t pivot = x < y ? (y < z ? y : x < z ? z : x) : (x < z ? x : y < z ? z : y);
        size_t i = 0, j = n - 1;
        for (;; i++, j--) {
            while (a[i] < pivot)
                i++;
            while (a[j] > pivot)
                j--;
            if (i >= j)
                break;
            uint32_t t = a[i];
            a[i] = a[j];
            a[j] = t;
        }
        quicksort(a + j + 1, n - j - 1);
        n = j + 1;
    }
    for (size_t i = 1; i < n; i++) {
        uint32_t v = a[i];
        size_t j = i;
        for (; j > 0 && a[j - 1] > v; j--)
            a[j] = a[j - 1];
        a[j] = v;
    }
}

static bool sort_setup(void)
{
    uint64_t seed = 88172645463325252ull;
    for (size_t i = 0; i < SORT_N; i++)
        sort_from[i] = (uint32_t)bench_random(&seed);
    return true;
}

static void sort_run(uint64_t n)
{
    while (n--) {
        memcpy(sort_in, sort_from, sizeof sort_in);
        quicksort(sort_in, SORT_N);
        bench_sink += sort_in[SORT_N / 2];
    }
}

/* ---- zlib ---- */

#define TEXT_SIZE 65536
static uint8_t text[TEXT_SIZE], packed[2 * TEXT_SIZE], unpacked[TEXT_SIZE];
static uLong packed_size;

static bool zlib_setup(void)
{
    static const char *const word[] = {"guest",      "memory", "page", "the",     "interrupt", "of",     "vector",
                                       "register",   "a",      "and",  "block",   "virtual",   "driver", "queue",
                                       "descriptor", "is",     "read", "written", "host",      "by"};
    uint64_t seed = 12345678912345ull;
    size_t at = 0;
    while (at < TEXT_SIZE) {
        const char *w = word[bench_random(&seed) % 20];
        for (; *w && at < TEXT_SIZE; w++)
            text[at++] = (uint8_t)*w;
        if (at < TEXT_SIZE)
            text[at++] = bench_random(&seed) % 9 ? ' ' : '\n';
        if (bench_random(&seed) % 5 == 0 && at < TEXT_SIZE)
            text[at++] = (uint8_t)('0' + bench_random(&seed) % 10);
    }
    packed_size = sizeof packed;
    return compress2(packed, &packed_size, text, TEXT_SIZE, 6) == Z_OK;
}

static void inflate_run(uint64_t n)
{
    while (n--) {
        uLong size = sizeof unpacked;
        if (uncompress(unpacked, &size, packed, packed_size) != Z_OK || size != TEXT_SIZE)
            abort();
    }
}

static void deflate_run(uint64_t n)
{
    while (n--) {
        static uint8_t out[2 * TEXT_SIZE];
        uLong size = sizeof out;
        if (compress2(out, &size, text, TEXT_SIZE, 6) != Z_OK)
            abort();
        bench_sink += size;
    }
}

/* ---- dictionary: strings in a hash table with chains ---- */

#define DICT_WORDS 16384
#define DICT_BUCKETS 8192
struct dict_entry {
    struct dict_entry *next;
    char key[24];
    uint64_t count;
};
static struct dict_entry *dict_bucket[DICT_BUCKETS], dict_entry[DICT_WORDS];
static char dict_query[DICT_WORDS][24];

static uint32_t dict_hash(const char *s)
{
    uint32_t h = 2166136261u;
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 16777619u;
    return h % DICT_BUCKETS;
}

static bool dict_setup(void)
{
    uint64_t seed = 424242424242ull;
    memset(dict_bucket, 0, sizeof dict_bucket);
    for (unsigned i = 0; i < DICT_WORDS; i++) {
        struct dict_entry *e = &dict_entry[i];
        snprintf(e->key, sizeof e->key, "%llx-%u", (unsigned long long)bench_random(&seed) >> (i % 40), i);
        memcpy(dict_query[i], e->key, sizeof e->key);
        struct dict_entry **b = &dict_bucket[dict_hash(e->key)];
        e->next = *b;
        *b = e;
    }
    return true;
}

static void dict_run(uint64_t n)
{
    static uint64_t seed = 99999999977ull;
    while (n--) {
        const char *q = dict_query[bench_random(&seed) % DICT_WORDS];
        for (struct dict_entry *e = dict_bucket[dict_hash(q)]; e; e = e->next)
            if (!strcmp(e->key, q)) {
                e->count++;
                break;
            }
    }
}

/* ---- sieve ---- */

static void sieve_run(uint64_t n)
{
    static uint8_t composite[32768];
    while (n--) {
        memset(composite, 0, sizeof composite);
        unsigned primes = 0;
        for (unsigned i = 2; i < sizeof composite; i++) {
            if (composite[i])
                continue;
            primes++;
            for (unsigned j = 2 * i; j < sizeof composite; j += i)
                composite[j] = 1;
        }
        bench_sink += primes;
    }
}

/* ---- a mix like CoreMark's: a linked list, a small matrix of integers, a state machine over text, a CRC over all of
 * it ---- */

struct node {
    struct node *next;
    int16_t value, index;
};

static uint16_t crc16(uint16_t crc, uint16_t v)
{
    for (int i = 0; i < 16; i++, v >>= 1)
        crc = (crc ^ v) & 1 ? (crc >> 1) ^ 0xa001 : crc >> 1;
    return crc;
}

static uint16_t mix_list(unsigned seed)
{
    static struct node node[64];
    struct node *head = NULL, *back = NULL;
    uint16_t crc = 0;
    for (int i = 0; i < 64; i++) {
        node[i] = (struct node){head, (int16_t)((i * 73 + (int)seed) % 251), (int16_t)i};
        head = &node[i];
    }
    for (int find = 0; find < 16; find++) {
        const struct node *p = head;
        while (p && p->value != find * 15)
            p = p->next;
        crc = crc16(crc, p ? (uint16_t)p->index : 0xffff);
    }
    while (head) {
        struct node *next = head->next;
        head->next = back;
        back = head;
        head = next;
    }
    for (; back; back = back->next)
        crc = crc16(crc, (uint16_t)back->value);
    return crc;
}

static uint16_t mix_matrix(unsigned seed)
{
    static int32_t a[10][10], b[10][10];
    uint16_t crc = 0;
    for (int i = 0; i < 10; i++)
        for (int j = 0; j < 10; j++) {
            a[i][j] = (int32_t)(seed + (unsigned)(i * j)) & 0xff;
            b[i][j] = (int32_t)(seed ^ (unsigned)(i + j)) & 0xff;
        }
    for (int i = 0; i < 10; i++)
        for (int j = 0; j < 10; j++) {
            int32_t sum = 0;
            for (int k = 0; k < 10; k++)
                sum += a[i][k] * b[k][j];
            crc = crc16(crc, (uint16_t)(sum >> 2));
        }
    return crc;
}

static uint16_t mix_state(unsigned seed)
{
    static const char input[] =
        "5012,1234,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,-87e+832,T0.3e-1F,-T.T++Tq,1T3.4e4z";
    enum { START, SIGN, INT, FRACTION, EXPONENT, BAD } state = START;
    unsigned count[6] = {0};
    for (size_t i = 0; i < sizeof input; i++) {
        char ch = input[(i + seed) % (sizeof input - 1)];
        if (ch == ',') {
            count[state]++;
            state = START;
            continue;
        }
        bool digit = ch >= '0' && ch <= '9';
        switch (state) {
        case START:
            state = digit ? INT : ch == '+' || ch == '-' ? SIGN : ch == '.' ? FRACTION : BAD;
            break;
        case SIGN:
            state = digit ? INT : ch == '.' ? FRACTION : BAD;
            break;
        case INT:
            state = digit ? INT : ch == '.' ? FRACTION : ch == 'e' ? EXPONENT : BAD;
            break;
        case FRACTION:
            state = digit ? FRACTION : ch == 'e' ? EXPONENT : BAD;
            break;
        case EXPONENT:
            state = digit || ch == '+' || ch == '-' ? EXPONENT : BAD;
            break;
        case BAD:
            break;
        }
    }
    uint16_t crc = 0;
    for (int i = 0; i < 6; i++)
        crc = crc16(crc, (uint16_t)count[i]);
    return crc;
}

static void mix_run(uint64_t n)
{
    unsigned crc = 0;
    while (n--)
        crc += mix_list(crc & 7) ^ mix_matrix(crc & 31) ^ mix_state(crc & 63);
    bench_sink += crc;
}

/* ---- SHA-256 in plain C (FIPS 180-4) ---- */

static uint32_t sha_k[64];

/* The constants are the first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static bool sha_setup(void)
{
    unsigned found = 0;
    for (unsigned p = 2; found < 64; p++) {
        bool prime = true;
        for (unsigned d = 2; d * d <= p; d++)
            prime &= p % d != 0;
        if (!prime)
            continue;
        unsigned __int128 want = (unsigned __int128)p << 96, low = 0, high = (unsigned __int128)1 << 36;
        while (high - low > 1) {
            unsigned __int128 mid = (low + high) / 2;
            if (mid * mid * mid <= want)
                low = mid;
            else
                high = mid;
        }
        sha_k[found++] = (uint32_t)low;
    }
    return true;
}

static uint32_t rotr(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static void sha_block(uint32_t h[8], const uint8_t *in)
{
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)in[4 * i] << 24 | (uint32_t)in[4 * i + 1] << 16 | (uint32_t)in[4 * i + 2] << 8 | in[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (rotr(w[i - 15], 7) ^ rotr(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (rotr(w[i - 2], 17) ^ rotr(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = v[7] + (rotr(v[4], 6) ^ rotr(v[4], 11) ^ rotr(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) +
                      sha_k[i] + w[i];
        uint32_t t2 =
            (rotr(v[0], 2) ^ rotr(v[0], 13) ^ rotr(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        v[7] = v[6];
        v[6] = v[5];
        v[5] = v[4];
        v[4] = v[3] + t1;
        v[3] = v[2];
        v[2] = v[1];
        v[1] = v[0];
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += v[i];
}

static void sha_run(uint64_t n)
{
    static uint8_t data[4096];
    uint32_t h[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    while (n--)
        for (size_t at = 0; at < sizeof data; at += 64)
            sha_block(h, data + at);
    bench_sink += h[0];
}

/* ---- loads and stores in L1 ---- */

static void loadstore_run(uint64_t n)
{
    static volatile uint64_t a[1024];
    while (n--)
        for (size_t i = 0; i < 1020; i += 4) {
            a[i] += 1;
            a[i + 1] = a[i + 2] + a[i + 3];
        }
}

const struct bench bench_integer[] = {
    {"sort", "integer", sort_run, sort_setup},
    {"inflate", "integer", inflate_run, zlib_setup},
    {"deflate", "integer", deflate_run, zlib_setup},
    {"dictionary", "integer", dict_run, dict_setup},
    {"sieve", "integer", sieve_run, NULL},
    {"coremark-like", "integer", mix_run, NULL},
    {"sha256-scalar", "integer", sha_run, sha_setup},
    {"load-store-l1", "integer", loadstore_run, NULL},
    {0},
};

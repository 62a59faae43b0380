/* What libraries write in vector instructions: OpenSSL's SHA-256 and AES-GCM, copies large and small, a stream of adds.
 */
#include "cpubench.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

static uint8_t data[16384], out[16384 + 32];

static void sha256_run(uint64_t n)
{
    unsigned char md[EVP_MAX_MD_SIZE];
    while (n--)
        if (!EVP_Digest(data, sizeof data, md, NULL, EVP_sha256(), NULL))
            abort();
    bench_sink += md[0];
}

static void aesgcm_run(uint64_t n)
{
    static const uint8_t key[16] = "0123456789abcde", iv[12] = "nonce-nonce";
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int len;
    if (!c || !EVP_EncryptInit_ex(c, EVP_aes_128_gcm(), NULL, key, iv))
        abort();
    while (n--)
        if (!EVP_EncryptInit_ex(c, NULL, NULL, NULL, iv) || !EVP_EncryptUpdate(c, out, &len, data, sizeof data) ||
            !EVP_EncryptFinal_ex(c, out + len, &len))
            abort();
    EVP_CIPHER_CTX_free(c);
}

#define STREAM_N (1 << 20)
static double *sa, *sb, *sc;
static uint8_t *big_from, *big_to;

static bool stream_setup(void)
{
    if (!sa) {
        sa = malloc(STREAM_N * sizeof *sa);
        sb = malloc(STREAM_N * sizeof *sb);
        sc = malloc(STREAM_N * sizeof *sc);
    }
    for (size_t i = 0; i < STREAM_N; i++) {
        sa[i] = 0;
        sb[i] = (double)i;
        sc[i] = 1;
    }
    return true;
}

static void stream_run(uint64_t n)
{
    while (n--) {
        for (size_t i = 0; i < STREAM_N; i++)
            sa[i] = sb[i] + 3.0 * sc[i];
        __asm__ volatile("" : : "r"(sa) : "memory");
    }
}

static bool copy_setup(void)
{
    if (!big_from) {
        big_from = malloc(1 << 20);
        big_to = malloc(1 << 20);
    }
    memset(big_from, 1, 1 << 20);
    memset(big_to, 2, 1 << 20);
    return true;
}

static void copy_large_run(uint64_t n)
{
    while (n--) {
        memcpy(big_to, big_from, 1 << 20);
        __asm__ volatile("" : : "r"(big_to) : "memory");
    }
}

static void copy_small_run(uint64_t n)
{
    static volatile size_t lengths[16] = {5, 17, 32, 8, 64, 24, 100, 12, 48, 3, 31, 16, 80, 7, 40, 20};
    while (n--)
        for (unsigned i = 0; i < 64; i++) {
            memcpy(out + i * 8, data + i * 16, lengths[i & 15]);
            __asm__ volatile("" : : : "memory");
        }
}

const struct bench bench_crypto[] = {
    {"libcrypto-sha256", "crypto", sha256_run, NULL},       {"libcrypto-aes-gcm", "crypto", aesgcm_run, NULL},
    {"stream", "crypto", stream_run, stream_setup},         {"memcpy-large", "crypto", copy_large_run, copy_setup},
    {"memcpy-small", "crypto", copy_small_run, copy_setup}, {0},
};

/* Floating point and vectors: n bodies, matrices by scalar SSE2, by SSE2 and by AVX2 with FMA, x87, and the C library's
 * functions. */
#include "cpubench.h"

#include <immintrin.h>
#include <math.h>

/* ---- n bodies ---- */

static struct body {
    double x[3], v[3], mass;
} bodies[5] = {
    {{0, 0, 0}, {0, 0, 0}, 39.5},
    {{4.8, -1.2, -0.1}, {0.6, 2.8, -0.02}, 0.0377},
    {{8.3, 4.1, -0.4}, {-1.0, 1.8, 0.008}, 0.0113},
    {{12.9, -15.1, -0.2}, {1.08, 0.87, -0.01}, 0.0017},
    {{15.4, -25.9, 0.18}, {0.98, 0.59, -0.03}, 0.002},
};

static void nbody_run(uint64_t n)
{
    const double dt = 0.001;
    while (n--) {
        for (int i = 0; i < 5; i++)
            for (int j = i + 1; j < 5; j++) {
                struct body *a = &bodies[i], *b = &bodies[j];
                double d[3], r2 = 1e-3;
                for (int k = 0; k < 3; k++) {
                    d[k] = a->x[k] - b->x[k];
                    r2 += d[k] * d[k];
                }
                double mag = dt / (r2 * __builtin_sqrt(r2));
                for (int k = 0; k < 3; k++) {
                    a->v[k] -= d[k] * b->mass * mag;
                    b->v[k] += d[k] * a->mass * mag;
                }
            }
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 3; k++)
                bodies[i].x[k] += dt * bodies[i].v[k];
    }
    bench_sink_fp = bodies[0].x[0];
}

/* ---- matrices ---- */

#define MAT 32
static double ma[MAT][MAT], mb[MAT][MAT], mc[MAT][MAT];
static float fa[MAT][MAT] __attribute__((aligned(64))), fb[MAT][MAT] __attribute__((aligned(64))),
    fc[MAT][MAT] __attribute__((aligned(64)));

static bool mat_setup(void)
{
    for (int i = 0; i < MAT; i++)
        for (int j = 0; j < MAT; j++) {
            ma[i][j] = fa[i][j] = (float)(i + 2 * j) / MAT;
            mb[i][j] = fb[i][j] = (float)(i - j) / MAT;
        }
    return true;
}

__attribute__((optimize("no-tree-vectorize"))) static void matmul_run(uint64_t n)
{
    while (n--) {
        for (int i = 0; i < MAT; i++)
            for (int j = 0; j < MAT; j++) {
                double sum = 0;
                for (int k = 0; k < MAT; k++)
                    sum += ma[i][k] * mb[k][j];
                mc[i][j] = sum;
            }
        bench_sink_fp = mc[3][5];
    }
}

static void sse2_run(uint64_t n)
{
    while (n--) {
        for (int i = 0; i < MAT; i++)
            for (int j = 0; j < MAT; j += 8) {
                __m128 s0 = _mm_setzero_ps(), s1 = s0;
                for (int k = 0; k < MAT; k++) {
                    __m128 a = _mm_set1_ps(fa[i][k]);
                    s0 = _mm_add_ps(s0, _mm_mul_ps(a, _mm_load_ps(&fb[k][j])));
                    s1 = _mm_add_ps(s1, _mm_mul_ps(a, _mm_load_ps(&fb[k][j + 4])));
                }
                _mm_store_ps(&fc[i][j], s0);
                _mm_store_ps(&fc[i][j + 4], s1);
            }
        bench_sink_fp = fc[3][5];
    }
}

static bool avx2_setup(void)
{
    return mat_setup() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

__attribute__((target("avx2,fma"))) static void avx2_run(uint64_t n)
{
    while (n--) {
        for (int i = 0; i < MAT; i++)
            for (int j = 0; j < MAT; j += 16) {
                __m256 s0 = _mm256_setzero_ps(), s1 = s0;
                for (int k = 0; k < MAT; k++) {
                    __m256 a = _mm256_broadcast_ss(&fa[i][k]);
                    s0 = _mm256_fmadd_ps(a, _mm256_load_ps(&fb[k][j]), s0);
                    s1 = _mm256_fmadd_ps(a, _mm256_load_ps(&fb[k][j + 8]), s1);
                }
                _mm256_store_ps(&fc[i][j], s0);
                _mm256_store_ps(&fc[i][j + 8], s1);
            }
        bench_sink_fp = fc[3][5];
    }
}

/* Integer vectors: sums of absolute differences, shuffles, compares. */
static void sse2_int_run(uint64_t n)
{
    static uint8_t p[4096] __attribute__((aligned(16))), q[4096] __attribute__((aligned(16)));
    __m128i sum = _mm_setzero_si128(), mask = sum;
    while (n--)
        for (size_t i = 0; i < sizeof p; i += 16) {
            __m128i a = _mm_load_si128((const __m128i *)(p + i)), b = _mm_load_si128((const __m128i *)(q + i));
            sum = _mm_add_epi64(sum, _mm_sad_epu8(a, b));
            mask = _mm_xor_si128(mask, _mm_cmpgt_epi8(_mm_unpacklo_epi8(a, b), _mm_shuffle_epi32(mask, 0x1b)));
            _mm_store_si128((__m128i *)(q + i), _mm_avg_epu8(a, mask));
        }
    bench_sink += (uint64_t)_mm_cvtsi128_si64(_mm_xor_si128(sum, mask));
}

/* ---- x87 ---- */

static void x87_run(uint64_t n)
{
    static volatile long double one = 1.0L;
    while (n--) {
        long double x = one, sum = 0;
        for (int i = 1; i < 64; i++) {
            x = x * 1.0009765625L + 0.5L / (long double)i;
            sum += x - sum * 0.25L;
        }
        bench_sink_fp = (double)sum;
    }
}

/* ---- libm ---- */

static void libm_run(uint64_t n)
{
    double x = 0.3;
    while (n--) {
        double s = sin(x) + cos(1.7 * x) * exp(-x) + log(1 + x) + pow(1.1 + x, 0.7) + atan2(x, 1.3);
        x = 0.1 + fabs(s) * 0.2;
    }
    bench_sink_fp = x;
}

const struct bench bench_fp[] = {
    {"nbody", "vector", nbody_run, NULL},     {"matmul-scalar", "vector", matmul_run, mat_setup},
    {"sse2", "vector", sse2_run, mat_setup},  {"sse2-integer", "vector", sse2_int_run, NULL},
    {"avx2", "vector", avx2_run, avx2_setup}, {"x87", "vector", x87_run, NULL},
    {"libm", "vector", libm_run, NULL},       {0},
};

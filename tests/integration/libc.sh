#!/bin/sh
# Programs with a real libc, whose output must be the same in the guest as on the host: run in both, on the same root file system.
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
cd "$(mktemp -d)"
echo "== shell and busybox"
busybox sha256sum /bin/bash | cut -c1-64
busybox awk 'BEGIN { for (i = 1; i <= 20; i++) printf "%.17g %.17g %.17g\n", sin(i) * exp(i / 7), log(i) / 3, atan2(i, 7) }'
i=0; while [ $i -lt 3000 ]; do echo "line $((i * i % 977)) $i"; i=$((i + 1)); done >lines
sort -n -k2 lines | md5sum
gzip -9 -n <lines | md5sum
xz -0 <lines | md5sum
sed 's/1\([0-9]\)/<\1>/g' lines | grep -c '<7>'
echo "== python"
python3 - <<'EOF'
import cmath, decimal, hashlib, json, math, random, re, struct, zlib
r = random.Random(7)
xs = [r.gauss(0, 1) for _ in range(4000)]
print(math.fsum(xs).hex(), sum(xs).hex(), math.hypot(*xs[:5]).hex())
for f in (math.sin, math.cos, math.tan, math.exp, math.erf, math.gamma, math.atan, math.sinh, math.cbrt):
    print(f.__name__, hashlib.sha256(b''.join(struct.pack('<d', f(x)) for x in xs)).hexdigest())
print(cmath.exp(complex(1.25, -3.5)), decimal.Decimal(2).sqrt(decimal.Context(prec=60)), 3 ** 1000 % 10 ** 40, pow(7, 10 ** 30, 10 ** 25 + 13))
data = ''.join(r.choice('abcdefg \n') for _ in range(200000)).encode()
for name in ('md5', 'sha1', 'sha256', 'sha512', 'sha3_256', 'blake2b', 'blake2s'):
    print(name, hashlib.new(name, data).hexdigest())
print(zlib.crc32(data), zlib.adler32(data), hashlib.md5(zlib.compress(data, 9)).hexdigest())
print(len(re.findall(rb'(a[bc]+d|g\s+f)', data)), json.loads(json.dumps({'x': xs[:3]}))['x'] == xs[:3])
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
print(fib(20), sorted(xs)[:2], '%.17g %e' % (1e308 * 10, 5e-324))
EOF
echo "== openssl"
for d in md5 sha1 sha256 sha512 sha3-384 blake2b512 sm3; do openssl dgst -r -$d lines; done
for c in aes-128-cbc aes-256-ctr aes-128-ecb camellia-256-cbc chacha20 aria-128-cbc des-ede3-cbc; do
    openssl enc -$c -K 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f -iv 0f0e0d0c0b0a09080706050403020100 -in lines 2>/dev/null | openssl dgst -r -sha256
done
openssl mac -cipher AES-128-CBC -macopt hexkey:000102030405060708090a0b0c0d0e0f -in lines CMAC
openssl genrsa -out key 2048 2>/dev/null && openssl dgst -sha256 -sign key -out sig lines && openssl rsa -in key -pubout -out pub 2>/dev/null && openssl dgst -sha256 -verify pub -signature sig lines
for curve in prime256v1 secp384r1; do
    openssl ecparam -name $curve -genkey -noout -out ec && openssl dgst -sha256 -sign ec -out sig lines && openssl ec -in ec -pubout -out pub 2>/dev/null && openssl dgst -sha256 -verify pub -signature sig lines
done
openssl genpkey -algorithm ed25519 -out ed && openssl pkeyutl -sign -inkey ed -rawin -in lines -out sig && openssl pkeyutl -verify -inkey ed -rawin -in lines -sigfile sig
openssl prime -generate -bits 256 -hex | wc -c
echo "== gcc"
cat >t.c <<'EOF'
#include <complex.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int cmp(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return x < y ? -1 : x > y; }
int main(void)
{
    static double v[5000];
    uint64_t s = 88172645463325252ull, h = 0;
    for (int i = 0; i < 5000; i++) {
        s ^= s << 13; s ^= s >> 7; s ^= s << 17;
        v[i] = (double)(int64_t)s / 1e17;
    }
    qsort(v, 5000, sizeof *v, cmp);
    double sum = 0; float fsum = 0; long double lsum = 0;
    for (int i = 0; i < 5000; i++) { sum += sqrt(fabs(v[i])) * 1.0000001; fsum += (float)v[i]; lsum += v[i] / 3; }
    double complex z = cpow(1.5 + 2.5 * I, 0.3 - 1.1 * I);
    for (int i = 0; i < 5000; i++) { uint64_t b; memcpy(&b, &v[i], 8); h = h * 31 + b; h ^= h >> 29; }
    printf("%a %a %La %a %a %016llx\n", sum, fsum, lsum, creal(z), cimag(z), (unsigned long long)h);
    printf("%s %d %lld %.30g\n", strstr("haystack with needle", "need"), atoi("-12345"), strtoll("7fffffffffffffff", 0, 16), 0.1);
    return 0;
}
EOF
for flags in -O0 "-O2 -msse4.2" "-O3 -march=x86-64-v3" "-O2 -static" "-O2 -mfpmath=387"; do
    gcc $flags -ffp-contract=off -o t t.c -lm && ./t
    gcc $flags -ffp-contract=off -S -o - t.c | md5sum
done

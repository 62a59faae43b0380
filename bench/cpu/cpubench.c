/*
 * cpubench [-t MILLISECONDS] [NAME...]: measures the named things, or all, each three times for about that long, and
 * prints a line "NAME CLASS NANOSECONDS-PER-OPERATION", or "NAME CLASS skip" where this CPU cannot do it. The first and
 * the last line give the clock, for whoever wants to compare it with another. A class may stand for its members;
 * `pair`, which needs two CPUs, is only done when named.
 */
#define _GNU_SOURCE
#include "cpubench.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

volatile uint64_t bench_sink;
volatile double bench_sink_fp;
const char *bench_self;

/* The kernel's first: what fork costs depends on how much memory there is to copy the tables of. */
static const struct bench *const groups[] = {bench_kernel, bench_integer, bench_calls, bench_fp,
                                             bench_crypto, bench_memory,  bench_cold,  bench_pair};

bool bench_pin(unsigned cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static void measure(const struct bench *b, uint64_t want_ns)
{
    if (b->setup && !b->setup()) {
        printf("%s %s skip\n", b->name, b->class);
        return;
    }
    uint64_t n = 1, took = 0, total = 0;
    b->run(1);
    for (;;) {
        uint64_t start = now_ns();
        b->run(n);
        took = now_ns() - start;
        total += took;
        if (took >= want_ns / 2 || total > 4 * want_ns)
            break;
        uint64_t next = took ? n * want_ns / took : n * 16;
        n = next > n * 16 ? n * 16 : next <= n ? n + 1 : next;
    }
    /* The best of three: what another process took away is not the guest's. */
    for (int again = 0; again < 2; again++) {
        uint64_t start = now_ns();
        b->run(n);
        uint64_t t = now_ns() - start;
        took = t < took ? t : took;
    }
    printf("%s %s %.3f\n", b->name, b->class, (double)took / (double)n);
}

static bool wanted(const struct bench *b, char **names)
{
    if (!*names)
        return strcmp(b->class, "pair") != 0;
    for (; *names; names++)
        if (!strcmp(*names, b->name) || !strcmp(*names, b->class))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    unsigned long ms = 200;
    bench_self = argv[0];
    if (argc == 2 && !strcmp(argv[1], "--exit"))
        return 0;
    int c;
    while ((c = getopt(argc, argv, "t:")) != -1) {
        if (c != 't') {
            fprintf(stderr, "usage: cpubench [-t MILLISECONDS] [NAME...]\n");
            return 2;
        }
        ms = strtoul(optarg, NULL, 0);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("begin clock %llu\n", (unsigned long long)now_ns());
    for (size_t k = 0; k < sizeof groups / sizeof *groups; k++)
        for (const struct bench *b = groups[k]; b->name; b++)
            if (wanted(b, argv + optind))
                measure(b, ms * 1000000);
    printf("end clock %llu\n", (unsigned long long)now_ns());
    return 0;
}

/*
 * Stands in for libFuzzer where there is none: runs a target on the files of a corpus, then on mutations of them, the
 * same ones each time. When the target dies, the input is left in the file crash-input.
 *
 *   replay MUTATIONS FILE-OR-DIRECTORY...
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/fd.h"
#include "target.h"

#define INPUT_MAX 32768
#define FILES_MAX 2048

struct input {
    char *name;
    uint8_t *data;
    size_t size;
};

static struct input files[FILES_MAX];
static unsigned nfiles;
static uint8_t current[INPUT_MAX];
static size_t current_size;
static uint64_t seed = 0x2545f4914f6cdd1d;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static void leave_input(void)
{
    static const char note[] = "replay: the input is left in crash-input\n";
    int fd = open("crash-input", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd >= 0 && write(fd, current, current_size) == (ssize_t)current_size)
        current_size = (size_t)write(STDERR_FILENO, note, sizeof note - 1);
}

static void on_signal(int sig)
{
    leave_input();
    raise(sig); /* as it would have been: SA_RESETHAND */
}

/* There in builds with a sanitizer. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void run(void)
{
    /* Of its own size, so that ASan sees a byte read behind it. */
    uint8_t *copy = malloc(MAX(current_size, 1));
    MUST(copy);
    memcpy(copy, current, current_size);
    LLVMFuzzerTestOneInput(copy, current_size);
    free(copy);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct input *)a)->name, ((const struct input *)b)->name);
}

static void add(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        perror(path);
        exit(2);
    }
    if (S_ISDIR(st.st_mode)) {
        DIR *dir = opendir(path);
        for (struct dirent *e; dir && (e = readdir(dir));) {
            autofree char *name = xasprintf("%s/%s", path, e->d_name);
            if (e->d_name[0] != '.')
                add(name);
        }
        if (dir)
            closedir(dir);
        return;
    }
    autofd int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (nfiles == FILES_MAX || st.st_size > INPUT_MAX || fd < 0) {
        fprintf(stderr, "%s: too many, too large or unreadable\n", path);
        exit(2);
    }
    struct input *f = &files[nfiles++];
    *f = (struct input){xstrdup(path), xcalloc(1, (size_t)st.st_size + 1), (size_t)st.st_size};
    MUST(fd_read_full(fd, f->data, f->size) == 0);
}

/* Puts `n` bytes at `at`, as far as there is room. */
static void insert(size_t at, const uint8_t *p, size_t n)
{
    n = MIN(n, INPUT_MAX - current_size);
    memmove(current + at + n, current + at, current_size - at);
    memcpy(current + at, p, n);
    current_size += n;
}

static void erase(size_t at, size_t n)
{
    memmove(current + at, current + at + n, current_size - at - n);
    current_size -= n;
}

static void mutate(void)
{
    static const uint64_t numbers[] = {0,
                                       1,
                                       0x7f,
                                       0x80,
                                       0xff,
                                       0x7fff,
                                       0x8000,
                                       0xffff,
                                       0x10000,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       0x7fffffffffffffff,
                                       0x8000000000000000,
                                       UINT64_MAX};
    uint8_t bytes[8];
    if (!current_size)
        insert(0, (const uint8_t *)"x", 1);
    size_t at = rnd() % current_size, left = current_size - at, n;
    const struct input *f = &files[rnd() % nfiles];
    switch (rnd() % 8) {
    case 0:
        current[at] ^= (uint8_t)BIT(rnd() % 8);
        break;
    case 1:
        current[at] = (uint8_t)rnd();
        break;
    case 2:
        le64_put(bytes, numbers[rnd() % ARRAY_SIZE(numbers)] + (rnd() % 4 ? 0 : rnd() % 3 - 1));
        n = MIN((size_t)1 << rnd() % 4, left);
        memcpy(current + at, bytes, n);
        break;
    case 3:
        erase(at, 1 + rnd() % MIN(left, 32));
        break;
    case 4: /* repeated */
        n = 1 + rnd() % MIN(left, 16);
        memcpy(bytes, current + at, MIN(n, 8));
        insert(at, bytes, MIN(n, 8));
        break;
    case 5: /* a piece of another file, in between or instead */
        if (f->size) {
            size_t from = rnd() % f->size;
            n = 1 + rnd() % MIN(f->size - from, 64);
            if (rnd() % 2)
                erase(at, MIN(n, left));
            insert(at, f->data + from, n);
        }
        break;
    case 6:
        current[at] += (uint8_t)(rnd() % 9 - 4);
        break;
    case 7:
        if (rnd() % 4 == 0)
            erase(at, left);
        else
            le64_put(bytes, rnd()), insert(at, bytes, 1 + rnd() % 4);
        break;
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    for (int i = 2; i < argc; i++)
        add(argv[i]);
    if (!nfiles) {
        fprintf(stderr, "replay: no corpus\n");
        return 2;
    }
    qsort(files, nfiles, sizeof files[0], by_name);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(leave_input);
    static const int signals[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};
    for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
        if (!i || !__sanitizer_set_death_callback)
            sigaction(signals[i], &sa, NULL);
    unsigned long mutations = strtoul(argv[1], NULL, 0);
    for (unsigned long i = 0; i < nfiles + mutations; i++) {
        const struct input *f = &files[i < nfiles ? i : rnd() % nfiles];
        memcpy(current, f->data, f->size);
        current_size = f->size;
        for (unsigned n = i < nfiles ? 0 : 1 + rnd() % 6; n; n--)
            mutate();
        run();
    }
    printf("%u files and %lu mutations of them\n", nfiles, mutations);
    for (unsigned i = 0; i < nfiles; i++) {
        free(files[i].name);
        free(files[i].data);
    }
    return 0;
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "state/state.h"

struct thing {
    uint32_t a;
    uint8_t b[3];
    uint64_t c;
};
static int check_thing(void *obj, uint32_t version, struct err *err)
{
    return ((struct thing *)obj)->a > 100 ? err_set(err, -EINVAL, "a is out of range") : 0;
}
static const struct state_field fields[] = {STATE_U(struct thing, a), STATE_ARRAY(struct thing, b),
                                            STATE_U(struct thing, c), STATE_END};
static const struct state_desc desc = {"thing", 1, 1, fields, NULL, check_thing};

static void what_is_saved_comes_back(void **s)
{
    struct thing in = {7, {1, 2, 3}, 1ull << 40}, out = {0};
    struct state_writer w = {0};
    state_save(&w, &desc, "0", &in);
    struct state_reader r = {w.data, w.len, 0};
    assert_int_equal(state_load(&r, &desc, "0", &out, NULL), 0);
    assert_int_equal(out.a, 7);
    assert_memory_equal(out.b, in.b, 3);
    assert_true(out.c == in.c);
    assert_int_equal(r.pos, r.len);
    state_writer_free(&w);
}

static void every_cut_and_every_flipped_byte_is_survived(void **s)
{
    struct thing in = {7, {1, 2, 3}, 9}, out;
    struct state_writer w = {0};
    struct err err;
    state_save(&w, &desc, "0", &in);
    for (size_t cut = 0; cut < w.len; cut++) {
        struct state_reader r = {w.data, cut, 0};
        assert_int_equal(state_load(&r, &desc, "0", &out, &err), -EINVAL);
    }
    for (size_t i = 0; i < w.len; i++) {
        w.data[i] ^= 0xff;
        struct state_reader r = {w.data, w.len, 0};
        state_load(&r, &desc, "0", &out, &err);
        w.data[i] ^= 0xff;
    }
    state_writer_free(&w);
}

static void values_that_cannot_be_are_refused(void **s)
{
    struct thing in = {101, {0}, 0}, out;
    struct state_writer w = {0};
    struct err err;
    state_save(&w, &desc, "0", &in);
    struct state_reader r = {w.data, w.len, 0};
    assert_int_equal(state_load(&r, &desc, "0", &out, &err), -EINVAL);
    assert_string_equal(err.msg, "a is out of range");
    state_writer_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_saved_comes_back),
        cmocka_unit_test(every_cut_and_every_flipped_byte_is_survived),
        cmocka_unit_test(values_that_cannot_be_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

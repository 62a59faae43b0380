#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/loop.h"

static void err_keeps_the_first_code_and_grows_in_front(void **s)
{
    struct err err = {0};
    assert_int_equal(err_set(&err, -22, "no %s", "cpu"), -22);
    err_prefix(&err, "guest.xml:%d", 4);
    assert_int_equal(err.code, -22);
    assert_string_equal(err.msg, "guest.xml:4: no cpu");
    assert_int_equal(err_errno(NULL, -2, "x"), -2);
}

static void err_stays_on_one_line(void **s)
{
    struct err err = {0};
    err_set(&err, -1, "disk '%s'", "a\nb\x1b[2J");
    assert_string_equal(err.msg, "disk 'a?b?[2J'");
    err_prefix(&err, "%s", "x\ty");
    assert_string_equal(err.msg, "x?y: disk 'a?b?[2J'");
    err_errno(&err, -2, "\r");
    assert_string_equal(err.msg, "?: No such file or directory");
}

static void err_cuts_long_messages(void **s)
{
    struct err err = {0};
    char big[2000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    err_set(&err, -1, "%s", big);
    assert_int_equal(strlen(err.msg), ERR_MSG_MAX - 1);
    err_prefix(&err, "%s", big);
    assert_int_equal(strlen(err.msg), ERR_MSG_MAX - 1);
}

struct fired {
    struct loop *loop;
    int order[8], n, quit_at;
};
struct one {
    struct fired *f;
    int id;
};
static void note(void *opaque)
{
    struct one *o = opaque;
    o->f->order[o->f->n++] = o->id;
    if (o->f->n == o->f->quit_at)
        loop_quit(o->f->loop);
}

static void timers_fire_in_order_and_posts_wake(void **s)
{
    struct clock clk;
    clock_init(&clk, 1000);
    clock_start(&clk);
    struct fired f = {.quit_at = 4};
    assert_int_equal(loop_new(&f.loop, NULL), 0);
    struct one a = {&f, 1}, b = {&f, 2}, c = {&f, 3}, p = {&f, 4};
    struct timer ta, tb, tc, td;
    timer_init(&ta, f.loop, &clk, note, &a);
    timer_init(&tb, f.loop, &clk, note, &b);
    timer_init(&tc, f.loop, &clk, note, &c);
    timer_init(&td, f.loop, &clk, note, &c);
    uint64_t now = clock_now(&clk);
    timer_arm(&tc, now + 6000000);
    timer_arm(&ta, now + 1000000);
    timer_arm(&tb, now + 2000000);
    timer_arm(&td, now + 3000000);
    timer_cancel(&td);
    assert_false(timer_armed(&td));
    loop_post(f.loop, note, &p);
    loop_run(f.loop);
    assert_int_equal(f.order[0], 4);
    assert_int_equal(f.order[1], 1);
    assert_int_equal(f.order[2], 2);
    assert_int_equal(f.order[3], 3);
    loop_free(f.loop);
}

static void posts_of_one_who_left_are_dropped(void **s)
{
    struct fired f = {.quit_at = 2};
    assert_int_equal(loop_new(&f.loop, NULL), 0);
    struct one a = {&f, 1}, b = {&f, 2};
    loop_post(f.loop, note, &a);
    loop_post(f.loop, note, &b);
    loop_post(f.loop, note, &a);
    loop_unpost(f.loop, &a);
    loop_post(f.loop, note, &b);
    loop_run(f.loop);
    assert_int_equal(f.n, 2);
    assert_int_equal(f.order[0], 2);
    assert_int_equal(f.order[1], 2);
    loop_free(f.loop);
}

static void a_stopped_clock_holds_its_timers(void **s)
{
    struct clock clk;
    clock_init(&clk, 0);
    struct fired f = {.quit_at = 1};
    assert_int_equal(loop_new(&f.loop, NULL), 0);
    struct one a = {&f, 1};
    struct timer t;
    timer_init(&t, f.loop, &clk, note, &a);
    timer_arm(&t, 1000);
    loop_poll(f.loop, 5);
    assert_int_equal(f.n, 0);
    clock_start(&clk);
    loop_clock_changed(f.loop);
    loop_run(f.loop);
    assert_int_equal(f.n, 1);
    loop_free(f.loop);
}

struct when {
    struct clock *clock;
    uint64_t at[4];
    unsigned n;
};

static void note_time(void *opaque)
{
    struct when *w = opaque;
    w->at[w->n++] = clock_now(w->clock);
}

static void a_manual_clock_fires_each_timer_at_its_time(void **s)
{
    struct clock clk;
    struct loop *loop;
    struct when w = {.clock = &clk};
    struct timer a, b, late;
    clock_init_manual(&clk, 1000);
    clock_start(&clk); /* has no effect: it moves by hand only */
    assert_int_equal(loop_new(&loop, NULL), 0);
    timer_init(&a, loop, &clk, note_time, &w);
    timer_init(&b, loop, &clk, note_time, &w);
    timer_init(&late, loop, &clk, note_time, &w);
    timer_arm(&a, 3000);
    timer_arm(&b, 2000);
    timer_arm(&late, 9000);
    loop_advance(loop, &clk, 500);
    assert_int_equal(w.n, 0);
    loop_advance(loop, &clk, 4500);
    assert_int_equal(w.n, 2);
    assert_true(w.at[0] == 2000 && w.at[1] == 3000);
    assert_true(clock_now(&clk) == 6000);
    timer_cancel(&late);
    loop_free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_keeps_the_first_code_and_grows_in_front),
        cmocka_unit_test(err_stays_on_one_line),
        cmocka_unit_test(err_cuts_long_messages),
        cmocka_unit_test(timers_fire_in_order_and_posts_wake),
        cmocka_unit_test(posts_of_one_who_left_are_dropped),
        cmocka_unit_test(a_stopped_clock_holds_its_timers),
        cmocka_unit_test(a_manual_clock_fires_each_timer_at_its_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

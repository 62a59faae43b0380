/* src/daemon: what needs no client: files written whole, key numbers, and the CPU models that clients are told of. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "cpu/models.h"
#include "daemon/guest.h"
#include "daemon/host.h"
#include "daemon/keycodes.h"

static void clients_are_told_of_the_models_there_are(void **s)
{
    unsigned n = 0;
    while (caps_cpu_models[n] && cpu_models[n].name) {
        assert_string_equal(caps_cpu_models[n], cpu_models[n].name);
        n++;
    }
    assert_null(caps_cpu_models[n]);
    assert_null(cpu_models[n].name);
}

static void keys_have_pc_numbers(void **s)
{
    assert_int_equal(keycode_to_qnum(0, 29), 0x1d);  /* left control */
    assert_int_equal(keycode_to_qnum(0, 111), 0xd3); /* delete */
    assert_int_equal(keycode_to_qnum(0, 100), 0xb8); /* right alt */
    assert_int_equal(keycode_to_qnum(0, 250), -1);
    assert_int_equal(keycode_to_qnum(9, 0xd3), 0xd3);
    assert_int_equal(keycode_to_qnum(7, 4), -1);
}

static void a_file_is_written_whole_or_not_at_all(void **s)
{
    char dir[] = "/tmp/test-daemon-XXXXXX";
    assert_non_null(mkdtemp(dir));
    autofree char *path = xasprintf("%s/x.xml", dir);
    autofree char *temp = xasprintf("%s/.new", dir);
    size_t len;
    assert_int_equal(store_write_file(path, "one", 3, true), 0);
    assert_int_equal(store_write_file(path, "second", 6, true), 0);
    /* The temporary file cannot be made: the old contents stay. */
    assert_int_equal(mkdir(temp, 0700), 0);
    assert_true(store_write_file(path, "third", 5, true) < 0);
    autofree char *text = store_read_file(path, &len);
    assert_string_equal(text, "second");
    assert_int_equal(len, 6);
    rmdir(temp);
    unlink(path);
    assert_int_equal(rmdir(dir), 0);
    assert_null(store_read_file("/dev/zero", &len));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clients_are_told_of_the_models_there_are),
        cmocka_unit_test(keys_have_pc_numbers),
        cmocka_unit_test(a_file_is_written_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

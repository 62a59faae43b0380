/* src/rpc/: packets, procedures, errors, typed parameters and passed descriptors. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "rpc/error.h"
#include "rpc/frame.h"
#include "rpc/params.h"
#include "rpc/procs.h"

static const struct rpc_header call = {RPC_REMOTE_PROGRAM, RPC_VERSION, RPC_PROC_DOMAIN_LOOKUP_BY_NAME,
                                       RPC_TYPE_CALL,      7,           0};

static void test_packet_bytes(void **state)
{
    /* DOMAIN_LOOKUP_BY_NAME("vm1") as libvirt's client puts it on the wire. */
    static const uint8_t want[] = {0, 0, 0, 36, 0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 0,   23,  0,   0,
                                   0, 0, 0, 0,  0,    7, 0,    0,    0, 0, 0, 0, 0, 3, 'v', 'm', '1', 0};
    struct rpc_buf b = {0};
    rp_string name = (char *)"vm1";
    const struct rpc_proc *p = rpc_proc_find(call.program, call.procedure);
    assert_non_null(p);
    assert_string_equal(p->name, "DOMAIN_LOOKUP_BY_NAME");
    assert_int_equal(rpc_encode(&b, &call, 0, p->args, &name), 0);
    assert_int_equal(b.len, sizeof(want));
    assert_memory_equal(b.data, want, sizeof(want));

    uint32_t len;
    struct rpc_header h;
    assert_int_equal(rpc_header_decode(b.data, &len, &h, NULL), 0);
    assert_int_equal(len, b.len);
    assert_memory_equal(&h, &call, sizeof(h));
    rp_string got;
    assert_int_equal(rpc_decode(b.data + RPC_PREFIX_SIZE, len - RPC_PREFIX_SIZE, p->args, &got, sizeof(got)), 0);
    assert_string_equal(got, "vm1");
    rpc_free(p->args, &got);
    rpc_buf_free(&b);
}

static void test_hostile_header(void **state)
{
    uint8_t p[RPC_PREFIX_SIZE] = {0, 0, 0, 27};
    uint32_t len;
    struct rpc_header h;
    struct err err = {0};
    assert_int_equal(rpc_header_decode(p, &len, &h, &err), -EBADMSG);
    memcpy(p, "\x02\x00\x00\x05", 4); /* one more than the limit */
    assert_int_equal(rpc_header_decode(p, &len, &h, NULL), -EBADMSG);
    memcpy(p, "\x02\x00\x00\x04", 4);
    assert_int_equal(rpc_header_decode(p, &len, &h, NULL), 0);
    p[19] = 7; /* type */
    assert_int_equal(rpc_header_decode(p, &len, &h, NULL), -EBADMSG);
    p[19] = 0;
    p[27] = 3; /* status */
    assert_int_equal(rpc_header_decode(p, &len, &h, NULL), -EBADMSG);
}

static void test_hostile_payload(void **state)
{
    const struct rpc_proc *p = rpc_proc_find(RPC_REMOTE_PROGRAM, RPC_PROC_CONNECT_GET_ALL_DOMAIN_STATS);
    rp_all_stats_args args;
    static const uint8_t many[] = {0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0};
    assert_int_equal(rpc_decode(many, sizeof(many), p->args, &args, sizeof(args)), -EBADMSG);
    static const uint8_t cut[] = {0, 0, 0x3f, 0xff, 0, 0, 0, 1, 'x', 0};
    assert_int_equal(rpc_decode(cut, sizeof(cut), p->args, &args, sizeof(args)), -EBADMSG);
    assert_null(args.doms.doms_val);
    rp_param param;
    static const uint8_t type[] = {0, 0, 0, 1, 'x', 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0}; /* a type that does not exist */
    assert_int_equal(rpc_decode(type, sizeof(type), (rpc_xdr_fn)(void *)xdr_rp_param, &param, sizeof(param)), -EBADMSG);
    const uint8_t *payload = many;
    size_t len = sizeof(many);
    unsigned nfds;
    assert_int_equal(rpc_payload_nfds(&payload, &len, &nfds), -EBADMSG);
}

/* Every procedure's types go with XDR's functions: an empty value survives the way there and back, and any prefix is
 * refused cleanly. */
static void test_all_procedures(void **state)
{
    int count = 0;
    for (int n = 0; n < 1000; n++) {
        const struct rpc_proc *p = rpc_proc_find(n < 500 ? RPC_REMOTE_PROGRAM : RPC_QEMU_PROGRAM, n % 500);
        if (!p)
            continue;
        count++;
        for (int i = 0; i < 2; i++) {
            rpc_xdr_fn xdr = i ? p->ret : p->args;
            size_t size = i ? p->ret_size : p->args_size;
            static const uint8_t zero[512];
            static const uint8_t ones[2048] = {[3] = 1, [7] = 1, [11] = 1, [15] = 1, [19] = 1, [23] = 1};
            autofree void *v = xcalloc(1, size);
            if (rpc_decode(zero, sizeof(zero), xdr, v, size) == 0) {
                struct rpc_buf b = {0};
                assert_int_equal(rpc_encode(&b, &call, 0, xdr, v), 0);
                rpc_buf_free(&b);
                rpc_free(xdr, v);
            }
            for (size_t len = 0; len < 64; len += 4)
                if (rpc_decode(ones, len, xdr, v, size) == 0)
                    rpc_free(xdr, v);
        }
    }
    assert_true(count > 300);
}

static void test_errors(void **state)
{
    struct rpc_error e, got;
    assert_int_equal(rpc_error_set(&e, VIR_NO_DOMAIN, VIR_FROM_QEMU, "no domain with matching name '%s'", "x"), -1);
    struct rpc_buf b = {0};
    assert_int_equal(rpc_encode_error(&b, &call, &e), 0);
    struct rpc_header h;
    uint32_t len;
    assert_int_equal(rpc_header_decode(b.data, &len, &h, NULL), 0);
    assert_int_equal(h.type, RPC_TYPE_REPLY);
    assert_int_equal(h.status, RPC_STATUS_ERROR);
    assert_int_equal(rpc_decode_error(b.data + RPC_PREFIX_SIZE, len - RPC_PREFIX_SIZE, &got), 0);
    assert_int_equal(got.code, 42);
    assert_string_equal(got.message, "Domain not found: no domain with matching name 'x'");
    assert_int_equal(rpc_decode_error(b.data + RPC_PREFIX_SIZE, 9, &got), -EBADMSG);
    assert_int_equal(got.code, VIR_RPC);
    rpc_buf_free(&b);
}

static void test_impossible_values(void **state)
{
    struct rpc_buf b = {0};
    rp_string missing = NULL;
    assert_int_equal(rpc_encode(&b, &call, 0, (rpc_xdr_fn)(void *)xdr_rp_string, &missing), -EINVAL);
    assert_int_equal(b.len, 0);
    rpc_buf_free(&b);
}

static void test_params(void **state)
{
    struct rpc_params p = {0};
    rpc_params_uint(&p, 3, "vcpu.%d.state", 1);
    rpc_params_string(&p, "vda", "block.%d.name", 0);
    rpc_params_double(&p, 0.5, "load");
    rpc_params_bool(&p, true, "on");
    rpc_params_llong(&p, -1, "quota");
    rp_params out = {{p.n, p.v}}, in;
    struct rpc_buf b = {0};
    assert_int_equal(rpc_encode(&b, &call, 0, (rpc_xdr_fn)(void *)xdr_rp_params, &out), 0);
    assert_int_equal(rpc_decode(b.data + RPC_PREFIX_SIZE, b.len - RPC_PREFIX_SIZE, (rpc_xdr_fn)(void *)xdr_rp_params,
                                &in, sizeof(in)),
                     0);
    unsigned long long v;
    assert_true(rpc_param_u64(in.params.params_val, in.params.params_len, "vcpu.1.state", &v));
    assert_int_equal(v, 3);
    assert_false(rpc_param_u64(in.params.params_val, in.params.params_len, "quota", &v));
    autofree char *name = rpc_param_text(rpc_param_find(in.params.params_val, in.params.params_len, "block.0.name"));
    autofree char *load = rpc_param_text(rpc_param_find(in.params.params_val, in.params.params_len, "load"));
    assert_string_equal(name, "vda");
    assert_string_equal(load, "0.500000");
    rpc_free((rpc_xdr_fn)(void *)xdr_rp_params, &in);
    rpc_params_free(&p);
    rpc_buf_free(&b);
}

static void test_descriptors(void **state)
{
    int sv[2], pipefd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv), 0);
    assert_int_equal(pipe(pipefd), 0);
    assert_int_equal(rpc_recv_fd(sv[1]), -EAGAIN);
    assert_int_equal(rpc_send_fd(sv[0], pipefd[1]), 0);
    assert_int_equal(write(sv[0], "x", 1), 1);
    autofd int got = rpc_recv_fd(sv[1]);
    assert_true(got >= 0);
    assert_int_equal(rpc_recv_fd(sv[1]), -EBADMSG);
    assert_int_equal(write(got, "y", 1), 1);
    char c;
    assert_int_equal(read(pipefd[0], &c, 1), 1);
    for (int i = 0; i < 2; i++) {
        close(sv[i]);
        close(pipefd[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packet_bytes),    cmocka_unit_test(test_hostile_header),
        cmocka_unit_test(test_hostile_payload), cmocka_unit_test(test_all_procedures),
        cmocka_unit_test(test_errors),          cmocka_unit_test(test_impossible_values),
        cmocka_unit_test(test_params),          cmocka_unit_test(test_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

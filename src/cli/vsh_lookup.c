/* The connection, and the objects that options name. See vsh.h. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/session.h"
#include "cli/vsh.h"

bool vsh_connect(struct vsh *v)
{
    if (v->conn && !client_dead(v->conn))
        return true;
    bool again = v->conn != NULL;
    vsh_disconnect(v);
    const struct client_options o = {
        .readonly = v->readonly,
        .start_session = session_start,
        .idle_seconds = v->keepalive_interval,
        .idle_count = v->keepalive_count,
    };
    if (client_open(client_default_uri(v->uri), &o, &v->conn, &v->error) < 0) {
        v->conn = NULL;
        return vsh_error(v, again ? "Failed to reconnect to the hypervisor" : "failed to connect to the hypervisor");
    }
    if (again)
        vsh_error(v, "Reconnected to the hypervisor");
    return true;
}

void vsh_disconnect(struct vsh *v)
{
    client_close(v->conn);
    v->conn = NULL;
}

bool vsh_call(struct vsh *v, int proc, const void *args, void *ret)
{
    return client_call(v->conn, proc, args, ret, &v->error) == 0;
}

void vsh_error_reset(struct vsh *v)
{
    v->error = (struct rpc_error){0};
}

void vsh_uuid_text(const rp_uuid *u, char ret[37])
{
    const uint8_t *b = (const uint8_t *)u->bytes;
    snprintf(ret, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

bool vsh_uuid_parse(const char *text, rp_uuid *ret)
{
    unsigned digits = 0;
    for (; *text; text++) {
        if (*text == '-')
            continue;
        int c = tolower((unsigned char)*text), d = isdigit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (d < 0 || digits == 32)
            return false;
        uint8_t *b = (uint8_t *)&ret->bytes[digits / 2];
        *b = digits % 2 ? *b | d : d << 4;
        digits++;
    }
    return digits == 32;
}

/* Tries UUID and name, as `how` says, with the two procedures. */
static bool find_object(struct vsh *v, const char *text, unsigned how, int by_uuid, int by_name, void *ret)
{
    rp_uuid uuid;
    if ((how & VSH_BY_UUID) && strlen(text) == 36 && vsh_uuid_parse(text, &uuid) && vsh_call(v, by_uuid, &uuid, ret)) {
        vsh_error_reset(v);
        return true;
    }
    rp_string name = (char *)text;
    if (!(how & VSH_BY_NAME) || !vsh_call(v, by_name, &name, ret))
        return false;
    vsh_error_reset(v);
    return true;
}

bool vsh_domain_find(struct vsh *v, const char *text, unsigned how, rp_domain *ret)
{
    char *end;
    errno = 0;
    long id = strtol(text, &end, 10);
    rp_int number = id;
    bool found = (how & VSH_BY_ID) && !errno && end > text && !*end && id >= 0 && id <= INT_MAX &&
                 vsh_call(v, RPC_PROC_DOMAIN_LOOKUP_BY_ID, &number, ret);
    if (!found)
        found = find_object(v, text, how, RPC_PROC_DOMAIN_LOOKUP_BY_UUID, RPC_PROC_DOMAIN_LOOKUP_BY_NAME, ret);
    if (!found && v->conn && client_dead(v->conn))
        return false;
    vsh_error_reset(v);
    return found || vsh_error(v, "failed to get domain '%s'", text);
}

bool vsh_domain(struct vsh *v, const struct vsh_args *a, rp_domain *ret)
{
    const char *text = vsh_text(a, "domain");
    *ret = (rp_domain){0};
    return text && vsh_domain_find(v, text, VSH_BY_ANY, ret);
}

bool vsh_network_find(struct vsh *v, const char *text, unsigned how, rp_network *ret)
{
    *ret = (rp_network){0};
    return find_object(v, text, how, RPC_PROC_NETWORK_LOOKUP_BY_UUID, RPC_PROC_NETWORK_LOOKUP_BY_NAME, ret) ||
           vsh_error(v, "failed to get network '%s'", text);
}

bool vsh_network(struct vsh *v, const struct vsh_args *a, rp_network *ret)
{
    return vsh_network_find(v, vsh_text(a, "network"), VSH_BY_ANY, ret);
}

bool vsh_pool_find(struct vsh *v, const char *text, unsigned how, rp_pool *ret)
{
    *ret = (rp_pool){0};
    return find_object(v, text, how, RPC_PROC_STORAGE_POOL_LOOKUP_BY_UUID, RPC_PROC_STORAGE_POOL_LOOKUP_BY_NAME, ret) ||
           vsh_error(v, "failed to get pool '%s'", text);
}

bool vsh_pool(struct vsh *v, const struct vsh_args *a, const char *option, rp_pool *ret)
{
    return vsh_pool_find(v, vsh_text(a, option), VSH_BY_ANY, ret);
}

bool vsh_vol(struct vsh *v, const struct vsh_args *a, const char *option, const char *pool_option, rp_vol *ret)
{
    rp_string text = (char *)vsh_text(a, option);
    const char *pool_text = pool_option ? vsh_text(a, pool_option) : NULL;
    autopool pool = {0};
    *ret = (rp_vol){0};
    if (pool_text) {
        if (!vsh_pool_find(v, pool_text, VSH_BY_ANY, &pool))
            return false;
        rp_int active;
        if (vsh_call(v, RPC_PROC_STORAGE_POOL_IS_ACTIVE, &pool, &active) && active != 1)
            return vsh_error(v, "pool '%s' is not active", pool_text);
        const rp_pool_str by_name = {pool, text};
        if (vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_NAME, &by_name, ret)) {
            vsh_error_reset(v);
            return true;
        }
    }
    if (vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_KEY, &text, ret) ||
        vsh_call(v, RPC_PROC_STORAGE_VOL_LOOKUP_BY_PATH, &text, ret)) {
        vsh_error_reset(v);
        if (!pool_text)
            return true;
        /* Found, but is it in that pool? */
        autopool of = {0};
        if (!vsh_call(v, RPC_PROC_STORAGE_POOL_LOOKUP_BY_VOLUME, ret, &of) || strcmp(of.name, pool.name) != 0)
            return vsh_error(v, "Requested volume '%s' is not in pool '%s'", text, pool.name);
        return true;
    }
    if (pool_text || !pool_option)
        return vsh_error(v, "failed to get vol '%s'", text);
    return vsh_error(v, "failed to get vol '%s', specifying --pool might help", text);
}

bool vsh_snapshot(struct vsh *v, rp_domain *dom, const char *name, rp_snapshot *ret)
{
    const rp_dom_str_flags args = {*dom, (char *)name, 0};
    *ret = (rp_snapshot){0};
    return vsh_call(v, RPC_PROC_DOMAIN_SNAPSHOT_LOOKUP_BY_NAME, &args, ret);
}

void vsh_free_domain(rp_domain *d)
{
    rpc_free((rpc_xdr_fn)(void *)xdr_rp_domain, d);
}

void vsh_free_network(rp_network *n)
{
    rpc_free((rpc_xdr_fn)(void *)xdr_rp_network, n);
}

void vsh_free_pool(rp_pool *p)
{
    rpc_free((rpc_xdr_fn)(void *)xdr_rp_pool, p);
}

void vsh_free_vol(rp_vol *vol)
{
    rpc_free((rpc_xdr_fn)(void *)xdr_rp_vol, vol);
}

void vsh_free_snapshot(rp_snapshot *s)
{
    rpc_free((rpc_xdr_fn)(void *)xdr_rp_snapshot, s);
}

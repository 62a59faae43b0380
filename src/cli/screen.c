/* What can be seen of a domain and typed into it: displays, screenshots, keys, its monitor and agent. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/dom.h"
#include "domain/xml.h"

static const struct xml_node *graphics(const struct xml_node *root, const char *type)
{
    const struct xml_node *devices = xml_child(root, "devices");
    for (const struct xml_node *d = devices ? devices->first : NULL; d; d = d->next)
        if (!strcmp(d->name, "graphics") && xml_attr_get(d, "type") && !strcmp(xml_attr_get(d, "type"), type))
            return d;
    return NULL;
}

static const char *listen_address(const struct xml_node *g)
{
    const char *address = xml_attr_get(g, "listen");
    const struct xml_node *l = xml_child(g, "listen");
    return address ? address : l ? xml_attr_get(l, "address") : NULL;
}

/* The document of a running domain; NULL: said so. */
static struct xml_node *running_document(struct vsh *v, const struct vsh_args *a, rp_domain *dom, unsigned flags)
{
    if (!vsh_domain(v, a, dom))
        return NULL;
    int active = dom_flag(v, RPC_PROC_DOMAIN_IS_ACTIVE, dom);
    if (active == 0)
        vsh_error(v, "Domain is not running");
    return active ? vsh_domain_xml(v, dom, flags) : NULL;
}

bool cmd_vncdisplay(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    autoxml root = running_document(v, a, &dom, 0);
    if (!root)
        return false;
    const struct xml_node *g = graphics(root, "vnc");
    const char *port = g ? xml_attr_get(g, "port") : NULL;
    if (!port)
        return vsh_error(v, "Failed to get VNC port. Is this domain using VNC?");
    const char *address = listen_address(g);
    printf("%s:%d\n", address && strcmp(address, "0.0.0.0") != 0 ? address : "", atoi(port) - 5900);
    return true;
}

/* "vnc://127.0.0.1:0"; NULL: there is none of that type. The caller frees it. */
static char *display_uri(const struct xml_node *root, const char *type, bool password)
{
    const struct xml_node *g = graphics(root, type), *l = g ? xml_child(g, "listen") : NULL;
    if (!g)
        return NULL;
    const char *port = xml_attr_get(g, "port"), *tls = xml_attr_get(g, "tlsPort"), *address = listen_address(g);
    const char *socket = xml_attr_get(g, "socket"), *secret = password ? xml_attr_get(g, "passwd") : NULL;
    if (!socket && l && xml_attr_get(l, "type") && !strcmp(xml_attr_get(l, "type"), "socket"))
        socket = xml_attr_get(l, "socket");
    if (!port && !tls && !socket)
        return NULL;
    if (socket && !port)
        return secret ? xasprintf("%s+unix://:%s@%s", type, secret, socket) : xasprintf("%s+unix://%s", type, socket);
    bool any = !address || !strcmp(address, "0.0.0.0") || !strcmp(address, "::");
    bool six = address && strchr(address, ':');
    bool vnc = !strcmp(type, "vnc");
    const char *host = any ? "localhost" : address;
    autofree char *auth = secret && vnc ? xasprintf(":%s@", secret) : xstrdup("");
    autofree char *number = port ? vnc ? xasprintf(":%d", atoi(port) - 5900) : xasprintf(":%s", port) : xstrdup("");
    autofree char *more = tls && atoi(tls) > 0 ? xasprintf("?tls-port=%s", tls) : xstrdup("");
    autofree char *pass = secret && !vnc ? xasprintf("%spassword=%s", *more ? "&" : "?", secret) : xstrdup("");
    return xasprintf(!any && six ? "%s://%s[%s]%s%s%s" : "%s://%s%s%s%s%s", type, auth, host, number, more, pass);
}

bool cmd_domdisplay(struct vsh *v, const struct vsh_args *a)
{
    static const char *const types[] = {"vnc", "spice", "rdp"};
    autodomain dom = {0};
    const char *type = vsh_text(a, "type");
    bool all = vsh_has(a, "all"), found = false, password = vsh_has(a, "include-password");
    if (!vsh_exclusive(v, a, "all", "type"))
        return false;
    autoxml root = running_document(v, a, &dom, password ? DOM_XML_SECURE : 0);
    if (!root)
        return false;
    for (unsigned i = 0; i < 3 && (all || !found); i++) {
        if (type && strcmp(type, types[i]) != 0)
            continue;
        autofree char *uri = display_uri(root, types[i], password);
        if (!uri)
            continue;
        printf("%s%s", uri, all ? "\n" : "");
        found = true;
    }
    if (!found && type)
        return vsh_error(v, "No graphical display with type '%s' found", type);
    return found || vsh_error(v, "No graphical display found");
}

bool cmd_ttyconsole(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    autoxml root = vsh_domain_xml(v, &dom, 0);
    const struct xml_node *devices = root ? xml_child(root, "devices") : NULL;
    const struct xml_node *console = devices ? xml_child(devices, "console") : NULL;
    const char *tty = console ? xml_attr_get(console, "tty") : NULL;
    if (tty)
        puts(tty);
    return tty != NULL;
}

static bool save_stream(struct vsh *v, struct client_stream *s, int fd)
{
    const uint8_t *data;
    uint64_t hole;
    ssize_t n;
    while ((n = client_stream_recv(s, -1, &data, &hole, &v->error)) > 0)
        if (hole || fd_write_full(fd, data, n) < 0)
            return false;
    return n == 0;
}

bool cmd_screenshot(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    unsigned screen = 0;
    if (!vsh_uint(v, a, "screen", &screen) || !vsh_domain(v, a, &dom))
        return false;
    const rp_dom_uint_flags args = {dom, screen, 0};
    rp_opt_string mime = NULL;
    struct client_stream *s;
    const char *name = vsh_text(a, "domain");
    if (client_stream_open(v->conn, RPC_PROC_DOMAIN_SCREENSHOT, &args, &mime, &s, &v->error) < 0)
        return vsh_error(v, "could not take a screenshot of %s", name);
    const char *kind = mime ? *mime : "", *ext = strstr(kind, "png")                             ? ".png"
                                                 : strstr(kind, "ppm") || strstr(kind, "pixmap") ? ".ppm"
                                                                                                 : "";
    time_t now = time(NULL);
    struct tm tm;
    char stamp[64] = "";
    if (localtime_r(&now, &tm))
        strftime(stamp, sizeof(stamp), "%Y-%m-%d-%H:%M:%S", &tm);
    autofree char *path =
        vsh_has(a, "file") ? xstrdup(vsh_text(a, "file")) : xasprintf("%s-%s%s", dom.name, stamp, ext);
    bool created = true;
    autofd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0 && errno == EEXIST) {
        created = false;
        fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
    }
    bool ok = fd >= 0;
    if (!ok) {
        client_stream_abort(s);
        vsh_error(v, "cannot create file %s", path);
    } else if (!(ok = save_stream(v, s, fd))) {
        client_stream_abort(s);
        vsh_error(v, "could not receive data from domain '%s'", name);
    } else if (client_stream_finish(s, &v->error) < 0) {
        ok = vsh_error(v, "cannot close stream on domain '%s'", name);
    }
    if (ok)
        vsh_extra(v, "Screenshot saved to %s, with type of %s", path, kind);
    else if (created && fd >= 0)
        unlink(path);
    client_result_free(RPC_PROC_DOMAIN_SCREENSHOT, &mime);
    return ok;
}

/* Linux's key codes (linux/input-event-codes.h), by name. */
static int key_code(const char *name)
{
    static const struct {
        const char *name;
        int code;
    } keys[] = {
        {"ESC", 1},        {"1", 2},           {"2", 3},          {"3", 4},           {"4", 5},
        {"5", 6},          {"6", 7},           {"7", 8},          {"8", 9},           {"9", 10},
        {"0", 11},         {"MINUS", 12},      {"EQUAL", 13},     {"BACKSPACE", 14},  {"TAB", 15},
        {"Q", 16},         {"W", 17},          {"E", 18},         {"R", 19},          {"T", 20},
        {"Y", 21},         {"U", 22},          {"I", 23},         {"O", 24},          {"P", 25},
        {"LEFTBRACE", 26}, {"RIGHTBRACE", 27}, {"ENTER", 28},     {"LEFTCTRL", 29},   {"A", 30},
        {"S", 31},         {"D", 32},          {"F", 33},         {"G", 34},          {"H", 35},
        {"J", 36},         {"K", 37},          {"L", 38},         {"SEMICOLON", 39},  {"APOSTROPHE", 40},
        {"GRAVE", 41},     {"LEFTSHIFT", 42},  {"BACKSLASH", 43}, {"Z", 44},          {"X", 45},
        {"C", 46},         {"V", 47},          {"B", 48},         {"N", 49},          {"M", 50},
        {"COMMA", 51},     {"DOT", 52},        {"SLASH", 53},     {"RIGHTSHIFT", 54}, {"KPASTERISK", 55},
        {"LEFTALT", 56},   {"SPACE", 57},      {"CAPSLOCK", 58},  {"F1", 59},         {"F2", 60},
        {"F3", 61},        {"F4", 62},         {"F5", 63},        {"F6", 64},         {"F7", 65},
        {"F8", 66},        {"F9", 67},         {"F10", 68},       {"NUMLOCK", 69},    {"SCROLLLOCK", 70},
        {"KP7", 71},       {"KP8", 72},        {"KP9", 73},       {"KPMINUS", 74},    {"KP4", 75},
        {"KP5", 76},       {"KP6", 77},        {"KPPLUS", 78},    {"KP1", 79},        {"KP2", 80},
        {"KP3", 81},       {"KP0", 82},        {"KPDOT", 83},     {"F11", 87},        {"F12", 88},
        {"KPENTER", 96},   {"RIGHTCTRL", 97},  {"KPSLASH", 98},   {"SYSRQ", 99},      {"RIGHTALT", 100},
        {"HOME", 102},     {"UP", 103},        {"PAGEUP", 104},   {"LEFT", 105},      {"RIGHT", 106},
        {"END", 107},      {"DOWN", 108},      {"PAGEDOWN", 109}, {"INSERT", 110},    {"DELETE", 111},
        {"POWER", 116},    {"PAUSE", 119},     {"LEFTMETA", 125}, {"RIGHTMETA", 126}, {"COMPOSE", 127},
    };
    if (strncmp(name, "KEY_", 4) != 0)
        return -1;
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (!strcmp(keys[i].name, name + 4))
            return keys[i].code;
    return -1;
}

bool cmd_send_key(struct vsh *v, const struct vsh_args *a)
{
    static const char *const sets[] = {"linux", "xt",     "atset1", "atset2", "atset3",
                                       "os_x",  "xt_kbd", "usb",    "win32",  "qnum"};
    autodomain dom = {0};
    const char *set = vsh_text(a, "codeset");
    unsigned codeset = 0, n = 0, at = 0, codes[RP_KEYS_MAX];
    int hold = 0;
    if (!vsh_domain(v, a, &dom) || !vsh_int(v, a, "holdtime", &hold))
        return false;
    while (set && codeset < 10 && strcmp(set, sets[codeset]) != 0)
        codeset++;
    if (set && !strcmp(set, "rfb"))
        codeset = 9;
    if (codeset == 10)
        return vsh_error(v, "unknown codeset: '%s'", set);
    for (const char *w; (w = vsh_word(a, "keycode", &at));) {
        if (n == RP_KEYS_MAX)
            return vsh_error(v, "too many keycodes");
        char *end;
        long code = strtol(w, &end, 0);
        if (*end || end == w || code <= 0 || code > 0xffff)
            code = codeset == 0 ? key_code(w) : -1;
        if (code <= 0)
            return vsh_error(v, "invalid keycode: '%s'", w);
        codes[n++] = code;
    }
    const rp_send_key args = {dom, codeset, hold, {n, codes}, 0};
    return vsh_call(v, RPC_PROC_DOMAIN_SEND_KEY, &args, NULL);
}

bool cmd_inject_nmi(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    if (!vsh_domain(v, a, &dom))
        return false;
    const rp_dom_flags args = {dom, 0};
    return vsh_call(v, RPC_PROC_DOMAIN_INJECT_NMI, &args, NULL);
}

/* The words of a '*' option, with blanks between. The caller frees it. */
static char *join(const struct vsh_args *a, const char *option)
{
    char *all = xstrdup("");
    unsigned at = 0;
    for (const char *w; (w = vsh_word(a, option, &at));) {
        char *longer = xasprintf("%s%s%s", all, *all ? " " : "", w);
        free(all);
        all = longer;
    }
    return all;
}

/* JSON with line breaks and indentation. */
static void print_pretty(const char *json)
{
    unsigned depth = 0;
    bool string = false;
    for (const char *p = json; *p; p++) {
        if (string) {
            putchar(*p);
            if (*p == '\\' && p[1])
                putchar(*++p);
            else if (*p == '"')
                string = false;
        } else if (*p == '"') {
            string = true;
            putchar(*p);
        } else if (*p == '{' || *p == '[') {
            putchar(*p);
            if (p[1] == '}' || p[1] == ']')
                putchar(*++p);
            else
                printf("\n%*s", (int)(depth < 64 ? ++depth : depth) * 2, "");
        } else if (*p == '}' || *p == ']') {
            printf("\n%*s%c", (int)(depth ? --depth : 0) * 2, "", *p);
        } else if (*p == ',') {
            printf(",\n%*s", (int)depth * 2, "");
        } else if (*p == ':') {
            fputs(": ", stdout);
        } else if (*p != ' ' && *p != '\n' && *p != '\r' && *p != '\t') {
            putchar(*p);
        }
    }
    putchar('\n');
}

bool cmd_qemu_monitor_command(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    bool hmp = vsh_has(a, "hmp");
    if (!vsh_exclusive(v, a, "hmp", "pretty") || !vsh_exclusive(v, a, "hmp", "return-value") || !vsh_domain(v, a, &dom))
        return false;
    autofree char *words = join(a, "cmd");
    /* A plain word is the name of a command without arguments. */
    autofree char *cmd = hmp || *words == '{' ? xstrdup(words) : xasprintf("{\"execute\": \"%s\"}", words);
    if (!hmp && *words != '{' && strpbrk(words, " \"\\"))
        return vsh_error(v, "failed to wrap arguments '%s' into a QMP command wrapper", words);
    const rp_dom_str_flags args = {dom, cmd, hmp};
    rp_string result;
    if (client_qemu_call(v->conn, RPC_PROC_QEMU_MONITOR_COMMAND, &args, &result, &v->error) < 0)
        return false;
    if (vsh_has(a, "pretty"))
        print_pretty(result);
    else
        puts(result);
    free(result);
    return true;
}

bool cmd_qemu_agent_command(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    int timeout = -2;
    if (!vsh_domain(v, a, &dom))
        return false;
    if (vsh_has(a, "timeout") + vsh_has(a, "async") + vsh_has(a, "block") > 1)
        return vsh_error(v, "timeout, async and block options are exclusive");
    if (vsh_has(a, "async"))
        timeout = 0;
    if (!vsh_int(v, a, "timeout", &timeout))
        return false;
    if (vsh_has(a, "timeout") && timeout < 1)
        return vsh_error(v, "timeout must be positive");
    autofree char *cmd = join(a, "cmd");
    const rp_agent_command args = {dom, cmd, timeout, 0};
    rp_opt_string result;
    if (client_qemu_call(v->conn, RPC_PROC_QEMU_AGENT_COMMAND, &args, &result, &v->error) < 0)
        return false;
    if (result && vsh_has(a, "pretty"))
        print_pretty(*result);
    else if (result)
        puts(*result);
    rpc_free(rpc_proc_find(RPC_QEMU_PROGRAM, RPC_PROC_QEMU_AGENT_COMMAND)->ret, &result);
    return true;
}

bool cmd_console(struct vsh *v, const struct vsh_args *a)
{
    autodomain dom = {0};
    return vsh_domain(v, a, &dom) &&
           vsh_console(v, &dom, vsh_text(a, "devname"), vsh_has(a, "force") | vsh_has(a, "safe") << 1);
}

/*
 * What an installation boots from: kernel and initial RAM disk of a tree, a URL or a CD image; files put into the RAM
 * disk; the disk that configures a cloud image. See install.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/install.h"

extern char **environ;

/* Where distributions keep what boots their installer, below their tree's top. */
static const struct {
    const char *kernel, *initrd;
} known[] = {
    {"install.amd/vmlinuz", "install.amd/initrd.gz"},
    {"current/images/netboot/debian-installer/amd64/linux", "current/images/netboot/debian-installer/amd64/initrd.gz"},
    {"main/installer-amd64/current/images/netboot/debian-installer/amd64/linux",
     "main/installer-amd64/current/images/netboot/debian-installer/amd64/initrd.gz"},
    {"netboot/debian-installer/amd64/linux", "netboot/debian-installer/amd64/initrd.gz"},
    {"images/netboot/debian-installer/amd64/linux", "images/netboot/debian-installer/amd64/initrd.gz"},
    {"debian-installer/amd64/linux", "debian-installer/amd64/initrd.gz"},
    {"images/pxeboot/vmlinuz", "images/pxeboot/initrd.img"},
    {"casper/vmlinuz", "casper/initrd"},
    {"boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"},
    {"boot/vmlinuz-lts", "boot/initramfs-lts"},
    {"boot/vmlinuz-virt", "boot/initramfs-virt"},
    {"live/vmlinuz", "live/initrd.img"},
    {"isolinux/vmlinuz", "isolinux/initrd.img"},
    {"vmlinuz", "initrd.img"},
    {"linux", "initrd.gz"},
};

/* Runs a program; true when it ended with 0. */
static bool run(char *const argv[])
{
    pid_t pid;
    int status, r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (r)
        return false;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* A new file that the guest's daemon can read; remembered for removal. A descriptor, or -1: said why. */
static int new_file(struct install *in, const char *suffix, char **ret_path)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    bool root = geteuid() == 0;
    autofree char *base = root              ? xstrdup("/var/lib/lodge")
                          : cache && *cache ? xasprintf("%s/lodge", cache)
                                            : xasprintf("%s/.cache/lodge", home ? home : "");
    autofree char *dir = xasprintf("%s/boot", base);
    if (!root) {
        autofree char *parent = xasprintf("%s/.cache", home ? home : "");
        mkdir(parent, 0700);
    }
    mkdir(base, 0755);
    mkdir(dir, 0755);
    char *path = xasprintf("%s/installXXXXXX%s", dir, suffix);
    int fd = mkostemps(path, strlen(suffix), O_CLOEXEC);
    if (fd < 0) {
        install_error("%s: %s", path, strerror(errno));
        free(path);
        return -1;
    }
    fchmod(fd, 0644);
    if (in->n_temporary < 4)
        in->temporary[in->n_temporary++] = xstrdup(path);
    *ret_path = path;
    return fd;
}

void install_media_forget(struct install *in)
{
    while (in->n_temporary) {
        unlink(in->temporary[--in->n_temporary]);
        free(in->temporary[in->n_temporary]);
    }
}

/* Copies `top`/`path` (a directory, a URL or an image) into `out`. Quiet when it is not there. */
static bool fetch(const char *top, const char *path, int out)
{
    struct stat st;
    if (ftruncate(out, 0) < 0 || lseek(out, 0, SEEK_SET) < 0)
        return false;
    if (strstr(top, "://")) {
        autofree char *url = xasprintf("%s/%s", top, path);
        autofree char *to = xasprintf("/proc/%d/fd/%d", getpid(), out);
        char *const curl[] = {(char *)"curl",
                              (char *)"-fsSL",
                              (char *)"--max-filesize",
                              (char *)"2147483648",
                              (char *)"-o",
                              to,
                              (char *)"--",
                              url,
                              NULL};
        char *const wget[] = {(char *)"wget", (char *)"-q", (char *)"-O", to, (char *)"--", url, NULL};
        return run(curl) || run(wget);
    }
    if (stat(top, &st) == 0 && S_ISDIR(st.st_mode)) {
        autofree char *file = xasprintf("%s/%s", top, path);
        autofd int fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return false;
        char buf[65536];
        ssize_t n;
        while ((n = read(fd, buf, sizeof(buf))) > 0)
            if (fd_write_full(out, buf, n) < 0)
                return false;
        return n == 0;
    }
    return iso_extract(top, path, out) == 0;
}

/* One file of a cpio archive ("newc"), padded. */
static int cpio_member(int fd, const char *name, const uint8_t *data, size_t len, unsigned mode, size_t *at)
{
    static const uint8_t zeros[4];
    char header[111];
    size_t name_len = strlen(name) + 1;
    snprintf(header, sizeof(header), "070701%08x%08x%08x%08x%08x%08x%08zx%08x%08x%08x%08x%08zx%08x", 0, mode, 0, 0, 1,
             0, len, 0, 0, 0, 0, name_len, 0);
    int r = fd_write_full(fd, header, 110);
    if (r == 0)
        r = fd_write_full(fd, name, name_len);
    *at += 110 + name_len;
    if (r == 0)
        r = fd_write_full(fd, zeros, -*at & 3);
    *at = (*at + 3) & ~(size_t)3;
    if (r == 0)
        r = fd_write_full(fd, data, len);
    *at += len;
    if (r == 0)
        r = fd_write_full(fd, zeros, -*at & 3);
    *at = (*at + 3) & ~(size_t)3;
    return r;
}

/* Appends the files to the RAM disk as one more archive, which Linux unpacks over the first. */
static bool inject(struct install *in, int fd)
{
    static const uint8_t zeros[512];
    off_t end = lseek(fd, 0, SEEK_END);
    size_t at = 0;
    if (end < 0 || fd_write_full(fd, zeros, -end & 3) < 0)
        return false;
    for (unsigned i = 0; in->initrd_inject[i]; i++) {
        const char *path = in->initrd_inject[i], *slash = strrchr(path, '/');
        struct stat st;
        autofd int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0 || fstat(file, &st) < 0 || st.st_size > 256 << 20)
            return install_error("--initrd-inject %s: %s", path, strerror(file < 0 ? errno : EFBIG));
        autofree uint8_t *data = xcalloc(1, st.st_size + 1);
        if (fd_read_full(file, data, st.st_size) < 0 ||
            cpio_member(fd, slash ? slash + 1 : path, data, st.st_size, 0100000 | (st.st_mode & 0777), &at) < 0)
            return install_error("--initrd-inject %s: %s", path, strerror(errno));
    }
    return cpio_member(fd, "TRAILER!!!", NULL, 0, 0, &at) == 0;
}

static bool from_location(struct install *in)
{
    autofree char *spec = xstrdup(in->location);
    char *at = spec, *key, *value, *top = NULL;
    const char *kernel = NULL, *initrd = NULL;
    while ((key = cli_next_part(&at, &value))) {
        if (!top && !value)
            top = key;
        else if (!strcmp(key, "location"))
            top = value;
        else if (!strcmp(key, "kernel"))
            kernel = value;
        else if (!strcmp(key, "initrd"))
            initrd = value;
        else
            return install_error("Unknown --location options: ['%s']", key);
    }
    if (!top)
        return install_error("--location needs a directory, an image or a URL");
    size_t len = strlen(top);
    while (len > 1 && top[len - 1] == '/')
        top[--len] = 0;
    autofd int kernel_fd = new_file(in, "-vmlinuz", &in->kernel);
    autofd int initrd_fd = kernel_fd < 0 ? -1 : new_file(in, "-initrd", &in->initrd);
    if (initrd_fd < 0)
        return false;
    bool found = false;
    if (kernel && initrd)
        found = fetch(top, kernel, kernel_fd) && fetch(top, initrd, initrd_fd);
    for (unsigned i = 0; !kernel && !found && i < sizeof(known) / sizeof(known[0]); i++)
        found = fetch(top, known[i].kernel, kernel_fd) && fetch(top, known[i].initrd, initrd_fd);
    if (!found)
        return install_error(
            "Error validating install location: Could not find an installable distribution at URL '%s'\n\n"
            "The location must be the root directory of an install tree.",
            top);
    if (in->initrd_inject[0] && !inject(in, initrd_fd))
        return false;
    return true;
}

/* user-data for a cloud image: the user's own, or a root password made up here and printed. */
static bool cloud_files(struct install *in, const char *dir)
{
    autofree char *spec = xstrdup(in->cloud_init ? in->cloud_init : "");
    char *at = spec, *key, *value;
    const char *user_data = NULL, *meta_data = NULL, *ssh_key = NULL, *network = NULL;
    bool disable = true, generate = !*spec;
    char password[17] = "";
    while ((key = cli_next_part(&at, &value))) {
        if (!strcmp(key, "user-data"))
            user_data = value;
        else if (!strcmp(key, "meta-data"))
            meta_data = value;
        else if (!strcmp(key, "network-config"))
            network = value;
        else if (!strcmp(key, "root-ssh-key") || !strcmp(key, "clouduser-ssh-key"))
            ssh_key = value;
        else if (!strcmp(key, "root-password-generate"))
            generate = value && !strcmp(value, "on");
        else if (!strcmp(key, "disable"))
            disable = value && !strcmp(value, "on");
        else if (!strcmp(key, "root-password-file") && value) {
            autofree char *text = vsh_read_file(&in->v, value);
            if (!text)
                return false;
            snprintf(password, sizeof(password), "%.*s", (int)strcspn(text, "\n"), text);
        } else if (*key)
            return install_error("Unknown --cloud-init options: ['%s']", key);
    }
    if (generate) {
        static const char letters[] = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
        autofd int random = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
        uint8_t b[16];
        if (random < 0 || fd_read_full(random, b, sizeof(b)) < 0)
            return install_error("/dev/urandom: %s", strerror(errno));
        for (unsigned i = 0; i < 16; i++)
            password[i] = letters[b[i] % (sizeof(letters) - 1)];
        printf("Password for first root login is: %s\n", password);
    }
    autofree char *user = user_data ? vsh_read_file(&in->v, user_data) : NULL;
    autofree char *meta = meta_data ? vsh_read_file(&in->v, meta_data) : NULL;
    autofree char *net = network ? vsh_read_file(&in->v, network) : NULL;
    autofree char *pubkey = ssh_key ? vsh_read_file(&in->v, ssh_key) : NULL;
    if ((user_data && !user) || (meta_data && !meta) || (network && !net) || (ssh_key && !pubkey))
        return false;
    autofree char *made = xasprintf(
        "#cloud-config\n%s%s%s%s%s%s%s", *password ? "chpasswd:\n  list: |\n    root:" : "", password,
        *password ? generate ? "\n  expire: True\n" : "\n  expire: False\n" : "",
        pubkey ? "users:\n  - default\n  - name: root\n    ssh_authorized_keys:\n      - " : "", pubkey ? pubkey : "",
        disable ? "runcmd:\n- echo \"Disabled by lodge install\" > /etc/cloud/cloud-init.disabled\n" : "", "");
    const struct {
        const char *name, *text;
    } files[] = {{"user-data", user ? user : made}, {"meta-data", meta ? meta : ""}, {"network-config", net}};
    for (unsigned i = 0; i < 3; i++) {
        autofree char *path = xasprintf("%s/%s", dir, files[i].name);
        if (!files[i].text)
            continue;
        autofd int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || fd_write_full(fd, files[i].text, strlen(files[i].text)) < 0)
            return install_error("%s: %s", path, strerror(errno));
    }
    return true;
}

static bool cloud_disk(struct install *in)
{
    autofree char *dir = xstrdup("/tmp/lodge-cloudXXXXXX");
    if (!mkdtemp(dir))
        return install_error("%s: %s", dir, strerror(errno));
    bool ok = cloud_files(in, dir);
    if (ok) {
        autofd int fd = new_file(in, "-cloudinit.iso", &in->cloud_image);
        char *const xorriso[] = {
            (char *)"xorriso", (char *)"-as", (char *)"mkisofs", (char *)"-quiet", (char *)"-o", in->cloud_image,
            (char *)"-J",      (char *)"-r",  (char *)"-V",      (char *)"cidata", dir,          NULL};
        char *const iso[] = {(char *)"genisoimage",
                             (char *)"-quiet",
                             (char *)"-o",
                             in->cloud_image,
                             (char *)"-J",
                             (char *)"-r",
                             (char *)"-V",
                             (char *)"cidata",
                             dir,
                             NULL};
        ok = fd >= 0 && (run(iso) || run(xorriso) ||
                         install_error("--cloud-init needs genisoimage or xorriso to make the disk with its data"));
    }
    static const char *const names[] = {"user-data", "meta-data", "network-config"};
    for (unsigned i = 0; i < 3; i++) {
        autofree char *path = xasprintf("%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    return ok;
}

bool install_media(struct install *in)
{
    if (in->location && !from_location(in))
        return false;
    for (unsigned i = 0; in->extra_args[i]; i++) {
        char *longer = in->args ? xasprintf("%s %s", in->args, in->extra_args[i]) : xstrdup(in->extra_args[i]);
        free(in->args);
        in->args = longer;
    }
    return !in->want_cloud_init || cloud_disk(in);
}

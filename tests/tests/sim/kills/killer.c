/*
 * Kills the process into which it is preloaded, at one of the calls by which that process changes files: with SIGKILL,
 * as `kill -9` does. The calls of all threads are counted together.
 *
 * KILL_AT=N      the N-th call. It does not happen.
 * KILL_TORN=1    If it is a write, half of its bytes are written: a kill may end a write between two pages.
 * KILL_LOG=FILE  gets a line for each call, with the file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The function of the C library that this one stands before. */
#define BEHIND(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static atomic_long calls;
static long kill_at;
static int torn;
static int log_fd = -1;

__attribute__((constructor)) static void read_environment(void)
{
    const char *at = getenv("KILL_AT");
    const char *file = getenv("KILL_LOG");
    kill_at = at ? atol(at) : 0;
    torn = getenv("KILL_TORN") != NULL;
    if (file)
        log_fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void end(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* Counts a call. Returns whether the process ends at it. */
static int is_last(const char *call, const char *path)
{
    if (log_fd >= 0)
        dprintf(log_fd, "%s %s\n", call, path);
    return atomic_fetch_add(&calls, 1) + 1 == kill_at;
}

static int is_last_of(const char *call, int fd)
{
    char link[64];
    char path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return is_last(call, path);
}

#define WRITE(name, offset)                                                                                            \
    ssize_t name(int fd, const void *bytes, size_t count, offset at)                                                   \
    {                                                                                                                  \
        if (is_last_of("pwrite", fd)) {                                                                                \
            if (torn)                                                                                                  \
                BEHIND(name)(fd, bytes, count / 2, at);                                                                \
            end();                                                                                                     \
        }                                                                                                              \
        return BEHIND(name)(fd, bytes, count, at);                                                                     \
    }

#define TRUNCATE(name, offset)                                                                                         \
    int name(int fd, offset length)                                                                                    \
    {                                                                                                                  \
        if (is_last_of("ftruncate", fd))                                                                               \
            end();                                                                                                     \
        return BEHIND(name)(fd, length);                                                                               \
    }

#define SYNC(name)                                                                                                     \
    int name(int fd)                                                                                                   \
    {                                                                                                                  \
        if (is_last_of("sync", fd))                                                                                    \
            end();                                                                                                     \
        return BEHIND(name)(fd);                                                                                       \
    }

WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path)
{
    if (is_last("unlink", path))
        end();
    return BEHIND(unlink)(path);
}

int rename(const char *from, const char *to)
{
    if (is_last("rename", from))
        end();
    return BEHIND(rename)(from, to);
}

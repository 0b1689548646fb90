/* Records what a process does to the files below one folder: LD_PRELOAD this, with RECORD_ROOT and RECORD_LOG set.
 *
 * Each record: u8 kind, u8 flag, u16 length of path, u16 length of second path, i32 descriptor, u64 offset or size,
 * u32 length of data; then path, second path, data. Little-endian, packed. A lock is held from before an operation
 * until it is in the log, so that the order of the log is an order in which things happened.
 *
 * Kinds: O open (flag 1: O_TRUNC, 2: O_CREAT, 4: O_DSYNC or O_SYNC, 8: a directory), C close, W write, T truncate,
 * S fsync or fdatasync, R rename, U unlink, M mkdir, D rmdir. A record is made only of what succeeded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 4096

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static size_t root_length;
static int log_descriptor = -1;
static unsigned char watched[DESCRIPTORS];

struct __attribute__((packed)) head {
    uint8_t kind, flag;
    uint16_t path_length, second_length;
    int32_t descriptor;
    uint64_t offset;
    uint32_t data_length;
};

static void put(const void *data, size_t length) {
    const char *at = data;
    while (length) {
        long done = syscall(SYS_write, log_descriptor, at, length);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) abort();
        at += done;
        length -= (size_t)done;
    }
}

__attribute__((constructor)) static void start(void) {
    root = getenv("RECORD_ROOT");
    const char *name = getenv("RECORD_LOG");
    if (!root || !name) return;
    root_length = strlen(root);
    int descriptor = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    /* Out of the way of descriptors that are expected to be low. */
    log_descriptor = (int)syscall(SYS_fcntl, descriptor, F_DUPFD_CLOEXEC, 900);
    syscall(SYS_close, descriptor);
    if (log_descriptor < 0) abort();
}

static int below(const char *path) {
    return log_descriptor >= 0 && path && !strncmp(path, root, root_length) &&
           (path[root_length] == '/' || !path[root_length]);
}

static int is_watched(int descriptor) {
    return log_descriptor >= 0 && descriptor >= 0 && descriptor < DESCRIPTORS && watched[descriptor];
}

static void record(char kind, int flag, const char *path, const char *second, int descriptor, uint64_t offset,
                   const struct iovec *parts, int count, size_t length) {
    struct head head = {(uint8_t)kind, (uint8_t)flag, path ? (uint16_t)strlen(path) : 0,
                        second ? (uint16_t)strlen(second) : 0, descriptor, offset, (uint32_t)length};
    put(&head, sizeof head);
    if (path) put(path, head.path_length);
    if (second) put(second, head.second_length);
    for (int i = 0; i < count && length; i++) {
        size_t part = parts[i].iov_len < length ? parts[i].iov_len : length;
        put(parts[i].iov_base, part);
        length -= part;
    }
}

static int do_open(int folder, const char *path, int flags, mode_t mode) {
    if (!below(path) || (flags & O_TMPFILE) == O_TMPFILE) return (int)syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&mutex);
    int descriptor = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (descriptor >= 0) {
        int flag = (flags & O_TRUNC ? 1 : 0) | (flags & O_CREAT ? 2 : 0) | (flags & O_DSYNC ? 4 : 0);
        struct stat status;
        if (!fstat(descriptor, &status) && S_ISDIR(status.st_mode)) flag |= 8;
        if (descriptor >= DESCRIPTORS) abort();
        watched[descriptor] = flags & O_APPEND ? 2 : 1;
        record('O', flag, path, NULL, descriptor, 0, NULL, 0, 0);
    }
    pthread_mutex_unlock(&mutex);
    return descriptor;
}

#define MODE(flags) \
    mode_t mode = 0; \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return do_open(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return do_open(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return do_open(folder, path, flags, mode); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int __open_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return do_open(AT_FDCWD, path, flags, 0); }

int close(int descriptor) {
    if (!is_watched(descriptor)) return (int)syscall(SYS_close, descriptor);
    pthread_mutex_lock(&mutex);
    watched[descriptor] = 0;
    record('C', 0, NULL, NULL, descriptor, 0, NULL, 0, 0);
    int result = (int)syscall(SYS_close, descriptor);
    pthread_mutex_unlock(&mutex);
    return result;
}

static ssize_t do_writev(int descriptor, const struct iovec *parts, int count, off_t offset, int at_position) {
    pthread_mutex_lock(&mutex);
    if (at_position) {
        offset = lseek(descriptor, 0, watched[descriptor] == 2 ? SEEK_END : SEEK_CUR);
    }
    ssize_t done = at_position ? syscall(SYS_writev, descriptor, parts, count)
                               : syscall(SYS_pwritev, descriptor, parts, count, (long)offset, 0L);
    if (done > 0) record('W', 0, NULL, NULL, descriptor, (uint64_t)offset, parts, count, (size_t)done);
    pthread_mutex_unlock(&mutex);
    return done;
}

ssize_t write(int descriptor, const void *data, size_t length) {
    if (!is_watched(descriptor)) return syscall(SYS_write, descriptor, data, length);
    struct iovec part = {(void *)data, length};
    return do_writev(descriptor, &part, 1, 0, 1);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    if (!is_watched(descriptor)) return syscall(SYS_writev, descriptor, parts, count);
    return do_writev(descriptor, parts, count, 0, 1);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset) {
    if (!is_watched(descriptor)) return syscall(SYS_pwrite64, descriptor, data, length, offset);
    struct iovec part = {(void *)data, length};
    return do_writev(descriptor, &part, 1, offset, 0);
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset) {
    return pwrite64(descriptor, data, length, offset);
}

ssize_t pwritev64(int descriptor, const struct iovec *parts, int count, off64_t offset) {
    if (!is_watched(descriptor)) return syscall(SYS_pwritev, descriptor, parts, count, (long)offset, 0L);
    return do_writev(descriptor, parts, count, offset, 0);
}

ssize_t pwritev(int descriptor, const struct iovec *parts, int count, off_t offset) {
    return pwritev64(descriptor, parts, count, offset);
}

int ftruncate64(int descriptor, off64_t size) {
    if (!is_watched(descriptor)) return (int)syscall(SYS_ftruncate, descriptor, size);
    pthread_mutex_lock(&mutex);
    int result = (int)syscall(SYS_ftruncate, descriptor, size);
    if (!result) record('T', 0, NULL, NULL, descriptor, (uint64_t)size, NULL, 0, 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

int ftruncate(int descriptor, off_t size) { return ftruncate64(descriptor, size); }

static int do_sync(long call, int descriptor) {
    if (!is_watched(descriptor)) return (int)syscall(call, descriptor);
    pthread_mutex_lock(&mutex);
    int result = (int)syscall(call, descriptor);
    if (!result) record('S', 0, NULL, NULL, descriptor, 0, NULL, 0, 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

int fsync(int descriptor) { return do_sync(SYS_fsync, descriptor); }
int fdatasync(int descriptor) { return do_sync(SYS_fdatasync, descriptor); }

/* A store that wrote through a shared map would escape this recording: nothing here may rely on that. */
int msync(void *address, size_t length, int flags) {
    if (log_descriptor >= 0) abort();
    return (int)syscall(SYS_msync, address, length, flags);
}

static int do_path(char kind, long result, const char *path, const char *second) {
    if (!result) record(kind, 0, path, second, -1, 0, NULL, 0, 0);
    return (int)result;
}

#define LOCKED(watch, kind, call, path, second) \
    if (!(watch)) return (int)(call); \
    pthread_mutex_lock(&mutex); \
    int result = do_path(kind, (call), path, second); \
    pthread_mutex_unlock(&mutex); \
    return result;

int rename(const char *from, const char *to) {
    LOCKED(below(from) || below(to), 'R', syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), from, to)
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
    LOCKED(below(from) || below(to), 'R', syscall(SYS_renameat2, from_folder, from, to_folder, to, 0), from, to)
}
int unlink(const char *path) { LOCKED(below(path), 'U', syscall(SYS_unlinkat, AT_FDCWD, path, 0), path, NULL) }
int unlinkat(int folder, const char *path, int flags) {
    LOCKED(below(path), flags & AT_REMOVEDIR ? 'D' : 'U', syscall(SYS_unlinkat, folder, path, flags), path, NULL)
}
int rmdir(const char *path) { LOCKED(below(path), 'D', syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR), path, NULL) }
int mkdir(const char *path, mode_t mode) {
    LOCKED(below(path), 'M', syscall(SYS_mkdirat, AT_FDCWD, path, mode), path, NULL)
}
int mkdirat(int folder, const char *path, mode_t mode) {
    LOCKED(below(path), 'M', syscall(SYS_mkdirat, folder, path, mode), path, NULL)
}

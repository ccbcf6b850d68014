/* A disk that takes five seconds per write, for files whose path holds the words in the file $SLOW_DISK.
 * Loaded with LD_PRELOAD. It notes in $SLOW_DISK.hit that it really slowed something down. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int matches(int fd) {
  const char *control = getenv("SLOW_DISK");
  char words[256], link[64], path[4096];
  if (control == NULL) return 0;
  int file = open(control, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  ssize_t length = read(file, words, sizeof words - 1);
  close(file);
  if (length <= 0) return 0;
  words[length] = 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return strstr(path, words) != NULL;
}

static void wait_for_disk(int fd) {
  int before = errno;
  if (matches(fd)) {
    char hit[4096];
    snprintf(hit, sizeof hit, "%s.hit", getenv("SLOW_DISK"));
    int file = open(hit, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file >= 0) {
      syscall(SYS_write, file, ".", 1);
      close(file);
    }
    struct timespec left = {5, 0};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
  }
  errno = before;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define SLOW(result, name, parameters, arguments) \
  result name parameters { wait_for_disk(fd); return REAL(name) arguments; }

SLOW(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n))
SLOW(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
SLOW(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
SLOW(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
SLOW(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o))
SLOW(int, fsync, (int fd), (fd))
SLOW(int, fdatasync, (int fd), (fd))

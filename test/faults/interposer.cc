// Stands between a process and the C library, and makes the n-th call of a kind fail: on files below one directory, and
// on memory that the addon asks for. Loaded by LD_PRELOAD; told what to do, and telling what it saw, through a mapped
// file that the process itself writes (test/faults/control.ts has the same layout).
//
//   LUTRA_FAULT_CONTROL  the mapped file
//   LUTRA_FAULT_ROOT     the directory
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

enum Kind : uint32_t {
  kOpen = 1,
  kRead = 2,
  kWrite = 4,
  kSync = 8,
  kRename = 16,
  kChange = 32,  // mkdir, rmdir, unlink, ftruncate
  kLook = 64,    // stat, readdir, realpath, readlink
  kClose = 128,
  kMemory = 256,   // blocks of numbers
  kObjects = 512,  // operator new
};

struct Control {
  std::atomic<uint32_t> kinds;    // that are counted; 0 switches everything off
  std::atomic<uint32_t> error;    // errno of the failing call; 0 lets a read or write move half of its bytes
  std::atomic<uint64_t> target;   // the call that fails, from 1; 0 fails none
  std::atomic<uint64_t> counted;  // calls so far
  std::atomic<uint32_t> fired;    // the kind of the call that failed
  std::atomic<uint32_t> lasting;  // from the target on, every call fails
};

char root[PATH_MAX];
size_t root_length = 0;

Control* control() {
  static Control* const mapped = []() -> Control* {
    const char* path = getenv("LUTRA_FAULT_CONTROL");
    const char* directory = getenv("LUTRA_FAULT_ROOT");
    if (!path || !directory || strlen(directory) >= sizeof root) return nullptr;
    strcpy(root, directory);
    root_length = strlen(root);
    auto* real_open = reinterpret_cast<int (*)(const char*, int, ...)>(dlsym(RTLD_NEXT, "open"));
    const int file = real_open(path, O_RDWR);
    if (file < 0) return nullptr;
    void* data = mmap(nullptr, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    return data == MAP_FAILED ? nullptr : static_cast<Control*>(data);
  }();
  return mapped;
}

bool below_root(const char* path) { return path && strncmp(path, root, root_length) == 0; }

bool below_root(int descriptor) {
  char link[64];
  char path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  static auto* const real = reinterpret_cast<ssize_t (*)(const char*, char*, size_t)>(dlsym(RTLD_NEXT, "readlink"));
  const ssize_t length = real(link, path, sizeof path - 1);
  if (length < 0) return false;
  path[length] = 0;
  return below_root(path);
}

enum Fault { kNone, kFail, kShort };

Fault fault(Control* c, Kind kind) {
  const uint64_t call = c->counted.fetch_add(1) + 1;
  const uint64_t target = c->target.load();
  if (target == 0 || (c->lasting.load() ? call < target : call != target)) return kNone;
  c->fired.store(kind);
  const uint32_t error = c->error.load();
  if (error == 0) return kShort;
  errno = static_cast<int>(error);
  return kFail;
}

template <typename Place>
Fault at(Kind kind, Place place) {
  Control* c = control();
  return c && (c->kinds.load() & kind) && below_root(place) ? fault(c, kind) : kNone;
}

template <typename Function>
Function* next(const char* name, Function*) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

// Whether the caller is the addon, whose refusals are lutra's to handle; those of Node are not.
bool from_addon(const void* caller) {
  Dl_info info;
  if (!dladdr(const_cast<void*>(caller), &info) || !info.dli_fname) return false;
  const size_t length = strlen(info.dli_fname);
  return length > 5 && strcmp(info.dli_fname + length - 5, ".node") == 0;
}

bool memory_fails(Kind kind, const void* caller) {
  Control* c = control();
  return c && (c->kinds.load() & kind) && from_addon(caller) && fault(c, kind) == kFail;
}

void* object(size_t bytes, const void* caller) {
  void* data = memory_fails(kObjects, caller) ? nullptr : malloc(bytes ? bytes : 1);
  if (!data) throw std::bad_alloc();
  return data;
}

}  // namespace

#define NEXT(name) static auto* const real = next(#name, &name)
#define FAILS(kind, place) (at(kind, place) == kFail)
// A call that moves bytes: fails, or moves only half of them.
#define MOVES(kind, name, fd, data, count, ...) \
  NEXT(name);                                   \
  const Fault what = at(kind, fd);              \
  if (what == kFail) return -1;                 \
  return real(fd, data, what == kShort && count > 1 ? count / 2 : count, ##__VA_ARGS__)

extern "C" {

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
  va_end(list);
  NEXT(open);
  return FAILS(kOpen, path) ? -1 : real(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
  va_end(list);
  NEXT(open64);
  return FAILS(kOpen, path) ? -1 : real(path, flags, mode);
}
ssize_t read(int fd, void* data, size_t count) { MOVES(kRead, read, fd, data, count); }
ssize_t pread(int fd, void* data, size_t count, off_t at_byte) { MOVES(kRead, pread, fd, data, count, at_byte); }
ssize_t pread64(int fd, void* data, size_t count, off64_t at_byte) { MOVES(kRead, pread64, fd, data, count, at_byte); }
ssize_t write(int fd, const void* data, size_t count) { MOVES(kWrite, write, fd, data, count); }
ssize_t pwrite(int fd, const void* data, size_t count, off_t at_byte) {
  MOVES(kWrite, pwrite, fd, data, count, at_byte);
}
ssize_t pwrite64(int fd, const void* data, size_t count, off64_t at_byte) {
  MOVES(kWrite, pwrite64, fd, data, count, at_byte);
}
int fsync(int fd) {
  NEXT(fsync);
  return FAILS(kSync, fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
  NEXT(fdatasync);
  return FAILS(kSync, fd) ? -1 : real(fd);
}
int rename(const char* from, const char* to) {
  NEXT(rename);
  return FAILS(kRename, from) ? -1 : real(from, to);
}
int link(const char* from, const char* to) {
  NEXT(link);
  return FAILS(kChange, from) ? -1 : real(from, to);
}
int mkdir(const char* path, mode_t mode) {
  NEXT(mkdir);
  return FAILS(kChange, path) ? -1 : real(path, mode);
}
int rmdir(const char* path) {
  NEXT(rmdir);
  return FAILS(kChange, path) ? -1 : real(path);
}
int unlink(const char* path) {
  NEXT(unlink);
  return FAILS(kChange, path) ? -1 : real(path);
}
int ftruncate(int fd, off_t size) {
  NEXT(ftruncate);
  return FAILS(kChange, fd) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off64_t size) {
  NEXT(ftruncate64);
  return FAILS(kChange, fd) ? -1 : real(fd, size);
}
// libuv asks for some calls by their number.
long syscall(long number, ...) {
  va_list list;
  va_start(list, number);
  long a[6];
  for (long& argument : a) argument = va_arg(list, long);
  va_end(list);
  NEXT(syscall);
  const auto* path = reinterpret_cast<const char*>(a[1]);
  const auto descriptor = static_cast<int>(a[0]);
  if (number == SYS_statx && (path && *path ? FAILS(kLook, path) : FAILS(kLook, descriptor))) return -1;
  const bool closes = number == SYS_close && FAILS(kClose, descriptor);
  const int error = errno;
  // As the kernel does it: the descriptor is gone, whatever it answers.
  const long result = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  if (closes) errno = error;
  return closes ? -1 : result;
}
int scandir64(const char* path, struct dirent64*** list, int (*filter)(const struct dirent64*),
              int (*compare)(const struct dirent64**, const struct dirent64**)) {
  NEXT(scandir64);
  return FAILS(kLook, path) ? -1 : real(path, list, filter, compare);
}
char* realpath(const char* path, char* resolved) {
  NEXT(realpath);
  return FAILS(kLook, path) ? nullptr : real(path, resolved);
}
int access(const char* path, int mode) {
  NEXT(access);
  return FAILS(kLook, path) ? -1 : real(path, mode);
}
void* aligned_alloc(size_t alignment, size_t bytes) {
  NEXT(aligned_alloc);
  return memory_fails(kMemory, __builtin_return_address(0)) ? nullptr : real(alignment, bytes);
}
void* mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) {
  NEXT(mmap);
  // Only blocks: the control file itself is mapped by this call, too.
  if ((flags & MAP_ANONYMOUS) && memory_fails(kMemory, __builtin_return_address(0))) return MAP_FAILED;
  return real(address, bytes, protection, flags, fd, offset);
}

}  // extern "C"

void* operator new(size_t bytes) { return object(bytes, __builtin_return_address(0)); }
void* operator new[](size_t bytes) { return object(bytes, __builtin_return_address(0)); }
void operator delete(void* data) noexcept { free(data); }
void operator delete[](void* data) noexcept { free(data); }
void operator delete(void* data, size_t) noexcept { free(data); }
void operator delete[](void* data, size_t) noexcept { free(data); }

// A small test harness: named cases, checks that count, operands between guard pages, named distributions.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace lutra::test {

struct Case {
  const char* family;
  const char* name;
  void (*body)();
};
std::vector<Case>& cases();
// True in the quick size: sanitizers and emulators run fewer shapes of the same families.
bool quick();
void fail(const char* file, int line, const std::string& what);
void skip(const char* why);
// Runs a parity check on a mutant: true if it reported failures, which then neither count nor print.
void begin_catching();
bool end_catching();
template <typename Check>
bool catches(Check&& check) {
  begin_catching();
  check();
  return end_catching();
}

struct Registration {
  Registration(const char* family, const char* name, void (*body)()) { cases().push_back({family, name, body}); }
};

// Memory whose last byte lies directly before a page that cannot be touched, and whose first byte follows another:
// `slack` moves the block away from the upper guard to make its start unaligned.
template <typename T>
class Guarded {
 public:
  explicit Guarded(size_t count, size_t slack_elements = 0) : count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = (count + slack_elements) * sizeof(T);
    inner_ = (bytes + page - 1) / page * page;
    total_ = inner_ + 2 * page;
    base_ = static_cast<uint8_t*>(mmap(nullptr, total_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + page, inner_, PROT_READ | PROT_WRITE);
    data_ = reinterpret_cast<T*>(base_ + page + inner_ - bytes);
    std::memset(base_ + page, 0xff, inner_);  // NaN in every float format: an unwritten output shows
  }
  ~Guarded() { munmap(base_, total_); }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return count_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  size_t count_;
  size_t inner_ = 0;
  size_t total_ = 0;
  uint8_t* base_ = nullptr;
  T* data_ = nullptr;
};

// The distributions every kernel is tested on.
enum class Distribution { kNormal, kUniform, kOutlier, kConstant, kZero, kDenormal };
const char* name_of(Distribution d);
void fill(float* values, size_t count, Distribution d, uint64_t seed);

// sum (y - reference)^2 / sum reference^2; a NaN anywhere gives infinity. Zero reference: zero if y is zero.
double nmse(const float* y, const double* reference, size_t count);

}  // namespace lutra::test

#define LUTRA_TEST(family, name)                                                                               \
  static void lutra_case_##family##_##name();                                                                  \
  static const ::lutra::test::Registration lutra_registration_##family##_##name(#family, #name,                \
                                                                                lutra_case_##family##_##name); \
  static void lutra_case_##family##_##name()

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) ::lutra::test::fail(__FILE__, __LINE__, #condition); \
  } while (0)

#define CHECK_LE(value, bound)                                                                            \
  do {                                                                                                    \
    const double lutra_value = (value), lutra_bound = (bound);                                            \
    if (!(lutra_value <= lutra_bound))                                                                    \
      ::lutra::test::fail(                                                                                \
          __FILE__, __LINE__,                                                                             \
          std::string(#value " = ") + std::to_string(lutra_value) + " > " + std::to_string(lutra_bound)); \
  } while (0)

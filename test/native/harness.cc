#include "harness.h"

#include <cstdlib>

namespace lutra::test {

namespace {
int current_failures = 0;
bool current_skipped = false;
bool catching = false;
int caught = 0;
}  // namespace

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

bool quick() {
  static const bool value = [] {
    const char* text = std::getenv("LUTRA_TEST_SIZE");
    return text && !std::strcmp(text, "quick");
  }();
  return value;
}

void fail(const char* file, int line, const std::string& what) {
  if (catching) {
    ++caught;
    return;
  }
  // One case may fail in thousands of places: the first few say enough.
  if (++current_failures <= 5) std::printf("  %s:%d: %s\n", file, line, what.c_str());
}
void skip(const char* why) {
  current_skipped = true;
  std::printf("  skipped: %s\n", why);
}
void begin_catching() {
  catching = true;
  caught = 0;
}
bool end_catching() {
  catching = false;
  return caught > 0;
}

const char* name_of(Distribution d) {
  switch (d) {
    case Distribution::kNormal:
      return "normal";
    case Distribution::kUniform:
      return "uniform";
    case Distribution::kOutlier:
      return "outlier";
    case Distribution::kConstant:
      return "constant";
    case Distribution::kZero:
      return "zero";
    case Distribution::kDenormal:
      return "denormal";
  }
  return "?";
}

void fill(float* values, size_t count, Distribution d, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  for (size_t i = 0; i < count; ++i) {
    switch (d) {
      case Distribution::kNormal:
        values[i] = normal(random);
        break;
      case Distribution::kUniform:
        values[i] = uniform(random);
        break;
      case Distribution::kOutlier:
        values[i] = normal(random) * (random() % 101 == 0 ? 1e4f : 1.0f);
        break;
      case Distribution::kConstant:
        values[i] = 0.7f;
        break;
      case Distribution::kZero:
        values[i] = 0.0f;
        break;
      case Distribution::kDenormal:
        values[i] = uniform(random) * 1e-39f;
        break;
    }
  }
}

double nmse(const float* y, const double* reference, size_t count) {
  double error = 0;
  double power = 0;
  for (size_t i = 0; i < count; ++i) {
    const double d = static_cast<double>(y[i]) - reference[i];
    if (!std::isfinite(d)) return INFINITY;
    error += d * d;
    power += reference[i] * reference[i];
  }
  if (power == 0) return error == 0 ? 0 : INFINITY;
  return error / power;
}

static int run_all(const char* filter) {
  int passed = 0, failed = 0, skipped = 0;
  for (const Case& c : cases()) {
    if (filter && std::strcmp(filter, c.family) != 0) continue;
    current_failures = 0;
    current_skipped = false;
    c.body();
    const bool bad = current_failures > 0;
    std::printf("%s %s.%s\n", bad ? "FAIL" : current_skipped ? "SKIP" : "ok  ", c.family, c.name);
    (bad ? failed : current_skipped ? skipped : passed)++;
  }
  std::printf("native: %d passed, %d failed, %d skipped\n", passed, failed, skipped);
  if (passed + failed + skipped == 0) return 2;
  return failed ? 1 : 0;
}

}  // namespace lutra::test

int main(int argc, char** argv) { return lutra::test::run_all(argc > 1 ? argv[1] : nullptr); }

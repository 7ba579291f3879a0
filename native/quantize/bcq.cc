#include "quantize/bcq.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "ops/lane_scratch.h"
#include "ops/operand.h"
#include "ops/transformer.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"
#include "quantize/levels.h"
#include "quantize/small_system.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

constexpr int kMaxCodes = 1 << kMaxBits;
// A plane that the others make up to this share of its weight cannot be told from them.
constexpr double kDependent = 1e-10;

struct Planes {
  double alphas[kMaxBits] = {};
  double offset = 0.0;
};

// Running sums over a group's weights in ascending order: element i is the sum over the i smallest.
struct Sums {
  double* count;   // importance
  double* first;   // importance * w
  double* second;  // importance * w^2
};

// One group of one row. Which weights take which code follows from the levels alone, so a round costs a search for
// every boundary between levels and never visits the weights.
class GroupFit {
 public:
  GroupFit(const BcqOptions& options, const float* sorted, int64_t size, const Sums& sums)
      : options_(options), codes_(1 << options.bits), sorted_(sorted), size_(size), sums_(sums) {}

  void run() {
    if (options_.start != BcqStart::kGrid) alternate(greedy());
    if (options_.start != BcqStart::kGreedy) alternate(grid());
  }
  const Planes& best() const { return best_; }

 private:
  void alternate(const Planes& start) {
    Planes planes = stored(start);
    double error = assign(planes);
    keep(planes, error);
    for (int round = 0; round < options_.rounds && error > 0; ++round) {
      planes = stored(least_squares(planes));
      const double next = assign(planes);
      if (!(next < error)) return;
      keep(planes, error = next);
    }
  }

  void keep(const Planes& planes, double error) {
    if (!(error < least_) && std::isfinite(least_)) return;
    best_ = planes;
    least_ = error;
  }

  Planes greedy() const {
    Planes planes;
    const double total = sums_.count[size_];
    const double mean = options_.centred || total == 0 ? 0.0 : sums_.first[size_] / total;
    // What is left of weight i after some planes is sorted_[i] minus a number that only its signs so far tell:
    // every sign pattern is one stretch of the ascending weights.
    double left[kMaxCodes + 1] = {mean};
    int64_t bound[kMaxCodes + 1] = {0, size_};
    int64_t stretches = 1;
    planes.offset = mean;
    for (int b = options_.bits - 1; b >= 0; --b) {
      const double magnitude = split(left, bound, &stretches);
      planes.alphas[b] = 2 * magnitude;
      planes.offset -= magnitude;
    }
    return planes;
  }

  // Splits every stretch where what is left changes its sign, and takes the mean magnitude off each side.
  double split(double* left, int64_t* bound, int64_t* stretches) const {
    double sum = 0.0;
    for (int64_t i = *stretches - 1; i >= 0; --i) {
      const int64_t begin = bound[i], end = bound[i + 1];
      const int64_t middle = std::lower_bound(sorted_ + begin, sorted_ + end, left[i]) - sorted_;
      sum += left[i] * (sums_.count[middle] - sums_.count[begin]) - (sums_.first[middle] - sums_.first[begin]);
      sum += (sums_.first[end] - sums_.first[middle]) - left[i] * (sums_.count[end] - sums_.count[middle]);
      bound[2 * i + 2] = end;
      bound[2 * i + 1] = middle;
      left[2 * i] = left[2 * i + 1] = left[i];
    }
    *stretches *= 2;
    const double total = sums_.count[size_];
    const double magnitude = total > 0 ? std::max(0.0, sum / total) : 0.0;
    for (int64_t i = 0; i < *stretches; ++i) left[i] += i % 2 ? magnitude : -magnitude;
    return magnitude;
  }

  Planes grid() const {
    Planes planes;
    double lo = sorted_[0], hi = sorted_[size_ - 1];
    if (options_.centred) lo = -(hi = std::max(-lo, hi));
    for (int b = 0; b < options_.bits; ++b) planes.alphas[b] = (hi - lo) / largest_code(options_.bits) * (1 << b);
    planes.offset = lo;
    return planes;
  }

  // Ascending alphas, none negative, rounded to storage.
  Planes stored(Planes planes) const {
    for (int b = 0; b < options_.bits; ++b) {
      if (planes.alphas[b] >= 0) continue;
      planes.offset += planes.alphas[b];
      planes.alphas[b] = -planes.alphas[b];
    }
    for (int b = 0; b < options_.bits; ++b) {
      const double alpha = stored_value(options_.storage, planes.alphas[b]);
      int at = b;
      for (; at > 0 && planes.alphas[at - 1] > alpha; --at) planes.alphas[at] = planes.alphas[at - 1];
      planes.alphas[at] = alpha;
    }
    planes.offset = options_.centred ? 0.0 : static_cast<double>(stored_value(options_.storage, planes.offset));
    return planes;
  }

  // Gives every weight its nearest code; returns the error.
  double assign(const Planes& planes) {
    float alphas[kMaxBits], levels[kMaxCodes], ascending[kMaxCodes];
    for (int b = 0; b < options_.bits; ++b) alphas[b] = static_cast<float>(planes.alphas[b]);
    const float offset = static_cast<float>(planes.offset);
    plane_levels(alphas, options_.bits, options_.centred ? nullptr : &offset, levels);
    sort_levels(levels, codes_, ascending, code_of_);
    double error = 0.0;
    int64_t begin = 0;
    for (int i = 0; i < codes_; ++i) {
      int64_t end = size_;
      if (i + 1 < codes_) {
        const double middle = (static_cast<double>(ascending[i]) + static_cast<double>(ascending[i + 1])) / 2;
        end = std::lower_bound(sorted_ + begin, sorted_ + size_, middle) - sorted_;
      }
      const double level = ascending[i];
      count_[i] = sums_.count[end] - sums_.count[begin];
      first_[i] = sums_.first[end] - sums_.first[begin];
      error += sums_.second[end] - sums_.second[begin] + level * (level * count_[i] - 2 * first_[i]);
      begin = end;
    }
    return error;
  }

  // The planes that fit the codes of the last assignment best.
  Planes least_squares(Planes planes) const {
    const int bits = options_.bits;
    SmallSystem system;
    system.unknowns = bits + (options_.centred ? 0 : 1);
    const double low = options_.centred ? -0.5 : 0.0;
    for (int i = 0; i < codes_; ++i) {
      double x[kMaxUnknowns];
      for (int b = 0; b < bits; ++b) x[b] = low + ((code_of_[i] >> b) & 1);
      x[bits] = 1.0;
      double level = options_.centred ? 0.0 : planes.offset;
      for (int b = 0; b < bits; ++b) level += x[b] * planes.alphas[b];
      for (int r = 0; r < system.unknowns; ++r) {
        system.b[r] += x[r] * (first_[i] - level * count_[i]);
        for (int c = 0; c <= r; ++c) system.a[r][c] += x[r] * x[c] * count_[i];
      }
    }
    double step[kMaxUnknowns];
    system.solve(kDependent, step);
    for (int b = 0; b < bits; ++b) planes.alphas[b] += step[b];
    if (!options_.centred) planes.offset += step[bits];
    return planes;
  }

  const BcqOptions& options_;
  const int codes_;
  const float* sorted_;
  const int64_t size_;
  const Sums sums_;
  uint8_t code_of_[kMaxCodes];
  double count_[kMaxCodes];  // per level, ascending
  double first_[kMaxCodes];
  Planes best_;
  double least_ = std::numeric_limits<double>::infinity();
};

struct Work {
  const BcqOptions& options;
  const float* w;
  const double* importance;
  float* alphas;
  float* offsets;
  int64_t k;
  int64_t groups;

  // False where storage has no such numbers.
  bool fit(int64_t row, int64_t group, double* memory) const {
    const int64_t begin = group * options.group_size;
    const int64_t size = std::min(k, begin + options.group_size) - begin;
    const Sums sums{memory, memory + size + 1, memory + 2 * (size + 1)};
    float* sorted = reinterpret_cast<float*>(memory + 3 * (size + 1));
    int32_t* order = reinterpret_cast<int32_t*>(sorted + size);
    const float* values = w + row * k + begin;
    for (int64_t i = 0; i < size; ++i) order[i] = static_cast<int32_t>(i);
    std::sort(order, order + size,
              [&](int32_t a, int32_t b) { return values[a] != values[b] ? values[a] < values[b] : a < b; });
    double heaviest = 0.0;
    for (int64_t i = 0; i < size; ++i) heaviest = std::max(heaviest, importance[begin + i]);
    sums.count[0] = sums.first[0] = sums.second[0] = 0.0;
    for (int64_t i = 0; i < size; ++i) {
      const double value = sorted[i] = values[order[i]];
      // Where no input of the group matters, all do alike.
      const double weight = heaviest > 0 ? importance[begin + order[i]] / heaviest : 1.0;
      sums.count[i + 1] = sums.count[i] + weight;
      sums.first[i + 1] = sums.first[i] + weight * value;
      sums.second[i + 1] = sums.second[i] + weight * value * value;
    }
    GroupFit group_fit(options, sorted, size, sums);
    group_fit.run();
    const Planes& planes = group_fit.best();
    const int64_t at = row * groups + group;
    bool finite = std::isfinite(planes.offset);
    for (int b = 0; b < options.bits; ++b) {
      alphas[at * options.bits + b] = static_cast<float>(planes.alphas[b]);
      finite = finite && std::isfinite(planes.alphas[b]);
    }
    offsets[at] = static_cast<float>(planes.offset);
    return finite;
  }
};

Status check(Context& context, const BcqOptions& options, const TensorView& w, const TensorView& importance,
             const TensorView& alphas, const TensorView& offsets) {
  LUTRA_TRY(require_rank(w, 2, "bcq: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(importance, 1, "bcq: the importance must have 1 dimension"));
  LUTRA_TRY(require_rank(alphas, 3, "bcq: alphas must have 3 dimensions"));
  LUTRA_TRY(require_rank(offsets, 2, "bcq: offsets must have 2 dimensions"));
  LUTRA_TRY(require_dtype(w, Dtype::kF32, "bcq: w must be f32"));
  LUTRA_TRY(require_dtype(importance, Dtype::kF64, "bcq: the importance must be f64"));
  LUTRA_TRY(require_dtype(alphas, Dtype::kF32, "bcq: alphas must be f32"));
  LUTRA_TRY(require_dtype(offsets, Dtype::kF32, "bcq: offsets must be f32"));
  if (options.bits < 1 || options.bits > kMaxBits)
    return error(Code::kOption, "bcq: bits out of range", options.bits, kMaxBits);
  if (options.group_size < 1) return error(Code::kOption, "bcq: a group has at least one column", options.group_size);
  if (options.rounds < 0) return error(Code::kOption, "bcq: rounds out of range", options.rounds);
  if (options.start > BcqStart::kBest) return error(Code::kOption, "bcq: no such start");
  if (!is_float(options.storage)) return error(Code::kDtype, "bcq: values are stored in f16, bf16 or f32");
  const int64_t groups = ceil_div(w.shape[1], options.group_size);
  LUTRA_TRY(require_equal(importance.shape[0], w.shape[1], "bcq: elements of the importance, against columns of w"));
  LUTRA_TRY(require_equal(alphas.shape[0], w.shape[0], "bcq: rows of alphas, against rows of w"));
  LUTRA_TRY(require_equal(alphas.shape[1], groups, "bcq: groups of alphas, against columns of w and group_size"));
  LUTRA_TRY(require_equal(alphas.shape[2], options.bits, "bcq: alphas of a group, against bits"));
  LUTRA_TRY(require_equal(offsets.shape[0], w.shape[0], "bcq: rows of offsets, against rows of w"));
  LUTRA_TRY(require_equal(offsets.shape[1], groups, "bcq: groups of offsets, against columns of w and group_size"));
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, w, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "bcq: w is not finite at this element", bad);
  for (int64_t j = 0; j < w.shape[1]; ++j)
    if (!(importance.as<double>()[j] >= 0) || std::isinf(importance.as<double>()[j]))
      return error(Code::kNonFinite, "bcq: the importance of this column is no number from 0", j);
  return ok_status();
}

}  // namespace

Status bcq_fit(Context& context, const BcqOptions& options, const TensorView& w, const TensorView& importance,
               const TensorView& alphas, const TensorView& offsets) {
  LUTRA_TRY(check(context, options, w, importance, alphas, offsets));
  const int64_t k = w.shape[1];
  const int64_t size = std::min(k, options.group_size);
  const size_t slot_bytes = static_cast<size_t>(3 * (size + 1) + size) * sizeof(double);
  const size_t bytes = LaneScratch::bytes(context, slot_bytes);
  void* memory = context.scratch(bytes);
  if (!memory) return out_of_memory(static_cast<int64_t>(bytes));
  LaneScratch lanes(context, memory, slot_bytes);
  const Work work{options, w.as<float>(),  importance.as<double>(), alphas.as<float>(), offsets.as<float>(),
                  k,       alphas.shape[1]};
  std::atomic<int64_t> too_large{0};
  LUTRA_TRY(for_long_rows(context, w.shape[0], [&](int64_t row) {
    const LaneScratch::Slot slot(lanes);
    for (int64_t group = 0; group < work.groups; ++group)
      if (!work.fit(row, group, slot.as<double>())) too_large.fetch_add(1, std::memory_order_relaxed);
  }));
  if (too_large.load() > 0)
    return error(Code::kOption, "bcq: groups whose values exceed their storage type", too_large.load(), 0);
  return ok_status();
}

}  // namespace lutra

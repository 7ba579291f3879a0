// Scales and offsets for codes given.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "core/aligned_buffer.h"
#include "linalg/cholesky.h"
#include "ops/matrix64.h"
#include "ops/operand.h"
#include "ops/product64.h"
#include "quantize/decoupleq.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"
#include "quantize/storage.h"

namespace lutra {

namespace {

constexpr int64_t kSystemBytes = int64_t{256} << 20;  // of normal equations that are held at once
constexpr int64_t kMostRows = 384;                    // whose codes are held as numbers
constexpr int64_t kSummedRows = 256;                  // of the Hessian, that are summed by group together

Status check_rows(const CodedRows& rows, int64_t m, int64_t k, int64_t groups) {
  LUTRA_TRY(require_rank(rows.codes, 2, "decoupleq: codes must have 2 dimensions"));
  LUTRA_TRY(require_rank(rows.scales, 2, "decoupleq: scales must have 2 dimensions"));
  LUTRA_TRY(require_rank(rows.errors, 1, "decoupleq: errors must have 1 dimension"));
  LUTRA_TRY(require_dtype(rows.codes, Dtype::kU8, "decoupleq: codes must be u8"));
  LUTRA_TRY(require_dtype(rows.scales, Dtype::kF32, "decoupleq: scales must be f32"));
  LUTRA_TRY(require_dtype(rows.offsets, Dtype::kF32, "decoupleq: offsets must be f32"));
  LUTRA_TRY(require_dtype(rows.errors, Dtype::kF64, "decoupleq: errors must be f64"));
  LUTRA_TRY(require_equal(rows.codes.shape[0], m, "decoupleq: rows of codes, against rows of w"));
  LUTRA_TRY(require_equal(rows.codes.shape[1], k, "decoupleq: columns of codes, against columns of w"));
  LUTRA_TRY(require_equal(rows.scales.shape[0], m, "decoupleq: rows of scales, against rows of w"));
  LUTRA_TRY(require_equal(rows.scales.shape[1], groups, "decoupleq: groups of scales, against columns of w"));
  LUTRA_TRY(require_same_shape(rows.scales, rows.offsets, "decoupleq: shape of offsets, against shape of scales"));
  return require_equal(rows.errors.shape[0], m, "decoupleq: elements of errors, against rows of w");
}

Status check_fit(Context& context, const ScaleFit& options, const TensorView& w, const TensorView& pulled,
                 const CodedRows& rows) {
  LUTRA_TRY(require_rank(pulled, 2, "decoupleq: pulled must have 2 dimensions"));
  LUTRA_TRY(require_dtype(pulled, Dtype::kF64, "decoupleq: pulled must be f64"));
  LUTRA_TRY(require_same_shape(w, pulled, "decoupleq: shape of pulled, against shape of w"));
  if (options.group_size < 1) return error(Code::kOption, "decoupleq: a group has a column", options.group_size);
  if (options.bits < 1 || options.bits > kMaxBits)
    return error(Code::kOption, "decoupleq: bits out of range", options.bits, kMaxBits);
  if (!is_float(options.storage)) return error(Code::kDtype, "decoupleq: values are stored in f16, bf16 or f32");
  LUTRA_TRY(check_rows(rows, w.shape[0], w.shape[1], ceil_div(w.shape[1], options.group_size)));
  for (int64_t i = 0; i < rows.codes.elements(); ++i)
    if (rows.codes.as<uint8_t>()[i] >> options.bits) return error(Code::kOption, "decoupleq: a code is too large", i);
  for (const TensorView& values : {rows.scales, rows.offsets})
    LUTRA_TRY(check_finite(context, values, "decoupleq: a scale or offset is not finite at this element"));
  return check_finite(context, pulled, "decoupleq: pulled is not finite at this element");
}

// The normal equations of up to kMostRows rows. Of the unknowns the groups' scales come first, then their offsets.
struct ScaleSystem {
  const ScaleFit& options;
  const DampedHessian& metric;
  const TensorView& w;
  const TensorView& pulled;
  const CodedRows& rows;
  int64_t k = w.shape[1];
  int64_t groups = rows.scales.shape[1];
  int64_t unknowns = options.symmetric ? groups : 2 * groups;
  double zero_code = options.symmetric ? static_cast<double>(1 << (options.bits - 1)) : 0.0;
  double* group_sums = nullptr;    // [k, groups]: the damped Hessian's rows, summed by group
  double* offset_block = nullptr;  // [groups, groups]: those summed by group again
  double* numbers = nullptr;       // [rows, k]: codes minus the zero's
  double* systems = nullptr;       // [rows, unknowns, unknowns]: lower triangles

  int64_t begin(int64_t group) const { return group * options.group_size; }
  int64_t end(int64_t group) const { return std::min(k, begin(group) + options.group_size); }
  double damping(int64_t column) const { return metric.diagonal.as<double>()[column]; }

  // What the equations of the offsets have in common: they do not depend on codes.
  Status sum_groups(Context& context) const {
    if (options.symmetric) return ok_status();
    const Matrix64 hessian = upper_triangle(metric.hessian);
    const int64_t panel = std::min(k, kSummedRows);
    const AlignedBuffer lines(static_cast<size_t>(panel * k) * sizeof(double));
    if (!lines) return out_of_memory(panel * k * static_cast<int64_t>(sizeof(double)));
    for (int64_t first = 0; first < k; first += panel) {
      const int64_t count = std::min(panel, k - first);
      LUTRA_TRY(
          read_symmetric(context, hessian, first, count, 0, k, lines.as<double>(), k, [](double h) { return h; }));
      LUTRA_TRY(for_rows(context, count, [&](int64_t row) {
        const int64_t i = first + row;
        const double* in = lines.as<double>() + row * k;
        for (int64_t g = 0; g < groups; ++g) {
          double sum = i >= begin(g) && i < end(g) ? damping(i) : 0.0;
          for (int64_t j = begin(g); j < end(g); ++j) sum += in[j];
          group_sums[i * groups + g] = sum;
        }
      }));
    }
    return for_rows(context, groups, [&](int64_t g) {
      double* out = offset_block + g * groups;
      std::fill_n(out, groups, 0.0);
      for (int64_t i = begin(g); i < end(g); ++i)
        for (int64_t l = 0; l < groups; ++l) out[l] += group_sums[i * groups + l];
    });
  }

  Status assemble(Context& context, int64_t first, int64_t count) const {
    LUTRA_TRY(for_rows(context, count, [&](int64_t row) {
      const uint8_t* codes = rows.codes.as<uint8_t>() + (first + row) * k;
      for (int64_t j = 0; j < k; ++j) numbers[row * k + j] = static_cast<double>(codes[j]) - zero_code;
    }));
    const int64_t size = unknowns * unknowns;
    LUTRA_TRY(group_gram(context, count, numbers, upper_triangle(metric.hessian), options.group_size, systems, size,
                         unknowns));
    return finished(context.parallel(groups, [&](int64_t g) {
      for (int64_t row = 0; row < count; ++row) finish_group(numbers + row * k, g, systems + row * size);
    }));
  }

  // What a group adds behind the products: damping, and the rows of the offsets' equations that meet its scale.
  void finish_group(const double* codes, int64_t g, double* system) const {
    double own = 0.0;
    for (int64_t i = begin(g); i < end(g); ++i) own += damping(i) * codes[i] * codes[i];
    system[g * unknowns + g] += own;
    if (options.symmetric) return;
    // The equation of its own offset holds the sums until they go to their places, one in each offset's row.
    double* sums = system + (groups + g) * unknowns + groups;
    std::fill_n(sums, groups, 0.0);
    for (int64_t i = begin(g); i < end(g); ++i) {
      const double code = codes[i];
      if (code == 0.0) continue;
      const double* in = group_sums + i * groups;
      for (int64_t l = 0; l < groups; ++l) sums[l] += code * in[l];
    }
    for (int64_t l = 0; l < groups; ++l) system[(groups + l) * unknowns + g] = sums[l];
    std::copy_n(offset_block + g * groups, groups, sums);
  }

  // The stored numbers of a row as unknowns.
  void read_row(int64_t row, double* values) const {
    std::copy_n(rows.scales.as<float>() + row * groups, groups, values);
    if (!options.symmetric) std::copy_n(rows.offsets.as<float>() + row * groups, groups, values + groups);
  }

  // right-hand sides: what the weights pull at every unknown. Returns w H w^T.
  double pull_of(int64_t row, const double* codes, double* right) const {
    const double* pull = pulled.as<double>() + row * k;
    const float* weights = w.as<float>() + row * k;
    double whole = 0.0;
    for (int64_t g = 0; g < groups; ++g) {
      double scaled = 0.0, sum = 0.0;
      for (int64_t i = begin(g); i < end(g); ++i) {
        scaled += codes[i] * pull[i];
        sum += pull[i];
        whole += static_cast<double>(weights[i]) * pull[i];
      }
      right[g] = scaled;
      if (!options.symmetric) right[groups + g] = sum;
    }
    return whole;
  }

  // y = A x by the lower triangle.
  void multiply(const double* system, const double* x, double* y) const {
    std::fill_n(y, unknowns, 0.0);
    for (int64_t i = 0; i < unknowns; ++i) {
      const double* in = system + i * unknowns;
      double sum = in[i] * x[i];
      for (int64_t j = 0; j < i; ++j) {
        sum += in[j] * x[j];
        y[j] += in[j] * x[i];
      }
      y[i] += sum;
    }
  }

  bool constant(const double* codes, int64_t g) const {
    return std::all_of(codes + begin(g), codes + end(g), [&](double code) { return code == codes[begin(g)]; });
  }

  // A scale that the codes say nothing about: its step becomes zero, whatever the others do.
  void hold(double* system, int64_t g, double* right) const {
    for (int64_t j = 0; j < g; ++j) system[g * unknowns + j] = 0.0;
    for (int64_t i = g + 1; i < unknowns; ++i) system[i * unknowns + g] = 0.0;
    system[g * unknowns + g] = 1.0;
    right[g] = 0.0;
  }

  // scratch: 4 * unknowns.
  Status solve_row(Context& lane, int64_t row, const double* codes, double* system, double* scratch) const {
    double* values = scratch;
    double* right = values + unknowns;
    double* step = right + unknowns;
    double* reached = step + unknowns;
    read_row(row, values);
    const double whole = pull_of(row, codes, right);
    multiply(system, values, step);
    double error = whole;
    for (int64_t i = 0; i < unknowns; ++i) {
      error += values[i] * (step[i] - 2 * right[i]);
      right[i] -= step[i];  // the slope from here, whose zero is the answer
    }
    // Rounding can leave an objective that is zero a little below it. A NaN stays one.
    double& kept = rows.errors.as<double>()[row];
    kept = std::max(error, 0.0);
    for (int64_t g = 0; g < groups; ++g)
      if (options.symmetric ? !(system[g * unknowns + g] > 0) : constant(codes, g)) hold(system, g, right);
    const TensorView matrix{.data = system, .dtype = Dtype::kF64, .rank = 2, .shape = {unknowns, unknowns}};
    const Status factored = cholesky(lane, matrix);
    if (factored.code == Code::kNotPositiveDefinite) return ok_status();  // the row stays as it is
    LUTRA_TRY(factored);
    std::copy_n(right, unknowns, step);
    solve_factored(system, step);
    for (int64_t i = 0; i < unknowns; ++i) step[i] = stored_value(options.storage, values[i] + step[i]) - values[i];
    const double found = error + change(system, right, step, reached);
    if (!(found < error)) return ok_status();
    kept = std::max(found, 0.0);
    for (int64_t i = 0; i < unknowns; ++i) {
      const TensorView& target = i < groups ? rows.scales : rows.offsets;
      target.as<float>()[row * groups + i % groups] = static_cast<float>(values[i] + step[i]);
    }
    return ok_status();
  }

  // b becomes x with L L^T x = b.
  void solve_factored(const double* l, double* b) const {
    for (int64_t i = 0; i < unknowns; ++i) {
      double sum = b[i];
      for (int64_t j = 0; j < i; ++j) sum -= l[i * unknowns + j] * b[j];
      b[i] = sum / l[i * unknowns + i];
    }
    for (int64_t i = unknowns - 1; i >= 0; --i) {
      b[i] /= l[i * unknowns + i];
      for (int64_t j = 0; j < i; ++j) b[j] -= l[i * unknowns + j] * b[i];
    }
  }

  // What a step changes of the objective: |L^T step|^2 - 2 slope . step. `reached` is scratch.
  double change(const double* l, const double* slope, const double* step, double* reached) const {
    std::fill_n(reached, unknowns, 0.0);
    double sum = 0.0;
    for (int64_t i = 0; i < unknowns; ++i) {
      sum -= 2 * slope[i] * step[i];
      for (int64_t j = 0; j <= i; ++j) reached[j] += l[i * unknowns + j] * step[i];
    }
    for (int64_t j = 0; j < unknowns; ++j) sum += reached[j] * reached[j];
    return sum;
  }

  Status solve(Context& context, int64_t first, int64_t count) const {
    // Up to a few million operations a part.
    const int64_t part_rows = std::max<int64_t>(1, 1'000'000 / (unknowns * unknowns * unknowns + k + 1));
    std::atomic<bool> out_of_room{false};
    const bool ran = context.parallel(ceil_div(count, part_rows), [&](int64_t part) {
      Context lane;
      lane.pool = context.pool;
      lane.cancel = context.cancel;
      lane.threads = 1;
      const AlignedBuffer scratch(static_cast<size_t>(4 * unknowns) * sizeof(double));
      if (!scratch) return out_of_room.store(true);
      for (int64_t row = part * part_rows; row < std::min(count, (part + 1) * part_rows); ++row)
        if (solve_row(lane, first + row, numbers + row * k, systems + row * unknowns * unknowns, scratch.as<double>())
                .code == Code::kOutOfMemory)
          out_of_room.store(true);
    });
    return out_of_room.load() ? out_of_memory(4 * unknowns * static_cast<int64_t>(sizeof(double))) : finished(ran);
  }
};

}  // namespace

Status decoupleq_fit(Context& context, const ScaleFit& options, const DampedHessian& metric, const TensorView& w,
                     const TensorView& pulled, const CodedRows& rows) {
  LUTRA_TRY(check_weights(context, w));
  LUTRA_TRY(check_damped(context, metric, w.shape[1]));
  LUTRA_TRY(check_fit(context, options, w, pulled, rows));
  const int64_t m = w.shape[0];
  ScaleSystem system{options, metric, w, pulled, rows};
  const int64_t k = system.k, groups = system.groups, size = system.unknowns * system.unknowns;
  constexpr int64_t kDouble = static_cast<int64_t>(sizeof(double));
  const int64_t block = std::clamp<int64_t>(kSystemBytes / (std::max<int64_t>(size, 1) * kDouble), 1, kMostRows);
  const auto doubles = [](int64_t count) { return AlignedBuffer(static_cast<size_t>(count * kDouble)); };
  // The products use the context's scratch: these live beside it.
  const AlignedBuffer sums = doubles(options.symmetric ? 1 : k * groups), offsets = doubles(groups * groups);
  const AlignedBuffer numbers = doubles(block * k), systems = doubles(block * size);
  if (!sums || !offsets || !numbers || !systems) return out_of_memory(block * size * kDouble);
  system.group_sums = sums.as<double>();
  system.offset_block = offsets.as<double>();
  system.numbers = numbers.as<double>();
  system.systems = systems.as<double>();
  LUTRA_TRY(system.sum_groups(context));
  for (int64_t first = 0; first < m; first += block) {
    const int64_t count = std::min(block, m - first);
    LUTRA_TRY(system.assemble(context, first, count));
    LUTRA_TRY(system.solve(context, first, count));
  }
  for (int64_t row = 0; row < m; ++row)
    if (!std::isfinite(rows.errors.as<double>()[row]))
      return error(Code::kNonFinite, "decoupleq: the objective of this row overflows", row);
  return ok_status();
}

Status take_better_rows(Context& context, const CodedRows& best, const CodedRows& candidate, int64_t* taken) {
  LUTRA_TRY(require_rank(best.codes, 2, "decoupleq: codes must have 2 dimensions"));
  LUTRA_TRY(require_rank(best.scales, 2, "decoupleq: scales must have 2 dimensions"));
  const int64_t m = best.codes.shape[0], k = best.codes.shape[1], groups = best.scales.shape[1];
  LUTRA_TRY(check_rows(best, m, k, groups));
  LUTRA_TRY(check_rows(candidate, m, k, groups));
  std::atomic<int64_t> count{0};
  LUTRA_TRY(for_rows(context, m, [&](int64_t row) {
    if (!(candidate.errors.as<double>()[row] < best.errors.as<double>()[row])) return;
    count.fetch_add(1, std::memory_order_relaxed);
    std::copy_n(candidate.codes.as<uint8_t>() + row * k, k, best.codes.as<uint8_t>() + row * k);
    std::copy_n(candidate.scales.as<float>() + row * groups, groups, best.scales.as<float>() + row * groups);
    std::copy_n(candidate.offsets.as<float>() + row * groups, groups, best.offsets.as<float>() + row * groups);
    best.errors.as<double>()[row] = candidate.errors.as<double>()[row];
  }));
  *taken = count.load();
  return ok_status();
}

}  // namespace lutra

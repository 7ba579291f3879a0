#include "quantize/learned_rounding.h"

#include <algorithm>
#include <cmath>

#include "core/aligned_buffer.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "ops/transformer.h"
#include "quantize/adam.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"
#include "quantize/narrow.h"

namespace lutra {

namespace {

constexpr int64_t kBandRows = 256;  // rows that learn together; a head is never cut
constexpr double kStretch = 1.2;    // of the sigmoid, so that both ends are reached
constexpr double kShift = 0.1;

AdamOptions adam_of(double learning_rate) { return {learning_rate, 0.9, 0.999, 1e-8, 0.0}; }

double sigmoid(double v) { return 1.0 / (1.0 + std::exp(-v)); }

// The v with rounded_share(v) = share, 0 <= share < 1.
double variable_of(double share) { return -std::log(kStretch / (share + kShift) - 1.0); }

// One step of the schedule.
struct Step {
  double regularization;
  double beta;
};

Step step_of(const RoundingOptions& options, int64_t done) {
  const double all = static_cast<double>(options.iterations), warm = options.warm_up * all;
  const double at = static_cast<double>(done);
  if (at < warm) return {0.0, options.beta_first};
  const double progress = (at - warm) / std::max(1.0, all - warm);
  return {options.regularization, options.beta_first + (options.beta_last - options.beta_first) * progress};
}

// Some heads of the matrix and their state, all [rows, k].
struct Band {
  const RoundingOptions& options;
  const float* w;
  const float* base;
  const float* scales;  // [rows, groups]
  const float* zeros;
  const float* hessian;       // [k, k]
  const float* row_hessians;  // [heads, d, d]; null: d is 1
  uint8_t* codes;
  int64_t heads;
  int64_t d;
  int64_t k;
  int64_t groups;
  double unit;  // of the first term
  float* v;
  float* mean;    // Adam's first moment
  float* square;  // and second
  float* errors;
  float* weighed;  // G errors; errors where there is no G
  float* pulled;   // that, times H

  int64_t rows() const { return heads * d; }

  struct Place {
    double scale, zero, floor, share;
  };
  // Where the base of a weight lies between the codes.
  Place place(int64_t row, int64_t j) const {
    const int64_t group = row * groups + j / options.group_size;
    const double scale = scales[group], zero = zeros[group];
    const double code = (scale != 0 ? static_cast<double>(base[row * k + j]) / scale : 0.0) + zero;
    const double floor = std::floor(code);
    return {scale, zero, floor, code - floor};
  }

  void begin_row(int64_t row) const {
    for (int64_t j = 0; j < k; ++j) {
      v[row * k + j] = static_cast<float>(variable_of(place(row, j).share));
      mean[row * k + j] = square[row * k + j] = 0.0f;
    }
  }

  // errors of soft codes.
  void soft_row(int64_t row) const {
    const double largest = largest_code(options.bits);
    for (int64_t j = 0; j < k; ++j) {
      const int64_t at = row * k + j;
      const Place p = place(row, j);
      const double code = std::clamp(p.floor + rounded_share(v[at]), 0.0, largest);
      errors[at] = static_cast<float>(grid_value(code, p.scale, p.zero) - w[at]);
    }
  }

  uint8_t learned_code(int64_t row, int64_t j) const {
    const double up = v[row * k + j] >= 0 ? 1.0 : 0.0;
    return static_cast<uint8_t>(std::clamp(place(row, j).floor + up, 0.0, largest_code(options.bits)));
  }

  // errors of the learned codes, or of those that there are.
  void hard_row(int64_t row, bool learned) const {
    for (int64_t j = 0; j < k; ++j) {
      const int64_t at = row * k + j;
      const Place p = place(row, j);
      const double code = learned ? learned_code(row, j) : codes[at];
      errors[at] = static_cast<float>(grid_value(code, p.scale, p.zero) - w[at]);
    }
  }

  // pulled = G errors H.
  Status pull(Context& context) const {
    for (int64_t h = 0; row_hessians && h < heads; ++h) {
      const RightOperand right{.data = errors + h * d * k, .stride = k, .k_major = true};
      LUTRA_TRY(product(context, d, k, d, row_hessians + h * d * d, d, right, weighed + h * d * k, k));
    }
    const RightOperand right{.data = hessian, .stride = k, .k_major = true};
    return product(context, rows(), k, k, weighed, k, right, pulled, k);
  }

  void adam_row(int64_t row, const Step& step, const AdamUpdate& update) const {
    const double largest = largest_code(options.bits);
    for (int64_t j = 0; j < k; ++j) {
      const int64_t at = row * k + j;
      const Place p = place(row, j);
      const double code = p.floor + rounded_share(v[at]);
      const double by_value = 2.0 * static_cast<double>(pulled[at]) / unit;
      const double g =
          rounding_gradient(v[at], by_value, p.scale, code > 0 && code < largest, step.regularization, step.beta);
      update.apply(g, v + at, mean + at, square + at);
    }
  }

  // The error of a head, from errors and pulled.
  double head_error(int64_t head) const {
    double sum = 0;
    for (int64_t at = head * d * k; at < (head + 1) * d * k; ++at)
      sum += static_cast<double>(errors[at]) * static_cast<double>(pulled[at]);
    return sum;
  }

  Status learn(Context& context) const {
    LUTRA_TRY(for_rows(context, rows(), [&](int64_t row) { begin_row(row); }));
    for (int64_t done = 0; done < options.iterations; ++done) {
      LUTRA_TRY(for_rows(context, rows(), [&](int64_t row) { soft_row(row); }));
      LUTRA_TRY(pull(context));
      const Step step = step_of(options, done);
      const AdamUpdate update(adam_of(options.learning_rate), done + 1);
      LUTRA_TRY(for_rows(context, rows(), [&](int64_t row) { adam_row(row, step, update); }));
    }
    return ok_status();
  }

  Status measure(Context& context, bool learned, double* head_errors) const {
    LUTRA_TRY(for_rows(context, rows(), [&](int64_t row) { hard_row(row, learned); }));
    LUTRA_TRY(pull(context));
    return finished(context.parallel(heads, [&](int64_t h) { head_errors[h] = head_error(h); }));
  }

  // Keeps the learned codes of the heads that have the smaller error with them.
  Status run(Context& context, double* found, double* before) const {
    LUTRA_TRY(measure(context, false, before));
    LUTRA_TRY(learn(context));
    LUTRA_TRY(measure(context, true, found));
    return for_rows(context, rows(), [&](int64_t row) {
      if (!(found[row / d] < before[row / d])) return;
      for (int64_t j = 0; j < k; ++j) codes[row * k + j] = learned_code(row, j);
    });
  }
};

Status check_options(const RoundingOptions& o) {
  if (o.bits < 1 || o.bits > kMaxBits) return error(Code::kOption, "learn_rounding: bits out of range", o.bits);
  if (o.group_size < 1) return error(Code::kOption, "learn_rounding: a group has at least one column", o.group_size);
  if (o.iterations < 0) return error(Code::kOption, "learn_rounding: iterations are negative", o.iterations);
  for (const double number : {o.learning_rate, o.regularization, o.warm_up, o.beta_first, o.beta_last})
    if (!(number >= 0) || std::isinf(number))
      return error(Code::kOption, "learn_rounding: an option is no number from 0");
  return ok_status();
}

Status check(Context& context, const RoundingOptions& options, const TensorView& w, const TensorView& base,
             const TensorView& scales, const TensorView& zeros, const TensorView& hessian,
             const TensorView& row_hessians, const TensorView& codes) {
  LUTRA_TRY(check_options(options));
  LUTRA_TRY(require_rank(w, 2, "learn_rounding: w must have 2 dimensions"));
  LUTRA_TRY(require_rank(scales, 2, "learn_rounding: scales must have 2 dimensions"));
  for (const TensorView* operand : {&w, &base, &scales, &zeros})
    LUTRA_TRY(require_dtype(*operand, Dtype::kF32, "learn_rounding: weights, base, scales and zeros must be f32"));
  LUTRA_TRY(require_dtype(codes, Dtype::kU8, "learn_rounding: codes must be u8"));
  const int64_t m = w.shape[0], k = w.shape[1];
  LUTRA_TRY(require_same_shape(w, base, "learn_rounding: shape of the base, against shape of w"));
  LUTRA_TRY(require_same_shape(w, codes, "learn_rounding: shape of codes, against shape of w"));
  LUTRA_TRY(require_triangle(hessian, k, "learn_rounding: the Hessian must be f64, rows and columns as w has columns"));
  LUTRA_TRY(require_equal(scales.shape[0], m, "learn_rounding: rows of scales, against rows of w"));
  LUTRA_TRY(
      require_equal(scales.shape[1], ceil_div(k, options.group_size), "learn_rounding: groups, against columns of w"));
  LUTRA_TRY(require_same_shape(scales, zeros, "learn_rounding: shape of zeros, against shape of scales"));
  if (row_hessians.data) {
    LUTRA_TRY(require_rank(row_hessians, 3, "learn_rounding: row Hessians must have 3 dimensions"));
    LUTRA_TRY(require_dtype(row_hessians, Dtype::kF64, "learn_rounding: row Hessians must be f64"));
    const int64_t d = row_hessians.shape[1];
    LUTRA_TRY(require_equal(row_hessians.shape[2], d, "learn_rounding: columns of a row Hessian, against its rows"));
    LUTRA_TRY(require_equal(m, row_hessians.shape[0] * d, "learn_rounding: rows of w, against the row Hessians'"));
  }
  int64_t bad = -1;
  for (const TensorView* operand : {&w, &base, &scales, &zeros, &hessian, &row_hessians}) {
    if (operand->data) LUTRA_TRY(find_non_finite(context, *operand, &bad));
    if (bad >= 0) return error(Code::kNonFinite, "learn_rounding: an operand is not finite at this element", bad);
  }
  return ok_status();
}

// Of squares below each other.
double mean_diagonal(const Matrix64& squares) {
  double sum = 0;
  for (int64_t i = 0; i < squares.rows; ++i) sum += squares.at(i, i % squares.cols);
  return sum / static_cast<double>(squares.rows);
}

// The first term where one weight of mean diagonal is one code of the mean square scale off.
double unit_of(const TensorView& scales, const TensorView& hessian, const TensorView& row_hessians) {
  double squares = 0;
  for (int64_t i = 0; i < scales.elements(); ++i)
    squares += static_cast<double>(scales.as<float>()[i]) * static_cast<double>(scales.as<float>()[i]);
  double rows = 1.0;
  if (row_hessians.data) {
    const int64_t d = row_hessians.shape[1];
    rows = mean_diagonal({row_hessians.as<double>(), row_hessians.shape[0] * d, d, d});
  }
  const double unit = mean_diagonal(upper_triangle(hessian)) * rows * squares / static_cast<double>(scales.elements());
  return unit > 0 && std::isfinite(unit) ? unit : 1.0;
}

}  // namespace

double rounded_share(double v) { return std::clamp(kStretch * sigmoid(v) - kShift, 0.0, 1.0); }

double rounding_gradient(double v, double by_value, double scale, bool inside, double regularization, double beta) {
  const double s = sigmoid(v);
  const double share = kStretch * s - kShift;
  if (!(share > 0 && share < 1)) return 0.0;
  const double y = 2.0 * share - 1.0;
  double slope = inside ? by_value * scale : 0.0;
  if (regularization > 0) slope -= 2.0 * regularization * beta * std::copysign(std::pow(std::fabs(y), beta - 1.0), y);
  return slope * kStretch * s * (1.0 - s);
}

Status learn_rounding(Context& context, const RoundingOptions& options, const TensorView& w, const TensorView& base,
                      const TensorView& scales, const TensorView& zeros, const TensorView& hessian,
                      const TensorView& row_hessians, const TensorView& codes) {
  LUTRA_TRY(check(context, options, w, base, scales, zeros, hessian, row_hessians, codes));
  const int64_t m = w.shape[0], k = w.shape[1], groups = scales.shape[1];
  if (m == 0 || k == 0) return ok_status();
  const int64_t d = row_hessians.data ? row_hessians.shape[1] : 1, heads = m / d;
  const int64_t band_heads = std::clamp<int64_t>(kBandRows / d, 1, heads);
  const int64_t state = band_heads * d * k;
  // The product uses the context's scratch: these live beside it.
  const AlignedBuffer columns(static_cast<size_t>(k * k) * sizeof(float));
  const AlignedBuffer head_rows(static_cast<size_t>(row_hessians.data ? heads * d * d : 0) * sizeof(float));
  const AlignedBuffer states(static_cast<size_t>(6 * state) * sizeof(float));
  const AlignedBuffer measured(static_cast<size_t>(2 * band_heads) * sizeof(double));
  if (!columns || !head_rows || !states || !measured)
    return out_of_memory((k * k + 6 * state) * static_cast<int64_t>(sizeof(float)));
  LUTRA_TRY(narrow_rows(context, upper_triangle(hessian), 0, k, columns.as<float>()));
  if (row_hessians.data) LUTRA_TRY(narrow_rows(context, row_hessians.as<double>(), m, d, head_rows.as<float>()));
  const double unit = unit_of(scales, hessian, row_hessians);
  const auto part = [&](int64_t index) { return states.as<float>() + index * state; };
  for (int64_t first = 0; first < heads; first += band_heads) {
    const int64_t row = first * d;
    const Band band{options,
                    w.as<float>() + row * k,
                    base.as<float>() + row * k,
                    scales.as<float>() + row * groups,
                    zeros.as<float>() + row * groups,
                    columns.as<float>(),
                    row_hessians.data ? head_rows.as<float>() + row * d : nullptr,
                    codes.as<uint8_t>() + row * k,
                    std::min(band_heads, heads - first),
                    d,
                    k,
                    groups,
                    unit,
                    part(0),
                    part(1),
                    part(2),
                    part(3),
                    row_hessians.data ? part(4) : part(3),
                    part(5)};
    LUTRA_TRY(band.run(context, measured.as<double>(), measured.as<double>() + band_heads));
  }
  return ok_status();
}

}  // namespace lutra

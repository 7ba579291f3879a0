#include "quantize/fbquant.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>

#include "core/aligned_buffer.h"
#include "core/checked.h"
#include "ops/matrix64.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "ops/transformer.h"
#include "quantize/for_rows.h"
#include "quantize/grid.h"
#include "quantize/magnitude.h"
#include "quantize/pair.h"

namespace lutra {

namespace {

constexpr double kMomentum = 0.9;
constexpr double kSquares = 0.999;
constexpr int64_t kElementsAPart = 4096;

AlignedBuffer floats(int64_t n) { return AlignedBuffer(static_cast<size_t>(n) * sizeof(float)); }
int64_t bytes_of_floats(int64_t n) { return n * static_cast<int64_t>(sizeof(float)); }

TensorView matrix(void* data, int64_t rows, int64_t cols) { return {data, Dtype::kF32, 2, {rows, cols}}; }

// The loss and its gradients for one matrix, with the memory that every step uses.
class Objective {
 public:
  Objective(Context& context, const GridOptions& grid, const TensorView& w, const TensorView& metric, int64_t rank)
      : context_(context),
        grid_(grid),
        w_(w),
        metric_(metric),
        m_(w.shape[0]),
        k_(w.shape[1]),
        rank_(rank),
        weights_(floats(k_ * k_)),
        error_(floats(m_ * k_)),
        weighed_(floats(m_ * k_)),
        turned_(floats(m_ * rank)),
        losses_(static_cast<size_t>(m_) * sizeof(double)) {}

  // H in f32 with a mean diagonal of one: inputs may be as large as they like.
  Status prepare() {
    if (!weights_ || !error_ || !weighed_ || !turned_ || !losses_)
      return out_of_memory(bytes_of_floats(k_ * k_ + 2 * m_ * k_));
    const Matrix64 h = upper_triangle(metric_);
    double sum = 0.0;
    for (int64_t i = 0; i < k_; ++i) sum += h.at(i, i);
    unit_ = sum > 0 ? sum / static_cast<double>(k_) : 1.0;
    return read_symmetric(context_, h, 0, k_, 0, k_, weights_.as<float>(), k_,
                          [this](double x) { return static_cast<float>(x / unit_); });
  }

  // The gradients want what this leaves behind.
  Status loss(const TensorView& b, const TensorView& a, double* value) {
    const TensorView rest = matrix(error_.as<void>(), m_, k_);
    LUTRA_TRY(subtract_pair(context_, w_, b, a, rest));
    LUTRA_TRY(for_rows(context_, m_, [&](int64_t row) { round_row(error_.as<float>() + row * k_); }));
    const RightOperand weights{weights_.as<void>(), Dtype::kF32, k_};
    LUTRA_TRY(product(context_, m_, k_, k_, error_.as<float>(), k_, weights, weighed_.as<float>(), k_));
    LUTRA_TRY(for_rows(context_, m_, [&](int64_t row) {
      const float* e = error_.as<float>() + row * k_;
      const float* eh = weighed_.as<float>() + row * k_;
      double sum = 0.0;
      for (int64_t j = 0; j < k_; ++j) sum += static_cast<double>(e[j]) * static_cast<double>(eh[j]);
      losses_.as<double>()[row] = sum;
    }));
    double sum = 0.0;
    for (int64_t row = 0; row < m_; ++row) sum += losses_.as<double>()[row];
    *value = unit_ * sum;
    return ok_status();
  }

  // In units of the metric's mean diagonal.
  Status gradients(const TensorView& b, const TensorView& a, const TensorView& b_gradient,
                   const TensorView& a_gradient) {
    const float* g = weighed_.as<float>();
    const RightOperand rows{a.data, Dtype::kF32, k_};
    LUTRA_TRY(product(context_, m_, rank_, k_, g, k_, rows, b_gradient.as<float>(), rank_));
    LUTRA_TRY(for_rows(context_, rank_, [&](int64_t i) {
      for (int64_t row = 0; row < m_; ++row) turned_.as<float>()[i * m_ + row] = b.as<float>()[row * rank_ + i];
    }));
    const RightOperand columns{g, Dtype::kF32, k_, true};
    LUTRA_TRY(product(context_, rank_, k_, m_, turned_.as<float>(), m_, columns, a_gradient.as<float>(), k_));
    for (const TensorView* gradient : {&b_gradient, &a_gradient})
      LUTRA_TRY(for_rows(context_, gradient->shape[0], [&](int64_t row) {
        float* from = gradient->as<float>() + row * gradient->shape[1];
        std::transform(from, from + gradient->shape[1], from, [](float x) { return 2 * x; });
      }));
    return ok_status();
  }

  double unit() const { return unit_; }
  // What `loss` left: E.
  TensorView error() const { return matrix(error_.as<void>(), m_, k_); }

 private:
  // u becomes Q(u) - u, group by group.
  void round_row(float* u) const {
    const int64_t length = group_length(grid_.group_size, k_);
    const double largest = largest_code(grid_.bits);
    for (int64_t begin = 0; begin < k_; begin += length) {
      const int64_t count = std::min(length, k_ - begin);
      double lo, hi;
      range_of(u + begin, count, &lo, &hi);
      const UniformGrid grid = grid_of(grid_, lo, hi);
      for (int64_t j = begin; j < begin + count; ++j) {
        const double code = grid_code(u[j], grid.scale, grid.zero, largest);
        u[j] = static_cast<float>(grid_value(code, grid.scale, grid.zero)) - u[j];
      }
    }
  }

  Context& context_;
  const GridOptions& grid_;
  const TensorView& w_;
  const TensorView& metric_;
  int64_t m_, k_, rank_;
  double unit_ = 1.0;
  AlignedBuffer weights_;  // f32 [k, k]
  AlignedBuffer error_;    // f32 [m, k]: E
  AlignedBuffer weighed_;  // f32 [m, k]: E H
  AlignedBuffer turned_;   // f32 [rank, m]: b transposed
  AlignedBuffer losses_;   // f64 [m]
};

// One of the pair's two matrices with Adam's moments, its gradient, its stored form, and the best so far.
class Factor {
 public:
  explicit Factor(const TensorView& values)
      : values_(values),
        count_(values.elements()),
        moments_(AlignedBuffer::zeroed(static_cast<size_t>(2 * count_) * sizeof(double))),
        gradient_(floats(count_)),
        stored_(floats(count_)),
        best_(floats(count_)) {}

  bool allocated() const { return moments_ && gradient_ && stored_ && best_; }
  TensorView gradient() const { return matrix(gradient_.as<void>(), values_.shape[0], values_.shape[1]); }
  TensorView stored() const { return matrix(stored_.as<void>(), values_.shape[0], values_.shape[1]); }

  Status round(Context& context, Dtype storage) { return round_rows(context, storage, values_, stored()); }
  void keep() { std::copy_n(values_.as<float>(), count_, best_.as<float>()); }
  void restore() { std::copy_n(best_.as<float>(), count_, values_.as<float>()); }

  // Adam (arXiv 1412.6980) without its epsilon: a gradient of zero moves nothing.
  Status move(Context& context, int64_t step, double rate) {
    const double first = 1 - std::pow(kMomentum, static_cast<double>(step));
    const double second = 1 - std::pow(kSquares, static_cast<double>(step));
    double* mean = moments_.as<double>();
    double* square = mean + count_;
    return finished(context.parallel(ceil_div(count_, kElementsAPart), [&](int64_t part) {
      const int64_t end = std::min(count_, (part + 1) * kElementsAPart);
      for (int64_t i = part * kElementsAPart; i < end; ++i) {
        const double g = gradient_.as<float>()[i];
        mean[i] = kMomentum * mean[i] + (1 - kMomentum) * g;
        square[i] = kSquares * square[i] + (1 - kSquares) * g * g;
        if (square[i] > 0)
          values_.as<float>()[i] -= static_cast<float>(rate * (mean[i] / first) / std::sqrt(square[i] / second));
      }
    }));
  }

 private:
  const TensorView& values_;
  int64_t count_;
  AlignedBuffer moments_;  // f64, means then squares
  AlignedBuffer gradient_, stored_, best_;
};

Status check(Context& context, const GridOptions& grid, const TensorView& w, const TensorView& metric,
             const TensorView& b, const TensorView& a) {
  LUTRA_TRY(check_pair(w, b, a));
  LUTRA_TRY(require_triangle(metric, w.shape[1], "fbquant: the metric is f64, rows and columns as w has columns"));
  if (grid.bits < 1 || grid.bits > kMaxBits)
    return error(Code::kOption, "fbquant: bits out of range", grid.bits, kMaxBits);
  if (grid.group_size < 1 && grid.group_size != -1)
    return error(Code::kOption, "fbquant: group_size must be positive, or -1 for the row", grid.group_size, -1);
  if (grid.search) return error(Code::kOption, "fbquant: grids span their groups: no search", 1, 0);
  if (!is_float(grid.scale_dtype)) return error(Code::kDtype, "fbquant: scales are stored in f16, bf16 or f32");
  for (const TensorView* factor : {&b, &a}) LUTRA_TRY(require_apart(*factor, w, "fbquant: the pair overlaps w"));
  LUTRA_TRY(require_apart(b, a, "fbquant: the pair's matrices overlap"));
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, metric, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "fbquant: the metric is not finite at this element", bad);
  LUTRA_TRY(find_non_finite(context, w, &bad));
  return bad < 0 ? ok_status() : error(Code::kNonFinite, "fbquant: w is not finite at this element", bad);
}

void fill_normal(const TensorView& x, double deviation) {
  // The sum of four uniform numbers is normal enough, and the same everywhere, as std::normal_distribution is not.
  std::mt19937_64 random(x.elements());
  for (int64_t i = 0; i < x.elements(); ++i) {
    double sum = -2.0;
    for (int draw = 0; draw < 4; ++draw) sum += static_cast<double>(random() >> 11) * 0x1p-53;
    x.as<float>()[i] = static_cast<float>(std::sqrt(3.0) * sum * deviation);
  }
}

}  // namespace

Status fbquant_gradient(Context& context, const GridOptions& grid, const TensorView& w, const TensorView& metric,
                        const TensorView& b, const TensorView& a, double* loss, const TensorView& b_gradient,
                        const TensorView& a_gradient) {
  LUTRA_TRY(check(context, grid, w, metric, b, a));
  LUTRA_TRY(require_same_shape(b, b_gradient, "fbquant: shape of b's gradient, against b"));
  LUTRA_TRY(require_same_shape(a, a_gradient, "fbquant: shape of a's gradient, against a"));
  Objective objective(context, grid, w, metric, a.shape[0]);
  LUTRA_TRY(objective.prepare());
  LUTRA_TRY(objective.loss(b, a, loss));
  LUTRA_TRY(objective.gradients(b, a, b_gradient, a_gradient));
  for (const TensorView* gradient : {&b_gradient, &a_gradient})
    for (int64_t i = 0; i < gradient->elements(); ++i)
      gradient->as<float>()[i] = static_cast<float>(gradient->as<float>()[i] * objective.unit());
  return ok_status();
}

Status fbquant_descend(Context& context, const FbquantOptions& options, const TensorView& w, const TensorView& metric,
                       const TensorView& b, const TensorView& a, FbquantResult* result) {
  LUTRA_TRY(check(context, options.grid, w, metric, b, a));
  if (options.steps < 0) return error(Code::kOption, "fbquant: steps are not negative", options.steps, 0);
  const int64_t rank = a.shape[0];
  Objective objective(context, options.grid, w, metric, rank);
  Factor up(b), down(a);
  if (!up.allocated() || !down.allocated()) return out_of_memory(bytes_of_floats(6 * (b.elements() + a.elements())));
  LUTRA_TRY(objective.prepare());

  // The error of rounding W alone tells how large the pair is going to be.
  std::fill_n(up.stored().as<float>(), b.elements(), 0.0f);
  std::fill_n(down.stored().as<float>(), a.elements(), 0.0f);
  double plain = 0.0;
  LUTRA_TRY(objective.loss(up.stored(), down.stored(), &plain));
  double squares = 0.0;
  LUTRA_TRY(sum_of_squares(context, objective.error(), &squares));
  const double mean_square = squares / static_cast<double>(w.elements());
  const double size = std::sqrt(std::sqrt(mean_square / static_cast<double>(rank)));
  if (options.random) {
    std::fill_n(b.as<float>(), b.elements(), 0.0f);
    fill_normal(a, size);
  }

  for (int64_t step = 0;; ++step) {
    result->steps = step;
    const Status fits_b = up.round(context, options.storage);
    const Status fits_a = down.round(context, options.storage);
    double loss = std::nan("");
    if (fits_b.ok() && fits_a.ok()) LUTRA_TRY(objective.loss(up.stored(), down.stored(), &loss));
    if (!std::isfinite(loss)) {
      // A first pair that cannot be stored is the caller's; a later one ends the descent.
      if (step > 0 && fits_b.code != Code::kCancelled && fits_a.code != Code::kCancelled) break;
      LUTRA_TRY(fits_b);
      LUTRA_TRY(fits_a);
      return error(Code::kOption, "fbquant: the loss of the first pair is not finite");
    }
    if (step == 0) result->start = loss;
    if (step == 0 || loss < result->best) {
      result->best = loss;
      result->best_step = step;
      up.keep();
      down.keep();
    }
    if (step == options.steps) break;
    LUTRA_TRY(objective.gradients(up.stored(), down.stored(), up.gradient(), down.gradient()));
    const double share =
        0.5 * (1 + std::cos(std::numbers::pi * static_cast<double>(step) / static_cast<double>(options.steps)));
    LUTRA_TRY(up.move(context, step + 1, options.rate * share * size));
    LUTRA_TRY(down.move(context, step + 1, options.rate * share * size));
  }
  up.restore();
  down.restore();
  return ok_status();
}

}  // namespace lutra

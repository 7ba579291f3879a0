#include "linalg/low_rank.h"

#include <algorithm>
#include <cmath>

#include "core/aligned_buffer.h"
#include "linalg/orthonormal.h"
#include "linalg/symmetric_eigen.h"
#include "ops/matrix64.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "ops/transformer.h"

namespace lutra {

namespace {

// Directions beyond the rank that the iteration carries along: the more, the faster the wanted ones converge.
constexpr int64_t kOversampling = 10;
constexpr int kIterations = 30;
// The share that an iteration adds to the captured energy at which it is the last.
constexpr double kConverged = 1e-9;

// Subspace iteration for x H x^T. The basis has p rows of m elements.
class SubspaceIteration {
 public:
  SubspaceIteration(Context& context, const TensorView& x, const TensorView& metric, int64_t rank)
      : context_(context),
        x_(x),
        metric_(metric),
        m_(x.shape[0]),
        k_(x.shape[1]),
        rank_(rank),
        p_(std::min(rank + kOversampling, std::min(m_, k_))),
        basis_(doubles(p_ * m_)),
        small_(doubles(p_ * p_)),
        vectors_(doubles(p_ * p_)),
        narrow_(floats(p_ * m_)),
        projected_(floats(p_ * k_)),
        weighed_(metric.data ? floats(p_ * k_) : AlignedBuffer()),
        weights_(metric.data ? floats(k_ * k_) : AlignedBuffer()) {}

  Status run(bool warm, const TensorView& b, const TensorView& a, double* captured) {
    if (!basis_ || !small_ || !vectors_ || !narrow_ || !projected_ || (metric_.data && (!weighed_ || !weights_)))
      return out_of_memory(bytes_of_floats(p_ * (m_ + k_) + k_ * k_));
    if (metric_.data) LUTRA_TRY(convert_metric());
    LUTRA_TRY(start(warm, b));
    double energy = 0.0;
    for (int iteration = 0;; ++iteration) {
      LUTRA_TRY(project());
      const double before = energy;
      energy = trace();
      if (iteration == kIterations || (iteration > 0 && energy - before <= kConverged * energy)) break;
      LUTRA_TRY(advance());
    }
    return finish(b, a, captured);
  }

 private:
  static AlignedBuffer doubles(int64_t n) { return AlignedBuffer(static_cast<size_t>(n) * sizeof(double)); }
  static AlignedBuffer floats(int64_t n) { return AlignedBuffer(static_cast<size_t>(n) * sizeof(float)); }
  static int64_t bytes_of_floats(int64_t n) { return n * static_cast<int64_t>(sizeof(float)); }

  Matrix64 square(const AlignedBuffer& memory) const { return {memory.as<double>(), p_, p_, p_}; }
  Matrix64 basis() const { return {basis_.as<double>(), p_, m_, m_}; }
  const float* weighed() const { return metric_.data ? weighed_.as<float>() : projected_.as<float>(); }

  template <typename Body>
  Status for_rows(int64_t rows, Body&& body) {
    return finished(context_.parallel(rows, body));
  }

  // H in f32, its largest diagonal element one: sums of inputs may be as large as they like.
  Status convert_metric() {
    const Matrix64 h = upper_triangle(metric_);
    double largest = 0.0;
    for (int64_t i = 0; i < k_; ++i) largest = std::max(largest, h.at(i, i));
    unit_ = largest > 0 ? largest : 1.0;
    return read_symmetric(context_, h, 0, k_, 0, k_, weights_.as<float>(), k_,
                          [this](double x) { return static_cast<float>(x / unit_); });
  }

  // Rows of zeros become random ones when the basis is made orthonormal.
  Status start(bool warm, const TensorView& b) {
    for (int64_t i = 0; i < p_; ++i)
      for (int64_t row = 0; row < m_; ++row)
        basis_.as<double>()[i * m_ + row] =
            warm && i < rank_ ? static_cast<double>(b.as<float>()[row * rank_ + i]) : 0.0;
    return orthonormalize_rows(context_, basis());
  }

  // projected = basis x, weighed = projected H, small = projected H projected^T.
  Status project() {
    LUTRA_TRY(
        for_rows(p_, [&](int64_t i) { std::copy_n(basis_.as<double>() + i * m_, m_, narrow_.as<float>() + i * m_); }));
    const RightOperand columns{x_.data, Dtype::kF32, k_, true};
    LUTRA_TRY(product(context_, p_, k_, m_, narrow_.as<float>(), m_, columns, projected_.as<float>(), k_));
    if (metric_.data) {
      const RightOperand weights{weights_.as<void>(), Dtype::kF32, k_};
      LUTRA_TRY(product(context_, p_, k_, k_, projected_.as<float>(), k_, weights, weighed_.as<float>(), k_));
    }
    return for_rows(p_, [&](int64_t i) {
      for (int64_t j = 0; j < p_; ++j) {
        // Of the two sums that rounding tells apart, one for both places.
        const float* left = projected_.as<float>() + std::min(i, j) * k_;
        small_.as<double>()[i * p_ + j] = dot_product(left, weighed() + std::max(i, j) * k_, k_);
      }
    });
  }

  double trace() const {
    double sum = 0.0;
    for (int64_t i = 0; i < p_; ++i) sum += small_.as<double>()[i * p_ + i];
    return sum;
  }

  // The next basis: the span of weighed x^T, rows scaled to one so that their squares stay in range.
  Status advance() {
    const AlignedBuffer scaled = floats(p_ * k_);
    if (!scaled) return out_of_memory(bytes_of_floats(p_ * k_));
    LUTRA_TRY(for_rows(p_, [&](int64_t i) {
      const float* row = weighed() + i * k_;
      float largest = 0.0f;
      for (int64_t c = 0; c < k_; ++c) largest = std::max(largest, std::fabs(row[c]));
      for (int64_t c = 0; c < k_; ++c) scaled.as<float>()[i * k_ + c] = largest > 0 ? row[c] / largest : 0.0f;
    }));
    const RightOperand rows{x_.data, Dtype::kF32, k_};
    LUTRA_TRY(product(context_, p_, m_, k_, scaled.as<float>(), k_, rows, narrow_.as<float>(), m_));
    LUTRA_TRY(
        for_rows(p_, [&](int64_t i) { std::copy_n(narrow_.as<float>() + i * m_, m_, basis_.as<double>() + i * m_); }));
    return orthonormalize_rows(context_, basis());
  }

  // The leading eigenvectors of the small matrix turn basis and projection into b and a.
  Status finish(const TensorView& b, const TensorView& a, double* captured) {
    const double whole = trace();
    // A finite diagonal has finite factors, and with them all of the small matrix is.
    if (!std::isfinite(whole)) return error(Code::kNonFinite, "low rank: products with the matrix overflow");
    const double unit = whole > 0 ? whole : 1.0;
    const AlignedBuffer kept = doubles(p_ * p_);
    const AlignedBuffer turned = doubles(rank_ * std::max(m_, k_));
    if (!kept || !turned) return out_of_memory(2 * bytes_of_floats(p_ * p_ + rank_ * std::max(m_, k_)));
    std::transform(small_.as<double>(), small_.as<double>() + p_ * p_, small_.as<double>(),
                   [&](double s) { return s / unit; });
    std::copy_n(small_.as<double>(), p_ * p_, kept.as<double>());
    LUTRA_TRY(symmetric_eigen(context_, square(small_), square(vectors_)));
    if (captured) *captured = unit * unit_ * quadratic(kept.as<double>());
    return for_rows(rank_, [&](int64_t i) {
      double* row = turned.as<double>() + i * std::max(m_, k_);
      const double down = turn(i, projected_.as<float>(), k_, row);
      // Root mean squares of a's row and of the unit row of the basis.
      const double balance = std::sqrt(down * std::sqrt(static_cast<double>(m_)));
      for (int64_t c = 0; c < k_; ++c)
        a.as<float>()[i * k_ + c] = balance > 0 ? static_cast<float>(row[c] / balance) : 0.0f;
      turn(i, basis_.as<double>(), m_, row);
      for (int64_t c = 0; c < m_; ++c) b.as<float>()[c * rank_ + i] = static_cast<float>(row[c] * balance);
    });
  }

  // The sum of v S v^T over the leading eigenvectors v.
  double quadratic(const double* s) const {
    double sum = 0.0;
    for (int64_t i = 0; i < rank_; ++i) {
      const double* v = vectors_.as<double>() + i * p_;
      for (int64_t j = 0; j < p_; ++j) sum += v[j] * dot_product(s + j * p_, v, p_);
    }
    return sum;
  }

  // row = eigenvector i times the p rows of n elements; returns its root mean square.
  template <typename T>
  double turn(int64_t i, const T* rows, int64_t n, double* row) const {
    std::fill_n(row, n, 0.0);
    for (int64_t j = 0; j < p_; ++j) {
      const double factor = vectors_.as<double>()[i * p_ + j];
      for (int64_t c = 0; c < n; ++c) row[c] += factor * static_cast<double>(rows[j * n + c]);
    }
    return std::sqrt(dot_product(row, row, n) / static_cast<double>(n));
  }

  Context& context_;
  const TensorView& x_;
  const TensorView& metric_;
  int64_t m_, k_, rank_, p_;
  double unit_ = 1.0;
  AlignedBuffer basis_;      // f64 [p, m], orthonormal rows
  AlignedBuffer small_;      // f64 [p, p]
  AlignedBuffer vectors_;    // f64 [p, p]
  AlignedBuffer narrow_;     // f32 [p, m]
  AlignedBuffer projected_;  // f32 [p, k]
  AlignedBuffer weighed_;    // f32 [p, k], where there is a metric
  AlignedBuffer weights_;    // f32 [k, k], likewise
};

}  // namespace

Status low_rank_fit(Context& context, const TensorView& x, const TensorView& metric, bool warm, const TensorView& b,
                    const TensorView& a, double* captured) {
  for (const TensorView* operand : {&x, &b, &a}) {
    LUTRA_TRY(require_rank(*operand, 2, "low rank: operands have 2 dimensions"));
    LUTRA_TRY(require_dtype(*operand, Dtype::kF32, "low rank: the matrix and its factors are f32"));
  }
  const int64_t m = x.shape[0], k = x.shape[1], rank = a.shape[0];
  LUTRA_TRY(require_equal(a.shape[1], k, "low rank: columns of a, against those of the matrix"));
  LUTRA_TRY(require_equal(b.shape[0], m, "low rank: rows of b, against those of the matrix"));
  LUTRA_TRY(require_equal(b.shape[1], rank, "low rank: columns of b, against rows of a"));
  if (rank < 1 || rank > std::min(m, k))
    return error(Code::kOption, "low rank: the rank is 1 to the least dimension", rank, std::min(m, k));
  if (metric.data) {
    LUTRA_TRY(require_triangle(metric, k, "low rank: the metric is f64, rows and columns as the matrix has columns"));
  }
  for (const TensorView* factor : {&b, &a})
    LUTRA_TRY(require_apart(*factor, x, "low rank: factors overlap the matrix"));
  LUTRA_TRY(require_apart(b, a, "low rank: the factors overlap"));
  int64_t bad = -1;
  if (metric.data) {
    LUTRA_TRY(find_non_finite(context, metric, &bad));
    if (bad >= 0) return error(Code::kNonFinite, "low rank: the metric is not finite at this element", bad);
  }
  LUTRA_TRY(find_non_finite(context, x, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "low rank: the matrix is not finite at this element", bad);
  return SubspaceIteration(context, x, metric, rank).run(warm, b, a, captured);
}

}  // namespace lutra

#include "linalg/symmetric_eigen.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/aligned_buffer.h"
#include "linalg/orthonormal.h"
#include "ops/operand.h"

namespace lutra {

namespace {

// Cosine between two rows that counts as zero.
constexpr double kOrthogonal = 1e-14;
// Jacobi converges quadratically: ten or so are the rule. Rotations stay rotations where the limit stops them.
constexpr int kSweeps = 40;
constexpr int64_t kPairsAPart = 4;

double* row_of(const Matrix64& x, int64_t i) { return x.data + i * x.stride; }

void rotate(double* a, double* b, int64_t n, double cosine, double sine) {
  for (int64_t i = 0; i < n; ++i) {
    const double left = a[i], right = b[i];
    a[i] = cosine * left - sine * right;
    b[i] = sine * left + cosine * right;
  }
}

// Makes rows i and j of s orthogonal and turns the vectors along; false where they are already.
bool orthogonalize(const Matrix64& s, const Matrix64& vectors, int64_t i, int64_t j) {
  double* a = row_of(s, i);
  double* b = row_of(s, j);
  const double aa = dot_product(a, a, s.cols), bb = dot_product(b, b, s.cols), ab = dot_product(a, b, s.cols);
  if (!(std::fabs(ab) > kOrthogonal * std::sqrt(aa) * std::sqrt(bb))) return false;
  const double zeta = (bb - aa) / (2 * ab);
  const double tangent = std::copysign(1.0, zeta) / (std::fabs(zeta) + std::hypot(1.0, zeta));
  const double cosine = 1 / std::hypot(1.0, tangent);
  rotate(a, b, s.cols, cosine, cosine * tangent);
  rotate(row_of(vectors, i), row_of(vectors, j), vectors.cols, cosine, cosine * tangent);
  return true;
}

// Pair `index` of a round of a tournament of `players`, an even number: in players - 1 rounds each meets each.
std::pair<int64_t, int64_t> pairing(int64_t players, int64_t round, int64_t index) {
  const int64_t others = players - 1;
  const int64_t first = index == 0 ? others : (round + index) % others;
  const int64_t second = (round + others - index) % others;
  return {std::min(first, second), std::max(first, second)};
}

// Rows of the vectors by descending length of the rows of s, the first of equals first.
bool sort_by_length(const Matrix64& s, const Matrix64& vectors) {
  const int64_t n = s.rows;
  const AlignedBuffer lengths(static_cast<size_t>(n) * sizeof(double));
  const AlignedBuffer order(static_cast<size_t>(n) * sizeof(int64_t));
  if (!lengths || !order) return false;
  double* length = lengths.as<double>();
  int64_t* at = order.as<int64_t>();
  for (int64_t i = 0; i < n; ++i) length[i] = dot_product(row_of(s, i), row_of(s, i), n);
  std::iota(at, at + n, int64_t{0});
  std::sort(at, at + n, [&](int64_t a, int64_t b) { return length[a] != length[b] ? length[a] > length[b] : a < b; });
  // s is spent: it takes the sorted rows.
  for (int64_t i = 0; i < n; ++i) std::copy_n(row_of(vectors, at[i]), n, row_of(s, i));
  for (int64_t i = 0; i < n; ++i) std::copy_n(row_of(s, i), n, row_of(vectors, i));
  return true;
}

}  // namespace

Status symmetric_eigen(Context& context, const Matrix64& s, const Matrix64& vectors) {
  const int64_t n = s.rows;
  LUTRA_TRY(require_equal(s.cols, n, "eigen: the matrix must be square"));
  LUTRA_TRY(require_equal(vectors.rows, n, "eigen: rows of the vectors, against those of the matrix"));
  LUTRA_TRY(require_equal(vectors.cols, n, "eigen: columns of the vectors, against those of the matrix"));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) row_of(vectors, i)[j] = i == j;
  if (n == 0) return ok_status();
  const int64_t players = n + n % 2;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    std::atomic<bool> turned{false};
    for (int64_t round = 0; round < players - 1; ++round)
      LUTRA_TRY(finished(context.parallel(ceil_div(players / 2, kPairsAPart), [&](int64_t part) {
        const int64_t end = std::min(players / 2, (part + 1) * kPairsAPart);
        for (int64_t index = part * kPairsAPart; index < end; ++index) {
          const auto [i, j] = pairing(players, round, index);
          if (j < n && orthogonalize(s, vectors, i, j)) turned.store(true, std::memory_order_relaxed);
        }
      })));
    if (!turned.load()) break;
  }
  return sort_by_length(s, vectors) ? ok_status() : out_of_memory(2 * n * static_cast<int64_t>(sizeof(double)));
}

}  // namespace lutra

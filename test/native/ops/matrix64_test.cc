#include "ops/matrix64.h"

#include "../operands.h"
#include "linalg/cholesky.h"
#include "ops/linear.h"

using namespace lutra;
using namespace lutra::test;

namespace {

// The upper triangle of a square, packed.
void pack(Operand<double>& square, int64_t n, Operand<double>& packed) {
  size_t at = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = i; j < n; ++j) packed[at++] = square[static_cast<size_t>(i * n + j)];
}

constexpr int64_t triangle(int64_t n) { return n * (n + 1) / 2; }

}  // namespace

LUTRA_TEST(matrix64, rows_of_a_symmetric_matrix_are_read_whole) {
  Lanes lanes(3);
  for (const int64_t n : {1, 5, 64, 65, 150}) {
    Operand<double> square({n, n}), packed({triangle(n)});
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        square[static_cast<size_t>(i * n + j)] = static_cast<double>(std::min(i, j) * 1000 + std::max(i, j));
    pack(square, n, packed);
    CHECK(triangle_rows(packed.view) == n);
    for (const TensorView& x : {square.view, packed.view})
      for (const int64_t first : {int64_t{0}, n / 3, n - 1}) {
        const int64_t count = (n - first + 1) / 2, begin = n / 4, end = n - n / 5, stride = end - begin + 2;
        Operand<double> out({count, stride});
        CHECK(read_symmetric(lanes.context, upper_triangle(x), first, count, begin, end, out.data(), stride,
                             [](double h) { return h + 0.5; })
                  .ok());
        for (int64_t r = 0; r < count; ++r)
          for (int64_t j = begin; j < end; ++j)
            CHECK(out[static_cast<size_t>(r * stride + j - begin)] ==
                  square[static_cast<size_t>((first + r) * n + j)] + 0.5);
      }
  }
}

LUTRA_TEST(matrix64, a_length_between_two_triangles_is_none) {
  for (const int64_t elements : {2, 4, 5, 7, 60'593'537}) {
    const TensorView x{nullptr, Dtype::kF64, 1, {elements}};
    CHECK(triangle_rows(x) == -1);
  }
  CHECK(triangle_rows(TensorView{nullptr, Dtype::kF64, 1, {60'593'536}}) == 11'008);
  CHECK(triangle_rows(TensorView{nullptr, Dtype::kF64, 2, {3, 4}}) == -1);
}

LUTRA_TEST(matrix64, a_packed_gram_has_the_bits_of_the_upper_half) {
  Lanes lanes(3);
  for (const int64_t k : {1, 7, 97, 200, 390}) {
    Operand<float> x({70, k});
    fill(x, Distribution::kNormal, 3);
    Operand<double> square({k, k}), packed({triangle(k)}), expected({triangle(k)});
    std::fill_n(square.data(), square.count(), 0.0);
    std::fill_n(packed.data(), packed.count(), 0.0);
    for (int round = 0; round < 2; ++round) {
      CHECK(accumulate_gram(lanes.context, x.view, square.view).ok());
      CHECK(accumulate_gram(lanes.context, x.view, packed.view).ok());
    }
    pack(square, k, expected);
    CHECK(packed.same_bits(expected));
  }
}

LUTRA_TEST(matrix64, a_packed_factor_has_the_bits_of_the_square) {
  for (const int64_t n : {1, 5, 95, 96, 97, 192, 200, 300}) {
    Operand<float> x({n + 40, n});
    fill(x, Distribution::kNormal, static_cast<uint64_t>(n));
    Operand<double> square({n, n});
    std::fill_n(square.data(), square.count(), 0.0);
    Lanes one(1), three(3);
    CHECK(accumulate_gram(three.context, x.view, square.view).ok());
    Operand<double> packed({triangle(n)}), again({triangle(n)});
    size_t at = 0;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j <= i; ++j) packed[at++] = square[static_cast<size_t>(i * n + j)];
    std::copy_n(packed.data(), packed.count(), again.data());
    CHECK(cholesky(one.context, square.view).ok());
    CHECK(cholesky(one.context, packed.view).ok());
    CHECK(cholesky(three.context, again.view).ok());
    CHECK(packed.same_bits(again));
    at = 0;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j <= i; ++j) CHECK(packed[at++] == square[static_cast<size_t>(i * n + j)]);
  }
}

#include "quantize/block_search.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "core/checked.h"
#include "ops/matrix64.h"
#include "ops/operand.h"
#include "ops/product.h"
#include "ops/transformer.h"
#include "quantize/grid.h"

namespace lutra {

namespace {

constexpr int64_t kBandElements = int64_t{1} << 20;  // errors of candidates that are held at once
constexpr int64_t kPartCandidates = 16;

// The search over one group's columns for a band of rows: the errors of every candidate of every row, times the block
// of the Hessian, in one product.
struct Band {
  const BlockSearch& search;
  const float* w;  // the group's first weight of the band's first row
  int64_t k;
  int64_t rows;
  int64_t width;
  float* errors;   // [rows, candidates, width]
  float* pulled;   // the same, times the block
  double* scores;  // [rows, candidates]

  template <typename Body>
  Status each(Context& context, Body&& body) const {
    const int64_t all = rows * search.candidates;
    return finished(context.parallel(ceil_div(all, kPartCandidates), [&](int64_t part) {
      for (int64_t i = part * kPartCandidates; i < std::min(all, (part + 1) * kPartCandidates); ++i) body(i);
    }));
  }

  Trial trial(int64_t row, int64_t candidate) const {
    double lo, hi;
    range_of(w + row * k, width, &lo, &hi);
    return search.candidate(search.options, lo, hi, candidate);
  }

  Status score(Context& context, const float* block) const {
    const int64_t candidates = search.candidates;
    const double largest = largest_code(search.options.bits);
    LUTRA_TRY(each(context, [&](int64_t i) {
      const float* in = w + i / candidates * k;
      const Trial tried = trial(i / candidates, i % candidates);
      for (int64_t j = 0; j < width; ++j)
        errors[i * width + j] = static_cast<float>(
            nearest_value(std::clamp(in[j], -tried.limit, tried.limit), tried.grid, largest) - in[j]);
    }));
    const RightOperand right{.data = block, .stride = width};
    LUTRA_TRY(product(context, rows * candidates, width, width, errors, width, right, pulled, width));
    return each(context, [&](int64_t i) {
      double sum = 0.0;
      for (int64_t j = 0; j < width; ++j)
        sum += static_cast<double>(errors[i * width + j]) * static_cast<double>(pulled[i * width + j]);
      scores[i] = sum;
    });
  }

  // The first candidate of the least score.
  int32_t best(int64_t row) const {
    const double* of_row = scores + row * search.candidates;
    return narrowed<int32_t>(std::min_element(of_row, of_row + search.candidates) - of_row);
  }
};

}  // namespace

Status search_blocks(Context& context, const BlockSearch& search, const TensorView& w, const TensorView& hessian,
                     int32_t* best) {
  const int64_t rows = w.shape[0], k = w.shape[1];
  LUTRA_TRY(require_triangle(hessian, k, "grid: the Hessian must be f64, rows and columns as w has columns"));
  int64_t bad = -1;
  LUTRA_TRY(find_non_finite(context, hessian, &bad));
  if (bad >= 0) return error(Code::kNonFinite, "grid: the Hessian is not finite at this element", bad);
  if (rows == 0 || k == 0) return ok_status();
  const int64_t length = group_length(search.options.group_size, k);
  const int64_t groups = ceil_div(k, length);
  const int64_t band = std::clamp<int64_t>(kBandElements / (search.candidates * length), 1, rows);
  const size_t held = static_cast<size_t>(band * search.candidates * length) * sizeof(float);
  // The product uses the context's scratch: these live beside it.
  const AlignedBuffer block(static_cast<size_t>(length * length) * sizeof(float));
  const AlignedBuffer errors(held), pulled(held),
      scores(static_cast<size_t>(band * search.candidates) * sizeof(double));
  if (!block || !errors || !pulled || !scores) return out_of_memory(static_cast<int64_t>(2 * held));
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * length, width = std::min(k, begin + length) - begin;
    LUTRA_TRY(read_symmetric(context, upper_triangle(hessian), begin, width, begin, begin + width, block.as<float>(),
                             width, [](double h) { return static_cast<float>(h); }));
    for (int64_t first = 0; first < rows; first += band) {
      const Band rows_of{search,
                         w.as<float>() + first * k + begin,
                         k,
                         std::min(band, rows - first),
                         width,
                         errors.as<float>(),
                         pulled.as<float>(),
                         scores.as<double>()};
      LUTRA_TRY(rows_of.score(context, block.as<float>()));
      for (int64_t row = 0; row < rows_of.rows; ++row) best[(first + row) * groups + g] = rows_of.best(row);
    }
  }
  return ok_status();
}

}  // namespace lutra

// decoupleQ's layer stage (arXiv 2404.12759): codes and the scales and offsets of their groups are fitted in turn, each
// for the least (W^ - W) H (W^ - W)^T of its row, w^ = scale * code + offset with real numbers free of any range.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"
#include "quantize/rtn.h"

namespace lutra {

// The damped Hessian: hessian f64 [k,k] plus diagonal f64 [k], positive definite.
struct DampedHessian {
  TensorView hessian;
  TensorView diagonal;
};

// What every pass asks of it, for matrices of k columns.
Status check_damped(Context& context, const DampedHessian& metric, int64_t k);
Status check_weights(Context& context, const TensorView& w);  // f32 [m,k], finite
Status check_finite(Context& context, const TensorView& values, const char* what);

// d (H + diagonal) d^T of every row d of differences f32 [m,k], into values f64 [m]; products in fp32.
Status damped_form_rows(Context& context, const DampedHessian& metric, const TensorView& differences,
                        const TensorView& values);

// The real offsets of a grid with zero codes, -scale * zero in the storage type. All f32 [m, groups].
Status offsets_of_grid(Context& context, const TensorView& scales, const TensorView& zeros, Dtype storage,
                       const TensorView& offsets);

// W times the damped Hessian, f64 [m,k], for w f32 [m,k]: what every later fit of scales to codes needs of the weights.
Status decoupleq_pull(Context& context, const DampedHessian& metric, const TensorView& w, const TensorView& pulled);

// How the numbers of a group are stored, and the code that stands for zero where they are a scale alone.
struct ScaleFit {
  int bits = 0;
  int64_t group_size = 0;  // in columns, at least one
  bool symmetric = false;  // w^ = scale * (code - 2^(bits - 1)); offsets are not touched
  Dtype storage = Dtype::kF16;
};

// A matrix in the making: codes u8 [m,k], scales and offsets f32 [m, groups], errors f64 [m], the objective of each
// row.
struct CodedRows {
  TensorView codes;
  TensorView scales;
  TensorView offsets;
  TensorView errors;
};

// Least squares of all scales and offsets of a row at once, codes given, by normal equations in fp64; rounded to
// storage and taken where that lowers the row's objective, which errors tells. A group whose codes are all the same
// determines only one number: it keeps its scale. Scales may come out negative or zero. scales and offsets are numbers
// of the storage type on the way in too.
Status decoupleq_fit(Context& context, const ScaleFit& options, const DampedHessian& metric, const TensorView& w,
                     const TensorView& pulled, const CodedRows& rows);

// The range of every row's groups, all shrunk by one factor 1 - i / 200, i < 160, whose nearest codes have the least
// objective: every 20th, then nearer and nearer to the best. scales and offsets f32 [m, groups] out; a
// symmetric grid leaves offsets alone. options.search is not read.
Status decoupleq_search(Context& context, const GridOptions& options, const DampedHessian& metric, const TensorView& w,
                        const TensorView& scales, const TensorView& offsets);

struct Descent {
  int64_t steps = 0;        // of Adam before the first column is rounded
  int64_t inner_steps = 0;  // after every column that is
  double rate = 0.0;        // in steps of the group's grid
};

// Codes u8 [m,k] for numbers given, by projected gradient descent: weights start where they are, in [0, 2^bits - 1]
// steps of their group's grid; Adam moves them towards the least objective inside that box, then column after column is
// rounded and all behind it move on. scales and offsets as decoupleq_fit has them. Time grows as inner_steps m k^3.
Status decoupleq_descend(Context& context, const ScaleFit& options, const Descent& descent, const DampedHessian& metric,
                         const TensorView& w, const TensorView& scales, const TensorView& offsets,
                         const TensorView& codes);

// Rows of `candidate` with smaller errors replace those of `best`; `taken` tells how many.
Status take_better_rows(Context& context, const CodedRows& best, const CodedRows& candidate, int64_t* taken);

}  // namespace lutra

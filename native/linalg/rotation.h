// Randomised Hadamard rotations and diagonal scalings of matrices, in fp64.
//
// For vectors of n = 2^a b elements, b odd, the rotation is Q = diag(signs) K with K = S_a (x) C_b:
//   S_a  the Walsh-Hadamard matrix of 2^a in natural order over 2^(a/2): entries +-2^(-a/2)
//   C_b  the Hartley matrix of b, (cos + sin)(2 pi i j / b) / sqrt(b): no entry larger than sqrt(2 / b); C_1 = 1
// Element p b + r of a vector is component r of factor C and p of factor S. Both factors are symmetric and orthogonal,
// so x Q = K (signs x) for a row x and Q^T w = K (signs w) for a column w: one pass serves both sides of a matrix.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

enum class Axis : uint8_t {
  kRows,     // vectors run down the columns: y = (I (x) Q)^T x
  kColumns,  // vectors lie in the rows: y = x (I (x) Q)
};

// Largest odd factor of a rotation's size: the cost of C_b grows with b^2.
constexpr int64_t kLargestOddFactor = 1024;

// y [m,k] is x [m,k] with every `signs.shape[0]` consecutive elements along the axis rotated; the axis holds a multiple
// of them. signs f64 [n], +1 or -1. x and y are f32, f16, bf16 or f64, and y shares no memory with x. The sums are
// fp64, in an order that depends on n alone; y is rounded once.
Status rotate(Context& context, Axis axis, const TensorView& x, const TensorView& signs, const TensorView& y);

// y[i,j] = x[i,j] rows[i] columns[j], rounded once; rows f64 [m], columns f64 [k]; x and y as above, y may be x.
Status scale_matrix(Context& context, const TensorView& x, const TensorView& rows, const TensorView& columns,
                    const TensorView& y);

}  // namespace lutra

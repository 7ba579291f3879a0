// The blocked fp32 product behind linear and the solvers' passes.
#pragma once

#include "core/status.h"
#include "core/tensor_view.h"
#include "ops/context.h"

namespace lutra {

// B of a product A B^T: m rows of k elements, row-major with `stride` elements from row to row; or, where `k_major` is
// set (f32 only), k rows of m elements. Where `row_scales` is set the elements are int8, whatever dtype says, and row r
// is row_scales[r] times them.
struct RightOperand {
  const void* data = nullptr;
  Dtype dtype = Dtype::kF32;
  int64_t stride = 0;
  bool k_major = false;
  const float* row_scales = nullptr;
};

// c[n,m] = a[n,k] b^T. Every element is summed in fp32 over blocks of 256 ascending k where the product is blocked,
// in vector lanes where n is small: the order depends on n, k and the instruction set, never on lanes. With
// `batch_invariant` it does not depend on n either (B may not be k_major then).
Status product(Context& context, int64_t n, int64_t m, int64_t k, const float* a, int64_t a_stride,
               const RightOperand& b, float* c, int64_t c_stride, bool batch_invariant = false);

// c[n,m] = a[k,n]^T b[k,m], both operands k-major. Always blocked.
Status product_of_columns(Context& context, int64_t n, int64_t m, int64_t k, const float* a, int64_t a_stride,
                          const float* b, int64_t b_stride, float* c, int64_t c_stride);

}  // namespace lutra

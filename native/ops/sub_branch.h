// The two products of a sub-branch, in fp32 whatever the mode: t = A x before a matrix is read, and B t, which starts
// the rows of a tile. Their bits depend on the row and the token alone.
#pragma once

#include "packing/layout.h"

namespace lutra {

// Rows of A that one call of sub_branch_down takes.
int64_t sub_branch_step();

// t[token * rank + j] = row j of A times the token, for rows [first, first + sub_branch_step()) of A that exist.
void sub_branch_down(const SubBranch& sub_branch, const float* x, int64_t cols, int64_t tokens, int64_t first,
                     float* t);

// y[token * y_stride + i] = row `row` + i of B times the token's t, for i < rows.
void sub_branch_up(const SubBranch& sub_branch, int64_t row, int64_t rows, const float* t, int64_t tokens, float* y,
                   int64_t y_stride);

// The fp64 side, for bounds and dequantized weights.
//
// fp32 roundings that a term meets on its way from x to y at most, in any order of the sums.
double sub_branch_roundings(const SubBranch& sub_branch, int64_t cols);
// Element (j, k) of A and (i, j) of B.
double sub_branch_a(const SubBranch& sub_branch, int64_t j, int64_t k, int64_t cols);
double sub_branch_b(const SubBranch& sub_branch, int64_t i, int64_t j);
// values[k - first] += row i of B A in columns [first, last).
void sub_branch_add(const SubBranch& sub_branch, int64_t i, int64_t first, int64_t last, int64_t cols, double* values);

}  // namespace lutra

#include "quantize/column_order.h"

#include "ops/indices.h"
#include "ops/matrix64.h"
#include "ops/operand.h"
#include "quantize/for_rows.h"

namespace lutra {

namespace {

Status check_hessian(const TensorView& matrix) {
  if (matrix.dtype != Dtype::kF64) return error(Code::kDtype, "the Hessian must be f64");
  if (triangle_rows(matrix) < 1)
    return error(Code::kShape, "the Hessian must be square, or a packed triangle", matrix.rows(), matrix.cols());
  return ok_status();
}

// The column numbers of index[count], each in [lowest, columns).
Status take_index(const TensorView& index, int64_t count, int64_t lowest, int64_t columns, Indices* numbers) {
  if (index.dtype != Dtype::kI32) return error(Code::kDtype, "column numbers must be i32");
  if (index.rank != 1 || index.shape[0] != count)
    return error(Code::kShape, "one column number a column is needed", index.elements(), count);
  return numbers->take(index, lowest, columns, "column number out of range");
}

template <typename T>
Status gather(Context& context, const TensorView& x, const Indices& index, const TensorView& y) {
  const int64_t from = x.cols(), to = y.cols();
  return for_rows(context, y.rows(), [&](int64_t row) {
    const T* in = x.as<T>() + row * from;
    T* out = y.as<T>() + row * to;
    for (int64_t j = 0; j < to; ++j) out[j] = index[j] < 0 ? T{} : in[index[j]];
  });
}

}  // namespace

Status hessian_diagonal(Context&, const TensorView& hessian, const TensorView& diagonal) {
  LUTRA_TRY(check_hessian(hessian));
  const Matrix64 upper = upper_triangle(hessian);
  const int64_t k = upper.rows;
  if (diagonal.dtype != Dtype::kF64) return error(Code::kDtype, "the diagonal must be f64");
  if (diagonal.elements() != k) return error(Code::kShape, "the diagonal has k elements", diagonal.elements(), k);
  for (int64_t i = 0; i < k; ++i) diagonal.as<double>()[i] = upper.at(i, i);
  return ok_status();
}

Status prepare_hessian(Context& context, const TensorView& hessian, const TensorView& order, double damping,
                       const TensorView& prepared) {
  LUTRA_TRY(check_hessian(hessian));
  LUTRA_TRY(check_hessian(prepared));
  const Matrix64 from = upper_triangle(hessian), to = upper_triangle(prepared);
  const int64_t k = from.rows;
  if (to.rows != k) return error(Code::kShape, "both matrices have one size", to.rows, k);
  LUTRA_TRY(require_apart(prepared, hessian, "the prepared Hessian may not overlap the Hessian"));
  Indices columns;
  LUTRA_TRY(take_index(order, k, 0, k, &columns));
  return for_rows(context, k, [&](int64_t i) {
    double* out = to.row(i);
    for (int64_t j = to.growth == 0 ? 0 : i; j < k; ++j) out[j] = symmetric_at(from, columns[i], columns[j]);
    out[i] = (out[i] == 0.0 ? 1.0 : out[i]) + damping;
  });
}

Status gather_columns(Context& context, const TensorView& x, const TensorView& index, const TensorView& y) {
  if (x.rank != 2 || y.rank != 2 || x.shape[0] != y.shape[0])
    return error(Code::kShape, "both matrices have the same rows", y.rows(), x.rows());
  LUTRA_TRY(require_apart(y, x, "the gathered columns may not overlap the matrix"));
  Indices numbers;
  LUTRA_TRY(take_index(index, y.cols(), -1, x.cols(), &numbers));
  if (x.dtype == Dtype::kF32 && y.dtype == Dtype::kF32) return gather<float>(context, x, numbers, y);
  if (x.dtype == Dtype::kU8 && y.dtype == Dtype::kU8) return gather<uint8_t>(context, x, numbers, y);
  return error(Code::kDtype, "both matrices are f32, or both are u8");
}

}  // namespace lutra

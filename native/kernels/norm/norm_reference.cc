#include <cmath>

#include "kernels/norm/norm.h"

namespace lutra {

void rms_norm_reference(const float* x, const float* weight, float epsilon, double* y, int64_t d) {
  double squares = 0;
  for (int64_t i = 0; i < d; ++i) squares += static_cast<double>(x[i]) * x[i];
  const double factor = 1.0 / std::sqrt(squares / static_cast<double>(d) + epsilon);
  for (int64_t i = 0; i < d; ++i) y[i] = x[i] * factor * weight[i];
}

}  // namespace lutra

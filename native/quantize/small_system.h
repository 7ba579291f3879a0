// The least-squares systems of one group: a handful of unknowns, often with columns that say the same.
#pragma once

#include <cmath>

namespace lutra {

constexpr int kMaxUnknowns = 9;  // 8 alphas and an offset

struct SmallSystem {
  int unknowns = 0;
  double a[kMaxUnknowns][kMaxUnknowns] = {};  // symmetric, positive semidefinite; the lower triangle is read
  double b[kMaxUnknowns] = {};

  // x with a x = b. An unknown whose column depends on those before it, to `tolerance` of its diagonal, stays zero:
  // where b lies in the range of a, that is still a solution. Destroys a and b.
  void solve(double tolerance, double* x) {
    bool used[kMaxUnknowns] = {};
    for (int j = 0; j < unknowns; ++j) {
      double pivot = a[j][j];
      for (int l = 0; l < j; ++l)
        if (used[l]) pivot -= a[j][l] * a[j][l];
      used[j] = pivot > tolerance * a[j][j];
      if (!used[j]) continue;
      const double root = std::sqrt(pivot);
      for (int l = 0; l < j; ++l)
        if (used[l]) b[j] -= a[j][l] * b[l];
      b[j] /= root;
      a[j][j] = root;
      for (int i = j + 1; i < unknowns; ++i) {
        for (int l = 0; l < j; ++l)
          if (used[l]) a[i][j] -= a[i][l] * a[j][l];
        a[i][j] /= root;
      }
    }
    for (int j = unknowns - 1; j >= 0; --j) {
      x[j] = 0.0;
      if (!used[j]) continue;
      double sum = b[j];
      for (int i = j + 1; i < unknowns; ++i)
        if (used[i]) sum -= a[i][j] * x[i];
      x[j] = sum / a[j][j];
    }
  }
};

}  // namespace lutra

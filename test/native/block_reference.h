// A decoder block and its derivatives in fp64, plain loops: what the operators of ops/backward.h are tested against. It
// is tested itself against finite differences.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace lutra::test {

using Numbers = std::vector<double>;

struct BlockShape {
  int64_t n, d, heads, kv_heads, head_dim, ff, window;
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }
};

constexpr double kReferenceEpsilon = 1e-5;

// y[n,m] = x[n,k] w[m,k]^T
inline Numbers linear_reference(const Numbers& x, const Numbers& w, int64_t n, int64_t m, int64_t k) {
  Numbers y(static_cast<size_t>(n * m));
  for (int64_t t = 0; t < n; ++t)
    for (int64_t r = 0; r < m; ++r)
      for (int64_t i = 0; i < k; ++i)
        y[static_cast<size_t>(t * m + r)] += x[static_cast<size_t>(t * k + i)] * w[static_cast<size_t>(r * k + i)];
  return y;
}

// dw[m,k] and, added to what is there, dx[n,k].
inline void linear_backward_reference(const Numbers& dy, const Numbers& x, const Numbers& w, int64_t n, int64_t m,
                                      int64_t k, Numbers& dx, Numbers& dw) {
  dx.resize(static_cast<size_t>(n * k));
  dw.assign(static_cast<size_t>(m * k), 0.0);
  for (int64_t t = 0; t < n; ++t)
    for (int64_t r = 0; r < m; ++r)
      for (int64_t i = 0; i < k; ++i) {
        const double g = dy[static_cast<size_t>(t * m + r)];
        dx[static_cast<size_t>(t * k + i)] += g * w[static_cast<size_t>(r * k + i)];
        dw[static_cast<size_t>(r * k + i)] += g * x[static_cast<size_t>(t * k + i)];
      }
}

inline double inverse_rms_reference(const double* x, int64_t d) {
  double squares = 0;
  for (int64_t i = 0; i < d; ++i) squares += x[i] * x[i];
  return 1 / std::sqrt(squares / static_cast<double>(d) + kReferenceEpsilon);
}

inline Numbers norm_reference(const Numbers& x, const Numbers& w, int64_t n, int64_t d) {
  Numbers y(x.size());
  for (int64_t t = 0; t < n; ++t) {
    const double r = inverse_rms_reference(&x[static_cast<size_t>(t * d)], d);
    for (int64_t i = 0; i < d; ++i)
      y[static_cast<size_t>(t * d + i)] = x[static_cast<size_t>(t * d + i)] * r * w[static_cast<size_t>(i)];
  }
  return y;
}

inline void norm_backward_reference(const Numbers& dy, const Numbers& x, const Numbers& w, int64_t n, int64_t d,
                                    Numbers& dx, Numbers& dw) {
  dx.assign(x.size(), 0.0);
  dw.assign(static_cast<size_t>(d), 0.0);
  for (int64_t t = 0; t < n; ++t) {
    const double* row = &x[static_cast<size_t>(t * d)];
    const double* g = &dy[static_cast<size_t>(t * d)];
    const double r = inverse_rms_reference(row, d);
    double mean = 0;
    for (int64_t i = 0; i < d; ++i) mean += g[i] * w[static_cast<size_t>(i)] * row[i] * r / static_cast<double>(d);
    for (int64_t i = 0; i < d; ++i) {
      dw[static_cast<size_t>(i)] += g[i] * row[i] * r;
      dx[static_cast<size_t>(t * d + i)] = (g[i] * w[static_cast<size_t>(i)] - row[i] * r * mean) * r;
    }
  }
}

// cos_sin as of ops rope; `direction` -1 is the way back.
inline void rope_turn_reference(Numbers& x, const Numbers& cos_sin, int64_t n, int64_t width, int64_t head_dim,
                                double direction) {
  const int64_t half = head_dim / 2;
  for (int64_t t = 0; t < n; ++t)
    for (int64_t h = 0; h < width; h += head_dim)
      for (int64_t i = 0; i < half; ++i) {
        double& a = x[static_cast<size_t>(t * width + h + i)];
        double& b = x[static_cast<size_t>(t * width + h + half + i)];
        const double c = cos_sin[static_cast<size_t>(t * head_dim + i)];
        const double s = direction * cos_sin[static_cast<size_t>(t * head_dim + half + i)];
        const double first = a * c - b * s;
        b = b * c + a * s;
        a = first;
      }
}

// The softmax of one query of one head over keys begin .. query.
inline Numbers attention_weights(const BlockShape& b, const Numbers& q, const Numbers& k, int64_t head, int64_t query,
                                 int64_t* begin) {
  *begin = b.window > 0 && query + 1 > b.window ? query + 1 - b.window : 0;
  const int64_t kv = head / (b.heads / b.kv_heads);
  Numbers p;
  double largest = -HUGE_VAL, sum = 0;
  for (int64_t j = *begin; j <= query; ++j) {
    double dot = 0;
    for (int64_t i = 0; i < b.head_dim; ++i)
      dot += q[static_cast<size_t>(query * b.q_width() + head * b.head_dim + i)] *
             k[static_cast<size_t>(j * b.kv_width() + kv * b.head_dim + i)];
    p.push_back(dot / std::sqrt(static_cast<double>(b.head_dim)));
    largest = std::fmax(largest, p.back());
  }
  for (double& score : p) sum += score = std::exp(score - largest);
  for (double& score : p) score /= sum;
  return p;
}

inline Numbers attention_of_reference(const BlockShape& b, const Numbers& q, const Numbers& k, const Numbers& v) {
  Numbers y(q.size());
  for (int64_t t = 0; t < b.n; ++t)
    for (int64_t h = 0; h < b.heads; ++h) {
      int64_t begin = 0;
      const Numbers p = attention_weights(b, q, k, h, t, &begin);
      for (int64_t j = begin; j <= t; ++j)
        for (int64_t i = 0; i < b.head_dim; ++i)
          y[static_cast<size_t>(t * b.q_width() + h * b.head_dim + i)] +=
              p[static_cast<size_t>(j - begin)] *
              v[static_cast<size_t>(j * b.kv_width() + h / (b.heads / b.kv_heads) * b.head_dim + i)];
    }
  return y;
}

inline void attention_backward_reference(const BlockShape& b, const Numbers& q, const Numbers& k, const Numbers& v,
                                         const Numbers& dy, Numbers& dq, Numbers& dk, Numbers& dv) {
  dq.assign(q.size(), 0.0);
  dk.assign(k.size(), 0.0);
  dv.assign(v.size(), 0.0);
  const double scale = 1 / std::sqrt(static_cast<double>(b.head_dim));
  for (int64_t t = 0; t < b.n; ++t)
    for (int64_t h = 0; h < b.heads; ++h) {
      int64_t begin = 0;
      const Numbers p = attention_weights(b, q, k, h, t, &begin);
      Numbers dp(p.size());
      const size_t at = static_cast<size_t>(t * b.q_width() + h * b.head_dim);
      const auto line = [&](int64_t j) {
        return static_cast<size_t>(j * b.kv_width() + h / (b.heads / b.kv_heads) * b.head_dim);
      };
      double mean = 0;
      for (size_t j = 0; j < p.size(); ++j) {
        for (size_t i = 0; i < static_cast<size_t>(b.head_dim); ++i) {
          dp[j] += dy[at + i] * v[line(begin + static_cast<int64_t>(j)) + i];
          dv[line(begin + static_cast<int64_t>(j)) + i] += p[j] * dy[at + i];
        }
        mean += p[j] * dp[j];
      }
      for (size_t j = 0; j < p.size(); ++j)
        for (size_t i = 0; i < static_cast<size_t>(b.head_dim); ++i) {
          const double ds = p[j] * (dp[j] - mean) * scale;
          dq[at + i] += ds * k[line(begin + static_cast<int64_t>(j)) + i];
          dk[line(begin + static_cast<int64_t>(j)) + i] += ds * q[at + i];
        }
    }
}

inline double sigmoid_reference(double x) { return 1 / (1 + std::exp(-x)); }

// The block's tensors, and the derivatives by them.
struct BlockTensors {
  Numbers norm1, q, k, v, o, norm2, gate, up, down;
  std::vector<Numbers*> all() { return {&norm1, &q, &k, &v, &o, &norm2, &gate, &up, &down}; }
};

// What the forward pass leaves for the way back.
struct BlockTape {
  Numbers h1, q, k, v, attended, residual, h2, gate, up, mixed, y;
};

inline BlockTape block_reference(const BlockShape& b, const BlockTensors& w, const Numbers& cos_sin, const Numbers& x) {
  BlockTape t;
  t.h1 = norm_reference(x, w.norm1, b.n, b.d);
  t.q = linear_reference(t.h1, w.q, b.n, b.q_width(), b.d);
  t.k = linear_reference(t.h1, w.k, b.n, b.kv_width(), b.d);
  t.v = linear_reference(t.h1, w.v, b.n, b.kv_width(), b.d);
  rope_turn_reference(t.q, cos_sin, b.n, b.q_width(), b.head_dim, 1);
  rope_turn_reference(t.k, cos_sin, b.n, b.kv_width(), b.head_dim, 1);
  t.attended = attention_of_reference(b, t.q, t.k, t.v);
  t.residual = linear_reference(t.attended, w.o, b.n, b.d, b.q_width());
  for (size_t i = 0; i < x.size(); ++i) t.residual[i] += x[i];
  t.h2 = norm_reference(t.residual, w.norm2, b.n, b.d);
  t.gate = linear_reference(t.h2, w.gate, b.n, b.ff, b.d);
  t.up = linear_reference(t.h2, w.up, b.n, b.ff, b.d);
  t.mixed.resize(t.gate.size());
  for (size_t i = 0; i < t.gate.size(); ++i) t.mixed[i] = t.gate[i] * sigmoid_reference(t.gate[i]) * t.up[i];
  t.y = linear_reference(t.mixed, w.down, b.n, b.d, b.ff);
  for (size_t i = 0; i < x.size(); ++i) t.y[i] += t.residual[i];
  return t;
}

// Mean squared distance of the block's output from `target`.
inline double block_loss(const BlockTape& tape, const Numbers& target) {
  double sum = 0;
  for (size_t i = 0; i < target.size(); ++i) sum += (tape.y[i] - target[i]) * (tape.y[i] - target[i]);
  return sum / static_cast<double>(target.size());
}

// The derivatives of block_loss by every tensor of the block.
inline BlockTensors block_backward_reference(const BlockShape& b, const BlockTensors& w, const Numbers& cos_sin,
                                             const Numbers& x, const BlockTape& t, const Numbers& target) {
  BlockTensors g;
  Numbers dy(t.y.size()), dmixed, dgate(t.gate.size()), dup(t.gate.size()), dh2, dresidual, dattended, dq, dk, dv, dh1;
  for (size_t i = 0; i < dy.size(); ++i) dy[i] = 2 * (t.y[i] - target[i]) / static_cast<double>(dy.size());
  linear_backward_reference(dy, t.mixed, w.down, b.n, b.d, b.ff, dmixed, g.down);
  for (size_t i = 0; i < dgate.size(); ++i) {
    const double share = sigmoid_reference(t.gate[i]);
    dgate[i] = dmixed[i] * t.up[i] * share * (1 + t.gate[i] * (1 - share));
    dup[i] = dmixed[i] * t.gate[i] * share;
  }
  linear_backward_reference(dgate, t.h2, w.gate, b.n, b.ff, b.d, dh2, g.gate);
  linear_backward_reference(dup, t.h2, w.up, b.n, b.ff, b.d, dh2, g.up);
  norm_backward_reference(dh2, t.residual, w.norm2, b.n, b.d, dresidual, g.norm2);
  for (size_t i = 0; i < dy.size(); ++i) dresidual[i] += dy[i];
  linear_backward_reference(dresidual, t.attended, w.o, b.n, b.d, b.q_width(), dattended, g.o);
  attention_backward_reference(b, t.q, t.k, t.v, dattended, dq, dk, dv);
  rope_turn_reference(dq, cos_sin, b.n, b.q_width(), b.head_dim, -1);
  rope_turn_reference(dk, cos_sin, b.n, b.kv_width(), b.head_dim, -1);
  linear_backward_reference(dq, t.h1, w.q, b.n, b.q_width(), b.d, dh1, g.q);
  linear_backward_reference(dk, t.h1, w.k, b.n, b.kv_width(), b.d, dh1, g.k);
  linear_backward_reference(dv, t.h1, w.v, b.n, b.kv_width(), b.d, dh1, g.v);
  Numbers unused;
  norm_backward_reference(dh1, x, w.norm1, b.n, b.d, unused, g.norm1);
  return g;
}

}  // namespace lutra::test

// Causal grouped-query attention over a cache in device memory, for one or many tokens, in fp32.
//
// A block goes through its range of keys a tile at a time: scores (eight lanes a key), their softmax against the
// largest score so far (one warp a row), and the mix of the values (eight columns a thread). Ranges are joined by the
// block that comes last, in their order.
#pragma once

#include "cuda/attention/attention.h"
#include "cuda/lut_gemm/stored.h"
#include "cuda/simt/last_block.h"

namespace lutra::cuda {

template <int kRows>
class AttentionKernel {
 public:
  using Arguments = AttentionArguments;
  static constexpr int kThreads = kAttentionThreads;

  LUTRA_DEVICE static void run(const Arguments& args, uint8_t* shared) { AttentionKernel(args, shared).run(); }

 private:
  static constexpr int kKeyLanes = 8;
  static constexpr int kKeyGroups = kThreads / kKeyLanes;
  static constexpr int kLaneKeys = kTileKeys / kKeyGroups;  // of a tile
  static constexpr int kMixKeys = 4;                        // whose values are on their way together

  LUTRA_DEVICE AttentionKernel(const Arguments& args, uint8_t* shared)
      : args_(args),
        op_(args.op),
        group_(op_.heads / op_.kv_heads),
        pitch_(attention_pitch(op_.head_dim)),
        position_(load(op_.position)),
        q_(reinterpret_cast<float*>(shared)),
        scores_(q_ + kRows * pitch_),
        largest_(scores_ + kRows * kTileKeys),
        total_(largest_ + kRows),
        factor_(total_ + kRows),
        sums_(factor_ + kRows) {
    const int rows = op_.tokens * group_;
    const int row_blocks = (rows + kRows - 1) / kRows;
    meeting_ = block_index() % (row_blocks * op_.kv_heads);
    kv_head_ = meeting_ / row_blocks;
    first_row_ = meeting_ % row_blocks * kRows;
    range_ = block_index() / (row_blocks * op_.kv_heads);
    count_ = rows - first_row_ < kRows ? rows - first_row_ : kRows;
    LUTRA_UNROLL
    for (int r = 0; r < kRows; ++r) LUTRA_UNROLL
    for (int i = 0; i < 8; ++i) mixed_[r][i] = 0.0f;
  }

  // The keys that row r of the block sees.
  LUTRA_DEVICE int64_t end_of(int r) const {
    const int64_t end = static_cast<int64_t>(position_) + (first_row_ + r) / group_ + 1;
    return end < op_.capacity ? end : op_.capacity;
  }
  LUTRA_DEVICE int64_t begin_of(int r) const {
    const int64_t begin = op_.window > 0 ? end_of(r) - op_.window : 0;
    return begin > 0 ? begin : 0;
  }
  LUTRA_DEVICE int64_t place(int r) const {
    const int64_t row = first_row_ + r;
    return (row / group_ * op_.heads + kv_head_ * group_ + row % group_) * op_.head_dim;
  }

  LUTRA_DEVICE void run() {
    const int64_t begin = begin_of(0);
    end_ = end_of(count_ - 1);
    if (position_ < 0 || begin >= end_) return;
    const int first_range = static_cast<int>(begin / args_.range_keys);
    const int last_range = static_cast<int>((end_ - 1) / args_.range_keys);
    if (range_ < first_range || range_ > last_range) return;
    stage_queries();
    const int64_t range_begin = static_cast<int64_t>(range_) * args_.range_keys;
    const int64_t range_end = range_begin + args_.range_keys < end_ ? range_begin + args_.range_keys : end_;
    const int64_t from = begin > range_begin ? begin / kTileKeys * kTileKeys : range_begin;
    for (int64_t tile = from; tile < range_end; tile += kTileKeys) {
      score(tile);
      sync_block();
      soften(tile);
      sync_block();
      mix(tile);
      sync_block();
    }
    const bool alone = first_range == last_range;
    store(alone);
    uint32_t* const flag = reinterpret_cast<uint32_t*>(sums_);
    const uint32_t ranges = static_cast<uint32_t>(last_range - first_range + 1);
    if (!alone && comes_last(args_.counters + meeting_, ranges, flag)) join(first_range, last_range);
  }

  LUTRA_DEVICE void stage_queries() {
    for (int i = thread_index(); i < kRows * pitch_; i += kThreads) {
      const int r = i / pitch_;
      const int d = i % pitch_;
      q_[i] = r < count_ && d < op_.head_dim ? load(op_.q + place(r) + d) : 0.0f;
    }
    for (int r = thread_index(); r < kRows; r += kThreads) {
      largest_[r] = float_of(0xff800000u);
      total_[r] = 0.0f;
    }
    sync_block();
  }

  // Products of q and the tile's keys, scaled. Keys past the end count as zeros.
  LUTRA_DEVICE void score(int64_t tile) {
    const int lane = thread_index() % kKeyLanes;
    const int group = thread_index() / kKeyLanes;
    const float scale = 1.0f / square_root(static_cast<float>(op_.head_dim));
    float products[kLaneKeys][kRows] = {};
    for (int d = lane * 8; d < pitch_; d += kKeyLanes * 8) {
      float keys[kLaneKeys][8];
      LUTRA_UNROLL
      for (int j = 0; j < kLaneKeys; ++j) load_cached(op_.keys, tile + group + j * kKeyGroups, d, keys[j]);
      LUTRA_UNROLL
      for (int r = 0; r < kRows; ++r) LUTRA_UNROLL
      for (int i = 0; i < 8; ++i) {
        const float q = q_[r * pitch_ + d + i];
        LUTRA_UNROLL
        for (int j = 0; j < kLaneKeys; ++j) products[j][r] = multiply_add(q, keys[j][i], products[j][r]);
      }
    }
    LUTRA_UNROLL
    for (int j = 0; j < kLaneKeys; ++j) LUTRA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float sum = products[j][r];
      LUTRA_UNROLL
      for (int mask = kKeyLanes / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
      if (lane == j) scores_[r * kTileKeys + group + j * kKeyGroups] = sum * scale;
    }
  }

  LUTRA_DEVICE void load_cached(const void* cache, int64_t key, int d, float (&eight)[8]) const {
    const int64_t left = key < end_ && d < op_.head_dim ? op_.head_dim - d : 0;
    load_eight(cache, left > 0 ? (key * op_.kv_heads + kv_head_) * op_.head_dim + d : 0, left, op_.cache_dtype, eight);
  }

  // Scores of the tile become weights, -1 where the row does not see the key; factor_ is what weights before it shrink
  // by.
  LUTRA_DEVICE void soften(int64_t tile) {
    const int lane = thread_index() % kWarp;
    for (int r = thread_index() / kWarp; r < kRows; r += kThreads / kWarp) {
      const int64_t begin = begin_of(r);
      const int64_t end = r < count_ ? end_of(r) : 0;
      float score[2];
      bool seen[2];
      LUTRA_UNROLL
      for (int h = 0; h < 2; ++h) {
        const int64_t key = tile + lane + h * kWarp;
        seen[h] = key >= begin && key < end;
        score[h] = seen[h] ? scores_[r * kTileKeys + lane + h * kWarp] : float_of(0xff800000u);
      }
      float most = larger(score[0], score[1]);
      LUTRA_UNROLL
      for (int mask = kWarp / 2; mask > 0; mask /= 2) most = larger(most, shuffle_xor(most, mask));
      const float before = largest_[r];
      most = larger(before, most);
      float sum = 0.0f;
      LUTRA_UNROLL
      for (int h = 0; h < 2; ++h) {
        const float weight = exp_of(score[h] - shift(most));
        scores_[r * kTileKeys + lane + h * kWarp] = seen[h] ? weight : -1.0f;
        sum += weight;
      }
      LUTRA_UNROLL
      for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
      if (lane == 0) {
        factor_[r] = exp_of(before - shift(most));
        largest_[r] = most;
        total_[r] = multiply_add(total_[r], factor_[r], sum);
      }
    }
  }

  LUTRA_DEVICE static float larger(float a, float b) { return b > a ? b : a; }
  // What scores are taken from: any number where none is larger than minus infinity, as all weights are zero then.
  LUTRA_DEVICE static float shift(float largest) { return largest == float_of(0xff800000u) ? 0.0f : largest; }

  LUTRA_DEVICE void mix(int64_t tile) {
    const int columns = pitch_ / 8;
    const int slices = kThreads / columns;
    const int slice = thread_index() / columns;
    if (slice >= slices) return;
    LUTRA_UNROLL
    for (int r = 0; r < kRows; ++r) LUTRA_UNROLL
    for (int i = 0; i < 8; ++i) mixed_[r][i] *= factor_[r];
    for (int first = slice; first < kTileKeys; first += slices * kMixKeys) {
      float values[kMixKeys][8];
      LUTRA_UNROLL
      for (int j = 0; j < kMixKeys; ++j)
        load_cached(op_.values, tile + first + j * slices, thread_index() % columns * 8, values[j]);
      LUTRA_UNROLL
      for (int j = 0; j < kMixKeys; ++j) {
        const int key = first + j * slices;
        if (key >= kTileKeys) continue;
        LUTRA_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const float weight = scores_[r * kTileKeys + key];
          if (weight < 0.0f) continue;
          LUTRA_UNROLL
          for (int i = 0; i < 8; ++i) mixed_[r][i] = multiply_add(weight, values[j][i], mixed_[r][i]);
        }
      }
    }
  }

  // Sums of the range, slice by slice: to y where it is the only one.
  LUTRA_DEVICE void store(bool alone) {
    const int slices = kThreads / (pitch_ / 8);
    LUTRA_UNROLL
    for (int r = 0; r < kRows; ++r) {
      LUTRA_UNROLL
      for (int i = 0; i < 8; ++i) sums_[thread_index() * 8 + i] = mixed_[r][i];
      sync_block();
      float* const partial = partial_of(r, range_);
      for (int d = thread_index(); d < op_.head_dim; d += kThreads) {
        float sum = 0.0f;
        for (int slice = 0; slice < slices; ++slice) sum += sums_[slice * pitch_ + d];
        if (!alone)
          partial[d] = sum;
        else if (r < count_)
          op_.y[place(r) + d] = sum * (1.0f / total_[r]);
      }
      if (!alone && thread_index() == 0) {
        partial[pitch_] = largest_[r];
        partial[pitch_ + 1] = total_[r];
      }
      sync_block();
    }
  }

  LUTRA_DEVICE float* partial_of(int r, int range) const {
    const int64_t row = static_cast<int64_t>(meeting_) * kRows + r;
    return args_.partials + (row * args_.ranges + range) * (pitch_ + 2);
  }

  LUTRA_DEVICE void join(int first_range, int last_range) {
    for (int i = thread_index(); i < count_ * op_.head_dim; i += kThreads) {
      const int r = i / op_.head_dim;
      const int d = i % op_.head_dim;
      float largest = float_of(0xff800000u);
      float total = 0.0f;
      float sum = 0.0f;
      for (int range = first_range; range <= last_range; ++range) {
        const float* const partial = partial_of(r, range);
        const float its_largest = load_written(partial + pitch_);
        const float most = larger(largest, its_largest);
        const float before = exp_of(largest - shift(most));
        const float its = exp_of(its_largest - shift(most));
        total = multiply_add(total, before, load_written(partial + pitch_ + 1) * its);
        sum = multiply_add(sum, before, load_written(partial + d) * its);
        largest = most;
      }
      op_.y[place(r) + d] = sum * (1.0f / total);
    }
  }

  const AttentionArguments& args_;
  const LutraCudaAttention& op_;
  const int group_;
  const int pitch_;
  const int32_t position_;
  float* const q_;        // [kRows][pitch]
  float* const scores_;   // [kRows][kTileKeys]
  float* const largest_;  // [kRows], as the next two
  float* const total_;
  float* const factor_;
  float* const sums_;  // [threads][8]
  int meeting_;        // of the blocks that share rows
  int kv_head_;
  int first_row_;
  int range_;
  int count_;
  int64_t end_ = 0;
  float mixed_[kRows][8];
};

}  // namespace lutra::cuda

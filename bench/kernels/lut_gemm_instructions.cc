// Runs one kernel of lut_gemm on a full tile a given number of times, for tools that count instructions: what one run
// costs is the difference between two counts. See lut_gemm_instructions.sh.
//
//   lut_gemm_instructions ISA MODE BITS uniform|planes TOKENS STEP RUNS
//
// MODE: exact, accurate, fast. STEP: build (tables) and multiply for one token; prepare, expand and multiply for more.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "core/aligned_buffer.h"
#include "kernels/lut_gemm/lut_gemm.h"

using namespace lutra;

namespace {

constexpr int64_t kCols = 512;
constexpr size_t kScratch = size_t{4} << 20;
constexpr int64_t kGroup = 128;

struct Operands {
  std::vector<uint32_t> codes = std::vector<uint32_t>(static_cast<size_t>(kCols / kLutChunk * 4 * kLutTileRows));
  std::vector<uint16_t> scales = std::vector<uint16_t>(static_cast<size_t>(kCols / kGroup * 4 * kLutTileRows));
  std::vector<float> x;
  AlignedBuffer scratch = AlignedBuffer::zeroed(kScratch);
};

void run_tables(const LutGemmKernels& kernels, LutMode mode, const LutTile& tile, Operands& operands, bool build,
                int runs) {
  const int64_t blocks = kCols / kLutBlock;
  uint8_t* base = operands.scratch.as<uint8_t>();
  float* steps = reinterpret_cast<float*>(base + blocks * kernels.block_bytes[mode]);
  const LutTables tables = {base, steps, steps + blocks};
  float y[kLutTileRows];
  for (int i = 0; i < runs; ++i) {
    if (build) {
      kernels.build(mode, operands.x.data(), kCols, kGroup, 0, blocks, tables);
    } else {
      kernels.multiply(mode, tile, tables, y, false);
    }
  }
}

void run_panels(const LutPanelKernels& panels, const LutTile& tile, int64_t tokens, Operands& operands,
                const char* step, int runs) {
  uint8_t* prepared = operands.scratch.as<uint8_t>();
  uint8_t* panel = prepared + panels.prepared_bytes(tokens);
  float* sums = reinterpret_cast<float*>(panel + panels.panel_bytes);
  for (int i = 0; i < runs; ++i)
    for (int64_t first = 0; first < kCols; first += panels.cols) {
      const int64_t last = first + panels.cols;
      if (!std::strcmp(step, "prepare"))
        panels.prepare(operands.x.data(), kCols, tokens, first, last, kGroup, prepared);
      if (!std::strcmp(step, "expand")) panels.expand(tile, first, last, panel);
      if (!std::strcmp(step, "multiply")) panels.multiply(tile, first, last, panel, prepared, tokens, sums, first > 0);
    }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 8) return 2;
  const LutGemmKernels* kernels = lut_gemm_kernels(argv[1]);
  const LutMode mode = argv[2][0] == 'e' ? kLutExact : argv[2][0] == 'a' ? kLutAccurate : kLutFast;
  const int64_t tokens = std::atoll(argv[5]);
  const int runs = std::atoi(argv[7]);
  Operands operands;
  operands.x.assign(static_cast<size_t>(tokens * kCols), 1.0f);
  if (!kernels || !operands.scratch) return 1;
  LutTile tile = {};
  tile.codes = operands.codes.data();
  tile.scales = operands.scales.data();
  tile.offsets = operands.scales.data();
  tile.rows = tile.stored_rows = kLutTileRows;
  tile.cols = kCols;
  tile.group_size = kGroup;
  tile.bits = std::atoi(argv[3]);
  tile.planes = argv[4][0] == 'p';
  tile.offset = LutOffset::kReal;
  tile.scale_type = tile.offset_type = LutFloat::kF16;
  const LutPanelKernels* panels = kernels->panels(mode, tile.bits, tile.planes, kGroup, tokens);
  if (panels) {
    run_panels(*panels, tile, tokens, operands, argv[6], runs);
  } else {
    run_tables(*kernels, mode, tile, operands, !std::strcmp(argv[6], "build"), runs);
  }
  std::puts(panels ? panels->name : kernels->describe(mode, tile.bits, tile.planes));
}

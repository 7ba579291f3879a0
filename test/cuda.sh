#!/bin/sh
# Builds the CUDA backend for one architecture, where nvcc is there, and has the addon open it: its answer must come from the
# object itself. A kernel that spills registers does not build. What needs a device is compiled and not run.
set -eu
cd "$(dirname "$0")/.."
if ! command -v nvcc >/dev/null && ! [ -x /usr/local/cuda/bin/nvcc ]; then
  echo "cuda: skipped: no nvcc"
  exit 0
fi
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}"
tree=build/cuda-check
cmake -S . -B "$tree" -DLUTRA_CUDA=ON -DLUTRA_TESTS=OFF -DLUTRA_CUDA_ARCHS=90 >/dev/null
cmake --build "$tree" --target lutra_cuda
for source in test/native/cuda/device_test.cc test/native/cuda/device_step_test.cc test/native/cuda/device_program_test.cc bench/cuda/decode_bench.cc bench/cuda/prefill_bench.cc; do
  "${CXX:-g++}" -std=c++20 -fsyntax-only -Wall -Wextra -Werror -Inative -Itest/native "$source"
done
LUTRA_CUDA_PATH="$PWD/$tree/lutra_cuda.so" node dist/cli/main.js doctor --json | node -e '
  const { state, builtFor, message } = JSON.parse(require("node:fs").readFileSync(0, "utf8")).result.cuda;
  if (builtFor !== "90") throw new Error(`the object was not asked: ${state}, ${message}`);
  console.log(`cuda: built for ${builtFor}, ${state}: ${message}`);
'

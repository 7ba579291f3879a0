#!/bin/bash
# Instructions that the Arm kernels of lut_gemm execute, per weight of one token, counted under emulation: qemu logs every
# instruction, and the logs of one and of three runs over a tile differ by two runs. 64 rows x 512 columns, groups of 128,
# fp16 scales and offsets. Needs the tree that `npm run test:qemu` builds, configured with LUTRA_BENCH.
set -euo pipefail
cd "$(dirname "$0")/../.."
cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=native/cmake/aarch64-linux-gnu.cmake -DLUTRA_BENCH=ON >/dev/null
cmake --build build/aarch64 --target lut_gemm_instructions >/dev/null

executed() { # runs, arguments...
  local runs=$1
  shift
  qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu -singlestep -d nochain,exec -D /dev/stderr \
    build/aarch64/lut_gemm_instructions "$@" "$runs" 2>&1 >/dev/null | grep -c '^Trace'
}

each() { # what is counted, tokens that share it, arguments...
  local what=$1 shared=$2
  shift 2
  local one three
  one=$(executed 1 "$@")
  three=$(executed 3 "$@")
  printf '%-10s %-9s %s %-8s %2s token(s)  %-9s %s\n' "$1" "$2" "$3" "$4" "$5" "$what" \
    "$(echo "scale=3; ($three - $one) / 2 / (64 * 512 * $shared)" | bc)"
}

for mode in fast accurate exact; do
  for weights in "2 uniform" "3 uniform" "4 uniform" "2 planes" "3 planes" "4 planes"; do
    each multiply 1 neon $mode $weights 1 multiply
  done
done
# What a weight and a token take does not depend on the width; what a weight takes once does.
for set in "neon exact" "neondot fast" "neondot accurate" "neoni8mm fast" "neoni8mm accurate"; do
  each multiply 12 $set 4 uniform 12 multiply
done
for set in "neon exact" "neondot fast" "neoni8mm fast"; do
  for bits in 2 3 4; do each expand 1 $set $bits uniform 12 expand; done
done
each expand 1 neon exact 3 planes 12 expand

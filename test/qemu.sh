#!/bin/sh
# The native suite, quick size, on processors that this machine is not: 64-bit Arm without dot products, lut_gemm on one
# with every extension, and an x86 without AVX. Needs g++-aarch64-linux-gnu and qemu-user (Debian's names).
set -eu
cd "$(dirname "$0")/.."
for tool in aarch64-linux-gnu-g++ qemu-aarch64 qemu-x86_64; do
  command -v "$tool" >/dev/null || {
    echo "test:qemu needs $tool: apt-get install g++-aarch64-linux-gnu qemu-user" >&2
    exit 1
  }
done
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}"
export LUTRA_TEST_SIZE=quick
cmake -S . -B build/aarch64 -DCMAKE_TOOLCHAIN_FILE=native/cmake/aarch64-linux-gnu.cmake
cmake --build build/aarch64
ctest --test-dir build/aarch64 --output-on-failure -R isa_objects
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
echo "qemu: aarch64, cortex-a53"
qemu-aarch64 -cpu cortex-a53 build/aarch64/lutra_test
for isa in neoni8mm neondot; do
  echo "qemu: aarch64, max, $isa"
  LUTRA_ISA=$isa qemu-aarch64 -cpu max build/aarch64/lutra_test lut_gemm
done
cmake -S . -B build/native
cmake --build build/native --target lutra_test
echo "qemu: x86-64, Nehalem"
qemu-x86_64 -cpu Nehalem build/native/lutra_test

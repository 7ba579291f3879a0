#!/bin/sh
# Configures and builds the native tests in the addon's own build tree (kernels compile once), then runs them.
# LUTRA_TEST_SIZE=quick runs fewer shapes of every family.
set -eu
cd "$(dirname "$0")/.."
export CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}"
npm run --silent build:native
cmake --build build/cmake
build/cmake/lutra_test
# The CUDA backend's own sources on a runtime of the host.
LUTRA_TEST_SIZE=quick LUTRA_CUDA_PATH="$PWD/build/Release/lutra_cuda_host.so" build/cmake/lutra_cuda_test
ctest --test-dir build/cmake --output-on-failure -R isa_objects

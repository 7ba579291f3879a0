#!/bin/sh
# Builds the interposer, then makes calls of a quantization job fail: all of them, or with `--every N` some (run.ts).
set -eu
cd "$(dirname "$0")/../.."
root="$(mktemp -d)"
trap 'rm -rf "$root"' EXIT
mkdir -p build/faults "$root/files/outputs"
${CXX:-g++} -std=c++20 -Wall -Wextra -O1 -fPIC -shared -o build/faults/interposer.so test/faults/interposer.cc -ldl
truncate -s 4096 "$root/control"
export LUTRA_FAULT_CONTROL="$root/control" LUTRA_FAULT_ROOT="$root/files"
LD_PRELOAD="$PWD/build/faults/interposer.so" node --import tsx test/faults/run.ts "$@"

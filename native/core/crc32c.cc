// Eight bytes a step, each through a table of its own: several times what a disk delivers, on any processor.
#include "core/crc32c.h"

#include <array>

namespace lutra {

namespace {

constexpr uint32_t kPolynomial = 0x82f63b78u;  // reflected
constexpr size_t kStep = 8;

using Tables = std::array<std::array<uint32_t, 256>, kStep>;

// tables[n][b]: what byte b does to the checksum with n zero bytes behind it.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t rest = byte;
    for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ (rest & 1u ? kPolynomial : 0u);
    tables[0][byte] = rest;
  }
  for (size_t n = 1; n < kStep; ++n)
    for (size_t byte = 0; byte < 256; ++byte) {
      const uint32_t shorter = tables[n - 1][byte];
      tables[n][byte] = (shorter >> 8) ^ tables[0][shorter & 0xffu];
    }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

uint32_t crc32c(const void* data, size_t bytes, uint32_t before) {
  const auto* at = static_cast<const uint8_t*>(data);
  uint32_t rest = ~before;
  for (; bytes >= kStep; bytes -= kStep, at += kStep) {
    // The first four bytes meet what is left of those before them.
    uint32_t mixed = 0;
    for (size_t i = 0; i < 4; ++i) mixed ^= kTables[7 - i][(at[i] ^ (rest >> (8 * i))) & 0xffu];
    for (size_t i = 4; i < kStep; ++i) mixed ^= kTables[7 - i][at[i]];
    rest = mixed;
  }
  for (; bytes > 0; --bytes, ++at) rest = (rest >> 8) ^ kTables[0][(rest ^ *at) & 0xffu];
  return ~rest;
}

}  // namespace lutra

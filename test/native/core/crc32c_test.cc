#include "core/crc32c.h"

#include <cstring>
#include <vector>

#include "../harness.h"

using namespace lutra;

namespace {

// A bit at a time, as the polynomial is written down.
uint32_t bit_by_bit(const std::vector<uint8_t>& bytes) {
  uint32_t rest = ~0u;
  for (uint8_t byte : bytes) {
    rest ^= byte;
    for (int bit = 0; bit < 8; ++bit) rest = (rest >> 1) ^ (rest & 1u ? 0x82f63b78u : 0u);
  }
  return ~rest;
}

std::vector<uint8_t> noise(size_t count) {
  std::vector<uint8_t> bytes(count);
  uint32_t state = 1;
  for (uint8_t& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<uint8_t>(state >> 24);
  }
  return bytes;
}

}  // namespace

LUTRA_TEST(core, crc32c_is_the_published_one) {
  const char* digits = "123456789";
  CHECK(crc32c(digits, std::strlen(digits)) == 0xe3069283u);
  // RFC 3720, appendix B.4.
  const std::vector<uint8_t> zeros(32, 0), ones(32, 0xff);
  CHECK(crc32c(zeros.data(), 32) == 0x8a9136aau);
  CHECK(crc32c(ones.data(), 32) == 0x62a8ab43u);
  CHECK(crc32c(digits, 0) == 0);
}

LUTRA_TEST(core, crc32c_of_any_length_and_alignment) {
  for (size_t count = 0; count < 70; ++count)
    for (size_t shift = 0; shift < 9; ++shift) {
      std::vector<uint8_t> shifted(shift, 0x55);
      const std::vector<uint8_t> bytes = noise(count);
      shifted.insert(shifted.end(), bytes.begin(), bytes.end());
      CHECK(crc32c(shifted.data() + shift, count) == bit_by_bit(bytes));
    }
}

LUTRA_TEST(core, crc32c_goes_on_where_it_stopped) {
  const std::vector<uint8_t> bytes = noise(100);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    const uint32_t first = crc32c(bytes.data(), cut);
    CHECK(crc32c(bytes.data() + cut, bytes.size() - cut, first) == bit_by_bit(bytes));
  }
}

LUTRA_TEST(core, crc32c_sees_every_bit) {
  std::vector<uint8_t> bytes = noise(40);
  const uint32_t whole = crc32c(bytes.data(), bytes.size());
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    CHECK(crc32c(bytes.data(), bytes.size()) != whole);
    bytes[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }
}

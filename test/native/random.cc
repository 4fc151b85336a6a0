#include <cstdint>

#include "check.h"
#include "runtime/philox.h"

using namespace steepest;

namespace {
constexpr bool known(std::uint32_t c0, std::uint32_t c1, std::uint32_t c2, std::uint32_t c3, std::uint32_t k0, std::uint32_t k1,
                     std::uint32_t w0, std::uint32_t w1, std::uint32_t w2, std::uint32_t w3) {
  std::uint32_t c[4] = {c0, c1, c2, c3};
  philox4x32(c, k0, k1);
  return c[0] == w0 && c[1] == w1 && c[2] == w2 && c[3] == w3;
}
// The known answers of Random123 (tests/kat_vectors, philox4x32 10), at compile time too.
static_assert(known(0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
}  // namespace

TEST(philox_known_answers) {
  CHECK(known(0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  CHECK(known(~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  CHECK(known(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(philox_ranges) {
  CHECK(uniform01(0u) == 0.0f && uniform01(~0u) < 1.0f);
  CHECK(uniform01Open(0u) > 0.0f && uniform01Open(~0u) == 1.0f);
  CHECK(uniform01(std::uint64_t{0}) == 0.0 && uniform01(~std::uint64_t{0}) < 1.0);
  CHECK(uniform01Open(std::uint64_t{0}) > 0.0 && uniform01Open(~std::uint64_t{0}) == 1.0);
  CHECK(philoxThreshold(0) == 0 && philoxThreshold(1) == 1ull << 32 && philoxThreshold(0.5) == 1ull << 31);
  for (std::uint64_t range : {1ull, 2ull, 7ull, 1ull << 31, 1ull << 32}) {
    CHECK(philoxBelow(0, range) == 0);
    CHECK(philoxBelow(~0ull, range) == range - 1);
  }
}

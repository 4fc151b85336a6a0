#include "blockwise.h"

#include <algorithm>

#include "attrs/dequantizeBlockwise.gen.h"
#include "attrs/quantizeBlockwise.gen.h"
#include "math/vec.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

// The next block: its numbers, how many, and its unit.
template <class F>
void eachBlock(std::int64_t first, std::int64_t n, F&& f) {
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t end = std::min(n, (quantBlocks(first + i + 1)) * kQuantBlock - first);
    f(i, end, (first + i) / kQuantBlock);
    i = end;
  }
}

vf valuesOf(const BlockMap& map, vi codes) {
  alignas(64) std::int32_t at[vi::kLanes];
  alignas(64) float found[vi::kLanes];
  store(at, codes);
  for (int l = 0; l < vi::kLanes; ++l) found[l] = map.values[at[l]];
  return vf::load(found);
}

// Codes of a block, number by number. On a Zen 5 a number takes 0.6 ns so; down a tree of borders in vectors of AVX-512 it takes 1.2.
void encode(const BlockMap& map, const float* from, vf unit, std::uint8_t* codes, std::int64_t n) {
  alignas(64) float scaled[kQuantBlock];
  alignas(64) std::int32_t cells[kQuantBlock];
  for (std::int64_t i = 0; i < n; i += vf::kLanes) {
    const vf x = vf::load(from + i, static_cast<int>(std::min<std::int64_t>(vf::kLanes, n - i))) / unit;
    const vi bits = toBits(x);
    const vi cell = min(max(shr(bits & vi(0x7fffffff), map.shift) - vi(map.first), vi(0)), vi(map.cells - 1));
    store(scaled + i, x);
    store(cells + i, cell + (bits >> 31 & vi(map.cells)));
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t cell = cells[i];
    codes[i] = static_cast<std::uint8_t>(map.below[cell] + (scaled[i] >= map.border[cell]));
  }
}
}  // namespace

void dequantize(const BlockMap& map, const std::uint8_t* codes, const float* units, std::int64_t first, float* to, std::int64_t n) {
  eachBlock(first, n, [&](std::int64_t i, std::int64_t end, std::int64_t block) {
    const vf unit(units[block]);
    for (; i + vf::kLanes <= end; i += vf::kLanes) store(to + i, valuesOf(map, vi::load(codes + i)) * unit);
    if (i < end) store(to + i, valuesOf(map, vi::load(codes + i, static_cast<int>(end - i))) * unit, static_cast<int>(end - i));
  });
}

void quantize(const BlockMap& map, const float* from, std::uint8_t* codes, float* units, std::int64_t n) {
  eachBlock(0, n, [&](std::int64_t begin, std::int64_t end, std::int64_t block) {
    vf most(0);
    for (std::int64_t i = begin; i < end; i += vf::kLanes)
      most = max(most, abs(vf::load(from + i, static_cast<int>(std::min<std::int64_t>(vf::kLanes, end - i)))));
    const float largest = hmax(most), unit = largest == 0 ? 1 : largest;
    units[block] = unit;
    encode(map, from + begin, vf(unit), codes + begin, end - begin);
  });
}

namespace {

// Blocks of a tile; fixed, as everything that cuts work.
constexpr std::int64_t kTileBlocks = 64;

// Calls f(first, n) for tiles of whole blocks.
template <class F>
void tiles(Pool& pool, std::int64_t size, F&& f) {
  constexpr std::int64_t tile = kTileBlocks * kQuantBlock;
  pool.run((size + tile - 1) / tile, [&](std::int64_t t, int) { f(t * tile, std::min(tile, size - t * tile)); });
}

void runQuantize(const Call& call, const QuantizeBlockwiseAttrs& attrs) {
  const BlockMap& map = blockMap(attrs.either);
  const float* from = call.in[0].as<const float>();
  std::uint8_t* codes = call.out[0].as<std::uint8_t>();
  float* units = call.out[1].as<float>();
  tiles(call.pool, call.in[0].size(),
        [&](std::int64_t i, std::int64_t n) { quantize(map, from + i, codes + i, units + i / kQuantBlock, n); });
}

void runDequantize(const Call& call, const DequantizeBlockwiseAttrs& attrs) {
  const BlockMap& map = blockMap(attrs.either);
  const std::uint8_t* codes = call.in[0].as<const std::uint8_t>();
  const float* units = call.in[1].as<const float>();
  float* to = call.out[0].as<float>();
  tiles(call.pool, call.in[0].size(), [&](std::int64_t i, std::int64_t n) { dequantize(map, codes + i, units, i, to + i, n); });
}

}  // namespace

std::unique_ptr<Kernel> makeQuantizeBlockwise(const Spec& spec) {
  checkQuantize(spec.in, spec.out);
  return std::make_unique<SimpleKernel<QuantizeBlockwiseAttrs, runQuantize>>(spec);
}

std::unique_ptr<Kernel> makeDequantizeBlockwise(const Spec& spec) {
  checkDequantize(spec.in, spec.out);
  return std::make_unique<SimpleKernel<DequantizeBlockwiseAttrs, runDequantize>>(spec);
}

}  // namespace steepest::STEEPEST_LEVEL

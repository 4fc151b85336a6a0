#include "blockwise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "attrs/dequantizeBlockwise.gen.h"
#include "attrs/quantizeBlockwise.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

// Middles of equal pieces of [0.1, 1], in seven decades with twice as many from one to the next, and 0 and 1.
void fillValues(bool either, float* values) {
  constexpr float scale[] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1};
  int n = 0;
  for (int decade = 0; decade < 7; ++decade) {
    const int pieces = (either ? 1 : 2) << decade;
    const float step = (1.0f - 0.1f) / static_cast<float>(pieces);
    // Counted from the nearer end, as the original does.
    const auto edge = [&](int i) {
      return i < (pieces + 1) / 2 ? std::fma(step, static_cast<float>(i), 0.1f) : std::fma(-step, static_cast<float>(pieces - i), 1.0f);
    };
    for (int i = 0; i < pieces; ++i) {
      const float value = scale[decade] * ((edge(i) + edge(i + 1)) / 2);
      values[n++] = value;
      if (either) values[n++] = -value;
    }
  }
  values[n++] = 0;
  values[n++] = 1;
  std::sort(values, values + n);
}

// The smallest number whose distance to `above`, as float32 has it, is less than that to `below`.
float borderOf(float below, float above) {
  const auto up = [&](float x) { return above - x < x - below; };
  float x = below + (above - below) / 2;
  const float lowest = -std::numeric_limits<float>::infinity(), highest = std::numeric_limits<float>::infinity();
  while (up(x)) x = std::nextafter(x, lowest);
  while (!up(x)) x = std::nextafter(x, highest);
  return x;
}

BlockMap makeMap(bool either) {
  BlockMap map{};
  fillValues(either, map.values);
  float borders[255];
  for (int i = 0; i < 255; ++i) borders[i] = borderOf(map.values[i], map.values[i + 1]);
  // So many leading bits of the mantissa keep neighbouring borders apart.
  map.shift = 23 - (either ? 6 : 7);
  float least = 1;
  for (const float b : borders) least = std::min(least, std::fabs(b));
  // One cell for all that is nearer to zero than the least border.
  map.first = (std::bit_cast<std::int32_t>(least) >> map.shift) - 1;
  map.cells = (std::bit_cast<std::int32_t>(1.0f) >> map.shift) - map.first + 1;
  for (std::int32_t at = 0; at < 2 * map.cells; ++at) {
    const bool negative = at >= map.cells;
    const std::int32_t cell = at % map.cells;
    const std::int32_t nearest = cell == 0 ? 0 : (map.first + cell) << map.shift, farthest = ((map.first + cell + 1) << map.shift) - 1;
    const float lowest = negative ? -std::bit_cast<float>(farthest) : std::bit_cast<float>(nearest);
    const auto below = std::upper_bound(borders, borders + 255, lowest) - borders;
    map.below[at] = static_cast<std::uint8_t>(below);
    map.border[at] = below < 255 ? borders[below] : std::numeric_limits<float>::infinity();
  }
  return map;
}

// The next block: its numbers, how many, and its unit.
template <class F>
void eachBlock(std::int64_t first, std::int64_t n, F&& f) {
  for (std::int64_t i = 0; i < n;) {
    const std::int64_t end = std::min(n, (quantBlocks(first + i + 1)) * kQuantBlock - first);
    f(i, end, (first + i) / kQuantBlock);
    i = end;
  }
}

}  // namespace

const BlockMap& blockMap(bool either) {
  static const BlockMap signedMap = makeMap(true), unsignedMap = makeMap(false);
  return either ? signedMap : unsignedMap;
}

namespace {

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

[[noreturn]] void wrong(const char* what) { throw Error("PROGRAM", what); }

// Blocks of a tile; fixed, as everything that cuts work.
constexpr std::int64_t kTileBlocks = 64;

void check(const View& numbers, const View& codes, const View& units) {
  bool same = numbers.rank == codes.rank;
  for (int i = 0; same && i < codes.rank; ++i) same = numbers.shape[i] == codes.shape[i];
  if (!same || numbers.dtype != DType::float32 || codes.dtype != DType::uint8)
    wrong("blockwise: numbers must be float32 and codes uint8 of their shape");
  if (units.dtype != DType::float32 || units.rank != 1 || units.shape[0] != quantBlocks(codes.size()))
    wrong("blockwise: there must be a float32 unit for every 256 numbers");
  if (!numbers.contiguous() || !codes.contiguous() || !units.contiguous()) wrong("blockwise: operands must be contiguous");
}

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
  if (spec.in.size() != 1 || spec.out.size() != 2) wrong("quantizeBlockwise: one input and two outputs");
  check(spec.in[0], spec.out[0], spec.out[1]);
  return std::make_unique<SimpleKernel<QuantizeBlockwiseAttrs, runQuantize>>(spec);
}

std::unique_ptr<Kernel> makeDequantizeBlockwise(const Spec& spec) {
  if (spec.in.size() != 2 || spec.out.size() != 1) wrong("dequantizeBlockwise: two inputs and one output");
  check(spec.out[0], spec.in[0], spec.in[1]);
  return std::make_unique<SimpleKernel<DequantizeBlockwiseAttrs, runDequantize>>(spec);
}

}  // namespace steepest::STEEPEST_LEVEL

#include "cpu/matmul_grid.h"

namespace steepest::STEEPEST_LEVEL {

namespace {
constexpr std::int64_t kTileM = 256, kTileN = 384, kSmallest = 64;
constexpr std::int64_t kTiles = 16, kFewTiles = 8;
constexpr std::int64_t kShortestPiece = 512;
// Multiplications that are worth a tile of their own: some 10 us of one core. A matrix-vector product is bound by memory.
constexpr std::int64_t kTileWork = 1 << 20, kVectorWork = 1 << 17;

std::int64_t ceilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t workOf(std::int64_t m, std::int64_t n) { return std::min(m, n) == 1 ? kVectorWork : kTileWork; }
}  // namespace

MatmulGrid::MatmulGrid(std::int64_t batch, std::int64_t rows, std::int64_t columns, std::int64_t depth) {
  std::int64_t pm = std::max<std::int64_t>(1, ceilDiv(rows, kTileM)), pn = std::max<std::int64_t>(1, ceilDiv(columns, kTileN)), pk = 1;
  const std::int64_t work = workOf(rows, columns);
  while (batch * pm * pn < kTiles) {
    const std::int64_t tm = ceilDiv(rows, pm), tn = ceilDiv(columns, pn);
    if (tm * tn * depth < 2 * work || std::max(tm, tn) <= kSmallest) break;
    ++(tm > tn ? pm : pn);
  }
  const std::int64_t tiles = batch * pm * pn;
  if (tiles > 0 && tiles < kFewTiles && batch * rows * columns * depth >= 2 * work) {
    pk = std::max<std::int64_t>(1, std::min(kTiles / tiles, depth / kShortestPiece));
  }
  m = Cut(rows, pm, rows < kTileM ? 8 : 16);
  n = Cut(columns, pn, 32);
  k = Cut(depth, pk, 64);
}

std::int64_t MatmulGrid::tilesPerTask() const {
  const std::int64_t tile = m.each * n.each * std::max<std::int64_t>(1, k.each);
  return std::max<std::int64_t>(1, workOf(m.length, n.length) / tile);
}

}  // namespace steepest::STEEPEST_LEVEL

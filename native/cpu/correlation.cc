#include "cpu/correlation.h"

#include "cpu/conv_micro.h"
#include "cpu/dnnl.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

constexpr std::int64_t kDepth = 512;             // sums of a block of channels: its planes and weights stay in the second-level cache
constexpr std::int64_t kPlaneBytes = 192 << 10;  // of one block of channels
constexpr std::int64_t kColumns = 768;           // no band is wider
constexpr std::int64_t kTiles = 16, kTaskWork = 1 << 20;

std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
std::int64_t ceilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Whether taps along w get planes of their own: more to copy, but no positions that are computed for nothing, and sums that lie as the
// output does. In nanoseconds for one position of one input channel, by what was measured on AVX-512.
bool expandsWidth(const ConvAxis& shared, std::int64_t taps, std::int64_t tapsAlong, std::int64_t outputs) {
  const double waste = static_cast<double>(shared.reach) / static_cast<double>(std::max<std::int64_t>(1, shared.out));
  const double computed = waste * 2 * static_cast<double>(taps * outputs) / 200;
  const double copied = 0.12 * static_cast<double>(tapsAlong - shared.planes());
  return shared.reach > 0 && computed + 0.1 > copied;
}

}  // namespace

Correlation::Correlation(const CorrelationShape& shape, const std::vector<Plan>& plans, int threads) : shape_(shape) {
  pairs_ = kHasPairs && shape.dtype == DType::bfloat16 && shape.inputs > 1 && dnnlHasBf16();
  channels_ = pairs_ ? ceilDiv(shape.inputs, 2) : shape.inputs;
  const std::int64_t unit = shape.dtype == DType::float64 ? 8 : 4;
  std::int64_t mostTaps = 1, longest[2] = {0, 0}, positions = 0;
  for (const Plan& plan : plans) {
    CorrelationPhase phase;
    phase.origin = plan.origin;
    phase.h = ConvAxis(plan.count[0], plan.inStep[0], plan.h, false);
    phase.w = ConvAxis(plan.count[1], plan.inStep[1], plan.w, false);
    if (expandsWidth(phase.w, phase.taps(), static_cast<std::int64_t>(plan.w.size()), shape.outputs))
      phase.w = ConvAxis(plan.count[1], plan.inStep[1], plan.w, true);
    mostTaps = std::max(mostTaps, phase.taps());
    for (int i = 0; i < 2; ++i) longest[i] = std::max(longest[i], plan.count[static_cast<std::size_t>(i)]);
    positions += plan.count[0] * plan.count[1];
    phases_.push_back(std::move(phase));
  }
  if (shape.n * shape.groups * shape.outputs * positions == 0) {
    phases_.clear();
    return;
  }
  // Even blocks of channels.
  const std::int64_t most = std::max<std::int64_t>(1, kDepth / mostTaps);
  block_ = std::max<std::int64_t>(1, ceilDiv(channels_, std::max<std::int64_t>(1, ceilDiv(channels_, most))));

  // Bands of rows (and of a very long row): so few that the planes of a block fit, and so many that there is work for all.
  const auto planeBytes = [&](std::int64_t rows, std::int64_t columns) {
    std::int64_t bytes = 0;
    for (const CorrelationPhase& p : phases_)
      bytes = std::max(bytes, block_ * p.h.planes() * p.w.planes() * (rows + p.h.reach) * (columns + p.w.reach) * unit);
    return bytes;
  };
  std::int64_t &rows = band_[0], &columns = band_[1];
  rows = longest[0];
  columns = ceilDiv(longest[1], ceilDiv(longest[1], kColumns));
  while (rows > 1 && planeBytes(rows, columns) > kPlaneBytes && (rows / 2) * columns >= 48) rows = ceilDiv(rows, 2);
  const std::int64_t images = shape.n * shape.groups * static_cast<std::int64_t>(phases_.size()) * ceilDiv(longest[1], columns);
  while (rows > 1 && images * ceilDiv(longest[0], rows) < kTiles && (rows / 2) * columns >= 96) rows = ceilDiv(rows, 2);
  for (int i = 0; i < 2; ++i) bands_[i] = ceilDiv(longest[i], band_[i]);
  part_ = shape.outputs;
  while (images * bands_[0] * ceilDiv(shape.outputs, part_) < kTiles / 2 && part_ >= 64) part_ = ceilDiv(part_ / 2, kConvRows) * kConvRows;
  parts_ = ceilDiv(shape.outputs, part_);
  const std::int64_t work = part_ * std::max<std::int64_t>(8, shape.inputs * mostTaps) * rows * columns;
  each_ = std::max<std::int64_t>(1, kTaskWork / std::max<std::int64_t>(1, work));

  std::size_t weights = 0;
  std::int64_t sums = 0;
  for (CorrelationPhase& p : phases_) {
    p.h.cut(rows);
    p.w.cut(columns);
    p.weightsAt = weights;
    weights += static_cast<std::size_t>(shape.groups * shape.outputs * channels_ * p.taps());
    const std::int64_t planes = p.h.planes() * p.w.planes() * p.h.length * p.w.length;
    for (std::int64_t c = 0; c < block_; ++c) {
      for (const ConvAxis::Tap& i : p.h.taps) {
        for (const ConvAxis::Tap& j : p.w.taps) p.offsets.push_back(c * planes + offsetOf(p.h, p.w, i, j));
      }
    }
    sums = std::max(sums, part_ * rows * p.w.length);
  }
  biasAt_ = align(weights * static_cast<std::size_t>(unit));
  threadsAt_ = biasAt_ + align(static_cast<std::size_t>(shape.groups * shape.outputs * unit));
  sumsAt_ = align(static_cast<std::size_t>(planeBytes(rows, columns)));
  threadBytes_ = sumsAt_ + align(static_cast<std::size_t>(sums * unit));
  workspace_ = threadsAt_ + threadBytes_ * static_cast<std::size_t>(threads);
}

// Neighbours in time share weights: the band runs fastest, then the image.
Correlation::Tile Correlation::tileAt(std::int64_t t) const {
  Tile tile;
  for (int i = 1; i >= 0; --i) tile.first[i] = t % bands_[i] * band_[i], t /= bands_[i];
  tile.image = t % shape_.n, t /= shape_.n;
  tile.part = t % parts_, t /= parts_;
  tile.group = t % shape_.groups;
  tile.phase = t / shape_.groups;
  return tile;
}

// [block of outputs][channel, tap][output of the block]: blocks of kConvRows, then of half as many, and so on.
template <class T, class E>
void Correlation::packWeights(const CorrelationPhase& phase, std::int64_t group, const T* weights, E* to) const {
  constexpr bool kPairs = std::is_same_v<E, Bf16Pair>;
  const CorrelationShape& s = shape_;
  const T* const from = weights + group * s.group;
  const auto block = [&](std::int64_t first, int rows) {
    for (std::int64_t c = 0; c < channels_; ++c) {
      for (const ConvAxis::Tap& i : phase.h.taps) {
        for (const ConvAxis::Tap& j : phase.w.taps) {
          const std::int64_t at = i.index * s.tap[0] + j.index * s.tap[1] + first * s.output;
          for (int r = 0; r < rows; ++r) {
            if constexpr (kPairs) {
              const T* const pair = from + at + r * s.output + 2 * c * s.input;
              to->bits = pair->bits | (2 * c + 1 < s.inputs ? static_cast<std::uint32_t>(pair[s.input].bits) << 16 : 0);
            } else if constexpr (std::is_same_v<T, E>) {
              *to = from[at + r * s.output + c * s.input];
            } else {
              *to = scalarOf(from[at + r * s.output + c * s.input]);
            }
            ++to;
          }
        }
      }
    }
  };
  // A part of the outputs begins a new run of blocks.
  for (std::int64_t part = 0; part < s.outputs; part += part_) {
    const std::int64_t end = std::min(s.outputs, part + part_);
    std::int64_t o = part;
    for (int rows = kConvRows; rows > 0; rows /= 2) {
      for (; o + rows <= end; o += rows) block(o, rows);
    }
  }
}

template <class T, class E>
void Correlation::runTile(const Tile& tile, const View& x, const E* weights, const void* bias, const View& y, std::byte* scratch) const {
  using Sum = typename Product<E>::Sum;
  const CorrelationShape& s = shape_;
  const CorrelationPhase& p = phases_[static_cast<std::size_t>(tile.phase)];
  const std::int64_t rows = std::min(band_[0], p.h.out - tile.first[0]), columns = std::min(band_[1], p.w.out - tile.first[1]);
  if (rows <= 0 || columns <= 0) return;
  const std::int64_t outputs = std::min(part_, s.outputs - tile.part * part_), first = tile.group * s.outputs + tile.part * part_;
  const std::int64_t taps = p.taps(), depth = channels_ * taps;
  E* const planes = reinterpret_cast<E*>(scratch);
  Sum* sums = reinterpret_cast<Sum*>(scratch + sumsAt_);
  std::int64_t sumRow = band_[0] * p.w.length;
  T* const out = y.as<T>() + (tile.image * s.groups * s.outputs + first) * s.out[0] * s.out[1];
  const bool direct = std::is_same_v<T, Sum> && (rows == 1 || (p.w.reach == 0 && columns == s.out[1])) && s.step[0] == 1 && s.step[1] == 1;
  if constexpr (std::is_same_v<T, Sum>) {
    if (direct) {
      sums = out + tile.first[0] * s.out[1] + tile.first[1];
      sumRow = s.out[0] * s.out[1];
    }
  }
  const std::int64_t positions = (rows - 1) * p.w.length + columns;
  const E* const partWeights = weights + p.weightsAt + (tile.group * s.outputs + tile.part * part_) * static_cast<std::int64_t>(depth);
  constexpr std::int64_t kEach = std::is_same_v<E, Bf16Pair> ? 2 : 1;
  std::int64_t c = 0;
  do {
    const std::int64_t count = std::min(block_, channels_ - c);
    if (taps > 0) {
      const std::int64_t channel = tile.group * s.inputs + c * kEach;
      const Source<T> source{x.as<T>() + tile.image * x.strides[0] + channel * x.strides[1], x.strides[1], x.strides[2], x.strides[3]};
      packPlanes(source, std::min(count * kEach, s.inputs - c * kEach), s.in, p.h, p.w, tile.first, rows + p.h.reach, planes);
    }
    Correlate<E> all{count * taps, depth, c * taps, p.offsets.data(), planes, partWeights, nullptr, sums, sumRow, positions};
    if (c == 0) all.start = static_cast<const Sum*>(bias) + first;
    std::int64_t left = outputs;
    const auto blocksOf = [&]<int Rows>() {
      const std::int64_t blocks = left / Rows;
      if (blocks) all.template run<Rows>(blocks);
      left -= blocks * Rows;
      all.w += blocks * Rows * depth;
      all.y += blocks * Rows * sumRow;
      if (all.start) all.start += blocks * Rows;
    };
    if constexpr (kConvRows >= 8) blocksOf.template operator()<8>();
    if constexpr (kConvRows >= 4) blocksOf.template operator()<4>();
    blocksOf.template operator()<2>();
    blocksOf.template operator()<1>();
    c += block_;
  } while (c < channels_);
  if (direct) return;
  for (std::int64_t o = 0; o < outputs; ++o) {
    for (std::int64_t r = 0; r < rows; ++r) {
      const Sum* const from = sums + o * sumRow + r * p.w.length;
      T* const to =
          out + (o * s.out[0] + p.origin[0] + (tile.first[0] + r) * s.step[0]) * s.out[1] + p.origin[1] + tile.first[1] * s.step[1];
      if (s.step[1] == 1) {
        using V = VecOf<Sum>;
        std::int64_t i = 0;
        for (; i + V::kLanes <= columns; i += V::kLanes) store(to + i, V::load(from + i));
        if (const int tail = static_cast<int>(columns - i)) store(to + i, V::load(from + i, tail), tail);
      } else {
        for (std::int64_t i = 0; i < columns; ++i) {
          if constexpr (std::is_same_v<T, Sum>)
            to[i * s.step[1]] = from[i];
          else
            store(to + i * s.step[1], VecOf<Sum>(from[i]), 1);
        }
      }
    }
  }
}

template <class T, class E>
void Correlation::runAs(const View& x, const View& weights, const View* bias, const View& y, std::byte* workspace, Pool& pool) const {
  using Sum = typename Product<E>::Sum;
  E* const packed = reinterpret_cast<E*>(workspace);
  Sum* const start = reinterpret_cast<Sum*>(workspace + biasAt_);
  const CorrelationShape& s = shape_;
  for (std::int64_t i = 0; i < s.groups * s.outputs; ++i) {
    start[i] = 0;
    if (bias) {
      const T value = bias->as<T>()[i * bias->strides[0]];
      if constexpr (std::is_same_v<T, Sum>)
        start[i] = value;
      else
        start[i] = scalarOf(value);
    }
  }
  const std::int64_t phases = static_cast<std::int64_t>(phases_.size());
  // Groups that take some 64 KB of weights together.
  const std::int64_t groupSize = std::max<std::int64_t>(1, s.outputs * channels_ * phases_[0].taps());
  const std::int64_t together = std::max<std::int64_t>(1, 16384 / groupSize), packs = ceilDiv(s.groups, together);
  pool.run(phases * packs, [&](std::int64_t t, int) {
    const CorrelationPhase& p = phases_[static_cast<std::size_t>(t / packs)];
    for (std::int64_t g = t % packs * together; g < std::min(s.groups, (t % packs + 1) * together); ++g)
      packWeights(p, g, weights.as<T>(), packed + p.weightsAt + g * s.outputs * channels_ * p.taps());
  });
  const std::int64_t tiles = phases * s.groups * parts_ * s.n * bands_[0] * bands_[1];
  pool.run(ceilDiv(tiles, each_), [&](std::int64_t task, int thread) {
    std::byte* const scratch = workspace + threadsAt_ + threadBytes_ * static_cast<std::size_t>(thread);
    for (std::int64_t t = task * each_; t < std::min(tiles, (task + 1) * each_); ++t) runTile<T>(tileAt(t), x, packed, start, y, scratch);
  });
}

void Correlation::run(const View& x, const View& weights, const View* bias, const View& y, std::byte* workspace, Pool& pool) const {
  if (phases_.empty()) return;
  if (shape_.dtype == DType::float64) return runAs<double, double>(x, weights, bias, y, workspace, pool);
  if (shape_.dtype == DType::float32) return runAs<float, float>(x, weights, bias, y, workspace, pool);
  if constexpr (kHasPairs) {
    if (pairs_) return runAs<bf16, Bf16Pair>(x, weights, bias, y, workspace, pool);
  }
  runAs<bf16, float>(x, weights, bias, y, workspace, pool);
}

}  // namespace steepest::STEEPEST_LEVEL

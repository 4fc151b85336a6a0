// Kernels of `rowNorms` and `sampleRows`: which rows of a product keep their part in its weight gradient, chosen without the host.
#include <limits>

#include "cpu/sampling_checks.h"
#include "cuda/copy.cuh"
#include "cuda/reals.cuh"
#include "runtime/philox.h"

namespace steepest::cuda {

namespace {

using Method = SampleRowsAttrs::Method;

// A team takes a row.
template <class T, int Size>
__global__ void __launch_bounds__(kThreads) normsOfRows(const T* x, ComputeOf<T>* out, const __grid_constant__ layout::Loops<1> at,
                                                        std::int64_t rows, std::int64_t n, std::int64_t step, bool wide, bool squared) {
  using S = ComputeOf<T>;
  constexpr int kTeams = kThreads / Size;
  const int lane = static_cast<int>(threadIdx.x) % Size, team = static_cast<int>(threadIdx.x) / Size;
  for (std::int64_t row = std::int64_t{blockIdx.x} * kTeams + team; row < rows; row += std::int64_t{gridDim.x} * kTeams) {
    const T* from = x + offsetOf(at, row);
    S sum = 0;
    if (step == 1)
      eachOf<Size>(n, wide, lane, [&](int, std::int64_t, S v) { sum = std::fma(v, v, sum); }, from);
    else
      for (std::int64_t i = lane; i < n; i += Size) {
        const S v = read(from + i * step);
        sum = std::fma(v, v, sum);
      }
    sum = sumTeam<Size>(sum);
    if (lane == 0) out[row] = squared ? sum : std::sqrt(sum);
  }
}

class RowNorms final : public Kernel {
 public:
  RowNorms(const View& x, bool squared) : rows_(layout::span(x, 0, x.rank - 1)), n_(x.dim(-1)), step_(x.stride(-1)), squared_(squared) {
    for (int i = 0; i < x.rank - 1; ++i) {
      at_.add(x.shape[i], {x.strides[i]});
      even_ = even_ && x.strides[i] * static_cast<std::int64_t>(sizeOf(x.dtype)) % 16 == 0;
    }
  }
  void run(const Call& call) const override {
    byFloat(call.in[0].dtype, [&](auto type) {
      using T = decltype(type);
      using S = ComputeOf<T>;
      const Rows rows(rows_, n_, sizeof(T), even_ && aligned16(call.in[0].data), sizeof(S), 0);
      byTeam(rows, [&](auto size) {
        STEEPEST_LAUNCH((normsOfRows<T, size.value>), rows.grid, kThreads, 0, call, call.in[0].as<T>(), call.out[0].as<S>(), at_, rows_, n_,
                        step_, rows.wide, squared_);
      });
    });
  }

 private:
  layout::Loops<1> at_;
  std::int64_t rows_, n_, step_;
  bool squared_, even_ = true;
};

// Far enough below the largest double that sums of many stay finite.
constexpr double kLargest = 1e280;
// The largest weight that float32 holds with room.
constexpr double kFloat = 1e38;
constexpr int kSampleThreads = 512;

struct Sampled {
  Reals norms, gains, weights, inverse;  // gains.at may be null
  const std::int32_t* keys;
  std::int32_t* indices;
  double *scores, *sums;
  std::int32_t* counts;
  std::int64_t sets, perKey, n, k;
  Method method;
  bool systematic;
  std::uint32_t site;
  double floor;
};

// A block works on one set; what follows is called by all of its threads. Each has a piece of neighbouring rows where order matters.
struct Piece {
  std::int64_t begin, end;
  __device__ explicit Piece(std::int64_t n) {
    const std::int64_t each = (n + kSampleThreads - 1) / kSampleThreads;
    begin = each * threadIdx.x < n ? each * threadIdx.x : n;
    end = begin + each < n ? begin + each : n;
  }
};

// What the threads before this one have together; `total` is what all have. One thread adds them one after the other, so that where a piece
// ends is bit for bit where the next begins.
template <class T>
__device__ T sumBefore(T own, T& total) {
  __shared__ T parts[kSampleThreads + 1];
  parts[threadIdx.x] = own;
  __syncthreads();
  if (threadIdx.x == 0) {
    T sum = 0;
    for (int i = 0; i < kSampleThreads; ++i) {
      const T here = parts[i];
      parts[i] = sum;
      sum += here;
    }
    parts[kSampleThreads] = sum;
  }
  __syncthreads();
  const T before = parts[threadIdx.x];
  total = parts[kSampleThreads];
  __syncthreads();
  return before;
}

// Winners are the rows above `threshold`; what the others have together is `rest`.
struct Cut {
  double threshold, rest;
  std::int64_t winners;
};

__device__ Cut cutAt(const double* scores, std::int64_t n, double threshold) {
  double rest = 0;
  std::int64_t above = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += kSampleThreads) {
    const bool winner = scores[i] > threshold;
    above += winner;
    if (!winner) rest += scores[i];
  }
  return {threshold, blockSum(rest), blockSum(above)};
}

// Rows whose expected number of draws is above one are certain. Taking them out only lowers the threshold for the others, so that what is
// above it now is above it at the end.
__device__ Cut winnersOf(const double* scores, std::int64_t n, std::int64_t k) {
  Cut cut = cutAt(scores, n, 2 * kLargest);
  while (cut.rest > 0) {
    const Cut next = cutAt(scores, n, cut.rest / static_cast<double>(k - cut.winners));
    // Rounding may put a tail of equal rows above their own mean: they then stay a tail.
    if (next.winners == cut.winners || (next.winners >= k && next.rest > 0) || next.winners > k) break;
    cut = next;
  }
  return cut;
}

// Norm of the row times what is known of its gradient's: never negative, always finite.
__device__ void scoresOf(const Sampled& s, std::int64_t set, double* scores) {
  const std::int64_t first = set * s.n;
  double mean = 1, floor = 1;
  if (s.gains.at) {
    double total = 0, seen = 0;
    for (std::int64_t i = threadIdx.x; i < s.n; i += kSampleThreads) {
      const double gain = s.gains[first + i];
      if (!(gain >= 0)) continue;
      total += gain < kLargest ? gain : kLargest;
      seen += 1;
    }
    total = blockSum(total);
    seen = blockSum(seen);
    if (total > 0) {
      mean = total / seen;
      floor = s.floor * mean;
    }
  }
  for (std::int64_t i = threadIdx.x; i < s.n; i += kSampleThreads) {
    double gain = 1;
    if (s.gains.at) {
      gain = s.gains[first + i];
      gain = gain >= 0 ? (gain > floor ? gain : floor) : mean;
    }
    const double score = s.norms[first + i] * gain;
    scores[i] = score > 0 ? (score < kLargest ? score : kLargest) : 0;
  }
  __syncthreads();
}

__device__ std::uint64_t bitsOf(const Sampled& s, PhiloxKey key, std::uint32_t example, std::uint64_t i) {
  return philoxBits64(key, i, example, s.site, Stream::sample);
}

// How many of the points (d + u) * step, d = 0, 1, …, lie below a sum.
__device__ std::int64_t pointsBelow(double sum, double u, double step, std::int64_t draws) {
  const double about = sum / step - u;
  std::int64_t d = about <= 0 ? 0 : about >= static_cast<double>(draws) ? draws : static_cast<std::int64_t>(about);
  while (d > 0 && !((static_cast<double>(d - 1) + u) * step < sum)) --d;
  while (d < draws && (static_cast<double>(d) + u) * step < sum) ++d;
  return d;
}

// One point every (rest / draws), from a random one on, along a walk over all rows from a random row with a random step that has no factor
// in common with their number: a row is hit in proportion to its score.
__device__ void drawSystematic(const Sampled& s, const double* scores, std::int32_t* counts, const Cut& cut, std::int64_t draws,
                               PhiloxKey key, std::uint32_t example) {
  const auto n = static_cast<std::uint64_t>(s.n);
  const double u = uniform01(bitsOf(s, key, example, 0));
  const std::int64_t start = philoxBelow(bitsOf(s, key, example, 1), n);
  std::int64_t stride = 1;
  for (std::uint64_t next = 2; n > 1; ++next) {
    stride = 1 + std::int64_t{philoxBelow(bitsOf(s, key, example, next), n - 1)};
    std::int64_t a = stride, b = s.n;
    while (b != 0) {
      const std::int64_t r = a % b;
      a = b, b = r;
    }
    if (a == 1) break;
  }
  const double step = cut.rest / static_cast<double>(draws);
  const Piece piece(s.n);
  const auto rowAt = [&](std::int64_t j) { return (start + j * stride) % s.n; };
  const auto drawn = [&](double score) { return score > 0 && score <= cut.threshold; };
  double own = 0;
  std::int64_t last = -1;
  for (std::int64_t j = piece.begin; j < piece.end; ++j) {
    const double score = scores[rowAt(j)];
    if (drawn(score)) own += score, last = j;
  }
  double total;
  const double before = sumBefore(own, total);
  last = blockMax(last, std::int64_t{-1});
  double sum = 0;
  std::int64_t done = pointsBelow(before, u, step, draws);
  for (std::int64_t j = piece.begin; j < piece.end; ++j) {
    const std::int64_t row = rowAt(j);
    const double score = scores[row];
    if (!drawn(score)) continue;
    sum += score;
    // What rounding has left beyond the end goes to the last row.
    const std::int64_t now = j == last ? draws : pointsBelow(before + sum, u, step, draws);
    counts[row] = static_cast<std::int32_t>(now - done);
    done = now;
  }
  __syncthreads();
}

__device__ void drawReplacing(const Sampled& s, const double* scores, double* sums, std::int32_t* counts, const Cut& cut,
                              std::int64_t draws, PhiloxKey key, std::uint32_t example) {
  const Piece piece(s.n);
  const auto drawn = [&](double score) { return score > 0 && score <= cut.threshold; };
  double own = 0, total;
  std::int64_t last = 0;
  for (std::int64_t i = piece.begin; i < piece.end; ++i) {
    if (drawn(scores[i])) own += scores[i], last = i;
  }
  const double before = sumBefore(own, total);
  last = blockMax(last, std::int64_t{0});
  double sum = 0;
  for (std::int64_t i = piece.begin; i < piece.end; ++i) {
    if (drawn(scores[i])) sum += scores[i];
    sums[i] = before + sum;
  }
  __syncthreads();
  for (std::int64_t j = threadIdx.x; j < draws; j += kSampleThreads) {
    const double u = uniform01(bitsOf(s, key, example, static_cast<std::uint64_t>(j))) * total;
    // The first row whose sum is beyond the point: rows without a score add nothing and are never the first.
    std::int64_t low = 0, high = s.n;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (u < sums[middle])
        high = middle;
      else
        low = middle + 1;
    }
    atomicAdd(counts + (low < last ? low : last), 1);
  }
  __syncthreads();
}

// The k largest, of equal ones those that come first: the bits of numbers that are not negative have their order, so eight bits at a time
// say where the k-th is.
__device__ void takeLargest(const Sampled& s, const double* scores, std::int32_t* counts) {
  __shared__ std::int32_t found[256];
  __shared__ std::uint64_t prefix;
  __shared__ std::int64_t left;
  if (threadIdx.x == 0) prefix = 0, left = s.k;
  const auto keyOf = [&](std::int64_t i) { return static_cast<std::uint64_t>(__double_as_longlong(scores[i])); };
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int d = static_cast<int>(threadIdx.x); d < 256; d += kSampleThreads) found[d] = 0;
    __syncthreads();
    const std::uint64_t mask = shift == 56 ? 0 : ~std::uint64_t{0} << (shift + 8);
    for (std::int64_t i = threadIdx.x; i < s.n; i += kSampleThreads) {
      const std::uint64_t key = keyOf(i);
      if ((key & mask) == prefix) atomicAdd(found + static_cast<int>(key >> shift & 255), 1);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int d = 255;
      for (; d > 0 && found[d] < left; --d) left -= found[d];
      prefix |= static_cast<std::uint64_t>(d) << shift;
    }
    __syncthreads();
  }
  const Piece piece(s.n);
  const std::uint64_t least = prefix;
  std::int64_t same = 0, all;
  for (std::int64_t i = piece.begin; i < piece.end; ++i) same += keyOf(i) == least;
  std::int64_t before = sumBefore(same, all);
  for (std::int64_t i = piece.begin; i < piece.end; ++i) {
    const std::uint64_t key = keyOf(i);
    counts[i] = key > least || (key == least && before++ < left);
  }
  __syncthreads();
}

// Rows in their order: certain ones count once, drawn ones by what makes their mean right, and what is left over counts nothing.
__device__ void putRows(const Sampled& s, std::int64_t set, const double* scores, const std::int32_t* counts, const Cut& cut,
                        std::int64_t draws) {
  const double mean = draws > 0 ? cut.rest / static_cast<double>(draws) : 0;
  const Piece piece(s.n);
  const auto timesOf = [&](std::int64_t i) { return s.method == Method::kWinners && scores[i] > cut.threshold ? 1 : counts[i]; };
  std::int64_t own = 0, all;
  for (std::int64_t i = piece.begin; i < piece.end; ++i) own += timesOf(i);
  std::int64_t at = sumBefore(own, all);
  for (std::int64_t i = piece.begin; i < piece.end; ++i) {
    const bool chosen = s.method == Method::kTopK || (s.method == Method::kWinners && scores[i] > cut.threshold);
    const double fair = mean / scores[i], weight = chosen ? 1 : scores[i] > 0 ? (fair < kFloat ? fair : kFloat) : 0;
    s.inverse.put(set * s.n + i, chosen ? 0 : weight);
    for (std::int64_t c = timesOf(i); c > 0 && at < s.k; --c, ++at) {
      s.indices[set * s.k + at] = static_cast<std::int32_t>(i);
      s.weights.put(set * s.k + at, weight);
    }
  }
  for (at = all + threadIdx.x; at < s.k; at += kSampleThreads) {
    s.indices[set * s.k + at] = 0;
    s.weights.put(set * s.k + at, 0);
  }
}

__global__ void __launch_bounds__(kSampleThreads) sampleSets(const __grid_constant__ Sampled s) {
  for (std::int64_t set = blockIdx.x; set < s.sets; set += gridDim.x) {
    const std::int32_t* words = s.keys + set / s.perKey * 2;
    const PhiloxKey key{static_cast<std::uint32_t>(words[0]), static_cast<std::uint32_t>(words[1])};
    const auto example = static_cast<std::uint32_t>(set % s.perKey);
    double* scores = s.scores + set * s.n;
    std::int32_t* counts = s.counts + set * s.n;
    scoresOf(s, set, scores);
    Cut cut = cutAt(scores, s.n, 2 * kLargest);
    // Without any score all rows are alike.
    const bool alike = !(cut.rest > 0);
    for (std::int64_t i = threadIdx.x; i < s.n; i += kSampleThreads) {
      counts[i] = 0;
      if (alike) scores[i] = 1;
    }
    if (alike) cut.rest = static_cast<double>(s.n);
    __syncthreads();
    std::int64_t draws = 0;
    if (s.method == Method::kTopK) {
      takeLargest(s, scores, counts);
    } else {
      if (s.method == Method::kWinners) cut = winnersOf(scores, s.n, s.k);
      draws = cut.rest > 0 ? s.k - cut.winners : 0;
      if (draws > 0 && s.systematic) drawSystematic(s, scores, counts, cut, draws, key, example);
      if (draws > 0 && !s.systematic) drawReplacing(s, scores, s.sums + set * s.n, counts, cut, draws, key, example);
    }
    putRows(s, set, scores, counts, cut, draws);
    __syncthreads();
  }
}

class SampleRows final : public Kernel {
 public:
  SampleRows(const SampleRowsAttrs& a, const View& norms, const View& key) : attrs_(a) {
    s_.sets = layout::span(norms, 0, norms.rank - 1), s_.perKey = layout::span(norms, key.rank - 1, norms.rank - 1);
    s_.n = norms.dim(-1), s_.k = a.k;
    s_.method = a.method, s_.systematic = a.draw == SampleRowsAttrs::Draw::kSystematic;
    s_.site = static_cast<std::uint32_t>(a.site), s_.floor = a.floor;
    workspace = static_cast<std::size_t>(s_.sets * s_.n) * (2 * sizeof(double) + sizeof(std::int32_t));
  }
  void run(const Call& call) const override {
    if (s_.k == 0) return;
    Sampled s = s_;
    s.norms = Reals(call.in[0]);
    if (attrs_.gains) s.gains = Reals(call.in[2]);
    s.keys = call.in[1].as<std::int32_t>();
    s.indices = call.out[0].as<std::int32_t>(), s.weights = Reals(call.out[1]), s.inverse = Reals(call.out[2]);
    s.scores = reinterpret_cast<double*>(call.workspace), s.sums = s.scores + s.sets * s.n;
    s.counts = reinterpret_cast<std::int32_t*>(s.sums + s.sets * s.n);
    STEEPEST_LAUNCH(sampleSets, gridFor(s.sets, 1), kSampleThreads, 0, call, s);
  }

 private:
  SampleRowsAttrs attrs_;
  Sampled s_{};
};

}  // namespace

std::unique_ptr<Kernel> makeRowNorms(const Spec& spec) {
  const bool squared = checkRowNorms(spec).squared;
  return std::make_unique<RowNorms>(spec.in[0], squared);
}

std::unique_ptr<Kernel> makeSampleRows(const Spec& spec) {
  const SampleRowsAttrs a = checkSampleRows(spec);
  return std::make_unique<SampleRows>(a, spec.in[0], spec.in[1]);
}

}  // namespace steepest::cuda

// Rows `conv`, `convInputBackward` and `convWeightBackward`: products of matrices whose right side is gathered where it is staged, so that
// no unfolded copy of the input exists. Places along one side are a triple (channel or image, row, column), and so are those that are
// summed over; what the three rows differ in is what the triples mean.
#include "cpu/conv_checks.h"
#include "cuda/device.cuh"

namespace steepest::cuda {

namespace {

constexpr int kEdge = 16;   // threads along an edge of a tile
constexpr int kDepth = 16;  // of what is summed over, at a time
template <class S>
constexpr int kTile = kEdge * kGroup<S>;
// Groups of so few channels leave a tile empty: threads or blocks then make one output each.
constexpr std::int64_t kFew = 8;
// A gradient of weights that makes fewer tiles than this cuts what it sums over.
constexpr std::int64_t kBusy = 264, kPieces = 64;
constexpr std::int64_t kLeastPiece = 1024;

// Division of numbers below 2^31 by a multiplication (Granlund and Montgomery, 1994).
struct Divider {
  std::uint32_t by = 1, factor = 1, shift = 0;
  Divider() = default;
  explicit Divider(std::int64_t d) : by(static_cast<std::uint32_t>(d)) {
    while ((std::uint64_t{1} << shift) < by) ++shift;
    factor = static_cast<std::uint32_t>((((std::uint64_t{1} << shift) - by) << 32) / by + 1);
  }
  __device__ std::uint32_t divide(std::uint32_t n) const { return (__umulhi(n, factor) + n) >> shift; }
};

struct Triple {
  std::int64_t outer;
  int row, column;
};
// [outer, rows, columns], row-major.
struct Places {
  std::int64_t size = 0;
  Divider area, columns;
  Places() = default;
  Places(std::int64_t outer, std::int64_t rows, std::int64_t width)
      : size(outer * rows * width), area(std::max<std::int64_t>(1, rows * width)), columns(std::max<std::int64_t>(1, width)) {}
  __device__ Triple at(std::int64_t i) const {
    const auto n = static_cast<std::uint32_t>(i), outer = area.divide(n), rest = n - outer * area.by, row = columns.divide(rest);
    return {outer, static_cast<int>(row), static_cast<int>(rest - row * columns.by)};
  }
};

// Along one axis, place j of the tile and place k of the sum meet position (j·tile + k·sum + shift) / divide of what is gathered.
struct Axis {
  int tile = 1, sum = 1, shift = 0, limit = 0;
  Divider divide;
  // The position, or −1 where there is none.
  __device__ int at(int j, int k) const {
    int p = j * tile + k * sum + shift;
    if (p < 0) return -1;
    if (divide.by != 1) {
      const auto q = static_cast<int>(divide.divide(static_cast<std::uint32_t>(p)));
      if (q * static_cast<int>(divide.by) != p) return -1;
      p = q;
    }
    return p < limit ? p : -1;
  }
};

// out[i][j] = Σ_k left[i][k]·right[j][k] for each group; left[i][k] lies at i·leftStep + the triple k times leftBy.
struct ConvTask {
  const void* left = nullptr;
  const void* right = nullptr;
  const void* bias = nullptr;  // one for each i of a group
  void* out = nullptr;
  bool narrow = false, outNarrow = false;
  std::int64_t groups = 1, rows = 0;  // i of a group
  Places across, summed;              // j and k
  Axis axis[2];
  std::int64_t leftStep = 0, leftGroup = 0, leftBy[3] = {};
  std::int64_t rightGroup = 0, tileOuter = 0, sumOuter = 0, rightRow = 0, rightColumn = 0;
  std::int64_t outStep = 0, outGroup = 0, outOuter = 0;  // the rest of a triple lies side by side
  std::int64_t biasStep = 0;
  std::int64_t piece = 0, pieces = 1, outPiece = 0;  // what is summed over at once, and where the sums of the next go
};

template <class S>
__device__ inline S numberAt(const void* p, bool narrow, std::int64_t i) {
  if constexpr (std::is_same_v<S, float>) {
    if (narrow) return toFloat(static_cast<const bf16*>(p)[i]);
  }
  return static_cast<const S*>(p)[i];
}
template <class S>
__device__ inline void put(void* p, bool narrow, std::int64_t i, S x) {
  if constexpr (std::is_same_v<S, float>) {
    if (narrow) {
      static_cast<bf16*>(p)[i] = toBf16(x);
      return;
    }
  }
  static_cast<S*>(p)[i] = x;
}

// Where the operands of one group lie.
template <class S>
struct Operands {
  const ConvTask& t;
  std::int64_t group;

  __device__ S left(std::int64_t i, const Triple& k) const {
    return numberAt<S>(t.left, t.narrow,
                       group * t.leftGroup + i * t.leftStep + k.outer * t.leftBy[0] + k.row * t.leftBy[1] + k.column * t.leftBy[2]);
  }
  // Zero in the padding, and between the steps of a stride.
  __device__ S right(const Triple& j, const Triple& k) const {
    const int row = t.axis[0].at(j.row, k.row), column = t.axis[1].at(j.column, k.column);
    if (row < 0 || column < 0) return 0;
    return numberAt<S>(t.right, t.narrow,
                       group * t.rightGroup + j.outer * t.tileOuter + k.outer * t.sumOuter + row * t.rightRow + column * t.rightColumn);
  }
  __device__ void give(std::int64_t piece, std::int64_t i, std::int64_t j, S sum) const {
    if (t.bias) sum += numberAt<S>(t.bias, t.narrow, (group * t.rows + i) * t.biasStep);
    const std::int64_t outer = t.across.area.divide(static_cast<std::uint32_t>(j));
    put<S>(t.out, t.outNarrow,
           piece * t.outPiece + group * t.outGroup + i * t.outStep + outer * t.outOuter + (j - outer * t.across.area.by), sum);
  }
};

template <class S>
__global__ void __launch_bounds__(kThreads) convTiles(const __grid_constant__ ConvTask t) {
  constexpr int G = kGroup<S>, T = kTile<S>, R = T + G;
  static_assert(kThreads % T == 0);
  __shared__ __align__(16) S left[kDepth * R], right[kDepth * R];
  const std::int64_t down = (t.rows + T - 1) / T, over = (t.across.size + T - 1) / T;
  std::int64_t at = blockIdx.x;
  const std::int64_t firstRow = at % down * T;
  at /= down;
  const std::int64_t firstColumn = at % over * T;
  at /= over;
  const Operands<S> o{t, at % t.groups};
  const std::int64_t piece = at / t.groups, begin = piece * t.piece, end = min(begin + t.piece, t.summed.size);
  // A thread stages every (kThreads / T)-th k of one row and of one column.
  const int mine = static_cast<int>(threadIdx.x) % T, depth = static_cast<int>(threadIdx.x) / T;
  const bool hasRow = firstRow + mine < t.rows, hasColumn = firstColumn + mine < t.across.size;
  const Triple column = hasColumn ? t.across.at(firstColumn + mine) : Triple{0, 0, 0};
  const int x = static_cast<int>(threadIdx.x) % kEdge * G, y = static_cast<int>(threadIdx.x) / kEdge * G;
  S sums[G][G] = {};
  for (std::int64_t k = begin; k < end; k += kDepth) {
#pragma unroll
    for (int d = depth; d < kDepth; d += kThreads / T) {
      const bool inside = k + d < end;
      const Triple place = inside ? t.summed.at(k + d) : Triple{0, 0, 0};
      left[d * R + mine] = inside && hasRow ? o.left(firstRow + mine, place) : S(0);
      right[d * R + mine] = inside && hasColumn ? o.right(column, place) : S(0);
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      const Group<S> u = readGroup(left + d * R + y), v = readGroup(right + d * R + x);
#pragma unroll
      for (int i = 0; i < G; ++i) {
#pragma unroll
        for (int j = 0; j < G; ++j) sums[i][j] = std::fma(u.v[i], v.v[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < G; ++i) {
#pragma unroll
    for (int j = 0; j < G; ++j) {
      if (firstRow + y + i < t.rows && firstColumn + x + j < t.across.size)
        o.give(piece, firstRow + y + i, firstColumn + x + j, sums[i][j]);
    }
  }
}

// A thread makes one output.
template <class S>
__global__ void __launch_bounds__(kThreads) convThreads(const __grid_constant__ ConvTask t) {
  for (std::int64_t at = threadOf(); at < t.groups * t.rows * t.across.size; at += threads()) {
    const std::int64_t j = at % t.across.size, i = at / t.across.size % t.rows;
    const Operands<S> o{t, at / t.across.size / t.rows};
    const Triple column = t.across.at(j);
    S sum = 0;
    for (std::int64_t k = 0; k < t.summed.size; ++k) {
      const Triple place = t.summed.at(k);
      sum = std::fma(o.left(i, place), o.right(column, place), sum);
    }
    o.give(0, i, j, sum);
  }
}

// A block makes one output.
template <class S>
__global__ void __launch_bounds__(kThreads) convBlocks(const __grid_constant__ ConvTask t) {
  for (std::int64_t at = blockIdx.x; at < t.groups * t.rows * t.across.size; at += gridDim.x) {
    const std::int64_t j = at % t.across.size, i = at / t.across.size % t.rows;
    const Operands<S> o{t, at / t.across.size / t.rows};
    const Triple column = t.across.at(j);
    S sum = 0;
    for (std::int64_t k = threadIdx.x; k < t.summed.size; k += kThreads) {
      const Triple place = t.summed.at(k);
      sum = std::fma(o.left(i, place), o.right(column, place), sum);
    }
    sum = blockSum(sum);
    if (threadIdx.x == 0) o.give(0, i, j, sum);
  }
}

template <class S>
__global__ void __launch_bounds__(kThreads) joinPieces(const S* sums, std::int64_t pieces, std::int64_t n, void* out, bool narrow) {
  for (std::int64_t i = threadOf(); i < n; i += threads()) {
    S total = sums[i];
    for (std::int64_t p = 1; p < pieces; ++p) total += sums[p * n + i];
    put<S>(out, narrow, i, total);
  }
}

// Sums over all images and places of a channel. A block takes a channel.
template <class S>
__global__ void __launch_bounds__(kThreads)
    channelSums(const void* x, bool narrow, Places places, std::int64_t channels, std::int64_t outer, std::int64_t channel,
                std::int64_t row, std::int64_t column, void* out) {
  for (std::int64_t c = blockIdx.x; c < channels; c += gridDim.x) {
    S total = 0;
    for (std::int64_t k = threadIdx.x; k < places.size; k += kThreads) {
      const Triple p = places.at(k);
      total += numberAt<S>(x, narrow, c * channel + p.outer * outer + p.row * row + p.column * column);
    }
    total = blockSum(total);
    if (threadIdx.x == 0) put<S>(out, narrow, c, total);
  }
}

// Strides, dilations and lengths are below 2^24 (conv_shape.h), and so are their products with a place, but for what checks refuse.
Axis axisOf(std::int64_t tile, std::int64_t sum, std::int64_t shift, std::int64_t limit, std::int64_t divide = 1) {
  Axis axis;
  axis.tile = static_cast<int>(tile), axis.sum = static_cast<int>(sum), axis.shift = static_cast<int>(shift);
  axis.limit = static_cast<int>(limit), axis.divide = Divider(divide);
  return axis;
}

void setLeft(ConvTask& t, std::int64_t group, std::int64_t step, std::int64_t outer, const View& v) {
  t.leftGroup = group, t.leftStep = step;
  t.leftBy[0] = outer, t.leftBy[1] = v.strides[2], t.leftBy[2] = v.strides[3];
}
void setRight(ConvTask& t, std::int64_t group, std::int64_t tileOuter, std::int64_t sumOuter, const View& v) {
  t.rightGroup = group, t.tileOuter = tileOuter, t.sumOuter = sumOuter;
  t.rightRow = v.strides[2], t.rightColumn = v.strides[3];
}
// Row i of group g begins at (g·rows + i)·step, outer place o of the tile `outer` further.
void setOut(ConvTask& t, std::int64_t step, std::int64_t outer) { t.outStep = step, t.outGroup = t.rows * step, t.outOuter = outer; }

class Convolution : public Kernel {
 public:
  // Numbers of the operands that are left and right.
  Convolution(const ConvTask& task, DType type, std::size_t left, std::size_t right) : t_(task), type_(type), left_(left), right_(right) {
    if (t_.across.size > kMaxGridX || t_.summed.size > kMaxGridX) throw Error("PROGRAM", "a convolution has more than 2^31 places");
    t_.narrow = t_.outNarrow = type == DType::bfloat16;
    t_.piece = t_.summed.size;
  }

  void run(const Call& call) const override {
    ConvTask t = t_;
    t.left = call.in[left_].data, t.right = call.in[right_].data, t.out = call.out[0].data;
    if (call.in.size() > 2) t.bias = call.in[2].data;
    bySum([&](auto zero) { launchAs<decltype(zero)>(call, t); });
  }

 protected:
  template <class F>
  void bySum(F&& f) const {
    if (type_ == DType::float64)
      f(double{});
    else
      f(float{});
  }
  std::int64_t outputs() const { return t_.groups * t_.rows * t_.across.size; }
  template <class S>
  std::int64_t tiles() const {
    return t_.groups * ceilDiv<std::int64_t>(t_.rows, kTile<S>) * ceilDiv<std::int64_t>(t_.across.size, kTile<S>);
  }

  ConvTask t_;
  DType type_;

 private:
  template <class S>
  void launchAs(const Call& call, ConvTask t) const {
    if (t.pieces > 1) {
      t.out = call.workspace, t.outNarrow = false;
      STEEPEST_LAUNCH(convTiles<S>, blocksFor(tiles<S>() * t.pieces, 1), kThreads, 0, call, t);
      STEEPEST_LAUNCH(joinPieces<S>, gridFor(outputs()), kThreads, 0, call, reinterpret_cast<const S*>(call.workspace), t.pieces, outputs(),
                      call.out[0].data, t.narrow);
    } else if (t.rows >= kFew) {
      STEEPEST_LAUNCH(convTiles<S>, blocksFor(tiles<S>(), 1), kThreads, 0, call, t);
    } else if (t.summed.size < kLeastPiece) {
      STEEPEST_LAUNCH(convThreads<S>, gridFor(outputs()), kThreads, 0, call, t);
    } else {
      STEEPEST_LAUNCH(convBlocks<S>, gridFor(outputs(), 1), kThreads, 0, call, t);
    }
  }

  std::size_t left_, right_;
};

// Few tiles and a long sum: it is cut into pieces by its length alone, which are summed in order.
class WeightGradient final : public Convolution {
 public:
  WeightGradient(const ConvTask& task, DType type) : Convolution(task, type, 1, 0) {
    if (t_.rows < kFew) return;
    bySum([&](auto zero) {
      using S = decltype(zero);
      const std::int64_t wanted = std::clamp<std::int64_t>(kBusy / std::max<std::int64_t>(1, tiles<S>()), 1, kPieces);
      const std::int64_t most = std::max<std::int64_t>(1, t_.summed.size / kLeastPiece);
      t_.piece = ceilDiv(ceilDiv(t_.summed.size, std::min(wanted, most)), std::int64_t{kDepth}) * kDepth;
      t_.pieces = t_.piece > 0 ? std::max<std::int64_t>(1, ceilDiv(t_.summed.size, t_.piece)) : 1;
      t_.outPiece = outputs();
      if (t_.pieces > 1) workspace = static_cast<std::size_t>(t_.pieces * outputs()) * sizeof(S);
    });
  }

  void run(const Call& call) const override {
    Convolution::run(call);
    if (call.out.size() < 2) return;
    const View &dy = call.in[1], &bias = call.out[1];
    bySum([&](auto zero) {
      STEEPEST_LAUNCH(channelSums<decltype(zero)>, gridFor(bias.size(), 1), kThreads, 0, call, dy.data, t_.narrow, t_.summed, bias.size(),
                      dy.strides[0], dy.strides[1], dy.strides[2], dy.strides[3], bias.data);
    });
  }
};

}  // namespace

// Rows are channels of y and a tile's columns its places, the sum is over channels of x and taps.
std::unique_ptr<Kernel> makeConv(const Spec& spec) {
  const ConvShape s = checkConv(spec, ConvAttrs::decode(spec.attrs));
  const View &x = spec.in[0], &w = spec.in[1];
  const Windows& v = s.windows;
  ConvTask t;
  t.groups = s.groups, t.rows = s.outputs();
  t.across = Places(s.n, v.out[0], v.out[1]), t.summed = Places(s.inputs(), v.size[0], v.size[1]);
  for (int i = 0; i < 2; ++i) t.axis[i] = axisOf(v.stride[i], v.dilation[i], -v.before[i], v.in[i]);
  setLeft(t, s.outputs() * w.strides[0], w.strides[0], w.strides[1], w);
  setRight(t, s.inputs() * x.strides[1], x.strides[0], x.strides[1], x);
  setOut(t, v.out[0] * v.out[1], s.o * v.out[0] * v.out[1]);
  if (spec.in.size() > 2) t.biasStep = spec.in[2].strides[0];
  return std::make_unique<Convolution>(t, x.dtype, 1, 0);
}

// Rows are channels of x and a tile's columns its places, the sum is over channels of y and taps.
std::unique_ptr<Kernel> makeConvInputBackward(const Spec& spec) {
  const ConvShape s = checkConvInputBackward(spec, ConvInputBackwardAttrs::decode(spec.attrs));
  const View &dy = spec.in[0], &w = spec.in[1];
  const Windows& v = s.windows;
  ConvTask t;
  t.groups = s.groups, t.rows = s.inputs();
  t.across = Places(s.n, v.in[0], v.in[1]), t.summed = Places(s.outputs(), v.size[0], v.size[1]);
  for (int i = 0; i < 2; ++i) t.axis[i] = axisOf(1, -v.dilation[i], v.before[i], v.out[i], v.stride[i]);
  setLeft(t, s.outputs() * w.strides[0], w.strides[1], w.strides[0], w);
  setRight(t, s.outputs() * dy.strides[1], dy.strides[0], dy.strides[1], dy);
  setOut(t, v.in[0] * v.in[1], s.c * v.in[0] * v.in[1]);
  return std::make_unique<Convolution>(t, dy.dtype, 1, 0);
}

// Rows are channels of y and a tile's columns channels of x and taps, the sum is over places of y.
std::unique_ptr<Kernel> makeConvWeightBackward(const Spec& spec) {
  const ConvShape s = checkConvWeightBackward(spec, ConvWeightBackwardAttrs::decode(spec.attrs));
  const View &x = spec.in[0], &dy = spec.in[1];
  const Windows& v = s.windows;
  ConvTask t;
  t.groups = s.groups, t.rows = s.outputs();
  t.across = Places(s.inputs(), v.size[0], v.size[1]), t.summed = Places(s.n, v.out[0], v.out[1]);
  for (int i = 0; i < 2; ++i) t.axis[i] = axisOf(v.dilation[i], v.stride[i], -v.before[i], v.in[i]);
  setLeft(t, s.outputs() * dy.strides[1], dy.strides[1], dy.strides[0], dy);
  setRight(t, s.inputs() * x.strides[1], x.strides[1], x.strides[0], x);
  setOut(t, s.inputs() * v.places(), v.places());
  return std::make_unique<WeightGradient>(t, x.dtype);
}

}  // namespace steepest::cuda

// Row `convWeightBackward`: the gradient of a convolution by its weight and bias. The batch is cut into fixed pieces; each sums its images,
// band by band, and the pieces are summed in order.
#include <optional>

#include "cpu/conv_checks.h"
#include "cpu/conv_micro.h"
#include "cpu/conv_dnnl.h"
#include "cpu/conv_pointwise.h"
#include "cpu/transpose.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

constexpr std::int64_t kPositions = 256;         // of a band: the slopes of a panel of channels stay in the first-level cache
constexpr std::int64_t kPlaneBytes = 256 << 10;  // of a block of channels
constexpr std::int64_t kPieces = 8, kPartialBytes = 16 << 20;

std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
std::int64_t ceilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
std::int64_t roundUp(std::int64_t a, std::int64_t b) { return ceilDiv(a, b) * b; }

class ConvWeightBackward final : public Kernel {
 public:
  ConvWeightBackward(const Spec& spec, const ConvShape& shape) : shape_(shape), dtype_(spec.in[0].dtype), bias_(spec.out.size() > 1) {
    plan(spec.threads);
  }

  void run(const Call& call) const override {
    if (dtype_ == DType::float64) return runAs<double, double>(call);
    if (dtype_ == DType::float32) return runAs<float, float>(call);
    if constexpr (kHasPairs) {
      if (pairs_) return runAs<bf16, Bf16Pair>(call);
    }
    runAs<bf16, float>(call);
  }

 private:
  struct Tile {
    std::int64_t piece, group, part;
  };

  std::int64_t depth() const { return shape_.inputs() * shape_.windows.places(); }
  std::int64_t groupSums() const { return parts_ * depth() * partRow_; }

  void plan(int threads) {
    const Windows& v = shape_.windows;
    const std::int64_t unit = dtype_ == DType::float64 ? 8 : 4, lanes = dtype_ == DType::float64 ? vd::kLanes : vf::kLanes;
    const std::int64_t outputs = std::max<std::int64_t>(1, shape_.outputs());
    dots_ = outputs * 2 <= lanes;
    pairs_ = kHasPairs && dtype_ == DType::bfloat16 && !dots_ && dnnlHasBf16();
    const std::int64_t bytes = std::max<std::int64_t>(1, shape_.o * depth() * unit);
    const std::int64_t wanted =
        std::max<std::int64_t>(1, std::min(ceilDiv(kPieces, std::max<std::int64_t>(1, shape_.groups)), kPartialBytes / bytes));
    pieces_ = std::max<std::int64_t>(1, std::min(shape_.n, wanted));
    part_ = outputs;
    while (pieces_ * shape_.groups * ceilDiv(outputs, part_) < kPieces && part_ >= 64) part_ = roundUp(part_ / 2, lanes);
    parts_ = ceilDiv(outputs, part_);
    // A row of sums is the outputs of a part, or (with dots) the places of one output.
    partRow_ = dots_ ? part_ : roundUp(part_, lanes);

    for (int i = 0; i < 2; ++i) {
      Taps taps;
      for (std::int64_t t = 0; t < v.size[i]; ++t) taps.emplace_back(t, v.start(i, t));
      axis_[i] = ConvAxis(v.out[i], v.stride[i], taps, i == 1);
    }
    // Sums along positions are long, since each ends with a sum over lanes.
    const std::int64_t most = dots_ ? 8 * kPositions : kPositions;
    band_[1] = v.out[1] <= 2 * most ? std::max<std::int64_t>(1, v.out[1]) : ceilDiv(v.out[1], ceilDiv(v.out[1], most));
    band_[0] = std::max<std::int64_t>(1, std::min(v.out[0], most / band_[1]));
    for (int i = 0; i < 2; ++i) axis_[i].cut(band_[i]);
    const std::int64_t channel = axis_[0].planes() * axis_[1].planes() * axis_[0].length * axis_[1].length;
    const std::int64_t xUnit = pairs_ ? 2 : unit;
    block_ = std::max<std::int64_t>(1, std::min(shape_.inputs(), kPlaneBytes / (channel * xUnit)));
    for (std::int64_t c = 0; c < block_; ++c) {
      for (const ConvAxis::Tap& i : axis_[0].taps) {
        for (const ConvAxis::Tap& j : axis_[1].taps) offsets_.push_back(c * channel + offsetOf(axis_[0], axis_[1], i, j));
      }
    }
    const std::int64_t positions = band_[0] * band_[1];
    linesAt_ = align(static_cast<std::size_t>(block_ * channel * xUnit));
    lineRow_ = roundUp(positions, 2);
    slopesAt_ = linesAt_ + align(static_cast<std::size_t>((dots_ ? part_ : lanes) * lineRow_ * unit));
    threadBytes_ = slopesAt_ + (dots_ ? 0 : align(static_cast<std::size_t>(roundUp(positions, lanes) * partRow_ * unit)));
    biasAt_ = align(static_cast<std::size_t>(pieces_ * shape_.groups * groupSums() * unit));
    threadsAt_ = biasAt_ + align(static_cast<std::size_t>(pieces_ * shape_.o * unit));
    workspace = threadsAt_ + threadBytes_ * static_cast<std::size_t>(threads);
  }
  using Taps = std::vector<std::pair<std::int64_t, std::int64_t>>;

  // One channel's slopes over a band, side by side; the odd one out gets a zero beside it.
  template <class T, class L>
  void copyLine(const View& dy, std::int64_t image, std::int64_t channel, const std::int64_t (&first)[2], std::int64_t rows,
                std::int64_t columns, L* to) const {
    const T* from = dy.as<T>() + image * dy.strides[0] + channel * dy.strides[1] + first[0] * dy.strides[2] + first[1] * dy.strides[3];
    if (rows == 1 || (dy.strides[2] == columns * dy.strides[3])) {
      copyStrided(from, dy.strides[3], rows * columns, to);
    } else {
      for (std::int64_t r = 0; r < rows; ++r) copyStrided(from + r * dy.strides[2], dy.strides[3], columns, to + r * columns);
    }
    if (rows * columns % 2) std::memset(static_cast<void*>(to + rows * columns), 0, sizeof(L));
  }

  template <class T, class E>
  void runTile(const Tile& tile, const Call& call, std::byte* scratch) const {
    using Sum = typename Product<E>::Sum;
    using V = VecOf<Sum>;
    using X = typename Positions<E>::X;  // also the type of a line
    constexpr int W = V::kLanes;
    constexpr std::int64_t kEach = Positions<E>::kEach;
    const Windows& v = shape_.windows;
    const View &x = call.in[0], &dy = call.in[1];
    const std::int64_t inputs = shape_.inputs(), outputs = std::min(part_, shape_.outputs() - tile.part * part_);
    const std::int64_t firstOutput = tile.group * shape_.outputs() + tile.part * part_, places = v.places();
    Sum* const sums =
        reinterpret_cast<Sum*>(call.workspace) + (tile.piece * shape_.groups + tile.group) * groupSums() + tile.part * depth() * partRow_;
    Sum* const biases = reinterpret_cast<Sum*>(call.workspace + biasAt_) + tile.piece * shape_.o + firstOutput;
    std::fill(sums, sums + depth() * partRow_, Sum(0));
    std::fill(biases, biases + outputs, Sum(0));
    X* const planes = reinterpret_cast<X*>(scratch);
    X* const lines = reinterpret_cast<X*>(scratch + linesAt_);
    E* const slopes = reinterpret_cast<E*>(scratch + slopesAt_);
    const auto addBias = [&](const X* line, std::int64_t count, std::int64_t o) {
      if (!bias_) return;
      V total(0);
      std::int64_t f = 0;
      for (; f + W <= count; f += W) total += V::load(line + f);
      if (f < count) total += V::load(line + f, static_cast<int>(count - f));
      biases[o] += sum(total);
    };
    const auto band = [&](std::int64_t image, const std::int64_t(&first)[2]) {
      const std::int64_t rows = std::min(band_[0], v.out[0] - first[0]), columns = std::min(band_[1], v.out[1] - first[1]);
      const std::int64_t count = rows * columns;
      if (dots_) {
        for (std::int64_t o = 0; o < outputs; ++o) {
          copyLine<T>(dy, image, firstOutput + o, first, rows, columns, lines + o * lineRow_);
          addBias(lines + o * lineRow_, count, o);
        }
      } else {
        for (std::int64_t o = 0; o < partRow_; o += W) {
          for (std::int64_t i = 0; i < W; ++i) {
            X* const line = lines + i * lineRow_;
            if (o + i < outputs) {
              copyLine<T>(dy, image, firstOutput + o + i, first, rows, columns, line);
              addBias(line, count, o + i);
            } else {
              std::memset(static_cast<void*>(line), 0, static_cast<std::size_t>(lineRow_) * sizeof(X));
            }
          }
          // Rows of lines become columns, a square at a time; the last square is cut by steps of one.
          const Sum* const from = reinterpret_cast<const Sum*>(lines);
          Sum* const to = reinterpret_cast<Sum*>(slopes) + o;
          const std::int64_t row = lineRow_ / kEach, steps = ceilDiv(count, kEach);
          std::int64_t f = 0;
          for (; f + W <= steps; f += W) transposeSquare<Bits<Sum>, W>(bitsAt(from + f), row, bitsAt(to + f * partRow_), partRow_);
          for (; f < steps; ++f) {
            for (int i = 0; i < W; ++i) std::memcpy(to + f * partRow_ + i, from + i * row + f, sizeof(Sum));
          }
        }
      }
      for (std::int64_t c = 0; c < inputs; c += block_) {
        const std::int64_t channels = std::min(block_, inputs - c);
        const Source<T> source{x.as<T>() + image * x.strides[0] + (tile.group * inputs + c) * x.strides[1], x.strides[1], x.strides[2],
                               x.strides[3]};
        // A shorter last band of a long row fills its planes all the same, so that the places lie where `offsets_` says.
        packPlanes(source, channels, v.in, axis_[0], axis_[1], first, rows + axis_[0].reach, planes);
        multiply<E>(count, channels * places, planes, lines, slopes, outputs, sums + c * places * (dots_ ? 1 : partRow_));
      }
    };
    const std::int64_t begin = tile.piece * shape_.n / pieces_, end = (tile.piece + 1) * shape_.n / pieces_;
    for (std::int64_t image = begin; image < end; ++image) {
      std::int64_t first[2];
      for (first[0] = 0; first[0] < v.out[0]; first[0] += band_[0]) {
        for (first[1] = 0; first[1] < v.out[1]; first[1] += band_[1]) band(image, first);
      }
    }
  }

  template <class S>
  using Bits = std::conditional_t<sizeof(S) == 8, std::uint64_t, std::uint32_t>;
  template <class S>
  static auto bitsAt(S* p) {
    using B = std::conditional_t<std::is_const_v<S>, const Bits<S>, Bits<S>>;
    return reinterpret_cast<B*>(p);
  }

  template <class E>
  void multiply(std::int64_t count, std::int64_t places, const typename Positions<E>::X* planes, const typename Positions<E>::X* lines,
                const E* slopes, std::int64_t outputs, typename Product<E>::Sum* into) const {
    const std::int64_t* const offsets = offsets_.data();
    if constexpr (!std::is_same_v<E, Bf16Pair>) {
      if (dots_) {
        std::int64_t o = 0;
        const auto rows = [&]<int Rows, int Places>() {
          for (; o + Rows <= outputs; o += Rows) {
            std::int64_t k = 0;
            const E* const y = lines + o * lineRow_;
            E* const to = into + o * depth();
            for (; k + Places <= places; k += Places) dotBlock<E, Rows, Places>(count, offsets + k, planes, y, lineRow_, to + k, depth());
            for (; k < places; ++k) dotBlock<E, Rows, 1>(count, offsets + k, planes, y, lineRow_, to + k, depth());
          }
        };
        if constexpr (kConvRows >= 8) rows.template operator()<4, 4>();
        rows.template operator()<2, kConvRows >= 4 ? 4 : 2>();
        rows.template operator()<1, kConvRows>();
        return;
      }
    }
    constexpr int W = Product<E>::V::kLanes, kMost = convVectors(kConvRows);
    std::int64_t left = partRow_ / W;
    for (std::int64_t o = 0; left > 0;) {
      const int vectors = static_cast<int>(left <= kMost ? left : left < 2 * kMost ? (left + 1) / 2 : kMost);
      left -= vectors;
      panel<E, kMost>(vectors, count, places, planes, slopes + o, into + o);
      o += vectors * W;
    }
  }
  template <class E, int Vectors>
  void panel(int vectors, std::int64_t count, std::int64_t places, const typename Positions<E>::X* planes, const E* slopes,
             typename Product<E>::Sum* into) const {
    if constexpr (Vectors > 0) {
      if (vectors != Vectors) return panel<E, Vectors - 1>(vectors, count, places, planes, slopes, into);
      std::int64_t k = 0;
      const auto rows = [&]<int Rows>() {
        for (; k + Rows <= places; k += Rows)
          outerBlock<E, Rows, Vectors>(count, offsets_.data() + k, planes, slopes, partRow_, into + k * partRow_, partRow_);
      };
      rows.template operator()<kConvRows>();
      if constexpr (kConvRows > 2) rows.template operator()<2>();
      rows.template operator()<1>();
    }
  }

  template <class T, class E>
  void runAs(const Call& call) const {
    using Sum = typename Product<E>::Sum;
    const std::int64_t outputs = shape_.outputs();
    if (shape_.o == 0) return;
    pieceTiles(call, [&](const Tile& tile, std::byte* scratch) { runTile<T, E>(tile, call, scratch); });
    // Sums of the pieces, in order, and their transpose.
    const Sum* const sums = reinterpret_cast<const Sum*>(call.workspace);
    T* const dw = call.out[0].as<T>();
    const std::int64_t pieceStep = shape_.groups * groupSums(), k = depth();
    const auto keep = [](T* to, Sum value) {
      if constexpr (std::is_same_v<T, Sum>)
        *to = value;
      else
        store(to, VecOf<Sum>(value), 1);
    };
    constexpr std::int64_t kSlab = 16;
    const std::int64_t slabs = ceilDiv(outputs, kSlab), together = std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, kSlab * k));
    const std::int64_t all = shape_.groups * slabs;
    call.pool.run(ceilDiv(all, together), [&](std::int64_t t, int) {
      for (std::int64_t s = t * together; s < std::min(all, (t + 1) * together); ++s) {
        const std::int64_t group = s / slabs, first = s % slabs * kSlab, end = std::min(outputs, first + kSlab);
        for (std::int64_t o = first; o < end; ++o) {
          const std::int64_t part = o / part_, within = o % part_;
          const Sum* from = sums + group * groupSums() + part * k * partRow_ + (dots_ ? within * k : within);
          const std::int64_t step = dots_ ? 1 : partRow_;
          T* const to = dw + (group * outputs + o) * k;
          for (std::int64_t i = 0; i < k; ++i) {
            Sum total = from[i * step];
            for (std::int64_t p = 1; p < pieces_; ++p) total += from[p * pieceStep + i * step];
            keep(to + i, total);
          }
        }
      }
    });
    if (!bias_) return;
    const Sum* const biases = reinterpret_cast<const Sum*>(call.workspace + biasAt_);
    for (std::int64_t o = 0; o < shape_.o; ++o) {
      Sum total = biases[o];
      for (std::int64_t p = 1; p < pieces_; ++p) total += biases[p * shape_.o + o];
      keep(call.out[1].as<T>() + o, total);
    }
  }

  template <class F>
  void pieceTiles(const Call& call, F&& body) const {
    const std::int64_t tiles = pieces_ * shape_.groups * parts_;
    const std::int64_t work = part_ * std::max<std::int64_t>(8, depth()) * std::max<std::int64_t>(1, shape_.n / pieces_) *
                              shape_.windows.out[0] * shape_.windows.out[1];
    const std::int64_t each = std::max<std::int64_t>(1, (1 << 20) / std::max<std::int64_t>(1, work));
    call.pool.run(ceilDiv(tiles, each), [&](std::int64_t task, int thread) {
      std::byte* const scratch = call.workspace + threadsAt_ + threadBytes_ * static_cast<std::size_t>(thread);
      for (std::int64_t t = task * each; t < std::min(tiles, (task + 1) * each); ++t)
        body(Tile{t / (shape_.groups * parts_), t / parts_ % shape_.groups, t % parts_}, scratch);
    });
  }

  ConvShape shape_;
  DType dtype_;
  bool bias_, pairs_ = false;
  bool dots_ = false;  // few outputs: vectors lie along positions rather than along outputs
  std::int64_t pieces_ = 1, part_ = 1, parts_ = 1, partRow_ = 1, block_ = 1, lineRow_ = 0;
  std::int64_t band_[2] = {1, 1};
  ConvAxis axis_[2];
  std::vector<std::int64_t> offsets_;
  std::size_t linesAt_ = 0, slopesAt_ = 0, threadBytes_ = 0, biasAt_ = 0, threadsAt_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> makeConvWeightBackward(const Spec& spec) {
  const ConvShape shape = checkConvWeightBackward(spec, ConvWeightBackwardAttrs::decode(spec.attrs));
  if (auto kernel = fastKernel(spec, shape, ConvPass::weight)) return kernel;
  return std::make_unique<ConvWeightBackward>(spec, shape);
}

}  // namespace steepest::STEEPEST_LEVEL

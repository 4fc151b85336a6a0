#include "cpu/conv_pointwise.h"

#include "cpu/conv_pack.h"
#include "cpu/gemm.h"
#include "cpu/matmul_grid.h"
#include "cpu/norm.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

constexpr std::int64_t kColumns = 512, kTiles = 16, kPieces = 8, kTaskWork = 1 << 20;

std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
std::int64_t ceilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// One product for each image and group, in tiles of positions: [to, from] · [from, positions].
class Pointwise final : public Kernel {
 public:
  Pointwise(const Spec& spec, const ConvShape& s, ConvPass pass) : shape_(s) {
    const View &x = spec.in[0], &w = spec.in[1];
    const bool forward = pass == ConvPass::forward;
    from_ = forward ? s.inputs() : s.outputs();
    to_ = forward ? s.outputs() : s.inputs();
    bias_ = spec.in.size() > 2;
    const std::int64_t positions = s.windows.in[0] * s.windows.in[1];
    std::int64_t pieces = ceilDiv(positions, kColumns);
    while (s.n * s.groups * pieces < kTiles && positions / (pieces + 1) >= 128) ++pieces;
    cut_ = Cut(positions, pieces, 32);
    const std::int64_t row = forward ? w.strides[0] : w.strides[1], column = forward ? w.strides[1] : w.strides[0];
    for (int last = 0; last < 2; ++last) {
      const std::int64_t columns = last ? cut_.size(cut_.count() - 1) : cut_.size(0);
      products_[last] = Gemm({to_, columns, from_, row, column, x.strides[1], x.strides[3], positions, x.dtype, x.dtype, bias_});
      threadBytes_ = std::max(threadBytes_, align(products_[last].scratch()));
    }
    group_ = s.outputs() * w.strides[0];
    each_ = std::max<std::int64_t>(1, kTaskWork / (to_ * from_ * cut_.size(0)));
    workspace = threadBytes_ * static_cast<std::size_t>(spec.threads);
  }

  void run(const Call& call) const override {
    const View &x = call.in[0], &w = call.in[1], &y = call.out[0];
    const std::int64_t tiles = shape_.n * shape_.groups * cut_.count(), unit = static_cast<std::int64_t>(sizeOf(x.dtype));
    call.pool.run(ceilDiv(tiles, each_), [&](std::int64_t task, int thread) {
      for (std::int64_t t = task * each_; t < std::min(tiles, (task + 1) * each_); ++t) {
        const std::int64_t piece = t % cut_.count(), image = t / cut_.count() % shape_.n, group = t / cut_.count() / shape_.n;
        const std::int64_t first = cut_.begin(piece);
        std::byte* const to = y.data + ((image * shape_.groups + group) * to_ * cut_.length + first) * unit;
        if (bias_) fillBias(call.in[2], group * to_, cut_.size(piece), to);
        products_[cut_.isLast(piece) ? 1 : 0].run(
            w.data + group * group_ * unit, x.data + (image * x.strides[0] + group * from_ * x.strides[1] + first * x.strides[3]) * unit,
            to, call.workspace + threadBytes_ * static_cast<std::size_t>(thread));
      }
    });
  }

 private:
  void fillBias(const View& bias, std::int64_t first, std::int64_t columns, std::byte* to) const {
    byFloat(bias.dtype, [&](auto zero) {
      using T = decltype(zero);
      for (std::int64_t o = 0; o < to_; ++o)
        std::fill_n(reinterpret_cast<T*>(to) + o * cut_.length, columns, bias.as<T>()[(first + o) * bias.strides[0]]);
    });
  }

  ConvShape shape_;
  std::int64_t from_ = 0, to_ = 0, group_ = 0, each_ = 1;
  bool bias_ = false;
  Cut cut_;
  Gemm products_[2];  // of whole tiles, and of the last
  std::size_t threadBytes_ = 0;
};

// [outputs, inputs] of a group: the slopes times the input's transpose, summed over fixed pieces of the batch.
class PointwiseWeights final : public Kernel {
 public:
  PointwiseWeights(const Spec& spec, const ConvShape& s) : shape_(s), dtype_(spec.in[0].dtype), bias_(spec.out.size() > 1) {
    const View &x = spec.in[0], &dy = spec.in[1];
    sum_ = dtype_ == DType::float64 ? DType::float64 : DType::float32;
    const std::int64_t positions = s.windows.in[0] * s.windows.in[1], outputs = s.outputs();
    pieces_ = std::min(s.n, ceilDiv(kPieces, s.groups));
    std::int64_t parts = 1;
    while (pieces_ * s.groups * parts < kPieces && outputs / (parts + 1) >= 32) ++parts;
    cut_ = Cut(outputs, parts, 16);
    for (int kind = 0; kind < 4; ++kind) {
      const std::int64_t rows = kind & 1 ? cut_.size(cut_.count() - 1) : cut_.size(0);
      products_[kind] = Gemm({rows, s.inputs(), positions, dy.strides[1], dy.strides[3], x.strides[3], x.strides[1], s.inputs(), dtype_,
                              sum_, (kind & 2) != 0});
      scratch_ = std::max(scratch_, align(products_[kind].scratch()));
    }
    const std::size_t unit = sizeOf(sum_);
    biasAt_ = align(static_cast<std::size_t>(pieces_ * s.o * s.inputs()) * unit);
    threadsAt_ = biasAt_ + align(static_cast<std::size_t>(pieces_ * s.o) * unit);
    workspace = threadsAt_ + scratch_ * static_cast<std::size_t>(spec.threads);
  }

  void run(const Call& call) const override {
    byFloat(dtype_, [&](auto zero) { runAs<decltype(zero)>(call); });
  }

 private:
  template <class T>
  void runAs(const Call& call) const {
    using S = typename Math<T>::S;
    const View &x = call.in[0], &dy = call.in[1];
    const std::int64_t inputs = shape_.inputs(), outputs = shape_.outputs(), tiles = shape_.groups * cut_.count();
    S* const sums = reinterpret_cast<S*>(call.workspace);
    S* const biases = reinterpret_cast<S*>(call.workspace + biasAt_);
    call.pool.run(pieces_ * tiles, [&](std::int64_t t, int thread) {
      const std::int64_t piece = t / tiles, group = t % tiles / cut_.count(), part = t % cut_.count();
      const std::int64_t first = group * outputs + cut_.begin(part), rows = cut_.size(part), last = cut_.isLast(part) ? 1 : 0;
      S* const to = sums + (piece * shape_.o + first) * inputs;
      S* const total = biases + piece * shape_.o + first;
      std::fill_n(total, rows, S(0));
      const std::int64_t begin = piece * shape_.n / pieces_, end = (piece + 1) * shape_.n / pieces_;
      for (std::int64_t image = begin; image < end; ++image) {
        const T* const slopes = dy.as<T>() + image * dy.strides[0] + first * dy.strides[1];
        products_[last | (image > begin ? 2 : 0)].run(slopes, x.as<T>() + image * x.strides[0] + group * inputs * x.strides[1], to,
                                                      call.workspace + threadsAt_ + scratch_ * static_cast<std::size_t>(thread));
        for (std::int64_t o = 0; bias_ && o < rows; ++o) total[o] += sumRow(slopes + o * dy.strides[1], dy.strides[3]);
      }
    });
    const auto add = [&](const S* from, std::int64_t count, T* to) {
      eachRow(call.pool, ceilDiv(count, 4096), 4096 * pieces_, [&](std::int64_t slab) {
        const std::int64_t at = slab * 4096;
        eachVector<typename Math<T>::V>(std::min<std::int64_t>(4096, count - at), [&](auto w, std::int64_t i) {
          auto total = w.load(from + at + i);
          for (std::int64_t p = 1; p < pieces_; ++p) total += w.load(from + p * count + at + i);
          w.store(to + at + i, total);
        });
      });
    };
    add(sums, shape_.o * inputs, call.out[0].as<T>());
    if (bias_) add(biases, shape_.o, call.out[1].as<T>());
  }

  template <class T>
  typename Math<T>::S sumRow(const T* row, std::int64_t step) const {
    const std::int64_t positions = shape_.windows.in[0] * shape_.windows.in[1];
    if (step == 1) return sum(sumVectors<typename Math<T>::V>(positions, [&](auto w, std::int64_t i) { return w.load(row + i); }));
    typename Math<T>::S total = 0;
    for (std::int64_t i = 0; i < positions; ++i) total += scalarOf(row[i * step]);
    return total;
  }

  ConvShape shape_;
  DType dtype_, sum_ = DType::float32;
  bool bias_;
  std::int64_t pieces_ = 1;
  Cut cut_;
  Gemm products_[4];  // by whether the part is the last (1) and whether sums are there already (2)
  std::size_t scratch_ = 0, biasAt_ = 0, threadsAt_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> pointwiseKernel(const Spec& spec, const ConvShape& s, ConvPass pass) {
  const Windows& v = s.windows;
  for (int i = 0; i < 2; ++i) {
    if (v.size[i] != 1 || v.stride[i] != 1 || v.before[i] || v.after[i]) return nullptr;
  }
  const std::int64_t least = std::min(s.inputs(), s.outputs());
  if (s.n * v.in[0] * v.in[1] == 0 || least < 8) return nullptr;
  const auto flat = [](const View& t) { return t.shape[2] == 1 || t.strides[2] == t.shape[3] * t.strides[3]; };
  if (!flat(spec.in[0]) || (pass == ConvPass::weight && !flat(spec.in[1]))) return nullptr;
  if (pass == ConvPass::weight) return std::make_unique<PointwiseWeights>(spec, s);
  return std::make_unique<Pointwise>(spec, s, pass);
}

std::unique_ptr<Kernel> fastKernel(const Spec& spec, const ConvShape& shape, ConvPass pass) {
  // bfloat16 planes have to be paired along the channels by a product too (Zen 5: 290 against 325 GFLOP/s; by the weight 340 against 250).
  const bool productsFirst = spec.in[0].dtype != DType::bfloat16 || pass == ConvPass::weight;
  if (productsFirst) {
    if (auto kernel = pointwiseKernel(spec, shape, pass)) return kernel;
  }
  if (auto kernel = libraryKernel(spec, shape, pass)) return kernel;
  return productsFirst ? nullptr : pointwiseKernel(spec, shape, pass);
}

}  // namespace steepest::STEEPEST_LEVEL

// Rows `packSigns` and `maskBySigns`: what ReLU keeps for its derivative, one bit an element.
#include "attrs/maskBySigns.gen.h"
#include "attrs/packSigns.gen.h"
#include "cpu/layout.h"
#include "math/vec.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

using layout::ceilDiv;
using layout::check;

constexpr std::int64_t kTile = 32768;  // elements of one task

// Rows of `width` elements, each with the bits of its own in whole bytes.
struct Rows {
  std::int64_t count, width, bytes;
  explicit Rows(const View& x) : count(layout::span(x, 0, x.rank - 1)), width(x.dim(-1)), bytes(ceilDiv(width, 8)) {}

  template <class F>
  void each(const Call& call, F&& body) const {
    const std::int64_t group = std::max<std::int64_t>(1, kTile / std::max<std::int64_t>(1, width));
    call.pool.run(ceilDiv(count, group), [&](std::int64_t tile, int) {
      for (std::int64_t row = tile * group; row < std::min(count, (tile + 1) * group); ++row) body(row);
    });
  }
};

template <class T>
class PackSigns final : public Kernel {
  using V = VecOf<T>;

 public:
  explicit PackSigns(const View& x) : rows_(x) {}

  void run(const Call& call) const override {
    rows_.each(call, [&](std::int64_t row) {
      const T* x = call.in[0].template as<T>() + row * rows_.width;
      std::uint8_t* y = call.out[0].template as<std::uint8_t>() + row * rows_.bytes;
      for (std::int64_t i = 0; i < rows_.width; i += V::kLanes) {
        const std::int64_t n = std::min<std::int64_t>(V::kLanes, rows_.width - i);
        const V v = n == V::kLanes ? V::load(x + i) : V::load(x + i, static_cast<int>(n));
        const unsigned mask = bits(v > V(0));
        for (std::int64_t b = 0; b < n; b += 8) y[(i + b) / 8] = static_cast<std::uint8_t>(mask >> b);
      }
    });
  }

 private:
  Rows rows_;
};

template <class T>
class MaskBySigns final : public Kernel {
 public:
  explicit MaskBySigns(const View& x) : rows_(x) {}

  void run(const Call& call) const override {
    rows_.each(call, [&](std::int64_t row) {
      const T* g = call.in[0].template as<T>() + row * rows_.width;
      const std::uint8_t* signs = call.in[1].template as<std::uint8_t>() + row * rows_.bytes;
      T* y = call.out[0].template as<T>() + row * rows_.width;
      std::int64_t i = 0;
      if constexpr (!std::is_same_v<T, double>) {
        for (; i + 16 <= rows_.width; i += 16) {
          const auto word = static_cast<std::int32_t>(signs[i / 8] | signs[i / 8 + 1] << 8);
          const vi set = vi(word) & lanes();
          store(y + i, select(set != vi(0), vf::load(g + i), vf(0)));
        }
      }
      for (; i < rows_.width; ++i) y[i] = signs[i / 8] >> (i % 8) & 1 ? g[i] : T{};
    });
  }

 private:
  // Lane l is bit l alone.
  static vi lanes() {
    alignas(64) static constexpr std::int32_t powers[16] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    return vi::load(powers);
  }
  Rows rows_;
};

void checkSigns(const View& x, const View& signs, const char* op) {
  check(isFloat(x.dtype) && x.rank >= 1 && x.contiguous(), op, "contiguous floats");
  check(signs.dtype == DType::uint8 && signs.contiguous() && signs.rank == x.rank && signs.dim(-1) == ceilDiv(x.dim(-1), 8), op, "signs");
  for (int i = 0; i < x.rank - 1; ++i) check(signs.shape[i] == x.shape[i], op, "signs");
}

template <template <class> class K>
std::unique_ptr<Kernel> byFloat(const View& x) {
  switch (x.dtype) {
    case DType::float64:
      return std::make_unique<K<double>>(x);
    case DType::bfloat16:
      return std::make_unique<K<bf16>>(x);
    default:
      return std::make_unique<K<float>>(x);
  }
}

}  // namespace

std::unique_ptr<Kernel> makePackSigns(const Spec& spec) {
  PackSignsAttrs::decode(spec.attrs);
  check(spec.in.size() == 1 && spec.out.size() == 1, "packSigns", "one input and one output");
  checkSigns(spec.in[0], spec.out[0], "packSigns");
  return byFloat<PackSigns>(spec.in[0]);
}

std::unique_ptr<Kernel> makeMaskBySigns(const Spec& spec) {
  MaskBySignsAttrs::decode(spec.attrs);
  check(spec.in.size() == 2 && spec.out.size() == 1, "maskBySigns", "two inputs and one output");
  const View &g = spec.in[0], &y = spec.out[0];
  checkSigns(g, spec.in[1], "maskBySigns");
  check(layout::sameShape(g, y) && y.dtype == g.dtype && y.contiguous(), "maskBySigns", "the output is like the input");
  return byFloat<MaskBySigns>(g);
}

}  // namespace steepest::STEEPEST_LEVEL

// Row `matmul` at every level and pool size against float64 loops: shapes on both sides of each cut, strides, epilogues, dtypes.
#include "attrs/matmul.gen.h"
#include "ops.gen.h"
#include "runtime/levels.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "check.h"

using namespace steepest;

namespace {

using Activation = MatmulAttrs::Activation;
using Dims = std::vector<std::int64_t>;

double get(DType dtype, const std::byte* data, std::int64_t i) {
  switch (dtype) {
    case DType::float64:
      return reinterpret_cast<const double*>(data)[i];
    case DType::float32:
      return reinterpret_cast<const float*>(data)[i];
    default:
      return std::bit_cast<float>(static_cast<std::uint32_t>(reinterpret_cast<const bf16*>(data)[i].bits) << 16);
  }
}
void put(DType dtype, std::byte* data, std::int64_t i, double x) {
  if (dtype == DType::float64)
    reinterpret_cast<double*>(data)[i] = x;
  else if (dtype == DType::float32)
    reinterpret_cast<float*>(data)[i] = static_cast<float>(x);
  else
    reinterpret_cast<bf16*>(data)[i].bits =
        static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(static_cast<float>(x)) + 0x8000) >> 16);
}

// A tensor with any strides over random numbers.
struct Operand {
  std::vector<std::byte> bytes;
  View view;

  // `order` gives the axes from the outermost in memory to the innermost; an axis in `repeated` has stride 0.
  Operand(DType dtype, const Dims& shape, unsigned seed, Dims order = {}, Dims repeated = {}, std::int64_t innermost = 1) {
    view.dtype = dtype;
    view.rank = static_cast<int>(shape.size());
    if (order.empty()) {
      for (int i = 0; i < view.rank; ++i) order.push_back(i);
    }
    std::int64_t step = innermost;
    for (std::size_t i = order.size(); i-- > 0;) {
      const auto axis = static_cast<std::size_t>(order[i]);
      view.shape[axis] = shape[axis];
      const bool still = std::find(repeated.begin(), repeated.end(), order[i]) != repeated.end();
      view.strides[axis] = still ? 0 : step;
      if (!still) step *= shape[axis];
    }
    const std::int64_t count = std::max<std::int64_t>(step, 1);
    bytes.resize(static_cast<std::size_t>(count) * sizeOf(dtype));
    std::mt19937 random(seed);
    std::uniform_real_distribution<double> uniform(-1, 1);
    for (std::int64_t i = 0; i < count; ++i) put(dtype, bytes.data(), i, uniform(random));
    view.data = bytes.data();
  }
  double at(std::int64_t row, std::int64_t col, std::int64_t batch) const {
    std::int64_t offset = row * view.stride(-2) + col * view.stride(-1);
    for (int i = view.rank - 3; i >= 0; --i) {
      offset += batch % view.shape[i] * view.strides[i];
      batch /= view.shape[i];
    }
    return get(view.dtype, bytes.data(), offset);
  }
};

double activate(double z, Activation kind) {
  switch (kind) {
    case Activation::kRelu:
      return z > 0 ? z : 0;
    case Activation::kGelu:
      return 0.5 * z * (1 + std::erf(z * M_SQRT1_2));
    case Activation::kGeluTanh:
      return 0.5 * z * (1 + std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z)));
    case Activation::kSilu:
      return z / (1 + std::exp(-z));
    case Activation::kTanh:
      return std::tanh(z);
    default:
      return z;
  }
}

struct Case {
  Operand a, b;
  DType out;
  std::vector<Operand> bias = {}, residual = {};  // none or one
  Activation activation = Activation::kNone;
  bool preactivation = false;
  double scale = 1;
};

std::vector<std::vector<std::byte>> runCase(const Case& c, const Level& level, int threads) {
  const View &a = c.a.view, &b = c.b.view;
  std::vector<View> in{a, b};
  for (const Operand& o : c.bias) in.push_back(o.view);
  for (const Operand& o : c.residual) in.push_back(o.view);
  View y = a;
  y.dtype = c.out;
  y.shape[a.rank - 1] = b.dim(-1);
  std::int64_t step = 1;
  for (int i = y.rank - 1; i >= 0; --i) {
    y.strides[i] = step;
    step *= y.shape[i];
  }
  std::vector<std::vector<std::byte>> data(c.preactivation ? 2 : 1, std::vector<std::byte>(y.bytes() + 1, std::byte{0x7f}));
  std::vector<View> out(data.size(), y);
  for (View& v : in) v.data = nullptr;
  for (View& v : out) v.data = nullptr;
  const double attrs[] = {c.scale,      double(c.bias.size()), double(c.residual.size()), double(c.activation), double(c.preactivation),
                          double(c.out)};
  const auto kernel = level.kernels()[static_cast<int>(Op::matmul_)](Spec{in, out, attrs, threads});
  std::vector<std::byte> workspace(kernel->workspace + 64, std::byte{0x7f});
  std::size_t i = 0;
  in[i++].data = a.data;
  in[i++].data = b.data;
  for (const Operand& o : c.bias) in[i++].data = o.view.data;
  for (const Operand& o : c.residual) in[i++].data = o.view.data;
  for (i = 0; i < out.size(); ++i) out[i].data = data[i].data();
  Pool pool(threads);
  std::atomic<int> fault = 0;
  std::byte* aligned = workspace.data() + (64 - reinterpret_cast<std::uintptr_t>(workspace.data()) % 64) % 64;
  kernel->run(Call{in, out, aligned, pool, fault});
  for (const auto& d : data) CHECK(d.back() == std::byte{0x7f});
  return data;
}

void compare(const char* what, const Case& c) {
  const std::int64_t m = c.a.view.dim(-2), k = c.a.view.dim(-1), n = c.b.view.dim(-1);
  std::int64_t batch = 1;
  for (int i = 0; i < c.a.view.rank - 2; ++i) batch *= c.a.view.shape[i];
  for (const Level& level : levels()) {
    const auto result = runCase(c, level, 1);
    CHECK(runCase(c, level, 2) == result);
    CHECK(runCase(c, level, 5) == result);
    double worst = 0;
    const double sumUnit = c.out == DType::float64 ? 0x1p-53 : 0x1p-24, outUnit = c.out == DType::bfloat16 ? 0x1p-8 : 4 * sumUnit;
    for (std::int64_t s = 0; s < batch; ++s) {
      for (std::int64_t i = 0; i < m; ++i) {
        for (std::int64_t j = 0; j < n; ++j) {
          double z = 0, magnitude = 0;
          for (std::int64_t p = 0; p < k; ++p) {
            const double term = c.a.at(i, p, s) * c.b.at(p, j, s);
            z += term;
            magnitude += std::fabs(term);
          }
          z *= c.scale;
          if (!c.bias.empty()) z += get(c.bias[0].view.dtype, c.bias[0].bytes.data(), j * c.bias[0].view.strides[0]);
          double y = activate(z, c.activation);
          if (!c.residual.empty()) y += c.residual[0].at(i, j, s);
          const double bound = sumUnit * (6 + std::sqrt(double(k))) * (magnitude + 2) + outUnit * std::fabs(y);
          const std::int64_t at = (s * m + i) * n + j;
          worst = std::max(worst, std::fabs(get(c.out, result[0].data(), at) - y) / bound);
          if (c.preactivation) worst = std::max(worst, std::fabs(get(c.out, result[1].data(), at) - z) / (bound + outUnit * std::fabs(z)));
        }
      }
    }
    if (!(worst <= 1))
      std::printf("%s, %s to %s, level %s: error %g of the bound\n", what, nameOf(c.a.view.dtype), nameOf(c.out), level.name, worst);
    CHECK(worst <= 1);
  }
}

const std::pair<DType, DType> kDtypes[] = {{DType::float32, DType::float32},
                                           {DType::bfloat16, DType::bfloat16},
                                           {DType::bfloat16, DType::float32},
                                           {DType::float64, DType::float64}};

}  // namespace

TEST(matmul_shapes) {
  // Empty, one, a row, a column, odd; many tiles with a shorter last one; few tiles with a long inner dimension.
  const Dims shapes[] = {{0, 3, 4},     {3, 4, 0},  {3, 0, 4},      {1, 1, 1},      {1, 1000, 65},
                         {1000, 33, 1}, {7, 13, 5}, {300, 70, 410}, {40, 2100, 24}, {1, 2300, 3}};
  for (const auto& [in, out] : kDtypes) {
    for (const Dims& s : shapes) {
      compare("plain", {Operand(in, {s[0], s[1]}, 1), Operand(in, {s[1], s[2]}, 2), out});
      compare("transposed", {Operand(in, {s[0], s[1]}, 1, {1, 0}), Operand(in, {s[1], s[2]}, 2, {1, 0}), out});
    }
  }
}

TEST(matmul_batches) {
  for (const auto& [in, out] : kDtypes) {
    compare("batch", {Operand(in, {3, 5, 7}, 1), Operand(in, {3, 7, 9}, 2), out});
    compare("two axes", {Operand(in, {2, 3, 5, 7}, 1, {1, 2, 0, 3}), Operand(in, {2, 3, 7, 9}, 2, {3, 0, 1, 2}), out});
    compare("shared b", {Operand(in, {4, 5, 7}, 1), Operand(in, {4, 7, 9}, 2, {}, {0}), out});
    compare("shared b, rows of one", {Operand(in, {40, 1, 70}, 1), Operand(in, {40, 70, 90}, 2, {}, {0}), out});
    compare("shared a", {Operand(in, {4, 5, 7}, 1, {}, {0}), Operand(in, {4, 7, 9}, 2), out});
    compare("repeated rows", {Operand(in, {4, 50, 70}, 1, {}, {1}), Operand(in, {4, 70, 90}, 2, {}, {1, 2}), out});
    compare("spread", {Operand(in, {50, 70}, 1, {}, {}, 2), Operand(in, {70, 90}, 2, {1, 0}, {}, 3), out});
    compare("empty batch", {Operand(in, {0, 5, 7}, 1), Operand(in, {0, 7, 9}, 2), out});
  }
}

TEST(matmul_epilogues) {
  const Dims shapes[] = {{5, 7, 9}, {1, 40, 100}, {300, 50, 400}, {20, 3000, 40}, {3, 0, 5}};
  for (const auto& [in, out] : kDtypes) {
    for (const Dims& s : shapes) {
      const Operand a(in, {s[0], s[1]}, 1), b(in, {s[1], s[2]}, 2);
      const Operand bias(in, {s[2]}, 3), spread(in, {s[2]}, 3, {}, {}, 2), one(in, {s[2]}, 3, {}, {0});
      const Operand residual(out, {s[0], s[2]}, 4), turned(out, {s[0], s[2]}, 4, {1, 0});
      compare("bias", {a, b, out, {bias}});
      compare("spread bias", {a, b, out, {spread}, {residual}});
      compare("repeated bias", {a, b, out, {one}, {turned}});
      for (const Activation kind : {Activation::kRelu, Activation::kGelu, Activation::kGeluTanh, Activation::kSilu, Activation::kTanh}) {
        compare("activation", {a, b, out, {bias}, {}, kind});
        compare("all", {a, b, out, {bias}, {residual}, kind, true});
      }
      compare("residual", {a, b, out, {}, {residual}});
      compare("scale", {a, b, out, {}, {}, Activation::kNone, false, 0.3});
      compare("scale and all", {a, b, out, {bias}, {residual}, Activation::kTanh, true, -1.7});
    }
    compare("batch", {Operand(in, {3, 5, 7}, 1),
                      Operand(in, {3, 7, 9}, 2),
                      out,
                      {Operand(in, {9}, 3)},
                      {Operand(out, {3, 5, 9}, 4, {1, 0, 2})},
                      Activation::kSilu,
                      true});
    compare("stacked", {Operand(in, {3, 5, 7}, 1),
                        Operand(in, {3, 7, 9}, 2, {}, {0}),
                        out,
                        {Operand(in, {9}, 3)},
                        {Operand(out, {3, 5, 9}, 4)},
                        Activation::kGelu,
                        true});
  }
}

TEST(matmul_refuses_wrong_programs) {
  const auto refused = [](Dims a, Dims b, Dims y, std::vector<double> attrs, DType dtype = DType::float32, int extra = 0) {
    const Operand x(dtype, a, 1), w(dtype, b, 2), out(dtype, y, 3);
    std::vector<View> in{x.view, w.view};
    for (int i = 0; i < extra; ++i) in.push_back(w.view);
    const std::vector<View> outs{out.view};
    try {
      level().kernels()[static_cast<int>(Op::matmul_)](Spec{in, outs, attrs, 1});
    } catch (const Error& error) {
      return error.code == "PROGRAM";
    }
    return false;
  };
  CHECK(!refused({2, 3}, {3, 4}, {2, 4}, {1, 0, 0, 0, 0, 0}));
  CHECK(refused({2, 3}, {2, 4}, {2, 4}, {1, 0, 0, 0, 0, 0}));
  CHECK(refused({2, 3}, {3, 4}, {4, 2}, {1, 0, 0, 0, 0, 0}));
  CHECK(refused({2, 3}, {3, 4}, {2, 4}, {1, 1, 0, 0, 0, 0}));
  CHECK(refused({2, 3}, {3, 4}, {2, 4}, {1, 1, 0, 0, 0, 0}, DType::float32, 1));
  CHECK(refused({2, 3}, {3, 4}, {2, 4}, {1, 0, 1, 0, 0, 0}, DType::float32, 1));
  CHECK(refused({2, 3}, {3, 4}, {2, 4}, {1, 0, 0, 0, 1, 0}));
  CHECK(refused({2, 3}, {3, 4}, {2, 4}, {1, 0, 0, 6, 0, 0}));
  CHECK(refused({2, 3}, {3, 4}, {2, 4}, {1, 0, 0, 0, 0, 2}));
  CHECK(refused({2, 3}, {3, 4}, {2, 4}, {1, 0, 0, 0, 0}));
  CHECK(refused({3}, {3, 4}, {4}, {1, 0, 0, 0, 0, 0}));
  CHECK(refused({5, 2, 3}, {4, 3, 4}, {5, 2, 4}, {1, 0, 0, 0, 0, 0}));
  CHECK(refused({2, 3}, {3, 4}, {2, 4}, {1, 0, 0, 0, 0, 3}, DType::int32));
}

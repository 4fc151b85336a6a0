// Placeholder until the real one lands.
#include "ops.gen.h"
#include "runtime/kernel.h"
#include <cmath>
namespace steepest::STEEPEST_LEVEL {
static double ld(const View& v, std::int64_t off) { return v.dtype == DType::float32 ? v.as<float>()[off] : v.dtype == DType::float64 ? v.as<double>()[off] : 0; }
static void st(const View& v, std::int64_t off, double x) { if (v.dtype == DType::float32) v.as<float>()[off] = (float)x; else v.as<double>()[off] = x; }
static void rd(const Call& c, const ReduceAttrs& a) {
  const View& v = c.in[0]; const View& o = c.out[0];
  for (std::int64_t i = 0; i < o.size(); ++i) st(o, i, 0);
  for (std::int64_t i = 0; i < v.size(); ++i) { std::int64_t rem = i, off = 0, oo = 0, os = 1; for (int d = v.rank - 1; d >= 0; --d) { std::int64_t k = rem % v.shape[d]; off += k * v.strides[d]; rem /= v.shape[d]; bool red = false; for (auto ax : a.axes) red |= ax == d; if (!red) { oo += k * os; os *= v.shape[d]; } } st(o, oo, ld(o, oo) + ld(v, off)); }
}
std::unique_ptr<Kernel> makeReduce(const Spec& s) { return std::make_unique<SimpleKernel<ReduceAttrs, rd>>(s); }
}

// Placeholder until the real one lands.
#include "ops.gen.h"
#include "runtime/kernel.h"
#include <cmath>
namespace steepest::STEEPEST_LEVEL {
static double ld(const View& v, std::int64_t off) { return v.dtype == DType::float32 ? v.as<float>()[off] : v.dtype == DType::float64 ? v.as<double>()[off] : 0; }
static void st(const View& v, std::int64_t off, double x) { if (v.dtype == DType::float32) v.as<float>()[off] = (float)x; else v.as<double>()[off] = x; }
static void ew(const Call& c, const ElementwiseAttrs& a) {
  const View& o = c.out[0]; std::int64_t n = o.size();
  for (std::int64_t i = 0; i < n; ++i) {
    std::vector<double> r;
    for (auto& v : c.in) { std::int64_t rem = i, off = 0; for (int d = v.rank - 1; d >= 0; --d) { off += rem % v.shape[d] * v.strides[d]; rem /= v.shape[d]; } r.push_back(ld(v, off)); }
    for (double k : a.constants) r.push_back(k);
    for (size_t s = 0; s + 6 <= a.code.size(); s += 6) { auto x = r[(size_t)a.code[s + 3]]; double y = a.code[s + 4] >= 0 ? r[(size_t)a.code[s + 4]] : 0;
      switch ((Ew)(int)a.code[s]) { case Ew::add_: r.push_back(x + y); break; case Ew::mul_: r.push_back(x * y); break; case Ew::exp_: r.push_back(std::exp(x)); break; case Ew::sin_: r.push_back(std::sin(x)); break; case Ew::cos_: r.push_back(std::cos(x)); break; } }
    for (size_t k = 0; k < c.out.size(); ++k) st(c.out[k], i, r[(size_t)a.outputs[k]]);
  }
}
std::unique_ptr<Kernel> makeElementwise(const Spec& s) { return std::make_unique<SimpleKernel<ElementwiseAttrs, ew>>(s); }
}

// Every function at every level against long double, in units in the last place; special values; the same bits at all levels.
#include <string_view>

#include "elementwise_cases.h"

namespace {

using namespace steepest;
using namespace steepest::test;
using Exact = long double;

constexpr Exact kPi = 3.14159265358979323846264338327950288L;

Exact upperTail(Exact x) { return std::erfc(x / std::sqrt(Exact(2))) / 2; }
Exact sigmoid(Exact x) { return 1 / (1 + std::exp(-x)); }
Exact inner(Exact x) { return 2 * std::sqrt(2 / kPi) * (x + 0.044715L * x * x * x); }
// Limits where the formula multiplies infinity by 0.
Exact endless(Exact x, Exact low, Exact high, Exact y) { return std::isinf(x) ? (x < 0 ? low : high) : y; }

// Distance in units in the last place of `want` in type S; 1e9 where one is NaN or infinite and the other is not.
template <class S>
double ulps(S got, Exact want) {
  if (std::isnan(want)) return std::isnan(got) ? 0 : 1e9;
  using L = std::numeric_limits<S>;
  if (std::fabs(want) > Exact(L::max()))
    return std::isinf(got) && (got > 0) == (want > 0) ? 0 : std::fabs(want) < Exact(L::max()) * (1 + 4 * L::epsilon()) ? 1 : 1e9;
  if (!std::isfinite(got)) return std::fabs(want) > Exact(L::max()) * (1 - 4 * L::epsilon()) ? 1 : 1e9;
  int e = L::min_exponent;
  if (want != 0) std::frexp(want, &e);
  e = std::max<int>(e, L::min_exponent);
  return static_cast<double>(std::fabs(Exact(got) - want) / std::ldexp(Exact(1), e - L::digits));
}

// Arguments within [low, high]: evenly spread, of all magnitudes, and the special ones.
template <class S>
std::vector<S> arguments(double low, double high, unsigned seed, bool special = true) {
  using L = std::numeric_limits<S>;
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> even(low, high);
  std::uniform_real_distribution<double> power(sizeof(S) == 4 ? -149 : -1074, std::log2(std::max(std::fabs(low), std::fabs(high))));
  std::vector<S> xs;
  for (int i = 0; i < 6000; ++i) xs.push_back(static_cast<S>(even(random)));
  for (int i = 0; i < 6000; ++i) {
    const double x = std::exp2(power(random)) * (random() & 1 ? 1 : -1);
    if (x >= low && x <= high) xs.push_back(static_cast<S>(x));
  }
  if (special) {
    for (const S x : {S(0), S(1), S(2), S(0.5), L::min(), L::denorm_min(), L::max(), L::infinity(), L::epsilon()}) {
      xs.push_back(x);
      xs.push_back(-x);
    }
    xs.push_back(L::quiet_NaN());
  }
  return xs;
}

template <class S>
constexpr DType dtypeOf = sizeof(S) == 4 ? DType::float32 : DType::float64;

template <class S>
Memory memoryOf(const std::vector<S>& xs) {
  Memory m(dtypeOf<S>, static_cast<std::int64_t>(xs.size()));
  std::memcpy(m.bytes.data(), xs.data(), m.bytes.size());
  return m;
}

// Equal but for the payload of NaN.
template <class S>
bool sameBits(Memory& a, Memory& b) {
  for (std::int64_t i = 0; i < a.size(); ++i) {
    const S x = a.as<S>(i), y = b.as<S>(i);
    if (std::memcmp(&x, &y, sizeof x) && !(std::isnan(x) && std::isnan(y))) return false;
  }
  return true;
}

// `exact` gives the value and the tolerated distance may grow with the argument.
template <class S, class F, class B>
void compare(Ew op, F exact, double low, double high, B bound) {
  const std::vector<S> xs = arguments<S>(low, high, 1);
  Memory in = memoryOf(xs);
  std::vector<Memory> results;
  for (const Level& level : levels()) {
    results.push_back(apply(level, op, {&in}, dtypeOf<S>, dtypeOf<S>));
    CHECK(sameBits<S>(results.front(), results.back()));
  }
  int told = 0;
  for (std::size_t i = 0; i < xs.size(); ++i) {
    const S got = results[0].as<S>(static_cast<std::int64_t>(i));
    const Exact want = exact(Exact(xs[i]));
    const bool zeros = got == 0 && want == 0 && std::signbit(got) != std::signbit(want);
    if (ulps(got, want) <= bound(Exact(xs[i])) && !zeros) continue;
    CHECK(!"within the bound");
    if (++told <= 3)
      std::printf("  %s(%.9g) = %.9g, not %.9Lg: %.2f ulp\n", kRowNames[static_cast<int>(op)], double(xs[i]), double(got), want,
                  ulps(got, want));
  }
}
template <class F>
void both(Ew op, F exact, double low, double high, double lowDouble, double highDouble, double bound) {
  compare<float>(op, exact, low, high, [=](Exact) { return bound; });
  compare<double>(op, exact, lowDouble, highDouble, [=](Exact) { return bound; });
}

}  // namespace

TEST(functions_exponential) {
  const auto exp = [](Exact x) { return std::exp(x); };
  both(Ew::exp_, exp, -104, 89, -746, 710, 1.2);
  both(Ew::exp_, exp, -2, 2, -2, 2, 1.2);
  const auto expm1 = [](Exact x) { return std::expm1(x); };
  both(Ew::expm1_, expm1, -20, 89, -45, 710, 2);
  both(Ew::expm1_, expm1, -1, 1, -1, 1, 2);
}

TEST(functions_logarithm) {
  const auto log = [](Exact x) { return std::log(x); };
  both(Ew::log_, log, 0, 3e38, 0, 1.7e308, 1);
  both(Ew::log_, log, 0, 3, 0, 3, 1);
  const auto log1p = [](Exact x) { return std::log1p(x); };
  both(Ew::log1p_, log1p, -1, 3e38, -1, 1.7e308, 1);
  both(Ew::log1p_, log1p, -1, 2, -1, 2, 1);
}

TEST(functions_sigmoid) {
  both(Ew::tanh_, [](Exact x) { return std::tanh(x); }, -12, 12, -22, 22, 3);
  both(Ew::sigmoid_, sigmoid, -103, 40, -745, 60, 3);
  both(Ew::softplus_, [](Exact x) { return std::max(x, Exact(0)) + std::log1p(std::exp(-std::fabs(x))); }, -100, 100, -700, 700, 2);
}

TEST(functions_trigonometric) {
  const auto sin = [](Exact x) { return std::sin(x); };
  const auto cos = [](Exact x) { return std::cos(x); };
  for (const double far : {1.0, 30.0, 1e5, 1e9, 1e18}) {
    both(Ew::sin_, sin, -far, far, -far, far, 1);
    both(Ew::cos_, cos, -far, far, -far, far, 1);
  }
  // A worst case of reduction: 6381956970095103 * 2^797 is within 5e-19 of a multiple of pi / 2 (Muller, Elementary Functions, 2006).
  Memory in(DType::float64, 1);
  in.as<double>(0) = std::ldexp(6381956970095103.0, 797);
  for (const Level& level : levels()) {
    Memory out = apply(level, Ew::cos_, {&in}, DType::float64, DType::float64);
    CHECK_NEAR(out.as<double>(0), -4.6871659242546267e-19, 1e-34);
  }
}

TEST(functions_normal) {
  both(Ew::erf_, [](Exact x) { return std::erf(x); }, -7, 7, -7, 7, 2);
  both(Ew::gelu_, [](Exact x) { return endless(x, -0.0L, x, x * upperTail(-x)); }, -13, 13, -37, 37, 5);
  both(Ew::gelu_, [](Exact x) { return endless(x, -0.0L, x, x * upperTail(-x)); }, -3, 3, -3, 3, 5);
}

TEST(functions_gated) {
  both(Ew::silu_, [](Exact x) { return endless(x, -0.0L, x, x * sigmoid(x)); }, -85, 40, -700, 60, 3);
  const auto geluTanh = [](Exact x) { return endless(x, -0.0L, x, x * sigmoid(inner(x))); };
  const auto bound = [](Exact x) { return std::isfinite(inner(x)) ? static_cast<double>(4 + 2 * std::fabs(inner(x))) : 0.0; };
  compare<float>(Ew::geluTanh_, geluTanh, -6, 6, bound);
  compare<double>(Ew::geluTanh_, geluTanh, -6, 6, bound);
}

TEST(functions_plain) {
  both(Ew::sqrt_, [](Exact x) { return std::sqrt(x); }, 0, 3e38, 0, 1e300, 0.51);
  both(Ew::rsqrt_, [](Exact x) { return 1 / std::sqrt(x); }, 0, 3e38, 0, 1e300, 1.5);
  both(Ew::reciprocal_, [](Exact x) { return 1 / x; }, -3e38, 3e38, -1e300, 1e300, 0.51);
  both(Ew::floor_, [](Exact x) { return std::floor(x); }, -100, 100, -1e15, 1e15, 0);
  both(Ew::ceil_, [](Exact x) { return std::ceil(x); }, -100, 100, -1e15, 1e15, 0);
  both(Ew::round_, [](Exact x) { return std::nearbyint(x); }, -100, 100, -1e15, 1e15, 0);
  both(Ew::abs_, [](Exact x) { return std::fabs(x); }, -100, 100, -100, 100, 0);
  both(Ew::neg_, [](Exact x) { return -x; }, -100, 100, -100, 100, 0);
  both(Ew::sign_, [](Exact x) { return x > 0 ? 1 : x < 0 ? -1 : x; }, -100, 100, -100, 100, 0);
  both(Ew::relu_, [](Exact x) { return x < 0 ? 0 : x; }, -100, 100, -100, 100, 0);
}

namespace {

// g times a slope, against the slope: 3 units of what is larger, the result or g.
template <class S, class F>
void slope(Ew op, F exact, double limit) {
  std::vector<S> xs = arguments<S>(-limit, limit, 2);
  std::vector<S> gs;
  std::mt19937_64 random(3);
  for (std::size_t i = 0; i < xs.size(); ++i) gs.push_back(static_cast<S>(std::uniform_real_distribution<double>(0.5, 4)(random)));
  Memory x = memoryOf(xs), g = memoryOf(gs);
  std::vector<Memory> results;
  for (const Level& level : levels()) {
    results.push_back(apply(level, op, {&x, &g}, dtypeOf<S>, dtypeOf<S>));
    CHECK(sameBits<S>(results.front(), results.back()));
  }
  for (std::size_t i = 0; i < xs.size(); ++i) {
    const Exact want = gs[i] * (std::fabs(Exact(xs[i])) > 1e4L ? (xs[i] > 0 ? 1 : 0) : exact(Exact(xs[i])));
    const S got = results[0].as<S>(static_cast<std::int64_t>(i));
    if (std::isnan(xs[i]))
      CHECK(std::isnan(got));
    else
      CHECK_NEAR(static_cast<double>(Exact(got) - want), 0,
                 3 * std::numeric_limits<S>::epsilon() * static_cast<double>(Exact(gs[i]) + std::fabs(want)));
  }
}

template <class S>
void powers(double aLow, double aHigh, double bLow, double bHigh) {
  std::vector<S> as = arguments<S>(aLow, aHigh, 4, false), bs = arguments<S>(bLow, bHigh, 5, false);
  as.resize(std::min(as.size(), bs.size()));
  bs.resize(as.size());
  for (std::size_t i = 0; i < as.size(); ++i) {
    if (as[i] < 0) bs[i] = std::round(bs[i]);
  }
  const S special[] = {S(0.0),
                       S(-0.0),
                       1,
                       -1,
                       2,
                       -2,
                       3,
                       -3,
                       S(0.5),
                       S(-0.5),
                       std::numeric_limits<S>::infinity(),
                       -std::numeric_limits<S>::infinity(),
                       std::numeric_limits<S>::quiet_NaN(),
                       std::numeric_limits<S>::max(),
                       -std::numeric_limits<S>::max(),
                       std::numeric_limits<S>::denorm_min(),
                       std::numeric_limits<S>::min()};
  for (const S a : special) {
    for (const S b : special) {
      as.push_back(a);
      bs.push_back(b);
    }
  }
  Memory a = memoryOf(as), b = memoryOf(bs);
  std::vector<Memory> results;
  for (const Level& level : levels()) {
    results.push_back(apply(level, Ew::pow_, {&a, &b}, dtypeOf<S>, dtypeOf<S>));
    CHECK(sameBits<S>(results.front(), results.back()));
  }
  for (std::size_t i = 0; i < as.size(); ++i) {
    const Exact want = std::pow(Exact(as[i]), Exact(bs[i]));
    const S got = results[0].as<S>(static_cast<std::int64_t>(i));
    const double off = ulps(got, want);
    CHECK(off <= 2);
    if (!(off <= 2)) std::printf("  pow(%.17g, %.17g) = %.17g, not %.17Lg\n", double(as[i]), double(bs[i]), double(got), want);
    if (got == 0 && want == 0) CHECK(std::signbit(got) == std::signbit(want));
  }
}

}  // namespace

TEST(functions_slopes) {
  const auto gelu = [](Exact x) { return upperTail(-x) + x * std::exp(-x * x / 2) / std::sqrt(2 * kPi); };
  const auto silu = [](Exact x) { return sigmoid(x) * (1 + x * sigmoid(-x)); };
  const auto geluTanh = [](Exact x) {
    const Exact s = sigmoid(inner(x)), t = sigmoid(-inner(x));
    return s + x * s * t * 2 * std::sqrt(2 / kPi) * (1 + 3 * 0.044715L * x * x);
  };
  slope<float>(Ew::geluGrad_, gelu, 15);
  slope<double>(Ew::geluGrad_, gelu, 40);
  slope<float>(Ew::siluGrad_, silu, 100);
  slope<double>(Ew::siluGrad_, silu, 100);
  slope<float>(Ew::geluTanhGrad_, geluTanh, 10);
  slope<double>(Ew::geluTanhGrad_, geluTanh, 10);
}

TEST(functions_pow) {
  powers<float>(0, 4, -4, 4);
  powers<double>(0, 4, -4, 4);
  powers<float>(0.9, 1.1, -900, 900);
  powers<double>(0.9, 1.1, -900, 900);
  powers<float>(-5, 5, -30, 30);
  powers<double>(-5, 5, -30, 30);
  powers<float>(0, 1e30, -1.2, 1.2);
  powers<double>(0, 1e300, -1.2, 1.2);
  powers<double>(0.999, 1.001, -500000, 500000);
}

// The norm of many tensors together, in float64: pieces of fixed size, each summed in fixed lanes, and the pieces in their order.
#include <algorithm>
#include <cmath>
#include <vector>

#include "math/vec.h"
#include "attrs/globalNorm.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

using Kind = GlobalNormAttrs::Kind;
using Stage = GlobalNormAttrs::Stage;

constexpr std::int64_t kPiece = 32768;

struct Piece {
  int input;
  std::int64_t begin, count;
};

// Sixteen numbers as two vectors of float64.
struct Pair {
  vd a, b;
};
inline Pair fetch(const float* p) { return {vd::load(p), vd::load(p + 8)}; }
inline Pair fetch(const float* p, int n) { return {vd::load(p, std::min(n, 8)), vd::load(p + std::min(n, 8), std::max(n - 8, 0))}; }
inline Pair fetch(const double* p) { return {vd::load(p), vd::load(p + 8)}; }
inline Pair fetch(const double* p, int n) { return {vd::load(p, std::min(n, 8)), vd::load(p + std::min(n, 8), std::max(n - 8, 0))}; }
inline Pair fetch(const bf16* p) {
  Pair r;
  widen(vf::load(p), r.a, r.b);
  return r;
}
inline Pair fetch(const bf16* p, int n) {
  Pair r;
  widen(vf::load(p, n), r.a, r.b);
  return r;
}

// Largest absolute value, or NaN where there is one.
inline vd largest(vd a, vd b) { return select(isNan(a) | (a > b), a, b); }

template <Kind kind>
inline void add(Pair x, vd factor, vd& a, vd& b) {
  if constexpr (kind == Kind::kL2) {
    x.a = x.a * factor;
    x.b = x.b * factor;
    a = fma(x.a, x.a, a);
    b = fma(x.b, x.b, b);
  } else if constexpr (kind == Kind::kL1) {
    a = a + abs(x.a);
    b = b + abs(x.b);
  } else {
    a = largest(a, abs(x.a));
    b = largest(b, abs(x.b));
  }
}

template <Kind kind, class T>
double pieceOf(const T* p, std::int64_t n, double factor) {
  const vd f(factor);
  vd s[4] = {vd(0), vd(0), vd(0), vd(0)};
  std::int64_t i = 0;
  for (; i + 32 <= n; i += 32) {
    add<kind>(fetch(p + i), f, s[0], s[1]);
    add<kind>(fetch(p + i + 16), f, s[2], s[3]);
  }
  for (; i < n; i += 16) add<kind>(fetch(p + i, static_cast<int>(std::min<std::int64_t>(n - i, 16))), f, s[0], s[1]);
  if constexpr (kind == Kind::kMax) {
    const vd m = largest(largest(s[0], s[1]), largest(s[2], s[3]));
    return any(isNan(m)) ? std::nan("") : hmax(m);
  } else {
    return sum((s[0] + s[1]) + (s[2] + s[3]));
  }
}

void checkNorm(const Spec& spec, DType dtype) {
  if (spec.out.size() != 1 || spec.out[0].rank != 0 || spec.out[0].dtype != dtype)
    throw Error("PROGRAM", "globalNorm: the output does not fit");
}

class GlobalNorm final : public Kernel {
 public:
  GlobalNorm(const Spec& spec, Kind kind, bool piecesOnly) : kind_(kind), piecesOnly_(piecesOnly) {
    bool wide = false;
    for (std::size_t i = 0; i < spec.in.size(); ++i) {
      const View& v = spec.in[i];
      if (!isFloat(v.dtype) || !v.contiguous()) throw Error("PROGRAM", "globalNorm: inputs must be contiguous floats");
      wide |= v.dtype == DType::float64;
      const std::int64_t n = v.size();
      for (std::int64_t at = 0; at < n; at += kPiece) pieces_.push_back({static_cast<int>(i), at, std::min(kPiece, n - at)});
    }
    if (piecesOnly_) {
      const bool fits = spec.out.size() == 1 && spec.out[0].rank == 1 && spec.out[0].dtype == DType::float64 && spec.out[0].contiguous() &&
                        spec.out[0].size() == static_cast<std::int64_t>(pieces_.size());
      if (spec.in.size() != 1 || wide || kind_ != Kind::kL2 || !fits) throw Error("PROGRAM", "globalNorm: the pieces do not fit");
      return;
    }
    checkNorm(spec, wide ? DType::float64 : DType::float32);
    workspace = pieces_.size() * sizeof(double);
  }

  void run(const Call& call) const override {
    if (piecesOnly_) {
      partsOf<Kind::kL2>(call, 1, call.out[0].as<double>());
      return;
    }
    double norm = 0;
    if (kind_ == Kind::kL2) {
      const double squares = over<Kind::kL2>(call, 1);
      norm = std::sqrt(squares);
      // Squares of float32 numbers stay inside; those of float64 ones may not. Zeros and what is not finite come here too.
      if (!(squares > 1e-280 && squares < 1e300)) norm = scaled(call);
    } else {
      norm = kind_ == Kind::kL1 ? over<Kind::kL1>(call, 1) : over<Kind::kMax>(call, 1);
    }
    if (call.out[0].dtype == DType::float64)
      *call.out[0].as<double>() = norm;
    else
      *call.out[0].as<float>() = static_cast<float>(norm);
  }

 private:
  // The norm of the numbers over the power of two below the largest, so that no square overflows or vanishes.
  double scaled(const Call& call) const {
    const double largest = over<Kind::kMax>(call, 1);
    if (!(largest > 0) || std::isinf(largest)) return largest;
    const int exponent = std::clamp(std::ilogb(largest), -1021, 1021);
    return std::ldexp(std::sqrt(over<Kind::kL2>(call, std::ldexp(1.0, -exponent))), exponent);
  }

  template <Kind kind>
  void partsOf(const Call& call, double factor, double* parts) const {
    call.pool.run(static_cast<std::int64_t>(pieces_.size()), [&](std::int64_t i, int) {
      const Piece& piece = pieces_[static_cast<std::size_t>(i)];
      const View& v = call.in[static_cast<std::size_t>(piece.input)];
      parts[i] = v.dtype == DType::float32   ? pieceOf<kind>(v.as<const float>() + piece.begin, piece.count, factor)
                 : v.dtype == DType::float64 ? pieceOf<kind>(v.as<const double>() + piece.begin, piece.count, factor)
                                             : pieceOf<kind>(v.as<const bf16>() + piece.begin, piece.count, factor);
    });
  }

  template <Kind kind>
  double over(const Call& call, double factor) const {
    double* parts = reinterpret_cast<double*>(call.workspace);
    partsOf<kind>(call, factor, parts);
    double result = 0;
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      if constexpr (kind == Kind::kMax)
        result = std::isnan(result) || result > parts[i] ? result : parts[i];
      else
        result += parts[i];
    }
    return result;
  }

  Kind kind_;
  bool piecesOnly_;
  std::vector<Piece> pieces_;
};

// The norm from the sums of squares of pieces. Squares of float32 numbers neither overflow float64 nor vanish in it.
class NormOfPieces final : public Kernel {
 public:
  explicit NormOfPieces(const Spec& spec) {
    for (const View& v : spec.in) {
      if (v.dtype != DType::float64 || v.rank != 1 || !v.contiguous())
        throw Error("PROGRAM", "globalNorm: pieces must be contiguous float64 of one axis");
    }
    checkNorm(spec, DType::float32);
  }

  void run(const Call& call) const override {
    double squares = 0;
    for (const View& v : call.in) {
      for (std::int64_t i = 0; i < v.size(); ++i) squares += v.as<const double>()[i];
    }
    *call.out[0].as<float>() = static_cast<float>(std::sqrt(squares));
  }
};

}  // namespace

std::unique_ptr<Kernel> makeGlobalNorm(const Spec& spec) {
  const GlobalNormAttrs attrs = GlobalNormAttrs::decode(spec.attrs);
  if (attrs.stage == Stage::kJoin) return std::make_unique<NormOfPieces>(spec);
  return std::make_unique<GlobalNorm>(spec, attrs.kind, attrs.stage == Stage::kPieces);
}

}  // namespace steepest::STEEPEST_LEVEL

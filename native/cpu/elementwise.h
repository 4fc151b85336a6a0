// Parts of the elementwise interpreter: loops over a block of lanes, one per step.
//
// A register holds a block in one of three kinds: float (float32, bfloat16 and uint8 dtypes), double (float64), int32. A value of a
// narrower dtype is always one that the dtype can hold, so that it does not matter how steps were fused.
#pragma once

#include "cpu/elementwise_tables.h"

namespace steepest::STEEPEST_LEVEL::ew {

// Lanes of a register, or one vector that stands for all (step 0).
struct Source {
  const std::byte* at;
  std::int64_t step;
};

// n is a multiple of 16; registers are padded to it.
using Loop = void (*)(const Source* sources, std::byte* to, std::int64_t n);

// Null where the row does not take the dtype.
using LoopTable = Loop[kEws];
extern const LoopTable singleLoops, doubleLoops, intLoops;
// A tree of two levels (elementwise_fold.h): what stands above and below.
Loop treeLoop(int root, int left, int right);
// cast.
Loop castLoop(DType from, DType to);
// After a step whose result has a narrower dtype than its register: rounds to bfloat16, wraps to uint8. Null for the other dtypes.
Loop narrowLoop(DType to);

template <class T>
const T* lanes(Source s, std::int64_t i) {
  return reinterpret_cast<const T*>(s.at) + i * s.step;
}
template <class T>
T* lanes(std::byte* to, std::int64_t i) {
  return reinterpret_cast<T*>(to) + i;
}

// Truth values are floats, 0 or 1, whatever was compared.
inline void putTruth(std::byte* to, std::int64_t i, vf::Mask m) { store(lanes<float>(to, i), select(m, vf(1), vf(0))); }
inline void putTruth(std::byte* to, std::int64_t i, vd::Mask m) { store(lanes<float>(to, i), select(m, vd(1), vd(0))); }

template <class V, class R>
void put(std::byte* to, std::int64_t i, R result) {
  if constexpr (std::is_same_v<R, V>)
    store(lanes<typename V::Scalar>(to, i), result);
  else
    putTruth(to, i, result);
}

template <class V>
typename V::Mask condition(Source s, std::int64_t i) {
  if constexpr (std::is_same_v<V, vd>)
    return vd::load(lanes<float>(s, i)) != vd(0);
  else
    return vf::load(lanes<float>(s, i)) != vf(0);
}

template <class F, class V>
void loop(const Source* sources, std::byte* to, std::int64_t n) {
  using S = typename V::Scalar;
  // Copied, so that no store can change them.
  const Source a = sources[0], b = sources[F::kArity > 1 ? 1 : 0], c = sources[F::kArity > 2 ? 2 : 0];
  for (std::int64_t i = 0; i < n; i += V::kLanes) {
    if constexpr (F::kArity == 1)
      put<V>(to, i, F::apply(V::load(lanes<S>(a, i))));
    else if constexpr (F::kArity == 2)
      put<V>(to, i, F::apply(V::load(lanes<S>(a, i)), V::load(lanes<S>(b, i))));
    else
      put<V>(to, i, F::apply(condition<V>(a, i), V::load(lanes<S>(b, i)), V::load(lanes<S>(c, i))));
  }
}

template <class F, class V>
constexpr Loop loopOf() {
  if constexpr (takesVector<F, V>())
    return loop<F, V>;
  else
    return nullptr;
}

}  // namespace steepest::STEEPEST_LEVEL::ew

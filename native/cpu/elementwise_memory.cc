// Between memory and registers: conversions and gathering.
#include "cpu/elementwise_code.h"

namespace steepest::STEEPEST_LEVEL::ew {

namespace {

template <class T>
struct Register {
  using type = float;
};
template <>
struct Register<double> {
  using type = double;
};
template <>
struct Register<std::int32_t> {
  using type = std::int32_t;
};

float wide(bf16 x) {
  const std::uint32_t u = static_cast<std::uint32_t>(x.bits) << 16;
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
template <class T>
T wide(T x) {
  return x;
}

vf loadBytes(const std::uint8_t* p) { return toFloat(vi::load(p)); }
vf loadBytes(const std::uint8_t* p, int n) { return toFloat(vi::load(p, n)); }

template <class T, class... N>
auto load(const T* p, N... n) {
  if constexpr (std::is_same_v<T, std::uint8_t>)
    return loadBytes(p, n...);
  else
    return VecOf<T>::load(p, n...);
}

template <class T, class R>
void fetchRun(const T* p, std::int64_t step, std::int64_t n, R* to) {
  if (step != 1) {
    for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<R>(wide(p[i * step]));
    return;
  }
  constexpr std::int64_t lanes = VecOf<R>::kLanes;
  std::int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(to + i, load(p + i));
  if (i < n) store(to + i, load(p + i, static_cast<int>(n - i)), static_cast<int>(n - i));
}

template <class T>
void fetchAs(const Input& input, const std::byte* data, std::int64_t start, std::int64_t n, std::byte* out) {
  using R = typename Register<T>::type;
  const T* from = reinterpret_cast<const T*>(data);
  R* to = reinterpret_cast<R*>(out);
  const layout::Loops<1>& loops = input.loops;
  for (std::int64_t i = n; i % 16; ++i) to[i] = R(0);
  if (loops.rank == 1) return fetchRun(from + start * loops.at[0].step[0], loops.at[0].step[0], n, to);
  layout::Walk<1> walk(loops, start);
  const std::int64_t step = loops.rank ? loops.at[loops.rank - 1].step[0] : 0;
  while (n > 0) {
    const std::int64_t run = std::min(n, walk.run());
    fetchRun(from + walk.offset(), step, run, to);
    walk.advance(run);
    to += run;
    n -= run;
  }
}

template <class T>
void fetchPatchAs(const std::byte* data, std::int64_t rowStep, std::int64_t colStep, std::int64_t rows, std::int64_t cols, std::byte* out) {
  using R = typename Register<T>::type;
  const T* from = reinterpret_cast<const T*>(data);
  R* to = reinterpret_cast<R*>(out);
  for (std::int64_t i = rows * cols; i % 16; ++i) to[i] = R(0);
  if (std::llabs(rowStep) >= std::llabs(colStep) || rowStep == 0) {
    for (std::int64_t r = 0; r < rows; ++r) fetchRun(from + r * rowStep, colStep, cols, to + r * cols);
    return;
  }
  for (std::int64_t c = 0; c < cols; ++c) {
    const T* column = from + c * colStep;
    for (std::int64_t r = 0; r < rows; ++r) to[r * cols + c] = static_cast<R>(wide(column[r * rowStep]));
  }
}

template <class T>
void spreadAs(const std::byte* data, std::byte* to) {
  using R = typename Register<T>::type;
  T x;
  std::memcpy(&x, data, sizeof x);
  store(reinterpret_cast<R*>(to), VecOf<R>(static_cast<R>(wide(x))));
}

template <class T>
void putAs(Source from, std::byte* out, std::int64_t n) {
  using R = typename Register<T>::type;
  constexpr std::int64_t width = VecOf<R>::kLanes;
  T* to = reinterpret_cast<T*>(out);
  const auto value = [&](std::int64_t i) {
    const auto v = VecOf<R>::load(lanes<R>(from, i));
    if constexpr (std::is_same_v<T, std::uint8_t>)
      return toInt(v);
    else
      return v;
  };
  std::int64_t i = 0;
  for (; i + width <= n; i += width) store(to + i, value(i));
  if (i < n) store(to + i, value(i), static_cast<int>(n - i));
}

template <class F>
void byType(DType dtype, F f) {
  switch (dtype) {
    case DType::float32:
      return f(float{});
    case DType::bfloat16:
      return f(bf16{});
    case DType::float64:
      return f(double{});
    case DType::int32:
      return f(std::int32_t{});
    case DType::uint8:
      return f(std::uint8_t{});
  }
}

}  // namespace

void fetch(const Input& input, const std::byte* data, std::int64_t start, std::int64_t n, std::byte* to) {
  byType(input.dtype, [&](auto type) { fetchAs<decltype(type)>(input, data, start, n, to); });
}
void fetchPatch(DType dtype, const std::byte* data, std::int64_t rowStep, std::int64_t colStep, std::int64_t rows, std::int64_t cols,
                std::byte* to) {
  byType(dtype, [&](auto type) { fetchPatchAs<decltype(type)>(data, rowStep, colStep, rows, cols, to); });
}
void spread(DType dtype, const std::byte* data, std::byte* to) {
  byType(dtype, [&](auto type) { spreadAs<decltype(type)>(data, to); });
}
void put(DType dtype, Source from, std::byte* to, std::int64_t n) {
  byType(dtype, [&](auto type) { putAs<decltype(type)>(from, to, n); });
}

}  // namespace steepest::STEEPEST_LEVEL::ew

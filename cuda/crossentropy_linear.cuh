// Kernels around the products of a linear layer's cross-entropy: chunks of logits become sums of rows, or gradients; and sums of gradients.
#pragma once

#include "cuda/crossentropy.cuh"
#include "cuda/pack.cuh"

namespace steepest::cuda {

// A row as it is known so far, and its logit at the label.
template <class S>
struct RowState {
  Running<S> sums;
  S picked;
};

// Takes columns [first, first + n) into the rows' states; after the last of them come the losses. A block takes a row.
template <class S>
__global__ void __launch_bounds__(kThreads)
    absorb(const S* logits, const std::int32_t* labels, RowState<S>* states, S* losses, S* lses, std::int64_t rows, std::int64_t first,
           std::int64_t n, std::int64_t columns, CapOf<S> cap, LossOptions o, int* fault) {
  const int lane = static_cast<int>(threadIdx.x);
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const S* x = logits + row * n;
    Running<S> r = Running<S>::none();
    eachOf<kThreads>(n, n % kGroup<S> == 0, lane, [&](int, std::int64_t, S v) { r.add(cap(v)); }, x);
    r = joinRunning<kThreads>(r);
    if (lane != 0) continue;
    RowState<S> state{r, 0};
    if (first > 0) {
      const RowState<S> before = states[row];
      const S top = before.sums.top > r.top ? before.sums.top : r.top;
      const auto part = [&](const Running<S>& p) { return p.top == top ? p.total : p.total * exp(VecOf<S>(p.top - top)).v; };
      state = {{top, part(before.sums) + part(r), before.sums.plain + r.plain}, before.picked};
    }
    const std::int32_t label = labels[row];
    if (label >= first && label < first + n) state.picked = cap(x[label - first]);
    if (first + n < columns) {
      states[row] = state;
    } else {
      lses[row] = state.sums.logSum();
      losses[row] = judged(label, state.sums, columns, o, fault, [&] { return state.picked; });
    }
  }
}

// Logits become the gradients of the losses; in place where T is S.
template <class T, class S>
__global__ void __launch_bounds__(kThreads)
    slopes(const S* logits, T* out, const std::int32_t* labels, const S* lses, const S* gradients, std::int64_t rows, std::int64_t first,
           std::int64_t n, std::int64_t columns, CapOf<S> cap, LossOptions o) {
  const int lane = static_cast<int>(threadIdx.x);
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const std::int32_t label = labels[row];
    const bool counts = !o.ignored(label) && label >= 0 && label < columns;
    const Slope<S> slope(cap, lses[row], gradients[row], columns, o);
    const S* x = logits + row * n;
    T* to = out + row * n;
    const auto each = [&](S v, std::int64_t i) { return counts ? slope(v, first + i == label) : S(0); };
    if constexpr (std::is_same_v<T, S>) {
      fillOf<kThreads>(to, n, n % kGroup<S> == 0, lane, [&](int, std::int64_t i, S v) { return each(v, i); }, x);
    } else {
      constexpr int G = kGroup<S>;
      const bool wide = n % G == 0;
      for (std::int64_t i = lane * G; i < n; i += kThreads * G) {
        const int count = static_cast<int>(n - i < G ? n - i : G);
        float v[G];
        std::uint32_t bits[G];
        numbers4(fetch4(x, false, i, count, wide), false, v);
#pragma unroll
        for (int j = 0; j < G; ++j) bits[j] = toBf16(each(v[j], i + j)).bits;
        put4(to, i, count, wide, bits);
      }
    }
  }
}

// Sums of columns, 32 of them to a block, eight rows at a time; added to what is there where `more`.
constexpr int kAcross = 32, kDown = kThreads / kAcross;
template <class T, class S>
__global__ void __launch_bounds__(kThreads) columnSums(const T* x, S* sums, std::int64_t rows, std::int64_t n, bool more) {
  __shared__ S parts[kDown][kAcross];
  const int across = static_cast<int>(threadIdx.x) % kAcross, down = static_cast<int>(threadIdx.x) / kAcross;
  const std::int64_t column = std::int64_t{blockIdx.x} * kAcross + across;
  S total = 0;
  if (column < n)
    for (std::int64_t row = down; row < rows; row += kDown) total += read(x + row * n + column);
  parts[down][across] = total;
  __syncthreads();
  if (down != 0 || column >= n) return;
  for (int i = 1; i < kDown; ++i) total += parts[i][across];
  sums[column] = more ? sums[column] + total : total;
}

static __global__ void __launch_bounds__(kThreads) narrowed(const float* from, bf16* to, std::int64_t n, bool wide) {
  for (std::int64_t i = threadOf() * 4; i < n; i += threads() * 4) {
    const int count = static_cast<int>(n - i < 4 ? n - i : 4);
    float v[4];
    std::uint32_t bits[4];
    numbers4(fetch4(from, false, i, count, true), false, v);
#pragma unroll
    for (int j = 0; j < 4; ++j) bits[j] = toBf16(v[j]).bits;
    put4(to, i, count, wide, bits);
  }
}

// A sum in float32 whose high bits are in the weight's gradient and low ones beside it (as the CPU's): += `add`, or = where it is the
// first; rounded to bfloat16 after the last.
static __global__ void __launch_bounds__(kThreads)
    addHalves(const float* add, bf16* high, std::uint16_t* low, std::int64_t n, bool wide, bool first, bool last) {
  for (std::int64_t i = threadOf() * 4; i < n; i += threads() * 4) {
    const int count = static_cast<int>(n - i < 4 ? n - i : 4);
    float v[4];
    std::uint32_t top[4], rest[4];
    numbers4(fetch4(add, false, i, count, true), false, v);
    if (!first) {
      float halves[4], others[4];
      numbers4(fetch4(high, true, i, count, wide), true, halves);
      numbers4(fetch4(low, true, i, count, wide), true, others);
#pragma unroll
      for (int j = 0; j < 4; ++j) v[j] += sameBits<float>(sameBits<std::uint32_t>(halves[j]) | sameBits<std::uint32_t>(others[j]) >> 16);
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const std::uint32_t bits = plainBits(v[j]);
      top[j] = last ? toBf16(v[j]).bits : bits >> 16;
      rest[j] = bits & 0xffffu;
    }
    put4(high, i, count, wide, top);
    if (!last) put4(reinterpret_cast<bf16*>(low), i, count, wide, rest);
  }
}

static __global__ void __launch_bounds__(kThreads) zeros(std::uint8_t* to, std::int64_t n) {
  for (std::int64_t i = threadOf(); i < n; i += threads()) to[i] = 0;
}

}  // namespace steepest::cuda

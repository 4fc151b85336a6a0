// State that a step leaves for the next: assignment, accumulation, and the guard that ends a run at a non-finite number.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "math/vec.h"
#include "attrs/accumulate.gen.h"
#include "attrs/assign.gen.h"
#include "attrs/guard.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

constexpr std::int64_t kChunk = 1 << 15;

template <class F>
void chunks(const Call& call, std::int64_t n, F&& body) {
  call.pool.run((n + kChunk - 1) / kChunk, [&](std::int64_t tile, int) {
    const std::int64_t from = tile * kChunk;
    body(from, std::min(kChunk, n - from));
  });
}

void requirePair(const Spec& spec, const char* who) {
  bool ok = spec.in.size() == 2 && spec.out.size() == 1 && spec.in[0].rank == spec.out[0].rank && spec.in[1].rank == spec.out[0].rank &&
            spec.in[0].dtype == spec.out[0].dtype;
  for (int i = 0; ok && i < spec.out[0].rank; ++i)
    ok = spec.in[0].shape[i] == spec.out[0].shape[i] && spec.in[1].shape[i] == spec.out[0].shape[i];
  if (!ok) throw Error("PROGRAM", std::string(who) + " takes a state and a value of one shape");
}

// Copies rows of the last axis; all other axes may have any strides.
void copyStrided(const Call& call, const View& from, const View& to) {
  const std::size_t width = sizeOf(to.dtype);
  if (from.contiguous()) {
    chunks(call, to.size(), [&](std::int64_t at, std::int64_t n) {
      std::memmove(to.data + at * width, from.data + at * width, static_cast<std::size_t>(n) * width);
    });
    return;
  }
  const std::int64_t inner = to.dim(-1), step = from.stride(-1), rows = to.size() / std::max<std::int64_t>(inner, 1);
  call.pool.run(rows, [&](std::int64_t row, int) {
    std::int64_t rest = row, offset = 0;
    for (int i = to.rank - 2; i >= 0; --i) {
      offset += rest % to.shape[i] * from.strides[i];
      rest /= to.shape[i];
    }
    std::byte* target = to.data + static_cast<std::size_t>(row * inner) * width;
    const std::byte* source = from.data + offset * static_cast<std::int64_t>(width);
    for (std::int64_t j = 0; j < inner; ++j)
      std::memcpy(target + static_cast<std::size_t>(j) * width, source + j * step * static_cast<std::int64_t>(width), width);
  });
}

void assign(const Call& call, const AssignAttrs&) { copyStrided(call, call.in[1], call.out[0]); }

template <class T, class G>
void addInto(const T* sum, const G* value, T* out, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) store(out + i, vf::load(sum + i) + vf::load(value + i));
  if (i < n)
    store(out + i, vf::load(sum + i, static_cast<int>(n - i)) + vf::load(value + i, static_cast<int>(n - i)), static_cast<int>(n - i));
}

void addInto(const double* sum, const double* value, double* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = sum[i] + value[i];
}

void accumulate(const Call& call, const AccumulateAttrs&) {
  const View &sum = call.in[0], &value = call.in[1], &out = call.out[0];
  chunks(call, out.size(), [&](std::int64_t at, std::int64_t n) {
    if (out.dtype == DType::float64)
      addInto(sum.as<double>() + at, value.as<double>() + at, out.as<double>() + at, n);
    else if (value.dtype == DType::float32)
      addInto(sum.as<float>() + at, value.as<float>() + at, out.as<float>() + at, n);
    else
      addInto(sum.as<float>() + at, value.as<bf16>() + at, out.as<float>() + at, n);
  });
}

bool allFinite(const View& x, std::int64_t at, std::int64_t n) {
  bool ok = true;
  if (x.dtype == DType::float64) {
    for (std::int64_t i = 0; i < n; ++i) ok &= std::isfinite(x.as<double>()[at + i]);
  } else if (x.dtype == DType::float32) {
    std::uint32_t bad = 0;
    const auto* bits = reinterpret_cast<const std::uint32_t*>(x.as<float>() + at);
    for (std::int64_t i = 0; i < n; ++i) bad |= (bits[i] & 0x7F800000u) == 0x7F800000u;
    ok = bad == 0;
  } else {
    std::uint32_t bad = 0;
    for (std::int64_t i = 0; i < n; ++i) bad |= (x.as<bf16>()[at + i].bits & 0x7F80u) == 0x7F80u;
    ok = bad == 0;
  }
  return ok;
}

void guard(const Call& call, const GuardAttrs&) {
  const View &x = call.in[0], &out = call.out[0];
  const std::size_t width = sizeOf(x.dtype);
  chunks(call, x.size(), [&](std::int64_t at, std::int64_t n) {
    if (!allFinite(x, at, n)) call.fault = 1;
    if (x.data != out.data) std::memcpy(out.data + at * width, x.data + at * width, static_cast<std::size_t>(n) * width);
  });
}

}  // namespace

std::unique_ptr<Kernel> makeAssign(const Spec& spec) {
  requirePair(spec, "assign");
  if (spec.in[1].dtype != spec.out[0].dtype) throw Error("PROGRAM", "assign takes one dtype");
  return std::make_unique<SimpleKernel<AssignAttrs, assign>>(spec);
}

std::unique_ptr<Kernel> makeAccumulate(const Spec& spec) {
  requirePair(spec, "accumulate");
  const DType sum = spec.out[0].dtype, value = spec.in[1].dtype;
  if (!(sum == DType::float64 && value == sum) && !(sum == DType::float32 && (value == sum || value == DType::bfloat16))) {
    throw Error("PROGRAM", "accumulate takes float32 sums of float32 or bfloat16, or float64");
  }
  if (!spec.in[1].contiguous() || !spec.in[0].contiguous()) throw Error("PROGRAM", "accumulate takes contiguous operands");
  return std::make_unique<SimpleKernel<AccumulateAttrs, accumulate>>(spec);
}

std::unique_ptr<Kernel> makeGuard(const Spec& spec) {
  if (spec.in.size() != 1 || spec.out.size() != 1 || spec.in[0].size() != spec.out[0].size() || spec.in[0].dtype != spec.out[0].dtype ||
      !isFloat(spec.in[0].dtype) || !spec.in[0].contiguous()) {
    throw Error("PROGRAM", "guard takes one contiguous float operand");
  }
  return std::make_unique<SimpleKernel<GuardAttrs, guard>>(spec);
}

}  // namespace steepest::STEEPEST_LEVEL

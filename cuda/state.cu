// State that a step leaves for the next: assignment, accumulation, and the guard that ends a run at a non-finite number.
#include "cuda/state.cuh"

#include "attrs/accumulate.gen.h"
#include "attrs/assign.gen.h"
#include "attrs/guard.gen.h"
#include "cuda/transfer.h"

namespace steepest::cuda {

namespace {

using namespace state;

// As many blocks as keep every multiprocessor busy; threads go on in steps of the grid.
constexpr std::int64_t kMostBlocks = 4096;

void requirePair(const Spec& spec, const char* who) {
  bool ok = spec.in.size() == 2 && spec.out.size() == 1 && spec.in[0].rank == spec.out[0].rank && spec.in[1].rank == spec.out[0].rank &&
            spec.in[0].dtype == spec.out[0].dtype;
  for (int i = 0; ok && i < spec.out[0].rank; ++i)
    ok = spec.in[0].shape[i] == spec.out[0].shape[i] && spec.in[1].shape[i] == spec.out[0].shape[i];
  if (!ok) throw Error("PROGRAM", std::string(who) + " takes a state and a value of one shape");
}

template <class T>
void copyElements(const Call& call, const View& from, const View& to) {
  const std::int64_t n = to.size();
  Strided geometry{};
  for (int i = 0; i < from.rank; ++i) {
    if (from.shape[i] == 1) continue;
    const int last = geometry.rank - 1;
    if (last >= 0 && geometry.strides[last] == from.strides[i] * from.shape[i]) {
      geometry.shape[last] *= from.shape[i];
      geometry.strides[last] = from.strides[i];
      continue;
    }
    geometry.shape[geometry.rank] = from.shape[i];
    geometry.strides[geometry.rank++] = from.strides[i];
  }
  STEEPEST_LAUNCH(copyStridedKernel<T>, blocksFor(n, kThreads, kMostBlocks), kThreads, 0, call, from.as<const T>(), to.as<T>(), geometry, n,
                  call.deviceFault);
}

bool wide(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % sizeof(uint4) == 0; }

void copyWide(const Call& call, const void* from, void* to, std::size_t bytes) {
  const auto n = static_cast<std::int64_t>(bytes / sizeof(uint4));
  STEEPEST_LAUNCH(copyKernel<uint4>, blocksFor(n, kThreads, kMostBlocks), kThreads, 0, call, static_cast<const uint4*>(from),
                  static_cast<uint4*>(to), n, call.deviceFault);
}

void assign(const Call& call, const AssignAttrs&) {
  const View &from = call.in[1], &to = call.out[0];
  if (from.data == to.data) return;
  if (from.contiguous() && wide(from.data) && wide(to.data) && to.bytes() % sizeof(uint4) == 0) {
    copyWide(call, from.data, to.data, to.bytes());
    return;
  }
  switch (sizeOf(to.dtype)) {
    case 8:
      return copyElements<std::uint64_t>(call, from, to);
    case 4:
      return copyElements<std::uint32_t>(call, from, to);
    case 2:
      return copyElements<std::uint16_t>(call, from, to);
    default:
      return copyElements<std::uint8_t>(call, from, to);
  }
}

template <class T, class G>
void addInto(const Call& call) {
  const std::int64_t n = call.out[0].size();
  STEEPEST_LAUNCH((accumulateKernel<T, G>), blocksFor(n, kThreads, kMostBlocks), kThreads, 0, call, call.in[0].as<const T>(),
                  call.in[1].as<const G>(), call.out[0].as<T>(), n, call.deviceFault);
}

void accumulate(const Call& call, const AccumulateAttrs&) {
  if (call.out[0].dtype == DType::float64) return addInto<double, double>(call);
  if (call.in[1].dtype == DType::float32) return addInto<float, float>(call);
  addInto<float, bf16>(call);
}

template <class T>
void guardBits(const Call& call) {
  const std::int64_t n = call.out[0].size();
  STEEPEST_LAUNCH(guardKernel<T>, blocksFor(n, kThreads, kMostBlocks), kThreads, 0, call, call.in[0].as<const T>(), call.out[0].as<T>(), n,
                  call.deviceFault);
}

void guard(const Call& call, const GuardAttrs&) {
  switch (sizeOf(call.in[0].dtype)) {
    case 8:
      return guardBits<std::uint64_t>(call);
    case 4:
      return guardBits<std::uint32_t>(call);
    default:
      return guardBits<std::uint16_t>(call);
  }
}

}  // namespace

void move(const Call& call, std::byte* to, const std::byte* from, std::size_t bytes) {
  if (wide(from) && wide(to) && bytes % sizeof(uint4) == 0) return copyWide(call, from, to, bytes);
  const auto n = static_cast<std::int64_t>(bytes);
  STEEPEST_LAUNCH(copyKernel<std::byte>, blocksFor(n, kThreads, kMostBlocks), kThreads, 0, call, from, to, n, call.deviceFault);
}

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

}  // namespace steepest::cuda

// Row `allReduce`: sums over the processes that train one model together.
#include "runtime/collective.h"

#include <algorithm>
#include <cstring>

#include "attrs/allReduce.gen.h"
#include "math/vec.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

void allReduce(const Call& call, const AllReduceAttrs&) {
  const View &x = call.in[0], &out = call.out[0];
  const auto n = static_cast<std::size_t>(out.size());
  const std::shared_ptr<Collective>& others = collective();
  if (!others || out.dtype != DType::bfloat16) {
    if (x.data != out.data) std::memcpy(out.data, x.data, n * sizeOf(out.dtype));
    if (others) others->sum(out.data, n, out.dtype);
    return;
  }
  auto* const wide = reinterpret_cast<float*>(call.workspace);
  const auto each = [&](auto&& move) {
    for (std::size_t i = 0; i < n; i += vf::kLanes) move(i, static_cast<int>(std::min<std::size_t>(vf::kLanes, n - i)));
  };
  each([&](std::size_t i, int lanes) { store(wide + i, vf::load(x.as<bf16>() + i, lanes), lanes); });
  others->sum(wide, n, DType::float32);
  each([&](std::size_t i, int lanes) { store(out.as<bf16>() + i, vf::load(wide + i, lanes), lanes); });
}

}  // namespace

std::unique_ptr<Kernel> makeAllReduce(const Spec& spec) {
  if (spec.in.size() != 1 || spec.out.size() != 1 || spec.in[0].dtype != spec.out[0].dtype || spec.in[0].size() != spec.out[0].size() ||
      !isFloat(spec.out[0].dtype))
    throw Error("PROGRAM", "a sum over processes takes one float array");
  const bool wide = spec.out[0].dtype == DType::bfloat16;
  return std::make_unique<SimpleKernel<AllReduceAttrs, allReduce>>(spec,
                                                                   wide ? static_cast<std::size_t>(spec.out[0].size()) * sizeof(float) : 0);
}

}  // namespace steepest::STEEPEST_LEVEL

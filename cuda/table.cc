// The kernel table of the GPU. Nothing has to be added here for a new kernel: a factory that is not linked in is a weak reference to
// nothing, and then loading an instruction of that op is an error with its name.
#include "cuda/table.h"

#include <array>
#include <cstddef>

#include "ops.gen.h"

namespace steepest::cuda {

#define DECLARE(name, Name) std::unique_ptr<Kernel> make##Name(const Spec&) __attribute__((weak, visibility("default")));
STEEPEST_KERNELS(DECLARE)
#undef DECLARE

namespace {

constexpr const char* kNames[] = {
#define NAME(name, Name) #name,
    STEEPEST_KERNELS(NAME)
#undef NAME
};

template <int op>
std::unique_ptr<Kernel> missing(const Spec&) {
  throw Error("DEVICE", std::string("there is no CUDA kernel for ") + kNames[op] + " yet; use device('cpu')");
}

}  // namespace

std::span<const Factory> kernels() {
  static const std::array<Factory, kOps> table = {
#define ROW(name, Name) make##Name ? make##Name : missing<static_cast<int>(Op::name##_)>,
      STEEPEST_KERNELS(ROW)
#undef ROW
  };
  return table;
}

bool hasKernel(int op) {
  static const std::array<bool, kOps> there = {
#define ROW(name, Name) make##Name != nullptr,
      STEEPEST_KERNELS(ROW)
#undef ROW
  };
  return there[static_cast<std::size_t>(op)];
}

const char* nameOfOp(int op) { return kNames[op]; }

}  // namespace steepest::cuda

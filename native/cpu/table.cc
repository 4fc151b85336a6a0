// The kernel table of one dispatch level. A row of the op table without a kernel fails to link here.
#include "ops.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

#define DECLARE(name, Name) std::unique_ptr<Kernel> make##Name(const Spec&);
STEEPEST_KERNELS(DECLARE)
#undef DECLARE

std::span<const Factory> kernels() {
  static constexpr Factory table[] = {
#define ROW(name, Name) make##Name,
      STEEPEST_KERNELS(ROW)
#undef ROW
  };
  return table;
}

}  // namespace steepest::STEEPEST_LEVEL

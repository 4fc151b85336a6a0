// Which kernels this build has.
#pragma once

#include "runtime/kernel.h"

namespace steepest::cuda {

// One factory per op; that of an op without a kernel throws UNSUPPORTED.
std::span<const Factory> kernels();
bool hasKernel(int op);
const char* nameOfOp(int op);

}  // namespace steepest::cuda

// Every call of CUDA's goes through here.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "runtime/types.h"

namespace steepest::cuda {

// What a call of CUDA's gave, as an Error that names the call; nothing where it went well.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  // CUDA remembers it too, and would lay it to the next launch.
  static_cast<void>(cudaGetLastError());
  throw Error(status == cudaErrorMemoryAllocation ? "OUT_OF_MEMORY" : "DEVICE",
              std::string(what) + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")");
}

}  // namespace steepest::cuda

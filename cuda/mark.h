// Remembers which instruction raised a fault.
#pragma once

namespace steepest::cuda {

// fault[1] becomes instruction + 1 where fault[0] is set and fault[1] is not.
void mark(int* fault, int instruction, void* stream);

}  // namespace steepest::cuda

#include "types.h"

namespace steepest {

const char* nameOf(DType t) {
  constexpr const char* names[kDTypes] = {"float32", "bfloat16", "float64", "int32", "uint8"};
  return names[static_cast<int>(t)];
}

}  // namespace steepest

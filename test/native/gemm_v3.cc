#if defined(__x86_64__)
#define STEEPEST_LEVEL v3
#include "gemm_cases.h"

TEST(gemm_v3) {
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) compareAll();
}
#endif

#if defined(__x86_64__)
#define STEEPEST_LEVEL v4
#include "gemm_cases.h"

TEST(gemm_v4) {
  if (__builtin_cpu_supports("avx512bw")) compareAll();
}
#endif

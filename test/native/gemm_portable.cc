#define STEEPEST_LEVEL portable
#include "gemm_cases.h"

TEST(gemm_portable) { compareAll(); }

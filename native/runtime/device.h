// Functions that a CPU kernel and a CUDA kernel share carry this mark.
#pragma once

#if defined(__CUDACC__)
#define STEEPEST_HD __host__ __device__
#else
#define STEEPEST_HD
#endif

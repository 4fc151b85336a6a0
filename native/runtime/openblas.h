// OpenBLAS, opened when first needed: float64 products and LAPACK. oneDNN has no float64.
#pragma once

#include <cstdint>

namespace steepest {

// The address of `name` ("cblas_dgemm", "dgeqrf_", …: without the prefix that the scipy build puts before each name).
// The library is opened at the first call and set to one thread per call. Throws Error("NATIVE") where it or the name is not found.
// Looked for in this order: the path in STEEPEST_OPENBLAS, beside this binary, in the project's own .deps, where the system looks.
void* openblasSymbol(const char* name);

// C (+)= op(A)·op(B), all row-major: A [M, K] (or stored [K, M] when transA), B [K, N] (or [N, K]), C [M, N]; single-threaded.
void dgemm(bool transA, bool transB, std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t lda, const double* b,
           std::int64_t ldb, bool accumulate, double* c, std::int64_t ldc);

}  // namespace steepest

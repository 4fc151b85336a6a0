// OpenBLAS, opened when first needed: LAPACK for the small dense linear algebra.
#pragma once

namespace steepest {

// The address of `name` ("cblas_dgemm", "dgeqrf_", …: without the prefix that the scipy build puts before each name).
// The library is opened at the first call and set to one thread per call. Throws Error("NATIVE") where it or the name is not found.
// Looked for in this order: the path in STEEPEST_OPENBLAS, beside this binary, in the project's own .deps, where the system looks.
void* openblasSymbol(const char* name);

}  // namespace steepest

// OpenBLAS is found, and its LAPACK runs.
#include "runtime/openblas.h"

#include "check.h"
#include "runtime/types.h"

TEST(openblas_solves) {
  using Gesv = void (*)(const int*, const int*, double*, const int*, int*, double*, const int*, int*);
  const auto gesv = reinterpret_cast<Gesv>(steepest::openblasSymbol("dgesv_"));
  const int n = 2, one = 1;
  int pivots[2], info = -1;
  double a[] = {2, 1, 1, 3}, b[] = {3, 5};
  gesv(&n, &one, a, &n, pivots, b, &n, &info);
  CHECK(info == 0);
  CHECK_NEAR(b[0], 0.8, 1e-15);
  CHECK_NEAR(b[1], 1.4, 1e-15);
}

TEST(openblas_says_what_is_missing) {
  try {
    steepest::openblasSymbol("nothing_");
    CHECK(false);
  } catch (const steepest::Error& error) {
    CHECK(error.code == "NATIVE");
    CHECK(std::string(error.what()).find("scipy_nothing_") != std::string::npos);
  }
}

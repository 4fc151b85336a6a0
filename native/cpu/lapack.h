// The LAPACK routines in use, for float32 and float64, and what the kernels on top of them share.
// LAPACK is column-major: our row-major matrix is its transpose, which most kernels make use of instead of copying.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#include "cpu/linalg_checks.h"
#include "runtime/openblas.h"

namespace steepest::STEEPEST_LEVEL {

// Fortran passes the length of each character argument behind all others.
template <class T>
struct Lapack {
  using Int = int;
  using Len = std::size_t;
  void (*potrf)(const char* uplo, const Int* n, T* a, const Int* lda, Int* info, Len);
  void (*trsm)(const char* side, const char* uplo, const char* trans, const char* diag, const Int* m, const Int* n, const T* alpha,
               const T* a, const Int* lda, T* b, const Int* ldb, Len, Len, Len, Len);
  void (*getrf)(const Int* m, const Int* n, T* a, const Int* lda, Int* pivots, Int* info);
  void (*getrs)(const char* trans, const Int* n, const Int* nrhs, const T* a, const Int* lda, const Int* pivots, T* b, const Int* ldb,
                Int* info, Len);
  void (*geqrf)(const Int* m, const Int* n, T* a, const Int* lda, T* tau, T* work, const Int* lwork, Int* info);
  void (*orgqr)(const Int* m, const Int* n, const Int* k, T* a, const Int* lda, const T* tau, T* work, const Int* lwork, Int* info);
  void (*syevd)(const char* jobz, const char* uplo, const Int* n, T* a, const Int* lda, T* w, T* work, const Int* lwork, Int* iwork,
                const Int* liwork, Int* info, Len, Len);
  void (*gesdd)(const char* jobz, const Int* m, const Int* n, T* a, const Int* lda, T* s, T* u, const Int* ldu, T* vt, const Int* ldvt,
                T* work, const Int* lwork, Int* iwork, Int* info, Len);

  // Opens the library at the first call; throws Error("NATIVE") where it is not there.
  static const Lapack& get() {
    static const Lapack table = [] {
      Lapack t;
      load(t.potrf, "potrf_");
      load(t.trsm, "trsm_");
      load(t.getrf, "getrf_");
      load(t.getrs, "getrs_");
      load(t.geqrf, "geqrf_");
      load(t.orgqr, "orgqr_");
      load(t.syevd, "syevd_");
      load(t.gesdd, "gesdd_");
      return t;
    }();
    return table;
  }

 private:
  template <class F>
  static void load(F& f, const char* name) {
    const std::string full = std::string(std::is_same_v<T, float> ? "s" : "d") + name;
    f = reinterpret_cast<F>(openblasSymbol(full.c_str()));
  }
};

// What LAPACK answers to a workspace query, as a length. Large answers are rounded in float32: hence the margin.
template <class T>
int queried(T answer) {
  const double n = std::ceil(static_cast<double>(answer) * (1 + 1e-6)) + 1;
  if (!(n < std::numeric_limits<int>::max())) throw Error("PROGRAM", "a matrix is too large for LAPACK's 32-bit lengths");
  return static_cast<int>(n);
}

// Scratch cut into 64-byte aligned parts: the same calls first with no memory, to count, then with it.
class Scratch {
 public:
  explicit Scratch(std::byte* base) : base_(base) {}
  template <class T>
  T* take(std::int64_t n) {
    T* part = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (static_cast<std::size_t>(n) * sizeof(T) + 63) / 64 * 64;
    return part;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* base_;
  std::size_t used_ = 0;
};

// Calls body(matrix, thread); small matrices share a tile. `work` is about the floating-point operations of one.
template <class F>
void eachMatrix(Pool& pool, std::int64_t count, double work, F&& body) {
  const std::int64_t per = std::max<std::int64_t>(1, static_cast<std::int64_t>(2e4 / (work + 1)));
  pool.run((count + per - 1) / per, [&](std::int64_t tile, int thread) {
    for (std::int64_t i = tile * per; i < std::min(count, (tile + 1) * per); ++i) body(i, thread);
  });
}

// Marks the run: 3 = a factorization failed (singular, not positive definite, not converged), 1 = a number was not finite.
inline void setFault(const Call& call, int fault) {
  int none = 0;
  call.fault.compare_exchange_strong(none, fault);
}

template <class T>
void fillNaN(T* x, std::int64_t n) {
  std::fill(x, x + n, std::numeric_limits<T>::quiet_NaN());
}

template <class T>
bool allFinite(const T* x, std::int64_t n) {
  bool fine = true;
  for (std::int64_t i = 0; i < n; ++i) fine &= std::fabs(x[i]) <= std::numeric_limits<T>::max();
  return fine;
}

// to[columns][rows] = from[rows][columns] transposed; `step` is the distance between the rows of `from`.
template <class T>
void transposeTo(const T* from, std::int64_t rows, std::int64_t columns, std::int64_t step, T* to) {
  constexpr std::int64_t kBlock = 16;
  for (std::int64_t i0 = 0; i0 < rows; i0 += kBlock) {
    const std::int64_t i1 = std::min(rows, i0 + kBlock);
    for (std::int64_t j0 = 0; j0 < columns; j0 += kBlock) {
      const std::int64_t j1 = std::min(columns, j0 + kBlock);
      for (std::int64_t j = j0; j < j1; ++j) {
        for (std::int64_t i = i0; i < i1; ++i) to[j * rows + i] = from[i * step + j];
      }
    }
  }
}

// Makes the kernel for the dtype of the first input.
template <template <class> class K, class... A>
std::unique_ptr<Kernel> forFloat(DType dtype, A&&... args) {
  if (dtype == DType::float32) return std::make_unique<K<float>>(args...);
  return std::make_unique<K<double>>(args...);
}

}  // namespace steepest::STEEPEST_LEVEL

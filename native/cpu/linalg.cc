// Cholesky, triangular solve, LU solve and log-determinant of stacks of matrices: one LAPACK thread per matrix.
#include "lapack.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

// L with L Lᵀ = A from the lower triangle of A. Row-major lower is column-major upper: LAPACK works in the output itself.
template <class T>
class Cholesky final : public Kernel {
 public:
  explicit Cholesky(const Matrices& m) : m_(m), lapack_(Lapack<T>::get()) {}
  void run(const Call& call) const override {
    const std::int64_t n = m_.rows;
    if (n == 0) return;
    eachMatrix(call.pool, m_.count, n * n * n / 3.0, [&](std::int64_t i, int) {
      const T* a = call.in[0].as<T>() + i * n * n;
      T* l = call.out[0].as<T>() + i * n * n;
      for (std::int64_t row = 0; row < n; ++row) {
        std::memcpy(l + row * n, a + row * n, static_cast<std::size_t>(row + 1) * sizeof(T));
        std::fill(l + row * n + row + 1, l + (row + 1) * n, T(0));
      }
      const bool finite = allFinite(l, n * n);
      const int order = static_cast<int>(n);
      int info = 1;
      if (finite) lapack_.potrf("U", &order, l, &order, &info, 1);
      if (info != 0) {
        setFault(call, finite ? 3 : 1);
        fillNaN(l, n * n);
      }
    });
  }

 private:
  Matrices m_;
  const Lapack<T>& lapack_;
};

// op(A) X = B, as Xᵀ op(A)ᵀ = Bᵀ in column-major terms: solved from the right, in the output.
template <class T>
class TriangularSolve final : public Kernel {
 public:
  TriangularSolve(const Matrices& b, const TriangularSolveAttrs& attrs) : b_(b), attrs_(attrs), lapack_(Lapack<T>::get()) {}
  void run(const Call& call) const override {
    const std::int64_t n = b_.rows, m = b_.columns;
    if (b_.size() == 0) return;
    eachMatrix(call.pool, b_.count, static_cast<double>(n) * n * m, [&](std::int64_t i, int) {
      const T* a = call.in[0].as<T>() + i * n * n;
      T* x = call.out[0].as<T>() + i * n * m;
      bool singular = false;
      for (std::int64_t j = 0; j < n && !attrs_.unit; ++j) singular = singular || a[j * n + j] == 0;
      if (singular) {
        setFault(call, 3);
        return fillNaN(x, n * m);
      }
      const T* b = call.in[1].as<T>() + i * n * m;
      if (x != b) std::memcpy(x, b, static_cast<std::size_t>(n * m) * sizeof(T));
      const int order = static_cast<int>(n), columns = static_cast<int>(m);
      const T one = 1;
      lapack_.trsm("R", attrs_.lower ? "U" : "L", attrs_.transpose ? "T" : "N", attrs_.unit ? "U" : "N", &columns, &order, &one, a, &order,
                   x, &columns, 1, 1, 1, 1);
    });
  }

 private:
  Matrices b_;
  TriangularSolveAttrs attrs_;
  const Lapack<T>& lapack_;
};

template <class T>
class Solve final : public Kernel {
 public:
  explicit Solve(const Spec& spec, const Matrices& b) : b_(b), lapack_(Lapack<T>::get()) {
    perThread_ = parts(nullptr).bytes;
    workspace = perThread_ * spec.threads;
  }
  void run(const Call& call) const override {
    const std::int64_t n = b_.rows, m = b_.columns;
    if (b_.size() == 0) return;
    eachMatrix(call.pool, b_.count, static_cast<double>(n) * n * (n + m), [&](std::int64_t i, int thread) {
      const Parts p = parts(call.workspace + perThread_ * thread);
      T* x = call.out[0].as<T>() + i * n * m;
      std::memcpy(p.a, call.in[0].as<T>() + i * n * n, static_cast<std::size_t>(n * n) * sizeof(T));
      const int order = static_cast<int>(n), columns = static_cast<int>(m);
      int info = 0;
      lapack_.getrf(&order, &order, p.a, &order, p.pivots, &info);
      if (info != 0) {
        setFault(call, 3);
        return fillNaN(x, n * m);
      }
      transposeTo(call.in[1].as<T>() + i * n * m, n, m, m, p.b);
      // The factors are those of Aᵀ.
      lapack_.getrs("T", &order, &columns, p.a, &order, p.pivots, p.b, &order, &info, 1);
      transposeTo(p.b, m, n, n, x);
    });
  }

 private:
  struct Parts {
    T *a, *b;
    int* pivots;
    std::size_t bytes;
  };
  Parts parts(std::byte* base) const {
    Scratch s(base);
    Parts p;
    p.a = s.take<T>(b_.rows * b_.rows);
    p.b = s.take<T>(b_.size());
    p.pivots = s.take<int>(b_.rows);
    p.bytes = s.used();
    return p;
  }

  Matrices b_;
  const Lapack<T>& lapack_;
  std::size_t perThread_;
};

// Sign and log|det| from LU; a singular matrix has sign 0 and −∞, which is no fault.
template <class T>
class Slogdet final : public Kernel {
 public:
  explicit Slogdet(const Spec& spec, const Matrices& m) : m_(m), lapack_(Lapack<T>::get()) {
    perThread_ = parts(nullptr).bytes;
    workspace = perThread_ * spec.threads;
  }
  void run(const Call& call) const override {
    const std::int64_t n = m_.rows;
    eachMatrix(call.pool, m_.count, 2.0 * n * n * n / 3, [&](std::int64_t i, int thread) {
      const Parts p = parts(call.workspace + perThread_ * thread);
      const int order = static_cast<int>(n);
      int info = 0;
      if (n > 0) {
        std::memcpy(p.a, call.in[0].as<T>() + i * n * n, static_cast<std::size_t>(n * n) * sizeof(T));
        lapack_.getrf(&order, &order, p.a, &order, p.pivots, &info);
      }
      double sign = 1, log = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        const double pivot = p.a[j * n + j];
        sign *= (pivot > 0) - (pivot < 0);
        if (pivot != pivot) sign = pivot;
        if (p.pivots[j] != j + 1) sign = -sign;
        log += std::log(std::fabs(pivot));
      }
      call.out[0].as<T>()[i] = static_cast<T>(sign);
      call.out[1].as<T>()[i] = static_cast<T>(log);
    });
  }

 private:
  struct Parts {
    T* a;
    int* pivots;
    std::size_t bytes;
  };
  Parts parts(std::byte* base) const {
    Scratch s(base);
    Parts p;
    p.a = s.take<T>(m_.size());
    p.pivots = s.take<int>(m_.rows);
    p.bytes = s.used();
    return p;
  }

  Matrices m_;
  const Lapack<T>& lapack_;
  std::size_t perThread_;
};

}  // namespace

std::unique_ptr<Kernel> makeCholesky(const Spec& spec) {
  const Matrices m = checkCholesky(spec);
  return forFloat<Cholesky>(spec.in[0].dtype, m);
}

std::unique_ptr<Kernel> makeTriangularSolve(const Spec& spec) {
  const Matrices m = checkTriangularSolve(spec);
  return forFloat<TriangularSolve>(spec.in[0].dtype, m, TriangularSolveAttrs::decode(spec.attrs));
}

std::unique_ptr<Kernel> makeSolve(const Spec& spec) {
  const Matrices m = checkSolve(spec);
  return forFloat<Solve>(spec.in[0].dtype, spec, m);
}

std::unique_ptr<Kernel> makeSlogdet(const Spec& spec) {
  const Matrices m = checkSlogdet(spec);
  return forFloat<Slogdet>(spec.in[0].dtype, spec, m);
}

}  // namespace steepest::STEEPEST_LEVEL

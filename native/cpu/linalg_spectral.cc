// QR, symmetric eigenvalues and singular values of stacks of matrices: one LAPACK thread per matrix.
#include "lapack.h"

namespace steepest::STEEPEST_LEVEL {
namespace {

template <class T>
class Qr final : public Kernel {
 public:
  Qr(const Spec& spec, const Matrices& m, std::int64_t q) : m_(m), q_(q), k_(std::min(m.rows, m.columns)), lapack_(Lapack<T>::get()) {
    if (m_.rows > 0 && k_ > 0) {
      const int rows = static_cast<int>(m_.rows), columns = static_cast<int>(m_.columns), width = static_cast<int>(q_),
                k = static_cast<int>(k_), query = -1;
      int info = 0;
      T first = 0, second = 0, nothing = 0;
      lapack_.geqrf(&rows, &columns, &nothing, &rows, &nothing, &first, &query, &info);
      lapack_.orgqr(&rows, &width, &k, &nothing, &rows, &nothing, &second, &query, &info);
      lwork_ = std::max(queried(first), queried(second));
    }
    perThread_ = parts(nullptr).bytes;
    workspace = perThread_ * spec.threads;
  }

  void run(const Call& call) const override {
    const std::int64_t m = m_.rows, n = m_.columns;
    eachMatrix(call.pool, m_.count, 4.0 * m * n * k_, [&](std::int64_t i, int thread) {
      T* q = call.out[0].as<T>() + i * m * q_;
      T* r = call.out[1].as<T>() + i * q_ * n;
      std::fill(r, r + q_ * n, T(0));
      if (k_ == 0) {
        for (std::int64_t j = 0; j < m; ++j) {
          for (std::int64_t c = 0; c < q_; ++c) q[j * q_ + c] = j == c;
        }
        return;
      }
      const Parts p = parts(call.workspace + perThread_ * thread);
      const int rows = static_cast<int>(m), columns = static_cast<int>(n), width = static_cast<int>(q_), k = static_cast<int>(k_);
      int info = 0;
      transposeTo(call.in[0].as<T>() + i * m * n, m, n, n, p.a);
      lapack_.geqrf(&rows, &columns, p.a, &rows, p.tau, p.work, &lwork_, &info);
      for (std::int64_t c = 0; c < n; ++c) {
        for (std::int64_t j = 0; j <= std::min(c, k_ - 1); ++j) r[j * n + c] = p.a[c * m + j];
      }
      lapack_.orgqr(&rows, &width, &k, p.a, &rows, p.tau, p.work, &lwork_, &info);
      transposeTo(p.a, q_, m, m, q);
    });
  }

 private:
  struct Parts {
    T *a, *tau, *work;
    std::size_t bytes;
  };
  Parts parts(std::byte* base) const {
    Scratch s(base);
    Parts p;
    p.a = s.take<T>(m_.rows * std::max(m_.columns, q_));
    p.tau = s.take<T>(k_);
    p.work = s.take<T>(lwork_);
    p.bytes = s.used();
    return p;
  }

  Matrices m_;
  std::int64_t q_, k_;
  const Lapack<T>& lapack_;
  int lwork_ = 0;
  std::size_t perThread_;
};

// Row-major lower is column-major upper. The eigenvectors come as rows of our layout and are transposed into columns.
template <class T>
class Eigh final : public Kernel {
 public:
  Eigh(const Spec& spec, const Matrices& m) : m_(m), lapack_(Lapack<T>::get()) {
    if (m_.rows > 0) {
      const int n = static_cast<int>(m_.rows), query = -1;
      int info = 0;
      T length = 0, nothing = 0;
      lapack_.syevd("V", "U", &n, &nothing, &n, &nothing, &length, &query, &liwork_, &query, &info, 1, 1);
      lwork_ = queried(length);
    }
    perThread_ = parts(nullptr).bytes;
    workspace = perThread_ * spec.threads;
  }

  void run(const Call& call) const override {
    const std::int64_t n = m_.rows;
    if (n == 0) return;
    eachMatrix(call.pool, m_.count, 9.0 * n * n * n, [&](std::int64_t i, int thread) {
      const Parts p = parts(call.workspace + perThread_ * thread);
      const T* a = call.in[0].as<T>() + i * n * n;
      T* w = call.out[0].as<T>() + i * n;
      T* v = call.out[1].as<T>() + i * n * n;
      bool finite = true;
      for (std::int64_t row = 0; row < n; ++row) {
        finite = finite && allFinite(a + row * n, row + 1);
        std::memcpy(p.a + row * n, a + row * n, static_cast<std::size_t>(row + 1) * sizeof(T));
      }
      const int order = static_cast<int>(n);
      int info = 1;
      if (finite) lapack_.syevd("V", "U", &order, p.a, &order, w, p.work, &lwork_, p.integers, &liwork_, &info, 1, 1);
      if (info != 0) {
        setFault(call, finite ? 3 : 1);
        fillNaN(w, n);
        return fillNaN(v, n * n);
      }
      transposeTo(p.a, n, n, n, v);
    });
  }

 private:
  struct Parts {
    T *a, *work;
    int* integers;
    std::size_t bytes;
  };
  Parts parts(std::byte* base) const {
    Scratch s(base);
    Parts p;
    p.a = s.take<T>(m_.size());
    p.work = s.take<T>(lwork_);
    p.integers = s.take<int>(liwork_);
    p.bytes = s.used();
    return p;
  }

  Matrices m_;
  const Lapack<T>& lapack_;
  int lwork_ = 0, liwork_ = 0;
  std::size_t perThread_;
};

// LAPACK sees Aᵀ = V S Uᵀ: its left vectors are our Vᵀ, its right ones our U, both already row-major.
template <class T>
class Svd final : public Kernel {
 public:
  Svd(const Spec& spec, const Matrices& m) : m_(m), k_(std::min(m.rows, m.columns)), lapack_(Lapack<T>::get()) {
    if (k_ > 0) {
      const int rows = static_cast<int>(m_.columns), columns = static_cast<int>(m_.rows), k = static_cast<int>(k_), query = -1;
      int info = 0, integer = 0;
      T length = 0, nothing = 0;
      lapack_.gesdd("S", &rows, &columns, &nothing, &rows, &nothing, &nothing, &rows, &nothing, &k, &length, &query, &integer, &info, 1);
      lwork_ = queried(length);
    }
    perThread_ = parts(nullptr).bytes;
    workspace = perThread_ * spec.threads;
  }

  void run(const Call& call) const override {
    const std::int64_t m = m_.rows, n = m_.columns;
    if (k_ == 0) return;
    eachMatrix(call.pool, m_.count, 14.0 * m * n * k_, [&](std::int64_t i, int thread) {
      const Parts p = parts(call.workspace + perThread_ * thread);
      const T* a = call.in[0].as<T>() + i * m * n;
      T* u = call.out[0].as<T>() + i * m * k_;
      T* s = call.out[1].as<T>() + i * k_;
      T* vh = call.out[2].as<T>() + i * k_ * n;
      const bool finite = allFinite(a, m * n);
      std::memcpy(p.a, a, static_cast<std::size_t>(m * n) * sizeof(T));
      const int rows = static_cast<int>(n), columns = static_cast<int>(m), k = static_cast<int>(k_);
      int info = 1;
      if (finite) lapack_.gesdd("S", &rows, &columns, p.a, &rows, s, vh, &rows, u, &k, p.work, &lwork_, p.integers, &info, 1);
      if (info != 0) {
        setFault(call, finite ? 3 : 1);
        fillNaN(u, m * k_);
        fillNaN(s, k_);
        fillNaN(vh, k_ * n);
      }
    });
  }

 private:
  struct Parts {
    T *a, *work;
    int* integers;
    std::size_t bytes;
  };
  Parts parts(std::byte* base) const {
    Scratch s(base);
    Parts p;
    p.a = s.take<T>(m_.size());
    p.work = s.take<T>(lwork_);
    p.integers = s.take<int>(8 * k_);
    p.bytes = s.used();
    return p;
  }

  Matrices m_;
  std::int64_t k_;
  const Lapack<T>& lapack_;
  int lwork_ = 0;
  std::size_t perThread_;
};

}  // namespace

std::unique_ptr<Kernel> makeQr(const Spec& spec) {
  const Matrices m = checkQr(spec);
  return forFloat<Qr>(spec.in[0].dtype, spec, m, spec.out[0].dim(-1));
}

std::unique_ptr<Kernel> makeEigh(const Spec& spec) {
  const Matrices m = checkEigh(spec);
  return forFloat<Eigh>(spec.in[0].dtype, spec, m);
}

std::unique_ptr<Kernel> makeSvd(const Spec& spec) {
  const Matrices m = checkSvd(spec);
  return forFloat<Svd>(spec.in[0].dtype, spec, m);
}

}  // namespace steepest::STEEPEST_LEVEL

// Kernels of `cholesky`, `triangularSolve`, `solve` and `slogdet`. All are computed in float64, whatever the operands are: the matrices of
// the methods that use them are small, and what a factorization loses is then less than a rounding of float32.
#include "cpu/linalg_checks.h"
#include "cuda/linalg.cuh"
#include "math/functions.h"

namespace steepest::cuda {

namespace {

constexpr int kSide = 32;  // of a tile
constexpr int kGroups = kThreads / kSide, kOwn = kSide / kGroups;

// --- Cholesky: panels of 32 columns, then what they take off from the rest.

// The lower triangle as columns; anything that is not finite is marked.
__global__ void __launch_bounds__(kThreads) bringLower(Reals a, double* w, int* flags, std::int64_t count, std::int64_t n) {
  for (std::int64_t i = threadOf(); i < count * n * n; i += threads()) {
    const std::int64_t row = i / n % n, column = i % n;
    if (column > row) continue;
    const double x = a[i];
    w[(i / (n * n) * n + column) * n + row] = x;
    if (!isFinite(x)) flags[i / (n * n)] = 1;
  }
}

// Every block finds the factor of the diagonal tile for itself (one keeps it) and solves for some of the rows below.
__global__ void __launch_bounds__(kThreads)
    choleskyPanel(double* w, double* tiles, int* flags, std::int64_t n, std::int64_t first, std::int64_t blocks) {
  __shared__ double l[kSide][kSide + 1];
  const std::int64_t matrix = blockIdx.x / blocks, block = blockIdx.x % blocks;
  double* a = w + matrix * n * n;
  const int size = static_cast<int>(n - first < kSide ? n - first : kSide);
  for (int at = static_cast<int>(threadIdx.x); at < kSide * kSide; at += kThreads) {
    const int r = at % kSide, c = at / kSide;
    l[r][c] = r < size && c <= r ? a[(first + c) * n + first + r] : 0;
  }
  __syncthreads();
  for (int j = 0; j < size; ++j) {
    const double pivot = l[j][j];
    __syncthreads();
    if (block == 0 && threadIdx.x == 0 && !(pivot > 0)) atomicCAS(flags + matrix, 0, 3);
    const double root = std::sqrt(pivot > 0 ? pivot : std::numeric_limits<double>::quiet_NaN());
    for (int r = j + static_cast<int>(threadIdx.x); r < size; r += kThreads) l[r][j] = r == j ? root : l[r][j] / root;
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < kSide * kSide; at += kThreads) {
      const int r = at % kSide, c = at / kSide;
      if (c > j && r >= c && r < size) l[r][c] -= l[r][j] * l[c][j];
    }
    __syncthreads();
  }
  if (block == 0) {
    double* keep = tiles + (matrix * ((n + kSide - 1) / kSide) + first / kSide) * kSide * kSide;
    for (int at = static_cast<int>(threadIdx.x); at < kSide * kSide; at += kThreads) keep[at] = l[at / kSide][at % kSide];
  }
  const std::int64_t row = first + kSide + block * kThreads + threadIdx.x;
  if (row >= n) return;
  for (int j = 0; j < size; ++j) {
    double x = a[(first + j) * n + row];
    for (int k = 0; k < j; ++k) x -= a[(first + k) * n + row] * l[j][k];
    a[(first + j) * n + row] = x / l[j][j];
  }
}

__global__ void __launch_bounds__(kThreads) choleskyRest(double* w, std::int64_t n, std::int64_t first, std::int64_t tiles) {
  __shared__ double left[kSide][kSide + 1], right[kSide][kSide + 1];
  const std::int64_t matrix = blockIdx.x / (tiles * tiles), tile = blockIdx.x % (tiles * tiles);
  const std::int64_t row = first + kSide * (1 + tile % tiles), column = first + kSide * (1 + tile / tiles);
  if (row < column) return;
  double* a = w + matrix * n * n;
  for (int at = static_cast<int>(threadIdx.x); at < kSide * kSide; at += kThreads) {
    const int i = at % kSide, k = at / kSide;
    left[k][i] = row + i < n ? a[(first + k) * n + row + i] : 0;
    right[k][i] = column + i < n ? a[(first + k) * n + column + i] : 0;
  }
  __syncthreads();
  for (int at = static_cast<int>(threadIdx.x); at < kSide * kSide; at += kThreads) {
    const int r = at % kSide, c = at / kSide;
    if (row + r >= n || column + c > row + r) continue;
    double sum = 0;
    for (int k = 0; k < kSide; ++k) sum = std::fma(left[k][r], right[k][c], sum);
    a[(column + c) * n + row + r] -= sum;
  }
}

__global__ void __launch_bounds__(kThreads)
    putLower(const double* w, const double* tiles, const int* flags, Reals out, std::int64_t count, std::int64_t n, int* fault) {
  const std::int64_t across = (n + kSide - 1) / kSide;
  for (std::int64_t i = threadOf(); i < count * n * n; i += threads()) {
    const std::int64_t matrix = i / (n * n), row = i / n % n, column = i % n;
    if (flags[matrix]) {
      raise(fault, flags[matrix]);
      out.put(i, std::numeric_limits<double>::quiet_NaN());
    } else if (column > row) {
      out.put(i, 0);
    } else if (row / kSide == column / kSide) {
      out.put(i, tiles[(matrix * across + row / kSide) * kSide * kSide + row % kSide * kSide + column % kSide]);
    } else {
      out.put(i, w[(matrix * n + column) * n + row]);
    }
  }
}

class Cholesky final : public Kernel {
 public:
  explicit Cholesky(const Matrices& m) : m_(m) {
    Carve carve;
    parts(carve);
    workspace = carve.used();
  }
  void run(const Call& call) const override {
    const std::int64_t n = m_.rows, size = m_.count * n * n;
    if (size == 0) return;
    Carve carve(call.workspace);
    const Parts p = parts(carve);
    STEEPEST_LAUNCH(setInts, gridFor(m_.count), kThreads, 0, call, p.flags, m_.count, 0);
    STEEPEST_LAUNCH(bringLower, gridFor(size), kThreads, 0, call, Reals(call.in[0]), p.w, p.flags, m_.count, n);
    for (std::int64_t first = 0; first < n; first += kSide) {
      const std::int64_t below = std::max<std::int64_t>(n - first - kSide, 0),
                         blocks = std::max<std::int64_t>(1, ceilDiv<std::int64_t>(below, kThreads));
      const std::int64_t tiles = ceilDiv<std::int64_t>(below, kSide);
      STEEPEST_LAUNCH(choleskyPanel, blocksFor(m_.count * blocks, 1), kThreads, 0, call, p.w, p.tiles, p.flags, n, first, blocks);
      STEEPEST_LAUNCH(choleskyRest, blocksFor(m_.count * tiles * tiles, 1), kThreads, 0, call, p.w, n, first, tiles);
    }
    STEEPEST_LAUNCH(putLower, gridFor(size), kThreads, 0, call, p.w, p.tiles, p.flags, Reals(call.out[0]), m_.count, n, call.deviceFault);
  }

 private:
  struct Parts {
    double *w, *tiles;
    int* flags;
  };
  Parts parts(Carve& carve) const {
    const std::int64_t across = ceilDiv<std::int64_t>(m_.rows, kSide);
    Parts p;
    p.w = carve.take<double>(m_.count * m_.size());
    p.tiles = carve.take<double>(m_.count * across * kSide * kSide);
    p.flags = carve.take<int>(m_.count);
    return p;
  }
  Matrices m_;
};

// --- Triangular systems: a block takes 32 right-hand sides through all tiles of rows.

__global__ void __launch_bounds__(kThreads) solveTriangle(Reals a, Reals b, Reals x, std::int64_t count, std::int64_t n, std::int64_t m,
                                                          bool lower, bool transpose, bool unit, int* fault) {
  __shared__ double tile[kSide][kSide + 1], known[kSide][kSide + 1];
  const int c = static_cast<int>(threadIdx.x) % kSide, group = static_cast<int>(threadIdx.x) / kSide;
  const std::int64_t strips = (m + kSide - 1) / kSide, across = (n + kSide - 1) / kSide;
  const bool forward = lower != transpose;
  for (std::int64_t task = blockIdx.x; task < count * strips; task += gridDim.x) {
    const std::int64_t matrix = task / strips, column = task % strips * kSide + c;
    int zero = 0;
    for (std::int64_t j = threadIdx.x; j < n && !unit; j += kThreads) zero |= a[matrix * n * n + j * n + j] == 0;
    const bool singular = __syncthreads_or(zero);
    if (singular && threadIdx.x == 0) raise(fault, 3);
    // A tile of op(A), with the triangle that holds its numbers.
    const auto bring = [&](std::int64_t row, std::int64_t k) {
      for (int at = static_cast<int>(threadIdx.x); at < kSide * kSide; at += kThreads) {
        const int fast = at % kSide, slow = at / kSide, r = transpose ? fast : slow, j = transpose ? slow : fast;
        const std::int64_t i = row + r, l = k + j;
        double v = 0;
        if (i < n && l < n) v = a[matrix * n * n + (transpose ? l * n + i : i * n + l)];
        tile[r][j] = v;
      }
    };
    for (std::int64_t step = 0; step < across; ++step) {
      const std::int64_t row = (forward ? step : across - 1 - step) * kSide;
      double sum[kOwn];
      for (int i = 0; i < kOwn; ++i) {
        const std::int64_t r = row + group * kOwn + i;
        sum[i] = r < n && column < m ? b[(matrix * n + r) * m + column] : 0;
      }
      for (std::int64_t before = 0; before < step; ++before) {
        const std::int64_t k = (forward ? before : across - 1 - before) * kSide;
        __syncthreads();
        bring(row, k);
        for (int i = 0; i < kOwn; ++i) {
          const std::int64_t r = k + group * kOwn + i;
          known[group * kOwn + i][c] = r < n && column < m ? x[(matrix * n + r) * m + column] : 0;
        }
        __syncthreads();
        for (int j = 0; j < kSide; ++j) {
          for (int i = 0; i < kOwn; ++i) sum[i] = std::fma(-tile[group * kOwn + i][j], known[j][c], sum[i]);
        }
      }
      __syncthreads();
      bring(row, row);
      for (int i = 0; i < kOwn; ++i) known[group * kOwn + i][c] = sum[i];
      __syncthreads();
      const int size = static_cast<int>(n - row < kSide ? n - row : kSide);
      for (int s = 0; s < size; ++s) {
        const int j = forward ? s : size - 1 - s;
        const double own = unit ? known[j][c] : known[j][c] / tile[j][j];
        __syncthreads();
        for (int i = 0; i < kOwn; ++i) {
          const int r = group * kOwn + i;
          if (r == j)
            known[r][c] = own;
          else if (r < size && (forward ? r > j : r < j))
            known[r][c] = std::fma(-tile[r][j], own, known[r][c]);
        }
        __syncthreads();
      }
      for (int i = 0; i < kOwn; ++i) {
        const int r = group * kOwn + i;
        if (r < size && column < m)
          x.put((matrix * n + row + r) * m + column, singular ? std::numeric_limits<double>::quiet_NaN() : known[r][c]);
      }
    }
    __syncthreads();
  }
}

class TriangularSolve final : public Kernel {
 public:
  TriangularSolve(const Matrices& b, const TriangularSolveAttrs& attrs) : b_(b), attrs_(attrs) {}
  void run(const Call& call) const override {
    if (b_.size() == 0) return;
    STEEPEST_LAUNCH(solveTriangle, gridFor(b_.count * ceilDiv<std::int64_t>(b_.columns, kSide), 1), kThreads, 0, call, Reals(call.in[0]),
                    Reals(call.in[1]), Reals(call.out[0]), b_.count, b_.rows, b_.columns, attrs_.lower, attrs_.transpose, attrs_.unit,
                    call.deviceFault);
  }

 private:
  Matrices b_;
  TriangularSolveAttrs attrs_;
};

// --- LU with partial pivoting, of a matrix with its right-hand sides beside it.

// Columns of A, then those of B.
__global__ void __launch_bounds__(kThreads) bringSystem(Reals a, Reals b, double* w, std::int64_t count, std::int64_t n, std::int64_t m) {
  const std::int64_t width = n + m;
  for (std::int64_t i = threadOf(); i < count * n * width; i += threads()) {
    const std::int64_t matrix = i / (n * width), row = i / width % n, column = i % width;
    w[(matrix * width + column) * n + row] = column < n ? a[(matrix * n + row) * n + column] : b[(matrix * n + row) * m + column - n];
  }
}

// Step j of the elimination. A block has a column behind j: it looks for the pivot in column j, which nobody changes, swaps two numbers of
// its own column and takes off the multiple of column j.
__global__ void __launch_bounds__(kThreads)
    eliminate(double* w, double* pivots, int* swaps, std::int64_t n, std::int64_t width, std::int64_t j, std::int64_t blocks) {
  const std::int64_t matrix = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const double* lead = w + (matrix * width + j) * n;
  double own = -1;
  for (std::int64_t i = j + threadIdx.x; i < n; i += blockDim.x) own = std::fabs(lead[i]) > own ? std::fabs(lead[i]) : own;
  const double most = blockMax(own, -1.0);
  std::int64_t p = n;
  for (std::int64_t i = j + threadIdx.x; i < n && p == n; i += blockDim.x) p = std::fabs(lead[i]) == most ? i : n;
  p = blockReduce(p, n, [](std::int64_t x, std::int64_t y) { return x < y ? x : y; });
  // Nothing but NaN.
  if (p == n) p = j;
  const double pivot = lead[p];
  if (block == 0 && threadIdx.x == 0) {
    pivots[matrix * n + j] = pivot;
    swaps[matrix * n + j] = p != j;
  }
  const std::int64_t column = j + 1 + block;
  if (column >= width) return;
  double* mine = w + (matrix * width + column) * n;
  const double top = mine[p], old = mine[j];
  __syncthreads();
  for (std::int64_t i = j + threadIdx.x; i < n; i += blockDim.x) {
    if (i == j) {
      mine[i] = top;
      continue;
    }
    const double from = i == p ? old : mine[i], factor = pivot == 0 ? 0 : lead[i == p ? j : i] / pivot;
    mine[i] = from - factor * top;
  }
}

// A block takes a right-hand side.
__global__ void __launch_bounds__(kThreads)
    substitute(double* w, const double* pivots, Reals out, std::int64_t count, std::int64_t n, std::int64_t m, int* fault) {
  const std::int64_t width = n + m;
  for (std::int64_t task = blockIdx.x; task < count * m; task += gridDim.x) {
    const std::int64_t matrix = task / m, column = task % m;
    double* x = w + (matrix * width + n + column) * n;
    int zero = 0;
    for (std::int64_t j = threadIdx.x; j < n; j += blockDim.x) zero |= pivots[matrix * n + j] == 0;
    const bool singular = __syncthreads_or(zero);
    if (singular && threadIdx.x == 0) raise(fault, 3);
    for (std::int64_t j = n - 1; j >= 0; --j) {
      const double here = x[j] / pivots[matrix * n + j];
      __syncthreads();
      if (threadIdx.x == 0) x[j] = here;
      const double* lead = w + (matrix * width + j) * n;
      for (std::int64_t i = threadIdx.x; i < j; i += blockDim.x) x[i] -= lead[i] * here;
      __syncthreads();
    }
    for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x)
      out.put((matrix * n + i) * m + column, singular ? std::numeric_limits<double>::quiet_NaN() : x[i]);
    __syncthreads();
  }
}

// Sign and log|det|; a singular matrix has sign 0 and −∞. A warp takes a matrix.
__global__ void __launch_bounds__(kThreads)
    logsOfPivots(const double* pivots, const int* swaps, Reals signs, Reals logs, std::int64_t count, std::int64_t n) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t matrix = threadOf() / kWarp; matrix < count; matrix += threads() / kWarp) {
    double sign = 1, sum = 0;
    for (std::int64_t j = lane; j < n; j += kWarp) {
      const double pivot = pivots[matrix * n + j];
      sign *= pivot > 0 ? 1 : pivot < 0 ? -1 : pivot;
      if (swaps[matrix * n + j]) sign = -sign;
      sum += log(vd(std::fabs(pivot))).v;
    }
    sign = warpReduce(sign, [](double a, double b) { return a * b; });
    sum = warpSum(sum);
    if (lane == 0) {
      signs.put(matrix, sign);
      logs.put(matrix, sum);
    }
  }
}

struct System {
  double *w, *pivots;
  int* swaps;
  System(Carve& carve, std::int64_t count, std::int64_t n, std::int64_t m)
      : w(carve.take<double>(count * n * (n + m))), pivots(carve.take<double>(count * n)), swaps(carve.take<int>(count * n)) {}
};

void factorize(const Call& call, const System& s, const Reals& a, const Reals& b, std::int64_t count, std::int64_t n, std::int64_t m) {
  STEEPEST_LAUNCH(bringSystem, gridFor(count * n * (n + m)), kThreads, 0, call, a, b, s.w, count, n, m);
  for (std::int64_t j = 0; j < n; ++j) {
    const std::int64_t blocks = std::max<std::int64_t>(1, n + m - j - 1);
    STEEPEST_LAUNCH(eliminate, blocksFor(count * blocks, 1), threadsFor(n), 0, call, s.w, s.pivots, s.swaps, n, n + m, j, blocks);
  }
}

class Solve final : public Kernel {
 public:
  explicit Solve(const Matrices& b) : b_(b) {
    Carve carve;
    System(carve, b.count, b.rows, b.columns);
    workspace = carve.used();
  }
  void run(const Call& call) const override {
    if (b_.count * b_.size() == 0) return;
    Carve carve(call.workspace);
    const System s(carve, b_.count, b_.rows, b_.columns);
    factorize(call, s, Reals(call.in[0]), Reals(call.in[1]), b_.count, b_.rows, b_.columns);
    STEEPEST_LAUNCH(substitute, gridFor(b_.count * b_.columns, 1), threadsFor(b_.rows), 0, call, s.w, s.pivots, Reals(call.out[0]),
                    b_.count, b_.rows, b_.columns, call.deviceFault);
  }

 private:
  Matrices b_;
};

class Slogdet final : public Kernel {
 public:
  explicit Slogdet(const Matrices& m) : m_(m) {
    Carve carve;
    System(carve, m.count, m.rows, 0);
    workspace = carve.used();
  }
  void run(const Call& call) const override {
    Carve carve(call.workspace);
    const System s(carve, m_.count, m_.rows, 0);
    if (m_.count * m_.size() > 0) factorize(call, s, Reals(call.in[0]), Reals(), m_.count, m_.rows, 0);
    STEEPEST_LAUNCH(logsOfPivots, gridFor(m_.count, kThreads / kWarp), kThreads, 0, call, s.pivots, s.swaps, Reals(call.out[0]),
                    Reals(call.out[1]), m_.count, m_.rows);
  }

 private:
  Matrices m_;
};

}  // namespace

std::unique_ptr<Kernel> makeCholesky(const Spec& spec) { return std::make_unique<Cholesky>(checkCholesky(spec)); }

std::unique_ptr<Kernel> makeTriangularSolve(const Spec& spec) {
  return std::make_unique<TriangularSolve>(checkTriangularSolve(spec), TriangularSolveAttrs::decode(spec.attrs));
}

std::unique_ptr<Kernel> makeSolve(const Spec& spec) { return std::make_unique<Solve>(checkSolve(spec)); }

std::unique_ptr<Kernel> makeSlogdet(const Spec& spec) { return std::make_unique<Slogdet>(checkSlogdet(spec)); }

}  // namespace steepest::cuda

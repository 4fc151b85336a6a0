// Householder reflections of stacks of matrices in float64, with LAPACK's signs: for `qr`, and for the left vectors of `svd`.
//
// Step j is one launch: every block has a column behind j, works out the reflection of column j for itself and applies it to its own, so
// that no block waits for another. Column j stays as it is; what its reflection changes of it (the first number, the length) lies beside
// it.
#pragma once

#include "cuda/linalg.cuh"

namespace steepest::cuda {

// w: columns [count][n][m]. heads: first numbers of the vectors; scales: H = 1 − scale v vᵀ; diagonal: of R. All [count][k].
struct Reflections {
  double *w, *heads, *scales, *diagonal;
  std::int64_t count, m, n, k;

  Reflections(Carve& carve, std::int64_t count, std::int64_t m, std::int64_t n)
      : w(carve.take<double>(count * m * n)), count(count), m(m), n(n), k(std::min(m, n)) {
    heads = carve.take<double>(count * k), scales = carve.take<double>(count * k), diagonal = carve.take<double>(count * k);
  }
};

static __global__ void __launch_bounds__(kThreads) reflect(const __grid_constant__ Reflections q, std::int64_t j, std::int64_t blocks) {
  const std::int64_t matrix = blockIdx.x / blocks, block = blockIdx.x % blocks, m = q.m;
  const double* v = q.w + (matrix * q.n + j) * m;
  const double first = v[j];
  double below = 0;
  for (std::int64_t i = j + 1 + threadIdx.x; i < m; i += blockDim.x) below = std::fma(v[i], v[i], below);
  below = blockSum(below);
  // What is zero below stays, with its sign.
  const double length = below == 0 ? first : -std::copysign(std::sqrt(std::fma(first, first, below)), first);
  const double head = first - length, scale = below == 0 ? 0 : -1 / (length * head);
  if (block == 0 && threadIdx.x == 0) {
    q.heads[matrix * q.k + j] = head;
    q.scales[matrix * q.k + j] = scale;
    q.diagonal[matrix * q.k + j] = length;
  }
  const std::int64_t column = j + 1 + block;
  if (column >= q.n || scale == 0) return;
  double* x = q.w + (matrix * q.n + column) * m;
  double along = threadIdx.x == 0 ? head * x[j] : 0;
  for (std::int64_t i = j + 1 + threadIdx.x; i < m; i += blockDim.x) along = std::fma(v[i], x[i], along);
  along = blockSum(along) * scale;
  if (threadIdx.x == 0) x[j] -= along * head;
  for (std::int64_t i = j + 1 + threadIdx.x; i < m; i += blockDim.x) x[i] = std::fma(-along, v[i], x[i]);
}

// Columns of Q, [count][width][m]: a block takes the reflections in turn over one column of the identity; the later ones leave it alone.
static __global__ void __launch_bounds__(kThreads) columnsOfQ(const __grid_constant__ Reflections q, double* columns, std::int64_t width) {
  const std::int64_t m = q.m;
  for (std::int64_t task = blockIdx.x; task < q.count * width; task += gridDim.x) {
    const std::int64_t matrix = task / width, column = task % width;
    double* x = columns + task * m;
    for (std::int64_t i = threadIdx.x; i < m; i += blockDim.x) x[i] = i == column;
    for (std::int64_t j = column < q.k ? column : q.k - 1; j >= 0; --j) {
      __syncthreads();
      const double scale = q.scales[matrix * q.k + j], head = q.heads[matrix * q.k + j];
      if (scale == 0) continue;
      const double* v = q.w + (matrix * q.n + j) * m;
      double along = threadIdx.x == 0 ? head * x[j] : 0;
      for (std::int64_t i = j + 1 + threadIdx.x; i < m; i += blockDim.x) along = std::fma(v[i], x[i], along);
      along = blockSum(along) * scale;
      if (threadIdx.x == 0) x[j] -= along * head;
      for (std::int64_t i = j + 1 + threadIdx.x; i < m; i += blockDim.x) x[i] = std::fma(-along, v[i], x[i]);
    }
    __syncthreads();
  }
}

// From w filled with columns; gives those of Q.
inline void orthogonalize(const Call& call, const Reflections& q, double* columns, std::int64_t width) {
  for (std::int64_t j = 0; j < q.k; ++j) {
    const std::int64_t blocks = std::max<std::int64_t>(1, q.n - j - 1);
    STEEPEST_LAUNCH(reflect, blocksFor(q.count * blocks, 1), threadsFor(q.m), 0, call, q, j, blocks);
  }
  STEEPEST_LAUNCH(columnsOfQ, gridFor(q.count * width, 1), threadsFor(q.m), 0, call, q, columns, width);
}

}  // namespace steepest::cuda

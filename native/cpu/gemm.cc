#include "cpu/gemm.h"

#include <bit>
#include <cstring>

#include "runtime/openblas.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

// A matrix as BLAS knows it: one of its strides is 1, the other is its leading dimension.
bool plain(std::int64_t rows, std::int64_t cols, std::int64_t& rowStride, std::int64_t& colStride) {
  // The stride of an axis of length one is never used; give it the value that a contiguous matrix has.
  if (rows == 1 && cols == 1) rowStride = colStride = 1;
  else if (rows == 1) rowStride = colStride == 1 ? cols : 1;
  else if (cols == 1) colStride = rowStride == 1 ? rows : 1;
  return (colStride == 1 && rowStride >= cols) || (rowStride == 1 && colStride >= rows);
}

std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

float widen(bf16 x) { return std::bit_cast<float>(static_cast<std::uint32_t>(x.bits) << 16); }

bf16 narrow(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return {static_cast<std::uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <class From, class To>
void pack(std::int64_t rows, std::int64_t cols, std::int64_t rowStride, std::int64_t colStride, const void* from, void* to) {
  const From* source = static_cast<const From*>(from);
  To* target = static_cast<To*>(to);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      if constexpr (std::is_same_v<From, To>) target[i * cols + j] = source[i * rowStride + j * colStride];
      else target[i * cols + j] = widen(source[i * rowStride + j * colStride]);
    }
  }
}

void packAs(DType from, DType to, std::int64_t rows, std::int64_t cols, std::int64_t rowStride, std::int64_t colStride, const void* source,
            void* target) {
  if (from == DType::float64) pack<double, double>(rows, cols, rowStride, colStride, source, target);
  else if (from == DType::float32) pack<float, float>(rows, cols, rowStride, colStride, source, target);
  else if (to == DType::float32) pack<bf16, float>(rows, cols, rowStride, colStride, source, target);
  else pack<bf16, bf16>(rows, cols, rowStride, colStride, source, target);
}

Primitive dnnlProduct(const GemmShape& s) {
  const MemoryDesc a = stridedDesc(s.in, {s.m, s.k}, {s.aRow, s.aCol});
  const MemoryDesc b = stridedDesc(s.in, {s.k, s.n}, {s.bRow, s.bCol});
  const MemoryDesc c = stridedDesc(s.out, {s.m, s.n}, {s.m == 1 ? s.n : s.cRow, 1});
  const PrimitiveAttr attr = dnnlAttr(s.accumulate);
  dnnlStream();  // one OpenMP thread before the primitive is made: its blocking depends on it
  dnnl_primitive_desc_t made = nullptr;
  dnnlCheck(dnnl_matmul_primitive_desc_create(&made, dnnlEngine(), a.get(), b.get(), nullptr, c.get(), attr.get()), "a product");
  return Primitive(PrimitiveDesc(made), {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST});
}

// Below this a library's overhead per call (about 2 us) costs more than its speed gains.
constexpr std::int64_t kTiny = 16 * 16 * 16;

}  // namespace

Gemm::Gemm(const GemmShape& shape) : shape_(shape), inner_(shape) {
  GemmShape& s = inner_;
  const bool dtypes = isFloat(s.in) && (s.out == s.in || (s.in == DType::bfloat16 && s.out == DType::float32));
  if (!dtypes || s.m < 0 || s.n < 0 || s.k < 0 || s.cRow < (s.m > 1 ? s.n : 0)) throw Error("PROGRAM", "a product has wrong dtypes or sizes");
  if (s.m == 0 || s.n == 0) return;

  const bool tiny = s.m * s.n * s.k <= kTiny;
  engine_ = tiny ? Engine::own : s.in == DType::float64 ? Engine::blas : Engine::dnnl;

  const bool widened = s.in == DType::bfloat16 && (tiny || !dnnlHasBf16());
  const bool plainA = plain(s.m, s.k, s.aRow, s.aCol), plainB = plain(s.k, s.n, s.bRow, s.bCol);
  packA_ = widened || (!tiny && !plainA);
  packB_ = widened || (!tiny && !plainB);
  widenC_ = widened && s.out == DType::bfloat16;
  if (widened) s.in = s.out = DType::float32;
  if (packA_) {
    s.aRow = s.k;
    s.aCol = 1;
    plain(s.m, s.k, s.aRow, s.aCol);
  }
  if (packB_) {
    s.bRow = s.n;
    s.bCol = 1;
    plain(s.k, s.n, s.bRow, s.bCol);
  }
  if (widenC_) s.cRow = s.n;
  bAt_ = packA_ ? align(s.m * s.k * sizeOf(s.in)) : 0;
  cAt_ = bAt_ + (packB_ ? align(s.k * s.n * sizeOf(s.in)) : 0);
  libraryAt_ = cAt_ + (widenC_ ? align(s.m * s.n * sizeOf(DType::float32)) : 0);
  scratch_ = libraryAt_;
  if (engine_ == Engine::dnnl) {
    primitive_ = dnnlProduct(s);
    scratch_ += align(primitive_.scratch());
  }
}

template <class T>
void Gemm::runOwn(const T* a, const T* b, T* c) const {
  const GemmShape& s = inner_;
  for (std::int64_t i = 0; i < s.m; ++i) {
    T* row = c + i * s.cRow;
    if (!s.accumulate) std::memset(row, 0, static_cast<std::size_t>(s.n) * sizeof(T));
    for (std::int64_t p = 0; p < s.k; ++p) {
      const T x = a[i * s.aRow + p * s.aCol];
      for (std::int64_t j = 0; j < s.n; ++j) row[j] += x * b[p * s.bRow + j * s.bCol];
    }
  }
}

void Gemm::run(const void* a, const void* b, void* c, std::byte* scratch) const {
  if (engine_ == Engine::nothing) return;
  const GemmShape &s = inner_, &given = shape_;
  if (packA_) {
    packAs(given.in, s.in, s.m, s.k, given.aRow, given.aCol, a, scratch);
    a = scratch;
  }
  if (packB_) {
    packAs(given.in, s.in, s.k, s.n, given.bRow, given.bCol, b, scratch + bAt_);
    b = scratch + bAt_;
  }
  void* target = c;
  if (widenC_) {
    target = scratch + cAt_;
    if (s.accumulate) pack<bf16, float>(s.m, s.n, given.cRow, 1, c, target);
  }
  switch (engine_) {
    case Engine::dnnl: primitive_.run({a, b, target}, scratch + libraryAt_); break;
    case Engine::blas: {
      const bool transA = s.aCol != 1, transB = s.bCol != 1;
      dgemm(transA, transB, s.m, s.n, s.k, static_cast<const double*>(a), transA ? s.aCol : s.aRow, static_cast<const double*>(b),
            transB ? s.bCol : s.bRow, s.accumulate, static_cast<double*>(target), s.m == 1 ? s.n : s.cRow);
      break;
    }
    default:
      if (s.in == DType::float64) runOwn(static_cast<const double*>(a), static_cast<const double*>(b), static_cast<double*>(target));
      else runOwn(static_cast<const float*>(a), static_cast<const float*>(b), static_cast<float*>(target));
  }
  if (widenC_) {
    const float* from = static_cast<const float*>(target);
    bf16* to = static_cast<bf16*>(c);
    for (std::int64_t i = 0; i < s.m; ++i) {
      for (std::int64_t j = 0; j < s.n; ++j) to[i * given.cRow + j] = narrow(from[i * s.n + j]);
    }
  }
}

}  // namespace steepest::STEEPEST_LEVEL

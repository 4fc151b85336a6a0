#include "cpu/gemm.h"

#include <cstring>

#include "cpu/gemm_own.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

// A matrix as BLAS knows it: one of its strides is 1, the other is its leading dimension.
bool plain(std::int64_t rows, std::int64_t cols, std::int64_t& rowStride, std::int64_t& colStride) {
  // The stride of an axis of length one is never used; give it the value that a contiguous matrix has.
  if (rows == 1 && cols == 1)
    rowStride = colStride = 1;
  else if (rows == 1)
    rowStride = colStride == 1 ? cols : 1;
  else if (cols == 1)
    colStride = rowStride == 1 ? rows : 1;
  return (colStride == 1 && rowStride >= cols) || (rowStride == 1 && colStride >= rows);
}

std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Copies to contiguous rows, widening bfloat16 where the target is float32.
template <class From, class To>
void pack(std::int64_t rows, std::int64_t cols, std::int64_t rowStride, std::int64_t colStride, const From* from, To* to) {
  using V = VecOf<To>;
  if (colStride == 1) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const From* source = from + i * rowStride;
      To* target = to + i * cols;
      if constexpr (std::is_same_v<From, To>) {
        std::memcpy(target, source, static_cast<std::size_t>(cols) * sizeof(To));
      } else {
        std::int64_t j = 0;
        for (; j + V::kLanes <= cols; j += V::kLanes) store(target + j, V::load(source + j));
        if (j < cols) store(target + j, V::load(source + j, static_cast<int>(cols - j)), static_cast<int>(cols - j));
      }
    }
    return;
  }
  // In squares, so that neither side walks through more cache lines than fit.
  constexpr std::int64_t kSquare = 32;
  for (std::int64_t i0 = 0; i0 < rows; i0 += kSquare) {
    for (std::int64_t j0 = 0; j0 < cols; j0 += kSquare) {
      for (std::int64_t i = i0; i < std::min(rows, i0 + kSquare); ++i) {
        for (std::int64_t j = j0; j < std::min(cols, j0 + kSquare); ++j) {
          const From x = from[i * rowStride + j * colStride];
          if constexpr (std::is_same_v<From, To>)
            to[i * cols + j] = x;
          else
            to[i * cols + j] = scalarOf(x);
        }
      }
    }
  }
}

void packAs(DType from, DType to, std::int64_t rows, std::int64_t cols, std::int64_t rowStride, std::int64_t colStride, const void* source,
            void* target) {
  const auto run = [&]<class From, class To>(From*, To*) {
    pack(rows, cols, rowStride, colStride, static_cast<const From*>(source), static_cast<To*>(target));
  };
  if (from == DType::float64)
    run((double*)nullptr, (double*)nullptr);
  else if (from == DType::float32)
    run((float*)nullptr, (float*)nullptr);
  else if (to == DType::float32)
    run((bf16*)nullptr, (float*)nullptr);
  else
    run((bf16*)nullptr, (bf16*)nullptr);
}

Primitive dnnlProduct(const GemmShape& s) {
  const MemoryDesc a = stridedDesc(s.in, {s.m, s.k}, {s.aRow, s.aCol});
  const MemoryDesc b = stridedDesc(s.in, {s.k, s.n}, {s.bRow, s.bCol});
  const MemoryDesc c = stridedDesc(s.out, {s.m, s.n}, {s.cRow, 1});
  const PrimitiveAttr attr = dnnlAttr(s.accumulate);
  dnnlStream();  // one OpenMP thread before the primitive is made: its blocking depends on it
  dnnl_primitive_desc_t made = nullptr;
  dnnlCheck(dnnl_matmul_primitive_desc_create(&made, dnnlEngine(), a.get(), b.get(), nullptr, c.get(), attr.get()), "a product");
  return Primitive(PrimitiveDesc(made), {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST});
}

// Up to here steepest's own product is faster than a call of oneDNN, whose overhead is 1.1 us (AMD EPYC with AVX-512, one thread,
// 64x64x64 in float32: 2.1 us against 3.1 us; 48x48x48 in bfloat16: even). A transposed B costs a copy.
std::int64_t ownLimit(const GemmShape& s) {
  const std::int64_t limit = s.in == DType::bfloat16 ? 48 * 48 * 48 : 64 * 64 * 64;
  return s.bCol == 1 ? limit : limit / 2;
}

}  // namespace

Gemm::Gemm(const GemmShape& shape) : shape_(shape), inner_(shape) {
  GemmShape& s = inner_;
  const bool dtypes = isFloat(s.in) && (s.out == s.in || (s.in == DType::bfloat16 && s.out == DType::float32));
  if (!dtypes || s.m < 0 || s.n < 0 || s.k < 0 || s.cRow < (s.m > 1 ? s.n : 0))
    throw Error("PROGRAM", "a product has wrong dtypes or sizes");
  if (s.m == 0 || s.n == 0) return;

  if (s.n == 1 && s.m > 1) {
    // A column: cᵀ = bᵀ·Aᵀ is a row.
    transposed_ = true;
    s = {1, s.m, s.k, s.bCol, s.bRow, s.aCol, s.aRow, s.m, s.in, s.out, s.accumulate};
  }
  const bool plainA = plain(s.m, s.k, s.aRow, s.aCol), plainB = plain(s.k, s.n, s.bRow, s.bCol);
  if (s.m == 1) {
    engine_ = s.bRow == 1 ? Engine::dots : Engine::row;
    packA_ = engine_ == Engine::dots && s.k > 1 && s.aCol != 1;
    packB_ = !plainB;
    if (packB_) engine_ = Engine::row;
  } else if (s.in == DType::float64 || s.m * s.n * s.k <= ownLimit(s)) {
    // In float64 too: on that machine 124 GFLOP/s on one thread where OpenBLAS reaches 60.
    engine_ = Engine::own;
    // A transposed A is walked across its cache lines once per panel.
    packA_ = s.aCol != 1 && s.n > 64 && s.k > 64;
  } else {
    engine_ = Engine::dnnl;
    widened_ = s.in == DType::bfloat16 && !dnnlHasBf16();
    packA_ = widened_ || !plainA;
    packB_ = widened_ || !plainB;
  }
  const bool ownSum = engine_ != Engine::dnnl || widened_;
  stageC_ = (ownSum && s.out == DType::bfloat16) || (transposed_ && shape.cRow != 1);
  const std::size_t outBytes = sizeOf(s.out == DType::float64 ? DType::float64 : DType::float32);
  if (widened_) s.in = DType::float32;
  if (stageC_) s.out = s.in == DType::float64 ? DType::float64 : DType::float32;
  if (packA_) {
    s.aRow = s.k;
    s.aCol = 1;
  }
  if (packB_) {
    s.bRow = s.n;
    s.bCol = 1;
  }
  if (stageC_ || s.m == 1) s.cRow = s.n;
  plain(s.m, s.k, s.aRow, s.aCol);
  plain(s.k, s.n, s.bRow, s.bCol);
  bAt_ = packA_ ? align(s.m * s.k * sizeOf(s.in)) : 0;
  cAt_ = bAt_ + (packB_ ? align(s.k * s.n * sizeOf(s.in)) : 0);
  libraryAt_ = cAt_ + (stageC_ ? align(s.m * s.n * outBytes) : 0);
  scratch_ = libraryAt_;
  if (engine_ == Engine::own) scratch_ += s.in == DType::float64 ? ownScratch<double>() : ownScratch<float>();
  if (engine_ == Engine::dnnl && s.k > 0) {
    primitive_ = dnnlProduct(s);
    scratch_ += align(primitive_.scratch());
  }
}

template <class In, class Acc>
void Gemm::runOwn(const In* a, const In* b, Acc* c, Acc* panel) const {
  const GemmShape& s = inner_;
  if (engine_ == Engine::row)
    ownRow(s.n, s.k, a, s.aCol, b, s.bRow, c, s.accumulate);
  else if (engine_ == Engine::dots)
    ownDots(s.n, s.k, a, b, s.bCol, c, s.accumulate);
  else
    ownProduct(s.m, s.n, s.k, a, s.aRow, s.aCol, b, s.bRow, s.bCol, c, s.cRow, s.accumulate, panel);
}

// C lies elsewhere or in another dtype than the engine writes.
void Gemm::moveC(void* c, void* staged, bool in) const {
  const std::int64_t rows = transposed_ ? inner_.n : inner_.m, cols = transposed_ ? 1 : inner_.n, step = shape_.cRow;
  const auto each = [&](auto move) {
    for (std::int64_t i = 0; i < rows; ++i) move(i * step, i * cols);
  };
  if (shape_.out == DType::bfloat16) {
    bf16* const out = static_cast<bf16*>(c);
    float* const sum = static_cast<float*>(staged);
    each([&](std::int64_t there, std::int64_t here) {
      for (std::int64_t j = 0; j < cols; j += vf::kLanes) {
        const int n = static_cast<int>(std::min<std::int64_t>(vf::kLanes, cols - j));
        if (in)
          store(sum + here + j, vf::load(out + there + j, n), n);
        else
          store(out + there + j, vf::load(sum + here + j, n), n);
      }
    });
    return;
  }
  const std::size_t unit = sizeOf(shape_.out), bytes = static_cast<std::size_t>(cols) * unit;
  each([&](std::int64_t there, std::int64_t here) {
    std::byte* const out = static_cast<std::byte*>(c) + there * unit;
    std::byte* const sum = static_cast<std::byte*>(staged) + here * unit;
    std::memcpy(in ? sum : out, in ? out : sum, bytes);
  });
}

void Gemm::run(const void* a, const void* b, void* c, std::byte* scratch) const {
  if (engine_ == Engine::nothing) return;
  const GemmShape &s = inner_, &given = shape_;
  if (transposed_) std::swap(a, b);
  if (packA_) {
    packAs(given.in, s.in, s.m, s.k, transposed_ ? given.bCol : given.aRow, transposed_ ? given.bRow : given.aCol, a, scratch);
    a = scratch;
  }
  if (packB_) {
    packAs(given.in, s.in, s.k, s.n, transposed_ ? given.aCol : given.bRow, transposed_ ? given.aRow : given.bCol, b, scratch + bAt_);
    b = scratch + bAt_;
  }
  void* const target = stageC_ ? scratch + cAt_ : c;
  if (stageC_ && s.accumulate) moveC(c, target, true);
  void* const last = scratch + libraryAt_;
  const auto own = [&]<class In, class Acc>() {
    runOwn(static_cast<const In*>(a), static_cast<const In*>(b), static_cast<Acc*>(target), static_cast<Acc*>(last));
  };
  if (engine_ == Engine::dnnl)
    primitive_.run({a, b, target}, last);
  else if (s.in == DType::float64)
    own.template operator()<double, double>();
  else if (s.in == DType::float32)
    own.template operator()<float, float>();
  else
    own.template operator()<bf16, float>();
  if (stageC_) moveC(c, target, false);
}

}  // namespace steepest::STEEPEST_LEVEL

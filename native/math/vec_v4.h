// Vectors on AVX-512 (F, BW, DQ, VL): one register each.
#pragma once

// GCC 12 takes the undefined operand of its own intrinsics for a variable that somebody forgot to set.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop

namespace steepest::STEEPEST_LEVEL {

struct vi;
struct vl;

template <class T>
struct Mask512 {
  T m;
  static constexpr unsigned kFull = sizeof(T) == 2 ? 0xffff : 0xff;
  friend Mask512 operator&(Mask512 a, Mask512 b) { return {static_cast<T>(a.m & b.m)}; }
  friend Mask512 operator|(Mask512 a, Mask512 b) { return {static_cast<T>(a.m | b.m)}; }
  friend Mask512 operator^(Mask512 a, Mask512 b) { return {static_cast<T>(a.m ^ b.m)}; }
  friend Mask512 operator~(Mask512 a) { return {static_cast<T>(~a.m)}; }
  friend unsigned bits(Mask512 a) { return a.m; }
  friend bool any(Mask512 a) { return a.m != 0; }
  friend bool all(Mask512 a) { return a.m == kFull; }
  friend bool none(Mask512 a) { return a.m == 0; }
};
using m16 = Mask512<__mmask16>;
using m8 = Mask512<__mmask8>;

inline __mmask16 firstOf16(int n) { return static_cast<__mmask16>((1u << n) - 1); }
inline __mmask8 firstOf8(int n) { return static_cast<__mmask8>((1u << n) - 1); }

struct vf {
  using Scalar = float;
  using Mask = m16;
  using Ints = vi;
  static constexpr int kLanes = 16;
  __m512 v;

  vf() = default;
  vf(__m512 x) : v(x) {}
  vf(float x) : v(_mm512_set1_ps(x)) {}
  static vf iota() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

  static vf load(const float* p) { return _mm512_loadu_ps(p); }
  static vf load(const float* p, int n) { return _mm512_maskz_loadu_ps(firstOf16(n), p); }
  static vf load(const bf16* p) { return fromHalf(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
  static vf load(const bf16* p, int n) { return fromHalf(_mm256_maskz_loadu_epi16(firstOf16(n), p)); }
  friend void store(float* p, vf a) { _mm512_storeu_ps(p, a.v); }
  friend void store(float* p, vf a, int n) { _mm512_mask_storeu_ps(p, firstOf16(n), a.v); }
  friend void store(bf16* p, vf a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), toHalf(a)); }
  friend void store(bf16* p, vf a, int n) { _mm256_mask_storeu_epi16(p, firstOf16(n), toHalf(a)); }

  friend vf operator+(vf a, vf b) { return _mm512_add_ps(a.v, b.v); }
  friend vf operator-(vf a, vf b) { return _mm512_sub_ps(a.v, b.v); }
  friend vf operator*(vf a, vf b) { return _mm512_mul_ps(a.v, b.v); }
  friend vf operator/(vf a, vf b) { return _mm512_div_ps(a.v, b.v); }
  friend vf operator-(vf a) { return _mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f)); }
  vf& operator+=(vf b) { return *this = *this + b; }
  vf& operator-=(vf b) { return *this = *this - b; }
  vf& operator*=(vf b) { return *this = *this * b; }

  friend vf fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a.v, b.v, c.v); }
  friend vf fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a.v, b.v, c.v); }
  friend vf min(vf a, vf b) { return _mm512_min_ps(a.v, b.v); }
  friend vf max(vf a, vf b) { return _mm512_max_ps(a.v, b.v); }
  friend vf abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v); }
  friend vf sqrt(vf a) { return _mm512_sqrt_ps(a.v); }
  friend vf copysign(vf a, vf b) {
    const __m512 s = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(s, a.v), _mm512_and_ps(s, b.v));
  }
  friend vf round(vf a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  friend vf floor(vf a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  friend vf ceil(vf a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
  friend vf trunc(vf a) { return _mm512_roundscale_ps(a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }

  friend m16 operator==(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
  friend m16 operator!=(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
  friend m16 operator<(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
  friend m16 operator<=(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
  friend m16 operator>(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
  friend m16 operator>=(vf a, vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
  friend vf select(m16 m, vf a, vf b) { return _mm512_mask_blend_ps(m.m, b.v, a.v); }

  friend float sum(vf a) {
    return tree(a, [](auto x, auto y) { return _mm256_add_ps(x, y); }, [](auto x, auto y) { return _mm_add_ps(x, y); });
  }
  friend float hmax(vf a) {
    return tree(a, [](auto x, auto y) { return _mm256_max_ps(x, y); }, [](auto x, auto y) { return _mm_max_ps(x, y); });
  }
  friend float hmin(vf a) {
    return tree(a, [](auto x, auto y) { return _mm256_min_ps(x, y); }, [](auto x, auto y) { return _mm_min_ps(x, y); });
  }

 private:
  template <class F, class G>
  static float tree(vf a, F wide, G slim) {
    const __m256 h = wide(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 q = slim(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = slim(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(slim(q, _mm_movehdup_ps(q)));
  }
  static vf fromHalf(__m256i h) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16)); }
  static __m256i toHalf(vf a) {
    const __m512i u = _mm512_castps_si512(a.v);
    const __m512i high = _mm512_srli_epi32(u, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i even = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(even, nan, high, _mm512_set1_epi32(0x40)));
  }
};

struct vi {
  using Scalar = std::int32_t;
  using Mask = m16;
  using Ints = vi;
  static constexpr int kLanes = 16;
  __m512i v;

  vi() = default;
  vi(__m512i x) : v(x) {}
  vi(std::int32_t x) : v(_mm512_set1_epi32(x)) {}
  static vi iota() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }

  static vi load(const std::int32_t* p) { return _mm512_loadu_si512(p); }
  static vi load(const std::int32_t* p, int n) { return _mm512_maskz_loadu_epi32(firstOf16(n), p); }
  static vi load(const std::uint8_t* p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
  static vi load(const std::uint8_t* p, int n) { return _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(firstOf16(n), p)); }
  friend void store(std::int32_t* p, vi a) { _mm512_storeu_si512(p, a.v); }
  friend void store(std::int32_t* p, vi a, int n) { _mm512_mask_storeu_epi32(p, firstOf16(n), a.v); }
  friend void store(std::uint8_t* p, vi a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v)); }
  friend void store(std::uint8_t* p, vi a, int n) { _mm_mask_storeu_epi8(p, firstOf16(n), _mm512_cvtepi32_epi8(a.v)); }

  friend vi operator+(vi a, vi b) { return _mm512_add_epi32(a.v, b.v); }
  friend vi operator-(vi a, vi b) { return _mm512_sub_epi32(a.v, b.v); }
  friend vi operator*(vi a, vi b) { return _mm512_mullo_epi32(a.v, b.v); }
  friend vi operator-(vi a) { return vi(0) - a; }
  vi& operator+=(vi b) { return *this = *this + b; }
  vi& operator-=(vi b) { return *this = *this - b; }
  vi& operator*=(vi b) { return *this = *this * b; }
  friend vi operator&(vi a, vi b) { return _mm512_and_si512(a.v, b.v); }
  friend vi operator|(vi a, vi b) { return _mm512_or_si512(a.v, b.v); }
  friend vi operator^(vi a, vi b) { return _mm512_xor_si512(a.v, b.v); }
  friend vi operator~(vi a) { return a ^ vi(-1); }
  friend vi operator<<(vi a, int k) { return _mm512_sll_epi32(a.v, _mm_cvtsi32_si128(k)); }
  friend vi operator>>(vi a, int k) { return _mm512_sra_epi32(a.v, _mm_cvtsi32_si128(k)); }
  friend vi shr(vi a, int k) { return _mm512_srl_epi32(a.v, _mm_cvtsi32_si128(k)); }
  friend vi min(vi a, vi b) { return _mm512_min_epi32(a.v, b.v); }
  friend vi max(vi a, vi b) { return _mm512_max_epi32(a.v, b.v); }
  friend vi abs(vi a) { return _mm512_abs_epi32(a.v); }

  friend m16 operator==(vi a, vi b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
  friend m16 operator!=(vi a, vi b) { return {_mm512_cmpneq_epi32_mask(a.v, b.v)}; }
  friend m16 operator<(vi a, vi b) { return {_mm512_cmplt_epi32_mask(a.v, b.v)}; }
  friend m16 operator<=(vi a, vi b) { return {_mm512_cmple_epi32_mask(a.v, b.v)}; }
  friend m16 operator>(vi a, vi b) { return b < a; }
  friend m16 operator>=(vi a, vi b) { return b <= a; }
  friend vi select(m16 m, vi a, vi b) { return _mm512_mask_blend_epi32(m.m, b.v, a.v); }

  friend std::int32_t sum(vi a) { return _mm512_reduce_add_epi32(a.v); }
  friend std::int32_t hmax(vi a) { return _mm512_reduce_max_epi32(a.v); }
  friend std::int32_t hmin(vi a) { return _mm512_reduce_min_epi32(a.v); }
};

struct vd {
  using Scalar = double;
  using Mask = m8;
  using Ints = vl;
  static constexpr int kLanes = 8;
  __m512d v;

  vd() = default;
  vd(__m512d x) : v(x) {}
  vd(double x) : v(_mm512_set1_pd(x)) {}
  static vd iota() { return _mm512_setr_pd(0, 1, 2, 3, 4, 5, 6, 7); }

  static vd load(const double* p) { return _mm512_loadu_pd(p); }
  static vd load(const double* p, int n) { return _mm512_maskz_loadu_pd(firstOf8(n), p); }
  static vd load(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
  static vd load(const float* p, int n) { return _mm512_cvtps_pd(_mm256_maskz_loadu_ps(firstOf8(n), p)); }
  friend void store(double* p, vd a) { _mm512_storeu_pd(p, a.v); }
  friend void store(double* p, vd a, int n) { _mm512_mask_storeu_pd(p, firstOf8(n), a.v); }
  friend void store(float* p, vd a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a.v)); }
  friend void store(float* p, vd a, int n) { _mm256_mask_storeu_ps(p, firstOf8(n), _mm512_cvtpd_ps(a.v)); }

  friend vd operator+(vd a, vd b) { return _mm512_add_pd(a.v, b.v); }
  friend vd operator-(vd a, vd b) { return _mm512_sub_pd(a.v, b.v); }
  friend vd operator*(vd a, vd b) { return _mm512_mul_pd(a.v, b.v); }
  friend vd operator/(vd a, vd b) { return _mm512_div_pd(a.v, b.v); }
  friend vd operator-(vd a) { return _mm512_xor_pd(a.v, _mm512_set1_pd(-0.0)); }
  vd& operator+=(vd b) { return *this = *this + b; }
  vd& operator-=(vd b) { return *this = *this - b; }
  vd& operator*=(vd b) { return *this = *this * b; }

  friend vd fma(vd a, vd b, vd c) { return _mm512_fmadd_pd(a.v, b.v, c.v); }
  friend vd fnma(vd a, vd b, vd c) { return _mm512_fnmadd_pd(a.v, b.v, c.v); }
  friend vd min(vd a, vd b) { return _mm512_min_pd(a.v, b.v); }
  friend vd max(vd a, vd b) { return _mm512_max_pd(a.v, b.v); }
  friend vd abs(vd a) { return _mm512_andnot_pd(_mm512_set1_pd(-0.0), a.v); }
  friend vd sqrt(vd a) { return _mm512_sqrt_pd(a.v); }
  friend vd copysign(vd a, vd b) {
    const __m512d s = _mm512_set1_pd(-0.0);
    return _mm512_or_pd(_mm512_andnot_pd(s, a.v), _mm512_and_pd(s, b.v));
  }
  friend vd round(vd a) { return _mm512_roundscale_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  friend vd floor(vd a) { return _mm512_roundscale_pd(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  friend vd ceil(vd a) { return _mm512_roundscale_pd(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC); }
  friend vd trunc(vd a) { return _mm512_roundscale_pd(a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC); }

  friend m8 operator==(vd a, vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ)}; }
  friend m8 operator!=(vd a, vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
  friend m8 operator<(vd a, vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ)}; }
  friend m8 operator<=(vd a, vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LE_OQ)}; }
  friend m8 operator>(vd a, vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_GT_OQ)}; }
  friend m8 operator>=(vd a, vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_GE_OQ)}; }
  friend vd select(m8 m, vd a, vd b) { return _mm512_mask_blend_pd(m.m, b.v, a.v); }

  friend double sum(vd a) {
    return tree(a, [](auto x, auto y) { return _mm256_add_pd(x, y); }, [](auto x, auto y) { return _mm_add_pd(x, y); });
  }
  friend double hmax(vd a) {
    return tree(a, [](auto x, auto y) { return _mm256_max_pd(x, y); }, [](auto x, auto y) { return _mm_max_pd(x, y); });
  }
  friend double hmin(vd a) {
    return tree(a, [](auto x, auto y) { return _mm256_min_pd(x, y); }, [](auto x, auto y) { return _mm_min_pd(x, y); });
  }

 private:
  template <class F, class G>
  static double tree(vd a, F wide, G slim) {
    const __m256d h = wide(_mm512_castpd512_pd256(a.v), _mm512_extractf64x4_pd(a.v, 1));
    const __m128d q = slim(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
    return _mm_cvtsd_f64(slim(q, _mm_unpackhi_pd(q, q)));
  }
};

struct vl {
  using Scalar = std::int64_t;
  using Mask = m8;
  using Ints = vl;
  static constexpr int kLanes = 8;
  __m512i v;

  vl() = default;
  vl(__m512i x) : v(x) {}
  vl(std::int64_t x) : v(_mm512_set1_epi64(x)) {}

  friend vl operator+(vl a, vl b) { return _mm512_add_epi64(a.v, b.v); }
  friend vl operator-(vl a, vl b) { return _mm512_sub_epi64(a.v, b.v); }
  friend vl operator&(vl a, vl b) { return _mm512_and_si512(a.v, b.v); }
  friend vl operator|(vl a, vl b) { return _mm512_or_si512(a.v, b.v); }
  friend vl operator^(vl a, vl b) { return _mm512_xor_si512(a.v, b.v); }
  friend vl operator<<(vl a, int k) { return _mm512_sll_epi64(a.v, _mm_cvtsi32_si128(k)); }
  friend vl shr(vl a, int k) { return _mm512_srl_epi64(a.v, _mm_cvtsi32_si128(k)); }
  friend m8 operator==(vl a, vl b) { return {_mm512_cmpeq_epi64_mask(a.v, b.v)}; }
  friend vl select(m8 m, vl a, vl b) { return _mm512_mask_blend_epi64(m.m, b.v, a.v); }
};

inline vi toBits(vf a) { return _mm512_castps_si512(a.v); }
inline vl toBits(vd a) { return _mm512_castpd_si512(a.v); }
inline vf fromBits(vi a) { return _mm512_castsi512_ps(a.v); }
inline vd fromBits(vl a) { return _mm512_castsi512_pd(a.v); }

inline vi toInt(vf a) { return _mm512_cvtps_epi32(a.v); }
inline vi truncToInt(vf a) { return _mm512_cvttps_epi32(a.v); }
inline vf toFloat(vi a) { return _mm512_cvtepi32_ps(a.v); }
inline vl toInt(vd a) { return toBits(a + vd(0x1.8p52)) - toBits(vd(0x1.8p52)); }
inline vd toFloat(vl a) { return fromBits(a + toBits(vd(0x1.8p52))) - vd(0x1.8p52); }

inline void widen(vf a, vd& lo, vd& hi) {
  lo = _mm512_cvtps_pd(_mm512_castps512_ps256(a.v));
  hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1));
}
inline vf narrow(vd lo, vd hi) { return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(lo.v)), _mm512_cvtpd_ps(hi.v), 1); }
inline vi mulHigh(vi a, vi b) {
  const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(a.v, b.v), 32);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), _mm512_srli_epi64(b.v, 32));
  return _mm512_mask_blend_epi32(0xaaaa, even, odd);
}

}  // namespace steepest::STEEPEST_LEVEL

// Vectors on AVX2 and FMA: two registers each.
#pragma once

#include <immintrin.h>

namespace steepest::STEEPEST_LEVEL {

struct vi;
struct vl;

// All bits of a lane are set where it is true.
struct m16 {
  __m256 lo, hi;
  friend m16 operator&(m16 a, m16 b) { return {_mm256_and_ps(a.lo, b.lo), _mm256_and_ps(a.hi, b.hi)}; }
  friend m16 operator|(m16 a, m16 b) { return {_mm256_or_ps(a.lo, b.lo), _mm256_or_ps(a.hi, b.hi)}; }
  friend m16 operator^(m16 a, m16 b) { return {_mm256_xor_ps(a.lo, b.lo), _mm256_xor_ps(a.hi, b.hi)}; }
  friend m16 operator~(m16 a) {
    const __m256 ones = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    return {_mm256_xor_ps(a.lo, ones), _mm256_xor_ps(a.hi, ones)};
  }
  friend unsigned bits(m16 a) {
    return static_cast<unsigned>(_mm256_movemask_ps(a.lo)) | static_cast<unsigned>(_mm256_movemask_ps(a.hi)) << 8;
  }
  friend bool any(m16 a) { return bits(a) != 0; }
  friend bool all(m16 a) { return bits(a) == 0xffff; }
  friend bool none(m16 a) { return bits(a) == 0; }
};

struct m8 {
  __m256d lo, hi;
  friend m8 operator&(m8 a, m8 b) { return {_mm256_and_pd(a.lo, b.lo), _mm256_and_pd(a.hi, b.hi)}; }
  friend m8 operator|(m8 a, m8 b) { return {_mm256_or_pd(a.lo, b.lo), _mm256_or_pd(a.hi, b.hi)}; }
  friend m8 operator^(m8 a, m8 b) { return {_mm256_xor_pd(a.lo, b.lo), _mm256_xor_pd(a.hi, b.hi)}; }
  friend m8 operator~(m8 a) {
    const __m256d ones = _mm256_castsi256_pd(_mm256_set1_epi32(-1));
    return {_mm256_xor_pd(a.lo, ones), _mm256_xor_pd(a.hi, ones)};
  }
  friend unsigned bits(m8 a) {
    return static_cast<unsigned>(_mm256_movemask_pd(a.lo)) | static_cast<unsigned>(_mm256_movemask_pd(a.hi)) << 4;
  }
  friend bool any(m8 a) { return bits(a) != 0; }
  friend bool all(m8 a) { return bits(a) == 0xff; }
  friend bool none(m8 a) { return bits(a) == 0; }
};

// Masks of maskload and maskstore: lane i of the half that begins at `from` is on where from + i < n.
inline __m256i firstOf8(int n, int from) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n - from), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i firstOf4(int n, int from) { return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n - from), _mm256_setr_epi64x(0, 1, 2, 3)); }

struct vf {
  using Scalar = float;
  using Mask = m16;
  using Ints = vi;
  static constexpr int kLanes = 16;
  __m256 lo, hi;

  vf() = default;
  vf(__m256 l, __m256 h) : lo(l), hi(h) {}
  vf(float x) : lo(_mm256_set1_ps(x)), hi(lo) {}
  static vf iota() { return {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)}; }

  static vf load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  static vf load(const float* p, int n) { return {_mm256_maskload_ps(p, firstOf8(n, 0)), _mm256_maskload_ps(p + 8, firstOf8(n, 8))}; }
  static vf load(const bf16* p) { return {fromHalf(p), fromHalf(p + 8)}; }
  static vf load(const bf16* p, int n) {
    bf16 part[16] = {};
    std::memcpy(part, p, static_cast<std::size_t>(n) * 2);
    return load(part);
  }
  friend void store(float* p, vf a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
  }
  friend void store(float* p, vf a, int n) {
    _mm256_maskstore_ps(p, firstOf8(n, 0), a.lo);
    _mm256_maskstore_ps(p + 8, firstOf8(n, 8), a.hi);
  }
  friend void store(bf16* p, vf a) {
    const __m256i packed = _mm256_packus_epi32(toHalf(a.lo), toHalf(a.hi));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
  }
  friend void store(bf16* p, vf a, int n) {
    bf16 part[16];
    store(part, a);
    std::memcpy(p, part, static_cast<std::size_t>(n) * 2);
  }

  friend vf operator+(vf a, vf b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
  friend vf operator-(vf a, vf b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
  friend vf operator*(vf a, vf b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
  friend vf operator/(vf a, vf b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
  friend vf operator-(vf a) { return {_mm256_xor_ps(a.lo, _mm256_set1_ps(-0.0f)), _mm256_xor_ps(a.hi, _mm256_set1_ps(-0.0f))}; }
  vf& operator+=(vf b) { return *this = *this + b; }
  vf& operator-=(vf b) { return *this = *this - b; }
  vf& operator*=(vf b) { return *this = *this * b; }

  friend vf fma(vf a, vf b, vf c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
  friend vf fnma(vf a, vf b, vf c) { return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)}; }
  friend vf min(vf a, vf b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
  friend vf max(vf a, vf b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
  friend vf abs(vf a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.lo), _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.hi)}; }
  friend vf sqrt(vf a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
  friend vf copysign(vf a, vf b) {
    const __m256 s = _mm256_set1_ps(-0.0f);
    return {_mm256_or_ps(_mm256_andnot_ps(s, a.lo), _mm256_and_ps(s, b.lo)),
            _mm256_or_ps(_mm256_andnot_ps(s, a.hi), _mm256_and_ps(s, b.hi))};
  }
  friend vf round(vf a) { return rounded < _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC > (a); }
  friend vf floor(vf a) { return rounded < _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC > (a); }
  friend vf ceil(vf a) { return rounded < _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC > (a); }
  friend vf trunc(vf a) { return rounded < _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC > (a); }

  friend m16 operator==(vf a, vf b) { return compare<_CMP_EQ_OQ>(a, b); }
  friend m16 operator!=(vf a, vf b) { return compare<_CMP_NEQ_UQ>(a, b); }
  friend m16 operator<(vf a, vf b) { return compare<_CMP_LT_OQ>(a, b); }
  friend m16 operator<=(vf a, vf b) { return compare<_CMP_LE_OQ>(a, b); }
  friend m16 operator>(vf a, vf b) { return compare<_CMP_GT_OQ>(a, b); }
  friend m16 operator>=(vf a, vf b) { return compare<_CMP_GE_OQ>(a, b); }
  friend vf select(m16 m, vf a, vf b) { return {_mm256_blendv_ps(b.lo, a.lo, m.lo), _mm256_blendv_ps(b.hi, a.hi, m.hi)}; }

  friend float sum(vf a) {
    return tree(_mm256_add_ps(a.lo, a.hi), [](auto x, auto y) { return _mm_add_ps(x, y); });
  }
  friend float hmax(vf a) {
    return tree(_mm256_max_ps(a.lo, a.hi), [](auto x, auto y) { return _mm_max_ps(x, y); });
  }
  friend float hmin(vf a) {
    return tree(_mm256_min_ps(a.lo, a.hi), [](auto x, auto y) { return _mm_min_ps(x, y); });
  }

 private:
  template <int Mode>
  static vf rounded(vf a) {
    return {_mm256_round_ps(a.lo, Mode), _mm256_round_ps(a.hi, Mode)};
  }
  template <int How>
  static m16 compare(vf a, vf b) {
    return {_mm256_cmp_ps(a.lo, b.lo, How), _mm256_cmp_ps(a.hi, b.hi, How)};
  }
  template <class F>
  static float tree(__m256 h, F f) {
    __m128 q = f(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = f(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(f(q, _mm_movehdup_ps(q)));
  }
  static __m256 fromHalf(const bf16* p) {
    const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
  }
  static __m256i toHalf(__m256 a) {
    const __m256i u = _mm256_castps_si256(a);
    const __m256i high = _mm256_srli_epi32(u, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i even = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(even, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
  }
};

struct vi {
  using Scalar = std::int32_t;
  using Mask = m16;
  using Ints = vi;
  static constexpr int kLanes = 16;
  __m256i lo, hi;

  vi() = default;
  vi(__m256i l, __m256i h) : lo(l), hi(h) {}
  vi(std::int32_t x) : lo(_mm256_set1_epi32(x)), hi(lo) {}
  static vi iota() { return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)}; }

  static vi load(const std::int32_t* p) { return {word(p), word(p + 8)}; }
  static vi load(const std::int32_t* p, int n) {
    return {_mm256_maskload_epi32(p, firstOf8(n, 0)), _mm256_maskload_epi32(p + 8, firstOf8(n, 8))};
  }
  static vi load(const std::uint8_t* p) {
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepu8_epi32(b), _mm256_cvtepu8_epi32(_mm_unpackhi_epi64(b, b))};
  }
  static vi load(const std::uint8_t* p, int n) {
    std::uint8_t part[16] = {};
    std::memcpy(part, p, static_cast<std::size_t>(n));
    return load(part);
  }
  friend void store(std::int32_t* p, vi a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.hi);
  }
  friend void store(std::int32_t* p, vi a, int n) {
    _mm256_maskstore_epi32(p, firstOf8(n, 0), a.lo);
    _mm256_maskstore_epi32(p + 8, firstOf8(n, 8), a.hi);
  }
  friend void store(std::uint8_t* p, vi a) {
    const __m256i low = _mm256_set1_epi32(0xff);
    const __m256i words = _mm256_packus_epi32(_mm256_and_si256(a.lo, low), _mm256_and_si256(a.hi, low));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1)));
  }
  friend void store(std::uint8_t* p, vi a, int n) {
    std::uint8_t part[16];
    store(part, a);
    std::memcpy(p, part, static_cast<std::size_t>(n));
  }

  friend vi operator+(vi a, vi b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
  friend vi operator-(vi a, vi b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
  friend vi operator*(vi a, vi b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
  friend vi operator-(vi a) { return vi(0) - a; }
  vi& operator+=(vi b) { return *this = *this + b; }
  vi& operator-=(vi b) { return *this = *this - b; }
  vi& operator*=(vi b) { return *this = *this * b; }
  friend vi operator&(vi a, vi b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
  friend vi operator|(vi a, vi b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
  friend vi operator^(vi a, vi b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
  friend vi operator~(vi a) { return a ^ vi(-1); }
  friend vi operator<<(vi a, int k) {
    const __m128i c = _mm_cvtsi32_si128(k);
    return {_mm256_sll_epi32(a.lo, c), _mm256_sll_epi32(a.hi, c)};
  }
  friend vi operator>>(vi a, int k) {
    const __m128i c = _mm_cvtsi32_si128(k);
    return {_mm256_sra_epi32(a.lo, c), _mm256_sra_epi32(a.hi, c)};
  }
  friend vi shr(vi a, int k) {
    const __m128i c = _mm_cvtsi32_si128(k);
    return {_mm256_srl_epi32(a.lo, c), _mm256_srl_epi32(a.hi, c)};
  }
  friend vi min(vi a, vi b) { return {_mm256_min_epi32(a.lo, b.lo), _mm256_min_epi32(a.hi, b.hi)}; }
  friend vi max(vi a, vi b) { return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)}; }
  friend vi abs(vi a) { return {_mm256_abs_epi32(a.lo), _mm256_abs_epi32(a.hi)}; }

  friend m16 operator==(vi a, vi b) { return mask(_mm256_cmpeq_epi32(a.lo, b.lo), _mm256_cmpeq_epi32(a.hi, b.hi)); }
  friend m16 operator>(vi a, vi b) { return mask(_mm256_cmpgt_epi32(a.lo, b.lo), _mm256_cmpgt_epi32(a.hi, b.hi)); }
  friend m16 operator!=(vi a, vi b) { return ~(a == b); }
  friend m16 operator<(vi a, vi b) { return b > a; }
  friend m16 operator<=(vi a, vi b) { return ~(a > b); }
  friend m16 operator>=(vi a, vi b) { return ~(b > a); }
  friend vi select(m16 m, vi a, vi b) {
    return {_mm256_blendv_epi8(b.lo, a.lo, _mm256_castps_si256(m.lo)), _mm256_blendv_epi8(b.hi, a.hi, _mm256_castps_si256(m.hi))};
  }

  friend std::int32_t sum(vi a) {
    return tree(_mm256_add_epi32(a.lo, a.hi), [](auto x, auto y) { return _mm_add_epi32(x, y); });
  }
  friend std::int32_t hmax(vi a) {
    return tree(_mm256_max_epi32(a.lo, a.hi), [](auto x, auto y) { return _mm_max_epi32(x, y); });
  }
  friend std::int32_t hmin(vi a) {
    return tree(_mm256_min_epi32(a.lo, a.hi), [](auto x, auto y) { return _mm_min_epi32(x, y); });
  }

 private:
  static __m256i word(const std::int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static m16 mask(__m256i l, __m256i h) { return {_mm256_castsi256_ps(l), _mm256_castsi256_ps(h)}; }
  template <class F>
  static std::int32_t tree(__m256i h, F f) {
    __m128i q = f(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
    q = f(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtsi128_si32(f(q, _mm_shuffle_epi32(q, 0xb1)));
  }
};

struct vd {
  using Scalar = double;
  using Mask = m8;
  using Ints = vl;
  static constexpr int kLanes = 8;
  __m256d lo, hi;

  vd() = default;
  vd(__m256d l, __m256d h) : lo(l), hi(h) {}
  vd(double x) : lo(_mm256_set1_pd(x)), hi(lo) {}
  static vd iota() { return {_mm256_setr_pd(0, 1, 2, 3), _mm256_setr_pd(4, 5, 6, 7)}; }

  static vd load(const double* p) { return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
  static vd load(const double* p, int n) { return {_mm256_maskload_pd(p, firstOf4(n, 0)), _mm256_maskload_pd(p + 4, firstOf4(n, 4))}; }
  static vd load(const float* p) { return widened(_mm256_loadu_ps(p)); }
  static vd load(const float* p, int n) { return widened(_mm256_maskload_ps(p, firstOf8(n, 0))); }
  friend void store(double* p, vd a) {
    _mm256_storeu_pd(p, a.lo);
    _mm256_storeu_pd(p + 4, a.hi);
  }
  friend void store(double* p, vd a, int n) {
    _mm256_maskstore_pd(p, firstOf4(n, 0), a.lo);
    _mm256_maskstore_pd(p + 4, firstOf4(n, 4), a.hi);
  }
  friend void store(float* p, vd a) { _mm256_storeu_ps(p, a.narrowed()); }
  friend void store(float* p, vd a, int n) { _mm256_maskstore_ps(p, firstOf8(n, 0), a.narrowed()); }

  static vd widened(__m256 a) { return {_mm256_cvtps_pd(_mm256_castps256_ps128(a)), _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))}; }
  __m256 narrowed() const { return _mm256_set_m128(_mm256_cvtpd_ps(hi), _mm256_cvtpd_ps(lo)); }

  friend vd operator+(vd a, vd b) { return {_mm256_add_pd(a.lo, b.lo), _mm256_add_pd(a.hi, b.hi)}; }
  friend vd operator-(vd a, vd b) { return {_mm256_sub_pd(a.lo, b.lo), _mm256_sub_pd(a.hi, b.hi)}; }
  friend vd operator*(vd a, vd b) { return {_mm256_mul_pd(a.lo, b.lo), _mm256_mul_pd(a.hi, b.hi)}; }
  friend vd operator/(vd a, vd b) { return {_mm256_div_pd(a.lo, b.lo), _mm256_div_pd(a.hi, b.hi)}; }
  friend vd operator-(vd a) { return {_mm256_xor_pd(a.lo, _mm256_set1_pd(-0.0)), _mm256_xor_pd(a.hi, _mm256_set1_pd(-0.0))}; }
  vd& operator+=(vd b) { return *this = *this + b; }
  vd& operator-=(vd b) { return *this = *this - b; }
  vd& operator*=(vd b) { return *this = *this * b; }

  friend vd fma(vd a, vd b, vd c) { return {_mm256_fmadd_pd(a.lo, b.lo, c.lo), _mm256_fmadd_pd(a.hi, b.hi, c.hi)}; }
  friend vd fnma(vd a, vd b, vd c) { return {_mm256_fnmadd_pd(a.lo, b.lo, c.lo), _mm256_fnmadd_pd(a.hi, b.hi, c.hi)}; }
  friend vd min(vd a, vd b) { return {_mm256_min_pd(a.lo, b.lo), _mm256_min_pd(a.hi, b.hi)}; }
  friend vd max(vd a, vd b) { return {_mm256_max_pd(a.lo, b.lo), _mm256_max_pd(a.hi, b.hi)}; }
  friend vd abs(vd a) { return {_mm256_andnot_pd(_mm256_set1_pd(-0.0), a.lo), _mm256_andnot_pd(_mm256_set1_pd(-0.0), a.hi)}; }
  friend vd sqrt(vd a) { return {_mm256_sqrt_pd(a.lo), _mm256_sqrt_pd(a.hi)}; }
  friend vd copysign(vd a, vd b) {
    const __m256d s = _mm256_set1_pd(-0.0);
    return {_mm256_or_pd(_mm256_andnot_pd(s, a.lo), _mm256_and_pd(s, b.lo)),
            _mm256_or_pd(_mm256_andnot_pd(s, a.hi), _mm256_and_pd(s, b.hi))};
  }
  friend vd round(vd a) { return rounded < _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC > (a); }
  friend vd floor(vd a) { return rounded < _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC > (a); }
  friend vd ceil(vd a) { return rounded < _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC > (a); }
  friend vd trunc(vd a) { return rounded < _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC > (a); }

  friend m8 operator==(vd a, vd b) { return compare<_CMP_EQ_OQ>(a, b); }
  friend m8 operator!=(vd a, vd b) { return compare<_CMP_NEQ_UQ>(a, b); }
  friend m8 operator<(vd a, vd b) { return compare<_CMP_LT_OQ>(a, b); }
  friend m8 operator<=(vd a, vd b) { return compare<_CMP_LE_OQ>(a, b); }
  friend m8 operator>(vd a, vd b) { return compare<_CMP_GT_OQ>(a, b); }
  friend m8 operator>=(vd a, vd b) { return compare<_CMP_GE_OQ>(a, b); }
  friend vd select(m8 m, vd a, vd b) { return {_mm256_blendv_pd(b.lo, a.lo, m.lo), _mm256_blendv_pd(b.hi, a.hi, m.hi)}; }

  friend double sum(vd a) {
    return tree(_mm256_add_pd(a.lo, a.hi), [](auto x, auto y) { return _mm_add_pd(x, y); });
  }
  friend double hmax(vd a) {
    return tree(_mm256_max_pd(a.lo, a.hi), [](auto x, auto y) { return _mm_max_pd(x, y); });
  }
  friend double hmin(vd a) {
    return tree(_mm256_min_pd(a.lo, a.hi), [](auto x, auto y) { return _mm_min_pd(x, y); });
  }

 private:
  template <int Mode>
  static vd rounded(vd a) {
    return {_mm256_round_pd(a.lo, Mode), _mm256_round_pd(a.hi, Mode)};
  }
  template <int How>
  static m8 compare(vd a, vd b) {
    return {_mm256_cmp_pd(a.lo, b.lo, How), _mm256_cmp_pd(a.hi, b.hi, How)};
  }
  template <class F>
  static double tree(__m256d h, F f) {
    const __m128d q = f(_mm256_castpd256_pd128(h), _mm256_extractf128_pd(h, 1));
    return _mm_cvtsd_f64(f(q, _mm_unpackhi_pd(q, q)));
  }
};

struct vl {
  using Scalar = std::int64_t;
  using Mask = m8;
  using Ints = vl;
  static constexpr int kLanes = 8;
  __m256i lo, hi;

  vl() = default;
  vl(__m256i l, __m256i h) : lo(l), hi(h) {}
  vl(std::int64_t x) : lo(_mm256_set1_epi64x(x)), hi(lo) {}

  friend vl operator+(vl a, vl b) { return {_mm256_add_epi64(a.lo, b.lo), _mm256_add_epi64(a.hi, b.hi)}; }
  friend vl operator-(vl a, vl b) { return {_mm256_sub_epi64(a.lo, b.lo), _mm256_sub_epi64(a.hi, b.hi)}; }
  friend vl operator&(vl a, vl b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
  friend vl operator|(vl a, vl b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
  friend vl operator^(vl a, vl b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
  friend vl operator<<(vl a, int k) {
    const __m128i c = _mm_cvtsi32_si128(k);
    return {_mm256_sll_epi64(a.lo, c), _mm256_sll_epi64(a.hi, c)};
  }
  friend vl shr(vl a, int k) {
    const __m128i c = _mm_cvtsi32_si128(k);
    return {_mm256_srl_epi64(a.lo, c), _mm256_srl_epi64(a.hi, c)};
  }
  friend m8 operator==(vl a, vl b) {
    return {_mm256_castsi256_pd(_mm256_cmpeq_epi64(a.lo, b.lo)), _mm256_castsi256_pd(_mm256_cmpeq_epi64(a.hi, b.hi))};
  }
  friend vl select(m8 m, vl a, vl b) {
    return {_mm256_blendv_epi8(b.lo, a.lo, _mm256_castpd_si256(m.lo)), _mm256_blendv_epi8(b.hi, a.hi, _mm256_castpd_si256(m.hi))};
  }
};

inline vi toBits(vf a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
inline vl toBits(vd a) { return {_mm256_castpd_si256(a.lo), _mm256_castpd_si256(a.hi)}; }
inline vf fromBits(vi a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
inline vd fromBits(vl a) { return {_mm256_castsi256_pd(a.lo), _mm256_castsi256_pd(a.hi)}; }

inline vi toInt(vf a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
inline vi truncToInt(vf a) { return {_mm256_cvttps_epi32(a.lo), _mm256_cvttps_epi32(a.hi)}; }
inline vf toFloat(vi a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
inline vl toInt(vd a) { return toBits(a + vd(0x1.8p52)) - toBits(vd(0x1.8p52)); }
inline vd toFloat(vl a) { return fromBits(a + toBits(vd(0x1.8p52))) - vd(0x1.8p52); }

inline void widen(vf a, vd& lo, vd& hi) {
  lo = vd::widened(a.lo);
  hi = vd::widened(a.hi);
}
inline vf narrow(vd lo, vd hi) { return {lo.narrowed(), hi.narrowed()}; }

inline vi mulHigh(vi a, vi b) {
  const auto half = [](__m256i x, __m256i y) {
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(x, y), 32);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(y, 32));
    return _mm256_blend_epi32(even, odd, 0xaa);
  };
  return {half(a.lo, b.lo), half(a.hi, b.hi)};
}

}  // namespace steepest::STEEPEST_LEVEL

// What sorting on any device shares: keys, and the operands that the ops take.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "attrs/argsort.gen.h"
#include "attrs/searchsorted.gen.h"
#include "attrs/topK.gen.h"
#include "runtime/device.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

// Maps numbers to unsigned keys whose order is theirs; NaN comes last in either direction, -0 equals 0.
template <class T>
struct SortKey;

template <>
struct SortKey<float> {
  using Key = std::uint32_t;
  static constexpr int passes = 4;
  STEEPEST_HD static constexpr Key of(float x, bool descending) {
    if (x != x) return ~Key{0};
    const Key bits = std::bit_cast<Key>(x + 0.0f);
    const Key key = bits ^ (bits >> 31 ? ~Key{0} : Key{1} << 31);
    return descending ? ~key : key;
  }
};
template <>
struct SortKey<double> {
  using Key = std::uint64_t;
  static constexpr int passes = 8;
  STEEPEST_HD static constexpr Key of(double x, bool descending) {
    if (x != x) return ~Key{0};
    const Key bits = std::bit_cast<Key>(x + 0.0);
    const Key key = bits ^ (bits >> 63 ? ~Key{0} : Key{1} << 63);
    return descending ? ~key : key;
  }
};
template <>
struct SortKey<bf16> {
  using Key = std::uint32_t;
  static constexpr int passes = 2;
  STEEPEST_HD static constexpr Key of(bf16 x, bool descending) {
    return SortKey<float>::of(std::bit_cast<float>(std::uint32_t{x.bits} << 16), descending) >> 16;
  }
};
template <>
struct SortKey<std::int32_t> {
  using Key = std::uint32_t;
  static constexpr int passes = 4;
  STEEPEST_HD static constexpr Key of(std::int32_t x, bool descending) {
    const Key key = static_cast<Key>(x) ^ Key { 1 } << 31;
    return descending ? ~key : key;
  }
};
template <>
struct SortKey<std::uint8_t> {
  using Key = std::uint32_t;
  static constexpr int passes = 1;
  STEEPEST_HD static constexpr Key of(std::uint8_t x, bool descending) { return descending ? 255u - x : x; }
};

// Key and index in one number: a total order, whatever way it is found.
template <class Key>
using Ranked = std::conditional_t<sizeof(Key) == 4, std::uint64_t, unsigned __int128>;
template <class Key>
constexpr Ranked<Key> ranked(Key key, std::int64_t index) {
  return static_cast<Ranked<Key>>(key) << 32 | static_cast<std::uint32_t>(index);
}

inline std::int64_t rowsOf(const View& x) {
  std::int64_t rows = 1;
  for (int i = 0; i < x.rank - 1; ++i) rows *= x.shape[i];
  return rows;
}

[[noreturn]] inline void refuseSort(const char* what) { throw Error("PROGRAM", what); }

inline void checkRows(const View& x, const View& order, const char* what) {
  bool fine = x.rank >= 1 && order.rank == x.rank && order.dtype == DType::int32 && order.contiguous();
  for (int i = 0; fine && i < x.rank - 1; ++i) fine = x.shape[i] == order.shape[i];
  if (!fine || x.dim(-1) > std::numeric_limits<std::int32_t>::max()) refuseSort(what);
}

inline ArgsortAttrs checkArgsort(const Spec& spec) {
  const ArgsortAttrs a = ArgsortAttrs::decode(spec.attrs);
  if (spec.in.size() != 1 || spec.out.size() != 1) refuseSort("argsort takes one input and gives one output");
  checkRows(spec.in[0], spec.out[0], "argsort: the output is int32 in the input's shape");
  if (spec.in[0].dim(-1) != spec.out[0].dim(-1)) refuseSort("argsort: the output has the input's shape");
  return a;
}

inline TopKAttrs checkTopK(const Spec& spec) {
  const TopKAttrs a = TopKAttrs::decode(spec.attrs);
  if (spec.in.size() != 1 || spec.out.size() != 1) refuseSort("topK takes one input and gives one output");
  checkRows(spec.in[0], spec.out[0], "topK: the output is int32 in the input's rows");
  if (a.k < 0 || a.k > spec.in[0].dim(-1) || spec.out[0].dim(-1) != a.k)
    refuseSort("topK: k is in [0, n], and the output's last axis is k");
  return a;
}

inline SearchsortedAttrs checkSearchsorted(const Spec& spec) {
  const SearchsortedAttrs a = SearchsortedAttrs::decode(spec.attrs);
  if (spec.in.size() != 2 || spec.out.size() != 1) refuseSort("searchsorted takes two inputs and gives one output");
  checkRows(spec.in[0], spec.out[0], "searchsorted: the output is int32 in the rows of the sorted input");
  checkRows(spec.in[1], spec.out[0], "searchsorted: the output is int32 in the shape of the values");
  if (spec.in[0].dtype != spec.in[1].dtype || spec.in[1].dim(-1) != spec.out[0].dim(-1) || !spec.in[0].contiguous() ||
      !spec.in[1].contiguous()) {
    refuseSort("searchsorted: inputs are contiguous and of one dtype, the output has the shape of the values");
  }
  return a;
}

}  // namespace steepest::STEEPEST_LEVEL

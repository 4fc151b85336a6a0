// The operands of sparse products.
#pragma once

#include <limits>

#include "attrs/sddmm.gen.h"
#include "attrs/spmm.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

[[noreturn]] inline void refuseSparse(const char* what) { throw Error("PROGRAM", what); }

inline bool isIndex(const View& v, std::int64_t entries) {
  return v.rank == 1 && v.dtype == DType::int32 && v.shape[0] == entries && v.contiguous();
}
inline bool isMatrix(const View& v, DType dtype) { return v.rank == 2 && v.dtype == dtype && v.contiguous(); }

inline void checkSpmm(const Spec& spec) {
  const SpmmAttrs attrs = SpmmAttrs::decode(spec.attrs);
  if (spec.in.size() != 4 || spec.out.size() != 1 || spec.in[0].rank != 1) refuseSparse("spmm takes four inputs and gives one output");
  const std::int64_t entries = spec.in[0].shape[0];
  const View &values = spec.in[2], &dense = spec.in[3], &out = spec.out[0];
  const DType dtype = dense.dtype;
  if (!isIndex(spec.in[0], entries) || !isIndex(spec.in[1], entries) || values.rank != 1 || values.shape[0] != entries ||
      values.dtype != dtype || !values.contiguous() || !isMatrix(dense, dtype) || !isMatrix(out, dtype) || out.shape[0] != attrs.size ||
      out.shape[1] != dense.shape[1] || entries > std::numeric_limits<std::int32_t>::max() ||
      attrs.size > std::numeric_limits<std::int32_t>::max()) {
    refuseSparse("spmm takes rows, columns and values of [entries] and dense [c, n], and gives [size, n]");
  }
}

inline void checkSddmm(const Spec& spec) {
  SddmmAttrs::decode(spec.attrs);
  if (spec.in.size() != 4 || spec.out.size() != 1 || spec.in[0].rank != 1) refuseSparse("sddmm takes four inputs and gives one output");
  const std::int64_t entries = spec.in[0].shape[0];
  const View &a = spec.in[2], &b = spec.in[3], &out = spec.out[0];
  const DType dtype = a.dtype;
  if (!isIndex(spec.in[0], entries) || !isIndex(spec.in[1], entries) || !isMatrix(a, dtype) || !isMatrix(b, dtype) ||
      a.shape[1] != b.shape[1] || out.rank != 1 || out.shape[0] != entries || out.dtype != dtype || !out.contiguous()) {
    refuseSparse("sddmm takes rows and columns of [entries], a [m, n] and b [c, n], and gives [entries]");
  }
}

}  // namespace steepest::STEEPEST_LEVEL

// The operands of sampled products.
#pragma once

#include <algorithm>
#include <limits>

#include "attrs/putRecords.gen.h"
#include "attrs/rowNorms.gen.h"
#include "attrs/sampleRows.gen.h"
#include "attrs/takeScaled.gen.h"
#include "cpu/indexing.h"
#include "cpu/norm.h"

namespace steepest::STEEPEST_LEVEL {

inline RowNormsAttrs checkRowNorms(const Spec& spec) {
  const RowNormsAttrs a = RowNormsAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 1 && spec.out.size() == 1, "rowNorms", "one input and one output");
  const View &x = spec.in[0], &y = spec.out[0];
  layout::check(isFloat(x.dtype) && x.rank >= 1 && y.rank == x.rank - 1 && std::equal(y.shape, y.shape + y.rank, x.shape), "rowNorms",
                "shapes");
  layout::check(y.dtype == statistics(x.dtype) && y.contiguous(), "rowNorms", "the output is contiguous, in the dtype of statistics");
  return a;
}

inline void checkTakeScaled(const Spec& spec) {
  TakeScaledAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 3 && spec.out.size() == 1, "takeScaled", "three inputs and one output");
  const View &x = spec.in[0], &indices = spec.in[1], &weights = spec.in[2], &y = spec.out[0];
  indexing::checkIndices(indices, "takeScaled");
  layout::check(isFloat(x.dtype) && y.dtype == x.dtype && weights.dtype == statistics(x.dtype), "takeScaled", "dtypes");
  layout::check(weights.contiguous() && y.contiguous() && layout::sameShape(indices, weights), "takeScaled", "one weight per index");
  layout::check(x.rank >= 2 && y.rank == x.rank && indices.rank == x.rank - 1 && y.dim(-1) == x.dim(-1) && y.dim(-2) == indices.dim(-1),
                "takeScaled", "shapes");
  for (int i = 0; i < x.rank - 2; ++i)
    layout::check(x.shape[i] == y.shape[i] && x.shape[i] == indices.shape[i], "takeScaled", "batch axes");
}

inline void checkPutRecords(const Spec& spec) {
  PutRecordsAttrs::decode(spec.attrs);
  layout::check(spec.in.size() == 3 && spec.out.size() == 1, "putRecords", "three inputs and one output");
  const View &state = spec.in[0], &slots = spec.in[1], &records = spec.in[2], &out = spec.out[0];
  indexing::checkIndices(slots, "putRecords");
  layout::check(
      state.rank == 1 && layout::sameShape(state, out) && slots.rank == 1 && records.rank == 2 && records.shape[0] == slots.shape[0],
      "putRecords", "shapes");
  layout::check(state.dtype == out.dtype && records.dtype == state.dtype && state.contiguous() && out.contiguous() && records.contiguous(),
                "putRecords", "one dtype, contiguous");
}

inline SampleRowsAttrs checkSampleRows(const Spec& spec) {
  const SampleRowsAttrs a = SampleRowsAttrs::decode(spec.attrs);
  const char* who = "sampleRows";
  layout::check(spec.in.size() == (a.gains ? 3u : 2u) && spec.out.size() == 3, who, "operands");
  const View &norms = spec.in[0], &key = spec.in[1];
  layout::check((norms.dtype == DType::float32 || norms.dtype == DType::float64) && norms.rank >= 1 && norms.contiguous(), who, "norms");
  layout::check(key.dtype == DType::int32 && key.rank >= 1 && key.rank <= norms.rank && key.dim(-1) == 2 && key.contiguous(), who, "keys");
  for (int i = 0; i < key.rank - 1; ++i) layout::check(key.shape[i] == norms.shape[i], who, "the axes of the keys lead");
  if (a.gains) {
    layout::check(layout::sameShape(spec.in[2], norms) && spec.in[2].dtype == norms.dtype && spec.in[2].contiguous(), who, "gains");
  }
  const std::int64_t n = norms.dim(-1);
  layout::check(a.k >= 0 && a.k <= n && n <= std::numeric_limits<std::int32_t>::max() && a.floor >= 0 && a.floor <= 1, who, "attributes");
  for (int o = 0; o < 3; ++o) {
    const View& y = spec.out[static_cast<std::size_t>(o)];
    layout::check(y.rank == norms.rank && y.contiguous() && y.dim(-1) == (o < 2 ? a.k : n), who, "outputs");
    for (int i = 0; i < norms.rank - 1; ++i) layout::check(y.shape[i] == norms.shape[i], who, "outputs");
    layout::check(y.dtype == (o == 0 ? DType::int32 : norms.dtype), who, "dtypes of the outputs");
  }
  return a;
}

}  // namespace steepest::STEEPEST_LEVEL

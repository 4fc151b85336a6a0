// What an instruction of the op `update` moves: any number of parameters by one rule.
// Operands: args, scale?, key?, then of every parameter its weight, gradient, hidden bits? and slots; outputs: weight, hidden bits?, slots.
// A slot of eight bits is two operands: codes, and the unit of each block (blockwise.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "attrs/update.gen.h"
#include "cpu/blockwise_map.h"
#include "rules/info.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

enum class Storage { plain, nearest, stochastic, master };

// One parameter.
struct Part {
  int in, out;  // where its operands begin
  std::int64_t size;
  rules::RuleShape shape;
  std::uint32_t site;
  double lrScale;
  int coef;  // which of the coefficients: parameters of one learning rate share them
  // Of a rule that sums: segments of a row, and where the parameter's numbers begin in the workspace.
  std::int64_t segments = 0, numbers = 0;
};

struct UpdateOperands {
  Storage storage;
  int scaleAt = -1, keyAt = -1;
  // Within a parameter's operands.
  int lowAt = -1, slotsAt = 2;
  int firstOut = 1;  // its first slot among the outputs
  bool blockwise = false;
  std::vector<Part> parts;
  std::vector<double> lrScales;  // those that differ
};

namespace update_operands {

[[noreturn]] inline void wrong(const char* what) { throw Error("PROGRAM", std::string("update: ") + what); }

inline bool sameShape(const View& a, const View& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i) {
    if (a.shape[i] != b.shape[i]) return false;
  }
  return true;
}

inline bool isNumber(const View& v) { return (v.dtype == DType::float32 || v.dtype == DType::float64) && v.rank == 0; }

// Visible and hidden halves of one float32 weight.
inline bool halves(const View& p, const View& low) {
  bool fits = p.dtype == DType::bfloat16 && low.dtype == DType::uint8 && low.rank == p.rank + 1 && low.shape[0] == 2;
  for (int i = 0; fits && i < p.rank; ++i) fits = low.shape[i + 1] == p.shape[i];
  return fits;
}

inline int indexOf(std::vector<double>& list, double x) {
  const auto at = std::find(list.begin(), list.end(), x);
  if (at == list.end()) list.push_back(x);
  return static_cast<int>(std::find(list.begin(), list.end(), x) - list.begin());
}

}  // namespace update_operands

// Checks the operands against the rule and against each other, so that no program can reach outside of them.
inline UpdateOperands readOperands(const Spec& spec, const UpdateAttrs& attrs, const RuleInfo& rule) {
  using namespace update_operands;
  UpdateOperands o;
  const bool stochastic = attrs.rounding == UpdateAttrs::Rounding::kStochastic;
  int at = 1;
  if (attrs.scale) o.scaleAt = at++;
  if (stochastic) o.keyAt = at++;
  if (attrs.master) o.lowAt = o.slotsAt++, ++o.firstOut;
  o.blockwise = attrs.states == UpdateAttrs::States::kBlockwise;
  const int arrays = rule.slots * (o.blockwise ? 2 : 1), inputs = o.slotsAt + arrays, outputs = o.firstOut + arrays;
  const std::size_t count = attrs.lrScales.size();
  if (count == 0 || attrs.sites.size() != count) wrong("it must say learning rate and site of every parameter");
  if (spec.in.size() != static_cast<std::size_t>(at) + count * static_cast<std::size_t>(inputs) ||
      spec.out.size() != count * static_cast<std::size_t>(outputs)) {
    wrong("the number of operands is not that of the rule");
  }
  if (attrs.hyper.size() != static_cast<std::size_t>(rule.hypers)) wrong("the number of hyper-parameters is not that of the rule");
  const View& args = spec.in[0];
  if (args.dtype != DType::float64 || args.rank != 1 || args.shape[0] < 2) wrong("the step arguments must be float64[k], k >= 2");
  if (o.scaleAt >= 0 && !isNumber(spec.in[static_cast<std::size_t>(o.scaleAt)])) wrong("the scale must be a float32 or float64 scalar");
  for (const View& v : spec.in) {
    if (!v.contiguous()) wrong("operands must be contiguous");
  }
  for (const View& v : spec.out) {
    if (!v.contiguous()) wrong("outputs must be contiguous");
  }

  const DType dtype = spec.in[static_cast<std::size_t>(at)].dtype;
  if (!isFloat(dtype)) wrong("a parameter must be a float");
  const DType compute = dtype == DType::float64 ? DType::float64 : DType::float32;
  if (o.blockwise && compute != DType::float32) wrong("states of eight bits are for float32 and bfloat16 weights");
  if (stochastic) {
    const View& key = spec.in[static_cast<std::size_t>(o.keyAt)];
    if (dtype != DType::bfloat16 || attrs.master) wrong("stochastic rounding is for bfloat16 weights without hidden bits");
    if (key.dtype != DType::int32 || key.rank != 1 || key.shape[0] != 2) wrong("the key must be int32[2]");
  }
  o.storage = dtype != DType::bfloat16 ? Storage::plain
              : attrs.master           ? Storage::master
              : stochastic             ? Storage::stochastic
                                       : Storage::nearest;
  for (std::size_t n = 0; n < count; ++n) {
    const std::span<const View> in = spec.in.subspan(static_cast<std::size_t>(at) + n * static_cast<std::size_t>(inputs));
    const std::span<const View> out = spec.out.subspan(n * static_cast<std::size_t>(outputs));
    const View &p = in[0], &g = in[1];
    if (p.dtype != dtype) wrong("all parameters must have one dtype");
    if (!sameShape(p, g) || !(g.dtype == compute || (dtype == DType::bfloat16 && g.dtype == DType::bfloat16)))
      wrong("the gradient does not fit the parameter");
    if (o.lowAt >= 0 && !halves(p, in[static_cast<std::size_t>(o.lowAt)]))
      wrong("the hidden bits must be uint8[2, ...] of a bfloat16 parameter");
    for (int i = 0; i < arrays; ++i) {
      const View& s = in[static_cast<std::size_t>(o.slotsAt + i)];
      const bool fits = o.blockwise && i % 2 == 1 ? s.dtype == DType::float32 && s.rank == 1 && s.shape[0] == quantBlocks(p.size())
                                                  : s.dtype == (o.blockwise ? DType::uint8 : compute) && sameShape(s, p);
      if (!fits) wrong("a state does not fit the parameter");
    }
    for (int i = 0; i < outputs; ++i) {
      const View& from = in[static_cast<std::size_t>(i == 0 ? 0 : i + 1)];
      const View& to = out[static_cast<std::size_t>(i)];
      if (to.dtype != from.dtype || !sameShape(to, from)) wrong("an output is not of the shape of what it replaces");
    }
    if (attrs.sites[n] < 0 || attrs.sites[n] > 0xffffffffll) wrong("the site must be in [0, 2^32)");
    Part part{.in = at + static_cast<int>(n) * inputs,
              .out = static_cast<int>(n) * outputs,
              .size = p.size(),
              .shape = {1, p.size(), p.rank},
              .site = static_cast<std::uint32_t>(attrs.sites[n]),
              .lrScale = attrs.lrScales[n],
              .coef = 0};
    if (rule.scope == rules::Scope::rows && p.rank > 1) part.shape = {p.shape[0], p.shape[0] ? part.size / p.shape[0] : 0, p.rank};
    part.coef = indexOf(o.lrScales, part.lrScale);
    o.parts.push_back(part);
  }
  return o;
}

}  // namespace steepest::STEEPEST_LEVEL

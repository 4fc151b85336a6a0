// The driver of the update rules on a GPU: makes the tables of parameters and launches the kernels of update.cuh.

#include "cuda/update.cuh"

#include <algorithm>

#include "runtime/kernel.h"

namespace steepest::cuda {
namespace {

bool alignedTo(const View& v) {
  const std::size_t need = v.dtype == DType::float32 ? 16 : v.dtype == DType::bfloat16 ? 8 : 4;
  return reinterpret_cast<std::uintptr_t>(v.data) % need == 0;
}

class Update;
using Launch = void (*)(const Update&, const Call&, UpdateStep);

struct RuleEntry {
  RuleInfo info;
  Launch launch;
};

class Update final : public Kernel {
 public:
  explicit Update(const Spec& spec);
  void run(const Call& call) const override;

  UpdateAttrs attrs;
  UpdateOperands operands;

 private:
  template <class Rule>
  friend void launchRule(const Update& update, const Call& call, UpdateStep step);
  void checkFinite(const Call& call, const UpdateStep& step) const;

  const RuleEntry* rule_;
  std::int64_t tile_ = 0;
};

// Calls f(table) with tables of some parameters each; `fill` makes the entry of one and gives its blocks away.
template <class Entry, class Fill, class F>
void eachTable(const std::vector<Part>& parts, Fill&& fill, F&& f) {
  UpdateTable<Entry> table{};
  for (std::size_t i = 0; i <= parts.size(); ++i) {
    if (i == parts.size() || table.count == UpdateTable<Entry>::kCapacity) {
      if (table.count > 0) f(table);
      table.count = 0;
    }
    if (i < parts.size() && parts[i].size > 0) table.part[table.count] = fill(parts[i], table.count), ++table.count;
  }
}

template <class Rule>
void launchRule(const Update& update, const Call& call, UpdateStep step) {
  using Entry = UpdatePart<slotsOf<Rule>()>;
  const UpdateOperands& o = update.operands;
  const auto hyper = hyperOf<Rule>(update.attrs.hyper.data());
  step.tile = update.tile_;
  unsigned tiles = 0, sums = 0;
  const auto fill = [&](const Part& from, int index) {
    if (index == 0) tiles = sums = 0;
    const View* in = &call.in[static_cast<std::size_t>(from.in)];
    const View* out = &call.out[static_cast<std::size_t>(from.out)];
    Entry part{};
    part.p = in[0].data, part.g = in[1].data, part.pOut = out[0].data;
    part.wide = alignedTo(in[0]) && alignedTo(in[1]) && alignedTo(out[0]);
    const auto take = [&](int at, int to) {
      part.wide = part.wide && alignedTo(in[at]) && alignedTo(out[to]);
      return std::pair{in[at].data, out[to].data};
    };
    if (o.lowAt >= 0) {
      const auto [low, lowOut] = take(o.lowAt, 1);
      part.low = reinterpret_cast<const std::uint8_t*>(low), part.lowOut = reinterpret_cast<std::uint8_t*>(lowOut);
    }
    const int each = o.blockwise ? 2 : 1;
    for (int k = 0; k < slotsOf<Rule>(); ++k) {
      std::tie(part.s[k], part.sOut[k]) = take(o.slotsAt + each * k, o.firstOut + each * k);
      if (!o.blockwise) continue;
      part.units[k] = in[o.slotsAt + 2 * k + 1].as<const float>();
      part.unitsOut[k] = out[o.firstOut + 2 * k + 1].as<float>();
    }
    part.size = from.size, part.rows = from.shape.rows, part.cols = from.shape.cols, part.rank = from.shape.rank;
    part.numbers = from.numbers, part.lrScale = from.lrScale, part.site = from.site;
    part.firstTile = tiles, part.firstSum = sums;
    tiles += static_cast<unsigned>(ceilDiv(from.size, step.tile));
    const SumCut cut = sumCut(part.cols);
    sums += static_cast<unsigned>(ceilDiv<std::int64_t>(part.rows * cut.segments, cut.perTile));
    return part;
  };
  const auto moveBy = [&]<bool Blockwise>(const auto& tables) {
    eachTable<Entry>(o.parts, fill, [&](const UpdateTable<Entry>& table) {
      if constexpr (TwoPhase<Rule>) {
        STEEPEST_LAUNCH((updateReduce<Rule, Blockwise>), dim3(sums), dim3(kUpdateThreads), 0, call, table, hyper, step, tables);
        STEEPEST_LAUNCH((updateFinish<Rule>), dim3(static_cast<unsigned>(table.count)), dim3(kUpdateThreads), 0, call, table, hyper, step);
      }
      STEEPEST_LAUNCH((updateMove<Rule, Blockwise>), dim3(tiles), dim3(kUpdateThreads), 0, call, table, hyper, step, tables);
    });
  };
  if (o.blockwise)
    moveBy.template operator()<true>(QuantTables{quantTable(true), quantTable(false)});
  else
    moveBy.template operator()<false>(NoTables{});
}

constexpr RuleEntry kRules[] = {
#define STEEPEST_ROW(Rule) {infoOf<rules::Rule>(), launchRule<rules::Rule>},
    STEEPEST_RULES(STEEPEST_ROW)
#undef STEEPEST_ROW
};

Update::Update(const Spec& spec) : attrs(UpdateAttrs::decode(spec.attrs)), rule_(&kRules[static_cast<int>(attrs.rule)]) {
  const RuleInfo& rule = rule_->info;
  operands = readOperands(spec, attrs, rule);
  if (spec.in[static_cast<std::size_t>(operands.parts[0].in)].dtype == DType::float64)
    throw Error("PROGRAM", "update: on a GPU weights are float32 or bfloat16");
  std::int64_t numbers = 0, total = 0;
  for (Part& part : operands.parts) {
    total += part.size;
    part.numbers = numbers;
    if (rule.sums > 0) numbers += part.shape.rows * (ceilDiv(part.shape.cols, kSegment) * rule.sums + rule.sums + rule.factors);
  }
  // Enough blocks for any device, few enough that what a block does once does not count; with eight-bit states it does more.
  tile_ = std::max<std::int64_t>(1, ceilDiv(total / (operands.blockwise ? 1056 : 4224), kBlockRun)) * kBlockRun;
  workspace = static_cast<std::size_t>(numbers) * sizeof(double);
}

void Update::checkFinite(const Call& call, const UpdateStep& step) const {
  unsigned tiles = 0;
  const auto fill = [&](const Part& from, int index) {
    if (index == 0) tiles = 0;
    const View& g = call.in[static_cast<std::size_t>(from.in) + 1];
    const FinitePart part{g.data, from.size, tiles, alignedTo(g)};
    tiles += static_cast<unsigned>(ceilDiv(from.size, step.tile));
    return part;
  };
  eachTable<FinitePart>(operands.parts, fill, [&](const UpdateTable<FinitePart>& table) {
    STEEPEST_LAUNCH(updateFinite, dim3(tiles), dim3(kUpdateThreads), 0, call, table, step, call.deviceFault);
  });
}

void Update::run(const Call& call) const {
  UpdateStep step{};
  step.args = call.in[0].as<const double>();
  if (operands.scaleAt >= 0) {
    const View& scale = call.in[static_cast<std::size_t>(operands.scaleAt)];
    step.scale = scale.data, step.wideScale = scale.dtype == DType::float64;
  }
  if (operands.keyAt >= 0) step.key = call.in[static_cast<std::size_t>(operands.keyAt)].as<const std::int32_t>();
  step.fault = call.deviceFault;
  step.numbers = reinterpret_cast<double*>(call.workspace);
  step.storage = operands.storage;
  step.tile = tile_;
  step.narrowGrad = call.in[static_cast<std::size_t>(operands.parts[0].in) + 1].dtype == DType::bfloat16;
  if (attrs.check) checkFinite(call, step);
  rule_->launch(*this, call, step);
}

}  // namespace

std::unique_ptr<Kernel> makeUpdate(const Spec& spec) { return std::make_unique<Update>(spec); }

}  // namespace steepest::cuda

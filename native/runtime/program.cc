#include "program.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "attrs.h"
#include "ops.gen.h"

namespace steepest {

namespace {

constexpr std::int64_t kMagic = 0x57EE9E57;
constexpr std::int64_t kMaxBytes = std::int64_t{1} << 50;

[[noreturn]] void wrong(const std::string& what) { throw Error("PROGRAM", "wrong program: " + what); }

std::int64_t bounded(AttrReader& r, std::int64_t low, std::int64_t high, const char* what) {
  const std::int64_t x = r.integer();
  if (x < low || x > high) wrong(std::string(what) + " is out of its range");
  return x;
}

// An operand's view, and its space; `offset` is in bytes and points at the element with all indices zero.
void readOperand(AttrReader& r, View& view, Operand& operand) {
  operand.space = static_cast<Space>(bounded(r, 0, 2, "an operand's space"));
  operand.index = static_cast<std::int32_t>(bounded(r, 0, 1 << 30, "an operand's index"));
  operand.offset = static_cast<std::size_t>(bounded(r, 0, kMaxBytes, "an operand's offset"));
  view.dtype = r.dtype();
  view.rank = static_cast<int>(bounded(r, 0, kMaxRank, "an operand's rank"));
  std::int64_t size = 1;
  for (int i = 0; i < view.rank; ++i) {
    view.shape[i] = bounded(r, 0, kMaxBytes, "a length");
    if (__builtin_mul_overflow(size, view.shape[i] ? view.shape[i] : 1, &size) || size > kMaxBytes) wrong("an operand is too large");
  }
  for (int i = 0; i < view.rank; ++i) view.strides[i] = bounded(r, -kMaxBytes, kMaxBytes, "a stride");
}

// The first and one past the last byte that a view can touch, from `offset`.
struct Extent {
  std::int64_t low, high;
};
Extent extentOf(const View& view, std::size_t offset) {
  const auto bytes = static_cast<std::int64_t>(sizeOf(view.dtype));
  __int128 low = 0, high = 0;
  for (int i = 0; i < view.rank; ++i) {
    if (view.shape[i] == 0) return {static_cast<std::int64_t>(offset), static_cast<std::int64_t>(offset)};
    const __int128 reach = static_cast<__int128>(view.shape[i] - 1) * view.strides[i];
    (reach < 0 ? low : high) += reach;
  }
  low = low * bytes + static_cast<__int128>(offset);
  high = (high + 1) * bytes + static_cast<__int128>(offset);
  if (low < 0 || high > kMaxBytes) wrong("an operand reaches outside of its buffer");
  return {static_cast<std::int64_t>(low), static_cast<std::int64_t>(high)};
}

enum class Meeting { apart, exact, partial };

// How the memory of two operands lies to each other.
Meeting meet(const Instruction& instruction, std::size_t a, std::size_t b) {
  const Operand& x = instruction.operands[a];
  const Operand& y = instruction.operands[b];
  if (x.space != y.space || (x.space == Space::external && x.index != y.index)) return Meeting::apart;
  const Extent p = extentOf(instruction.views[a], x.offset), q = extentOf(instruction.views[b], y.offset);
  if (p.low == p.high || q.low == q.high || p.low >= q.high || q.low >= p.high) return Meeting::apart;
  return p.low == q.low && p.high == q.high ? Meeting::exact : Meeting::partial;
}

// Kernels keep tables in their workspace and check indices before they use them: no operand may change what another holds, but for the
// pairs that the op table allows.
void checkMeetings(const Instruction& instruction, std::size_t workspaceBytes) {
  const auto inputs = static_cast<std::size_t>(instruction.inputs);
  const auto begin = static_cast<std::int64_t>(instruction.workspace), end = begin + static_cast<std::int64_t>(workspaceBytes);
  for (std::size_t i = 0; i < instruction.operands.size(); ++i) {
    const Operand& operand = instruction.operands[i];
    if (operand.space == Space::arena && begin < end) {
      const Extent e = extentOf(instruction.views[i], operand.offset);
      if (e.low < e.high && e.low < end && begin < e.high) wrong("a workspace overlaps an operand");
    }
    for (std::size_t j = 0; i >= inputs && j < i; ++j) {
      const Meeting m = meet(instruction, j, i);
      if (m == Meeting::apart) continue;
      const bool allowed =
          m == Meeting::exact && j < inputs && mayAlias(static_cast<Op>(instruction.op), static_cast<int>(i - inputs), static_cast<int>(j));
      if (!allowed) wrong("an output overlaps another operand");
    }
  }
}

Instruction readInstruction(AttrReader& r, std::span<const Factory> kernels, int threads, std::size_t& workspaceBytes) {
  Instruction instruction;
  instruction.op = static_cast<int>(bounded(r, 0, static_cast<std::int64_t>(kernels.size()) - 1, "an op"));
  instruction.workspace = static_cast<std::size_t>(bounded(r, 0, kMaxBytes, "a workspace offset"));
  workspaceBytes = static_cast<std::size_t>(bounded(r, 0, kMaxBytes, "a workspace size"));
  if (instruction.workspace % kAlignment) wrong("a workspace is not aligned");
  instruction.inputs = static_cast<int>(bounded(r, 0, 1 << 20, "a count of inputs"));
  const auto outputs = bounded(r, 0, 1 << 20, "a count of outputs");
  const auto attrs = bounded(r, 0, 1 << 24, "a count of attributes");
  const auto count = static_cast<std::size_t>(instruction.inputs + outputs);
  for (std::size_t i = 0; i < count; ++i) {
    instruction.views.emplace_back();
    instruction.operands.emplace_back();
    readOperand(r, instruction.views.back(), instruction.operands.back());
  }
  std::vector<double> words;
  for (std::int64_t i = 0; i < attrs; ++i) words.push_back(r.number());
  const std::span<const View> views(instruction.views);
  instruction.kernel =
      kernels[static_cast<std::size_t>(instruction.op)](Spec{views.first(static_cast<std::size_t>(instruction.inputs)),
                                                             views.subspan(static_cast<std::size_t>(instruction.inputs)), words, threads});
  return instruction;
}

}  // namespace

Program::Program(std::span<const double> words, std::span<const std::byte> constants, std::span<const Factory> kernels, int threads)
    : constants_(constants.begin(), constants.end()), threads_(threads) {
  AttrReader r(words);
  if (r.integer() != kMagic) wrong("it does not begin as a program does");
  if (static_cast<std::uint64_t>(r.integer()) != kTableHash) wrong("it was made for another op table");
  const auto externals = bounded(r, 0, 1 << 24, "the count of externals");
  for (std::int64_t i = 0; i < externals; ++i) {
    const auto bytes = static_cast<std::size_t>(bounded(r, 0, kMaxBytes, "the size of an external"));
    externals_.push_back({bytes, r.boolean()});
  }
  arenaBytes_ = static_cast<std::size_t>(bounded(r, 0, kMaxBytes, "the size of the arena"));
  const auto count = bounded(r, 0, 1 << 24, "the count of instructions");
  for (std::int64_t n = 0; n < count; ++n) {
    std::size_t workspaceBytes = 0;
    Instruction instruction = readInstruction(r, kernels, threads, workspaceBytes);
    if (instruction.kernel->workspace > workspaceBytes) wrong("a workspace is too small");
    if (instruction.workspace + workspaceBytes > arenaBytes_) wrong("a workspace lies outside of the arena");
    for (std::size_t i = 0; i < instruction.operands.size(); ++i) {
      const Operand& operand = instruction.operands[i];
      const View& view = instruction.views[i];
      const bool output = i >= static_cast<std::size_t>(instruction.inputs);
      std::size_t capacity = arenaBytes_;
      if (operand.space == Space::external) {
        if (static_cast<std::size_t>(operand.index) >= externals_.size()) wrong("an operand names an external that is not there");
        capacity = externals_[static_cast<std::size_t>(operand.index)].bytes;
        if (output && !externals_[static_cast<std::size_t>(operand.index)].written)
          wrong("an instruction writes to an external that is only read");
      } else if (operand.space == Space::constant) {
        if (output) wrong("an instruction writes to a constant");
        capacity = constants_.size();
      }
      if (operand.offset % sizeOf(view.dtype)) wrong("an operand is not aligned");
      if (extentOf(view, operand.offset).high > static_cast<std::int64_t>(capacity)) wrong("an operand reaches outside of its buffer");
      if (output && !view.contiguous()) wrong("an output is not contiguous");
    }
    checkMeetings(instruction, workspaceBytes);
    instructions_.push_back(std::move(instruction));
  }
  r.end();
}

bool waits(const Kernel& kernel) {
  const auto* waiting = dynamic_cast<const Waiting*>(&kernel);
  return waiting && waiting->waits;
}

bool Program::waits() const {
  return std::any_of(instructions_.begin(), instructions_.end(), [](const Instruction& i) { return steepest::waits(*i.kernel); });
}

void Program::step(std::size_t i, std::byte* arena, std::span<std::byte* const> externals, const std::byte* constants, const Call& like,
                   std::vector<View>& resolved) const {
  const Instruction& instruction = instructions_[i];
  resolved = instruction.views;
  for (std::size_t k = 0; k < resolved.size(); ++k) {
    const Operand& operand = instruction.operands[k];
    std::byte* base = arena;
    if (operand.space == Space::external) base = externals[static_cast<std::size_t>(operand.index)];
    if (operand.space == Space::constant) base = const_cast<std::byte*>(constants);
    resolved[k].data = base + operand.offset;
  }
  const std::span<const View> views(resolved);
  const auto inputs = static_cast<std::size_t>(instruction.inputs);
  instruction.kernel->run(Call{views.first(inputs), views.subspan(inputs), arena + instruction.workspace, like.pool, like.fault,
                               like.cancel, like.stream, like.deviceFault});
}

bool Program::nonFinite(std::size_t i, std::span<const View> resolved) const {
  for (std::size_t k = static_cast<std::size_t>(instructions_[i].inputs); k < resolved.size(); ++k) {
    const View& view = resolved[k];
    const std::int64_t n = view.size();
    for (std::int64_t j = 0; j < n; ++j) {
      bool bad = false;
      if (view.dtype == DType::float32) bad = !std::isfinite(view.as<float>()[j]);
      if (view.dtype == DType::float64) bad = !std::isfinite(view.as<double>()[j]);
      if (view.dtype == DType::bfloat16) bad = (view.as<bf16>()[j].bits & 0x7F80) == 0x7F80;
      if (bad) return true;
    }
  }
  return false;
}

std::size_t workspaceOf(std::span<const double> instruction, std::span<const Factory> kernels, int threads) {
  AttrReader r(instruction);
  std::size_t ignored = 0;
  const Instruction made = readInstruction(r, kernels, threads, ignored);
  r.end();
  return made.kernel->workspace;
}

}  // namespace steepest

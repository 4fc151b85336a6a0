// Loops and branches: instructions whose bodies are programs. One source for all devices: memory is reached through `move` and `fetch`.
#include <algorithm>

#include "cpu/indexing.h"
#include "cpu/subprogram.h"
#include "attrs/cond.gen.h"
#include "attrs/revise.gen.h"
#include "attrs/scan.gen.h"
#include "attrs/whileLoop.gen.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

[[noreturn]] void wrong(const char* what) { throw Error("PROGRAM", what); }

// Launches of a loop of known length that are captured as a graph; a longer one is launched anew every time.
constexpr std::size_t kMostCaptured = 8192;

void requireContiguous(const Spec& spec) {
  for (const View& v : spec.in) {
    if (!v.contiguous()) wrong("a loop or branch takes contiguous operands");
  }
}

bool sameAval(const View& a, const View& b) {
  bool same = a.dtype == b.dtype && a.rank == b.rank;
  for (int i = 0; same && i < a.rank; ++i) same = a.shape[i] == b.shape[i];
  return same;
}

std::size_t count(std::int64_t n, std::size_t most) {
  if (n < 0 || n > static_cast<std::int64_t>(most)) wrong("a loop has too few operands");
  return static_cast<std::size_t>(n);
}

class Scan final : public Kernel, public Waiting {
 public:
  explicit Scan(const Spec& spec) : Scan(spec, ScanAttrs::decode(spec.attrs)) {}

  void run(const Call& call) const override {
    std::byte* arena = call.workspace;
    std::byte* carry = arena + body_.arenaBytes();
    const auto in = call.in;
    const auto out = call.out;
    if (length_ == 0) {
      for (std::size_t i = 0; i < carries_; ++i) move(call, out[i].data, in[consts_ + i].data, out[i].bytes());
      return;
    }
    Body::Frame frame(body_);
    for (std::size_t i = 0; i < consts_; ++i) frame.input(i, in[i].data);
    for (std::int64_t n = 0; n < length_; ++n) {
      const auto t = static_cast<std::size_t>(reverse_ ? length_ - 1 - n : n);
      std::size_t at = 0;
      for (std::size_t i = 0; i < carries_; ++i) {
        const std::size_t bytes = Body::aligned(out[i].bytes());
        std::byte* halves[2] = {carry + at, carry + at + bytes};
        at += 2 * bytes;
        std::byte* from = n == 0 ? in[consts_ + i].data : halves[n & 1];
        frame.input(consts_ + i, from);
        frame.output(i, n + 1 == length_ ? out[i].data : halves[(n + 1) & 1]);
        if (keep_) move(call, out[body_.outputs() + i].data + t * out[i].bytes(), from, out[i].bytes());
      }
      for (std::size_t i = consts_ + carries_; i < in.size(); ++i)
        frame.input(i, in[i].data + t * (in[i].bytes() / static_cast<std::size_t>(length_)));
      for (std::size_t i = carries_; i < body_.outputs(); ++i)
        frame.output(i, out[i].data + t * (out[i].bytes() / static_cast<std::size_t>(length_)));
      if (!frame.run(arena, call)) return;
    }
  }

 private:
  Scan(const Spec& spec, const ScanAttrs& attrs)
      : body_(attrs.body, spec, spec.in.size()),
        consts_(count(attrs.consts, spec.in.size())),
        carries_(count(attrs.carries, spec.in.size() - consts_)),
        length_(attrs.length),
        reverse_(attrs.reverse),
        keep_(attrs.keep) {
    requireContiguous(spec);
    waits = body_.waits() || static_cast<std::size_t>(std::max<std::int64_t>(length_, 0)) * body_.size() > kMostCaptured;
    if (carries_ > body_.outputs() || spec.out.size() != body_.outputs() + (keep_ ? carries_ : 0) || length_ < 0)
      wrong("a scan's outputs do not fit its body");
    workspace = body_.arenaBytes();
    for (std::size_t i = 0; i < spec.in.size(); ++i) {
      const bool sliced = i >= consts_ + carries_;
      if (sliced && (spec.in[i].rank == 0 || spec.in[i].shape[0] != length_)) wrong("a scan's input is not as long as the scan");
      body_.requireInput(i, sliced && length_ > 0 ? spec.in[i].bytes() / static_cast<std::size_t>(length_)
                            : sliced              ? body_.inputBytes(i)
                                                  : spec.in[i].bytes());
    }
    for (std::size_t i = 0; i < spec.out.size(); ++i) {
      const bool sliced = i >= carries_;
      if (sliced && (spec.out[i].rank == 0 || spec.out[i].shape[0] != length_)) wrong("a scan's output is not as long as the scan");
      if (i < carries_) {
        if (!sameAval(spec.out[i], spec.in[consts_ + i])) wrong("a scan's carry changes its shape");
        workspace += 2 * Body::aligned(spec.out[i].bytes());
      }
      const std::size_t of = i < body_.outputs() ? i : i - body_.outputs();
      if (!sliced || length_ > 0)
        body_.requireOutput(of, sliced ? spec.out[i].bytes() / static_cast<std::size_t>(length_) : spec.out[i].bytes());
      if (i >= body_.outputs() && length_ > 0 && spec.out[i].bytes() / static_cast<std::size_t>(length_) != spec.out[of].bytes())
        wrong("a kept carry has another size");
    }
  }

  Body body_;
  std::size_t consts_, carries_;
  std::int64_t length_;
  bool reverse_, keep_;
};

// What a condition says; on a GPU a fault of an instruction before may come to light here, and then it says nothing.
bool holds(const Call& call, const View& x) {
  std::uint64_t bits = 0;
  const std::size_t width = sizeOf(x.dtype);
  fetch(call, &bits, x.data, width);
  // Both zeros of a float are zero.
  if (isFloat(x.dtype)) bits &= ~(std::uint64_t{1} << (8 * width - 1));
  return bits != 0;
}

class Cond final : public Kernel, public Waiting {
 public:
  explicit Cond(const Spec& spec) : Cond(spec, CondAttrs::decode(spec.attrs)) {}

  void run(const Call& call) const override {
    const Body& body = holds(call, call.in[0]) ? yes_ : no_;
    if (call.fault.load()) return;
    Body::Frame frame(body);
    for (std::size_t i = 1; i < call.in.size(); ++i) frame.input(i - 1, call.in[i].data);
    for (std::size_t i = 0; i < call.out.size(); ++i) frame.output(i, call.out[i].data);
    frame.run(call.workspace, call);
  }

 private:
  static std::size_t operands(const Spec& spec) {
    if (spec.in.empty() || spec.in[0].size() != 1) wrong("a branch takes one number as its condition");
    return spec.in.size() - 1;
  }
  Cond(const Spec& spec, const CondAttrs& attrs) : yes_(attrs.yes, spec, operands(spec)), no_(attrs.no, spec, operands(spec)) {
    requireContiguous(spec);
    for (const Body* body : {&yes_, &no_}) {
      if (body->outputs() != spec.out.size()) wrong("a branch's outputs do not fit its body");
      for (std::size_t i = 1; i < spec.in.size(); ++i) body->requireInput(i - 1, spec.in[i].bytes());
      for (std::size_t i = 0; i < spec.out.size(); ++i) body->requireOutput(i, spec.out[i].bytes());
    }
    workspace = std::max(yes_.arenaBytes(), no_.arenaBytes());
  }

  Body yes_, no_;
};

// States of which a body computes the whole, or a window that begins where an int32 says, anew.
class Revise final : public Kernel, public Waiting {
 public:
  explicit Revise(const Spec& spec) : Revise(spec, ReviseAttrs::decode(spec.attrs)) {}

  void run(const Call& call) const override {
    const auto in = call.in;
    const auto out = call.out;
    const bool due = holds(call, in[0]);
    if (call.fault.load()) return;
    for (std::size_t i = 0; i < out.size(); ++i) {
      const bool replaced = states_[i].offset == 0 && due;
      if (out[i].data != in[i + 1].data && !replaced) move(call, out[i].data, in[i + 1].data, out[i].bytes());
    }
    if (!due) return;
    // The body may read every state until it is done, so its results wait beside them.
    Body::Frame frame(body_);
    for (std::size_t i = 1; i < in.size(); ++i) frame.input(i - 1, in[i].data);
    std::vector<std::int64_t> starts(out.size());
    for (std::size_t i = 0; i < out.size(); ++i) {
      starts[i] = startOf(call, i);
      if (call.fault.load()) return;
      if (starts[i] < 0) {
        call.fault.store(indexing::kIndexFault);
        return;
      }
      frame.input(i, in[i + 1].data + starts[i]);
      frame.output(i, call.workspace + states_[i].at);
    }
    if (!frame.run(call.workspace, call)) return;
    for (std::size_t i = 0; i < out.size(); ++i) move(call, out[i].data + starts[i], call.workspace + states_[i].at, states_[i].bytes);
  }

 private:
  struct State {
    std::size_t offset;         // operand that says where the window begins; 0 where the state is taken whole
    std::size_t at;             // of the body's result, in the workspace
    std::size_t bytes;          // of the window
    std::int64_t last, scalar;  // the last place where it may begin, and the bytes of an element
  };

  // In bytes; -1 where the window is not within the state.
  std::int64_t startOf(const Call& call, std::size_t i) const {
    const State& s = states_[i];
    if (s.offset == 0) return 0;
    std::int32_t begin = 0;
    fetch(call, &begin, call.in[s.offset].data, sizeof begin);
    return begin < 0 || begin > s.last ? -1 : begin * s.scalar;
  }

  Revise(const Spec& spec, const ReviseAttrs& attrs) : body_(attrs.body, spec, operands(spec)) {
    requireContiguous(spec);
    const std::size_t n = spec.out.size();
    const auto windows =
        static_cast<std::size_t>(std::count_if(attrs.windows.begin(), attrs.windows.end(), [](std::int64_t w) { return w >= 0; }));
    if (body_.outputs() != n || attrs.windows.size() != n || spec.in.size() < n + windows + 1)
      wrong("a revision's outputs do not fit its body");
    workspace = body_.arenaBytes();
    std::size_t offset = n + 1;
    for (std::size_t i = 0; i < n; ++i) {
      const View& state = spec.in[i + 1];
      if (!sameAval(spec.out[i], state)) wrong("a revision changes the shape of a state");
      const auto scalar = static_cast<std::int64_t>(sizeOf(state.dtype));
      const std::int64_t size = static_cast<std::int64_t>(state.bytes()) / scalar, window = attrs.windows[i];
      State s{0, workspace, state.bytes(), 0, scalar};
      if (window >= 0) {
        if (window > size) wrong("a window is larger than its state");
        const View& begin = spec.in[offset];
        if (begin.dtype != DType::int32 || begin.size() != 1) wrong("a window begins where an int32 says");
        s = {offset++, workspace, static_cast<std::size_t>(window * scalar), size - window, scalar};
      }
      body_.requireInput(i, s.bytes);
      body_.requireOutput(i, s.bytes);
      if (body_.outputBytes(i) < s.bytes) wrong("a revision's body writes less than its state");
      workspace += Body::aligned(s.bytes);
      states_.push_back(s);
    }
    for (std::size_t i = n + 1; i < spec.in.size(); ++i) body_.requireInput(i - 1, spec.in[i].bytes());
  }
  static std::size_t operands(const Spec& spec) {
    if (spec.in.empty() || spec.in[0].size() != 1) wrong("a revision takes one number as its condition");
    return spec.in.size() - 1;
  }

  Body body_;
  std::vector<State> states_;
};

class WhileLoop final : public Kernel, public Waiting {
 public:
  explicit WhileLoop(const Spec& spec) : WhileLoop(spec, WhileLoopAttrs::decode(spec.attrs)) {}

  void run(const Call& call) const override {
    std::byte* arena = call.workspace;
    std::byte* flag = arena + arena_;
    std::byte* states = flag + 64;
    const auto in = call.in;
    const auto out = call.out;
    Body::Frame test(test_), next(next_);
    for (std::size_t i = 0; i < consts_; ++i) {
      test.input(i, in[i].data);
      next.input(i, in[i].data);
    }
    for (std::size_t i = 0; i < out.size(); ++i) move(call, states + offsets_[i], in[consts_ + i].data, out[i].bytes());
    test.output(0, flag);
    View holding = flag_;
    holding.data = flag;
    for (std::size_t now = 0;; now ^= 1) {
      for (std::size_t i = 0; i < out.size(); ++i) {
        std::byte* here = states + offsets_[i] + now * Body::aligned(out[i].bytes());
        std::byte* there = states + offsets_[i] + (now ^ 1) * Body::aligned(out[i].bytes());
        test.input(consts_ + i, here);
        next.input(consts_ + i, here);
        next.output(i, there);
      }
      if (!test.run(arena, call)) return;
      const bool goesOn = holds(call, holding);
      if (call.fault.load()) return;
      if (!goesOn) {
        for (std::size_t i = 0; i < out.size(); ++i)
          move(call, out[i].data, states + offsets_[i] + now * Body::aligned(out[i].bytes()), out[i].bytes());
        return;
      }
      if (!next.run(arena, call)) return;
    }
  }

 private:
  WhileLoop(const Spec& spec, const WhileLoopAttrs& attrs)
      : test_(attrs.test, spec, spec.in.size()), next_(attrs.body, spec, spec.in.size()), consts_(count(attrs.consts, spec.in.size())) {
    requireContiguous(spec);
    if (test_.outputs() != 1 || next_.outputs() != spec.out.size() || spec.in.size() != consts_ + spec.out.size())
      wrong("a loop's operands do not fit its bodies");
    const std::size_t width = test_.outputBytes(0);
    if (width != 1 && width != 4) wrong("a loop's test must be uint8, int32 or float32");
    // Zero is zero in both int32 and float32 but for the sign of a float.
    flag_.dtype = width == 1 ? DType::uint8 : DType::float32;
    for (std::size_t i = 0; i < spec.in.size(); ++i) {
      test_.requireInput(i, spec.in[i].bytes());
      next_.requireInput(i, spec.in[i].bytes());
    }
    std::size_t at = 0;
    for (std::size_t i = 0; i < spec.out.size(); ++i) {
      if (!sameAval(spec.out[i], spec.in[consts_ + i])) wrong("a loop's state changes its shape");
      next_.requireOutput(i, spec.out[i].bytes());
      offsets_.push_back(at);
      at += 2 * Body::aligned(spec.out[i].bytes());
    }
    arena_ = std::max(test_.arenaBytes(), next_.arenaBytes());
    workspace = arena_ + 64 + at;
  }

  Body test_, next_;
  std::size_t consts_;
  std::size_t arena_ = 0;
  std::vector<std::size_t> offsets_;
  View flag_;
};

}  // namespace

std::unique_ptr<Kernel> makeScan(const Spec& spec) { return std::make_unique<Scan>(spec); }
std::unique_ptr<Kernel> makeCond(const Spec& spec) { return std::make_unique<Cond>(spec); }
std::unique_ptr<Kernel> makeRevise(const Spec& spec) { return std::make_unique<Revise>(spec); }
std::unique_ptr<Kernel> makeWhileLoop(const Spec& spec) { return std::make_unique<WhileLoop>(spec); }

}  // namespace steepest::STEEPEST_LEVEL

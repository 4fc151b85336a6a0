// Kernels of `concat`, `pad` and `iota`.
#include "attrs/concat.gen.h"
#include "attrs/iota.gen.h"
#include "attrs/pad.gen.h"
#include "cuda/copy.cuh"

#include <vector>

namespace steepest::cuda {

namespace {

using layout::check;

// One input of a concat: its rows go into rows of the output.
template <class T>
__global__ void __launch_bounds__(kThreads) putRows(const T* in, T* out, const __grid_constant__ layout::Loops<1> loops, bool even,
                                                    std::int64_t size, std::int64_t width, std::int64_t outWidth, std::int64_t first) {
  for (std::int64_t i = threadOf(); i < size; i += threads())
    out[i / width * outWidth + first + i % width] = in[even ? i : offsetOf(loops, i)];
}

class Concat final : public Kernel {
 public:
  Concat(const Spec& spec, int axis) : bytes_(static_cast<std::int64_t>(sizeOf(spec.out[0].dtype))) {
    for (const View& in : spec.in) {
      parts_.push_back({layout::loopsOf(in), layout::span(in, axis, in.rank), in.size(), width_, in.contiguous()});
      width_ += parts_.back().width;
    }
  }
  void run(const Call& call) const override {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const Part& p = parts_[i];
      if (p.size == 0) continue;
      const std::byte* in = call.in[i].data;
      std::byte* out = call.out[0].data;
      const auto at = [&](std::int64_t n) { return static_cast<std::uintptr_t>(n * bytes_); };
      const auto least = static_cast<std::size_t>(bytes_);
      const std::size_t unit = p.even ? unitOf({address(in), address(out), at(p.width), at(width_), at(p.first)}, least) : least;
      const auto scale = [&](std::int64_t n) { return n * bytes_ / static_cast<std::int64_t>(unit); };
      byUnit(unit, [&](auto type) {
        using T = decltype(type);
        STEEPEST_LAUNCH(putRows<T>, gridFor(scale(p.size)), kThreads, 0, call, reinterpret_cast<const T*>(in), reinterpret_cast<T*>(out),
                        p.loops, p.even, scale(p.size), scale(p.width), scale(width_), scale(p.first));
      });
    }
  }

 private:
  struct Part {
    layout::Loops<1> loops;
    std::int64_t width, size, first;  // elements of a row, and of all; where its rows begin in a row of the output
    bool even;
  };
  std::int64_t bytes_, width_ = 0;
  std::vector<Part> parts_;
};

struct Padding {
  int rank;
  std::int64_t in[kMaxRank], step[kMaxRank], before[kMaxRank], out[kMaxRank];
};

template <class T>
__global__ void __launch_bounds__(kThreads) padded(const T* in, T* out, const __grid_constant__ Padding p, T value, std::int64_t size) {
  for (std::int64_t i = threadOf(); i < size; i += threads()) {
    std::int64_t rest = i, offset = 0;
    bool within = true;
    for (int d = p.rank - 1; d >= 0; --d) {
      const std::int64_t at = (d ? rest % p.out[d] : rest) - p.before[d];
      within = within && at >= 0 && at < p.in[d];
      offset += at * p.step[d];
      rest /= p.out[d];
    }
    out[i] = within ? in[offset] : value;
  }
}

class Pad final : public Kernel {
 public:
  Pad(const Spec& spec, const PadAttrs& a) : value_(a.value) {
    const View& in = spec.in[0];
    for (int i = 0; i < in.rank; ++i) {
      const auto axis = static_cast<std::size_t>(i);
      const int last = p_.rank - 1;
      // Axes without padding belong to the elements of the one before, where they lie together.
      if (last >= 0 && !a.before[axis] && !a.after[axis] && p_.step[last] == in.strides[i] * in.shape[i]) {
        p_.in[last] *= in.shape[i];
        p_.before[last] *= in.shape[i];
        p_.out[last] *= in.shape[i];
        p_.step[last] = in.strides[i];
        continue;
      }
      p_.in[p_.rank] = in.shape[i];
      p_.step[p_.rank] = in.strides[i];
      p_.before[p_.rank] = a.before[axis];
      p_.out[p_.rank++] = spec.out[0].shape[i];
    }
  }
  void run(const Call& call) const override {
    const View& out = call.out[0];
    layout::bySize(out.dtype, [&](auto zero) {
      using T = decltype(zero);
      STEEPEST_LAUNCH(padded<T>, gridFor(out.size()), kThreads, 0, call, call.in[0].as<T>(), out.as<T>(), p_,
                      layout::bitsOf<T>(value_, out.dtype), out.size());
    });
  }

 private:
  Padding p_{};
  double value_;
};

template <class T>
__device__ T numberOf(double x) {
  if constexpr (std::is_same_v<T, bf16>)
    return toBf16(static_cast<float>(x));
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(x > -9.2e18 && x < 9.2e18 ? static_cast<std::int64_t>(x) : 0);
  else
    return static_cast<T>(x);
}
template <class T>
__global__ void count(T* out, std::int64_t size, double start, double step) {
  for (std::int64_t i = threadOf(); i < size; i += threads()) out[i] = numberOf<T>(start + static_cast<double>(i) * step);
}

void iota(const Call& call, const IotaAttrs& a) {
  const View& out = call.out[0];
  const auto launch = [&](auto type) {
    using T = decltype(type);
    STEEPEST_LAUNCH(count<T>, gridFor(a.size), kThreads, 0, call, out.as<T>(), a.size, a.start, a.step);
  };
  if (out.dtype == DType::int32)
    launch(std::int32_t{});
  else if (out.dtype == DType::uint8)
    launch(std::uint8_t{});
  else
    byFloat(out.dtype, launch);
}

}  // namespace

std::unique_ptr<Kernel> makeConcat(const Spec& spec) {
  const ConcatAttrs a = ConcatAttrs::decode(spec.attrs);
  check(!spec.in.empty() && spec.out.size() == 1 && spec.out[0].contiguous(), "concat", "inputs, and one contiguous output");
  const View& out = spec.out[0];
  check(a.axis >= 0 && a.axis < out.rank, "concat", "axis of the output");
  const int axis = static_cast<int>(a.axis);
  std::int64_t total = 0;
  for (const View& in : spec.in) {
    check(in.rank == out.rank && in.dtype == out.dtype, "concat", "rank and dtype of the inputs");
    for (int i = 0; i < out.rank; ++i) check(i == axis || in.shape[i] == out.shape[i], "concat", "lengths other than the axis'");
    total += in.shape[axis];
  }
  check(total == out.shape[axis], "concat", "length of the output");
  return std::make_unique<Concat>(spec, axis);
}

std::unique_ptr<Kernel> makePad(const Spec& spec) {
  const PadAttrs a = PadAttrs::decode(spec.attrs);
  check(spec.in.size() == 1 && spec.out.size() == 1 && spec.out[0].contiguous(), "pad", "one input and one contiguous output");
  const View &in = spec.in[0], &out = spec.out[0];
  check(in.rank == out.rank && in.dtype == out.dtype, "pad", "rank and dtype");
  check(static_cast<int>(a.before.size()) == in.rank && static_cast<int>(a.after.size()) == in.rank, "pad", "one pair of widths per axis");
  for (int i = 0; i < in.rank; ++i) {
    const std::int64_t before = a.before[static_cast<std::size_t>(i)], after = a.after[static_cast<std::size_t>(i)];
    check(before >= 0 && before <= out.shape[i] && out.shape[i] - before - in.shape[i] == after && after >= 0, "pad", "widths and lengths");
  }
  return std::make_unique<Pad>(spec, a);
}

std::unique_ptr<Kernel> makeIota(const Spec& spec) {
  const IotaAttrs a = IotaAttrs::decode(spec.attrs);
  check(spec.in.empty() && spec.out.size() == 1, "iota", "no input and one output");
  const View& out = spec.out[0];
  check(out.rank == 1 && out.shape[0] == a.size && out.dtype == a.dtype && out.contiguous(), "iota", "shape and dtype of the output");
  return std::make_unique<SimpleKernel<IotaAttrs, iota>>(spec);
}

}  // namespace steepest::cuda

// Rows `conv` and `convInputBackward`. Of one place, products (conv_pointwise.h); where channels are many, oneDNN with the channels last
// (conv_dnnl.h); else, and in float64, a correlation of our own: of the input with the weights, or of the output's gradient with them for
// each phase of the stride.
#include "cpu/conv_checks.h"
#include "cpu/conv_dnnl.h"
#include "cpu/conv_pointwise.h"
#include "cpu/correlation.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

CorrelationShape channelsOf(const ConvShape& s, DType dtype) {
  CorrelationShape c;
  c.dtype = dtype;
  c.n = s.n;
  c.groups = s.groups;
  for (int i = 0; i < 2; ++i) c.taps[i] = s.windows.size[i];
  return c;
}

class Conv final : public Kernel {
 public:
  Conv(const Spec& spec, const ConvShape& s) {
    const View& w = spec.in[1];
    CorrelationShape c = channelsOf(s, w.dtype);
    c.inputs = s.inputs();
    c.outputs = s.outputs();
    Correlation::Plan plan{{0, 0}, {s.windows.out[0], s.windows.out[1]}, {s.windows.stride[0], s.windows.stride[1]}, {}, {}};
    for (int i = 0; i < 2; ++i) {
      c.in[i] = s.windows.in[i];
      c.out[i] = s.windows.out[i];
      c.tap[i] = w.strides[2 + i];
      for (std::int64_t t = 0; t < s.windows.size[i]; ++t) (i ? plan.w : plan.h).emplace_back(t, s.windows.start(i, t));
    }
    c.group = s.outputs() * w.strides[0];
    c.output = w.strides[0];
    c.input = w.strides[1];
    correlation_ = Correlation(c, {plan}, spec.threads);
    workspace = correlation_.workspace();
  }
  void run(const Call& call) const override {
    correlation_.run(call.in[0], call.in[1], call.in.size() > 2 ? &call.in[2] : nullptr, call.out[0], call.workspace, call.pool);
  }

 private:
  Correlation correlation_;
};

// Input position i = phase + stride · r meets tap t where i + before - t · dilation is a multiple of the stride: at output position
// r + (phase + before - t · dilation) / stride.
Correlation::Taps tapsOf(const Windows& v, int axis, std::int64_t phase) {
  Correlation::Taps taps;
  for (std::int64_t t = 0; t < v.size[axis]; ++t) {
    const std::int64_t at = phase - v.start(axis, t);
    if (at % v.stride[axis] == 0) taps.emplace_back(t, at / v.stride[axis]);
  }
  return taps;
}

class ConvInputBackward final : public Kernel {
 public:
  ConvInputBackward(const Spec& spec, const ConvShape& s) {
    const View& w = spec.in[1];
    const Windows& v = s.windows;
    CorrelationShape c = channelsOf(s, w.dtype);
    c.inputs = s.outputs();
    c.outputs = s.inputs();
    c.group = s.outputs() * w.strides[0];
    c.output = w.strides[1];
    c.input = w.strides[0];
    for (int i = 0; i < 2; ++i) {
      c.in[i] = v.out[i];
      c.out[i] = v.in[i];
      c.step[i] = v.stride[i];
      c.tap[i] = w.strides[2 + i];
    }
    std::vector<Correlation::Plan> plans;
    for (std::int64_t i = 0; i < std::min(v.stride[0], v.in[0]); ++i) {
      const Correlation::Taps h = tapsOf(v, 0, i);
      for (std::int64_t j = 0; j < std::min(v.stride[1], v.in[1]); ++j) {
        const auto count = [&](int axis, std::int64_t phase) { return (v.in[axis] - phase + v.stride[axis] - 1) / v.stride[axis]; };
        plans.push_back({{i, j}, {count(0, i), count(1, j)}, {1, 1}, h, tapsOf(v, 1, j)});
      }
    }
    correlation_ = Correlation(c, plans, spec.threads);
    workspace = correlation_.workspace();
  }
  void run(const Call& call) const override { correlation_.run(call.in[0], call.in[1], nullptr, call.out[0], call.workspace, call.pool); }

 private:
  Correlation correlation_;
};

}  // namespace

std::unique_ptr<Kernel> makeConv(const Spec& spec) {
  const ConvShape shape = checkConv(spec, ConvAttrs::decode(spec.attrs));
  if (auto kernel = fastKernel(spec, shape, ConvPass::forward)) return kernel;
  return std::make_unique<Conv>(spec, shape);
}

std::unique_ptr<Kernel> makeConvInputBackward(const Spec& spec) {
  const ConvShape shape = checkConvInputBackward(spec, ConvInputBackwardAttrs::decode(spec.attrs));
  if (auto kernel = fastKernel(spec, shape, ConvPass::input)) return kernel;
  return std::make_unique<ConvInputBackward>(spec, shape);
}

}  // namespace steepest::STEEPEST_LEVEL

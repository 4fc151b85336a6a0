// Layer norm and RMS norm over the last axes; they differ in whether the mean is taken away.
#include "cpu/layernorm.h"

#include "attrs/layerNorm.gen.h"
#include "attrs/layerNormBackward.gen.h"
#include "attrs/rmsNorm.gen.h"
#include "attrs/rmsNormBackward.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

class LayerNorm final : public Kernel {
 public:
  explicit LayerNorm(const Spec& spec) : attrs_(LayerNormAttrs::decode(spec.attrs)) {
    checkNorm(spec, attrs_.axes, attrs_.weight, attrs_.bias, true);
  }
  void run(const Call& call) const override {
    NormIo io = normForward(call, attrs_.axes, attrs_.weight, attrs_.bias);
    io.mean = call.out[1].data;
    io.rstd = call.out[2].data;
    byNormTypes(io, [&](auto t, auto w) { forwardRows<true, decltype(t), decltype(w)>(call.pool, io, attrs_.eps); });
  }

 private:
  LayerNormAttrs attrs_;
};

class RmsNorm final : public Kernel {
 public:
  explicit RmsNorm(const Spec& spec) : attrs_(RmsNormAttrs::decode(spec.attrs)) {
    checkNorm(spec, attrs_.axes, attrs_.weight, false, false);
  }
  void run(const Call& call) const override {
    NormIo io = normForward(call, attrs_.axes, attrs_.weight, false);
    io.rstd = call.out[1].data;
    byNormTypes(io, [&](auto t, auto w) { forwardRows<false, decltype(t), decltype(w)>(call.pool, io, attrs_.eps); });
  }

 private:
  RmsNormAttrs attrs_;
};

class LayerNormBackward final : public Kernel {
 public:
  explicit LayerNormBackward(const Spec& spec) : attrs_(LayerNormBackwardAttrs::decode(spec.attrs)) {
    checkNormBackward(spec, attrs_.axes, attrs_.weight, {attrs_.dx, attrs_.dweight, attrs_.dbias}, true);
    workspace = partialBytes(spec, attrs_.axes, attrs_.dweight + attrs_.dbias);
  }
  void run(const Call& call) const override {
    NormIo io = normBackward(call, attrs_.axes, attrs_.weight, {attrs_.dx, attrs_.dweight, attrs_.dbias}, true);
    byNormTypes(io, [&](auto t, auto w) { backwardRows<true, decltype(t), decltype(w)>(call, io); });
  }

 private:
  LayerNormBackwardAttrs attrs_;
};

class RmsNormBackward final : public Kernel {
 public:
  explicit RmsNormBackward(const Spec& spec) : attrs_(RmsNormBackwardAttrs::decode(spec.attrs)) {
    checkNormBackward(spec, attrs_.axes, attrs_.weight, {attrs_.dx, attrs_.dweight, false}, false);
    workspace = partialBytes(spec, attrs_.axes, attrs_.dweight);
  }
  void run(const Call& call) const override {
    NormIo io = normBackward(call, attrs_.axes, attrs_.weight, {attrs_.dx, attrs_.dweight, false}, false);
    byNormTypes(io, [&](auto t, auto w) { backwardRows<false, decltype(t), decltype(w)>(call, io); });
  }

 private:
  RmsNormBackwardAttrs attrs_;
};

}  // namespace

std::unique_ptr<Kernel> makeLayerNorm(const Spec& spec) { return std::make_unique<LayerNorm>(spec); }
std::unique_ptr<Kernel> makeRmsNorm(const Spec& spec) { return std::make_unique<RmsNorm>(spec); }
std::unique_ptr<Kernel> makeLayerNormBackward(const Spec& spec) { return std::make_unique<LayerNormBackward>(spec); }
std::unique_ptr<Kernel> makeRmsNormBackward(const Spec& spec) { return std::make_unique<RmsNormBackward>(spec); }

}  // namespace steepest::STEEPEST_LEVEL

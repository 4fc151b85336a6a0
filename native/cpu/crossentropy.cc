// Cross-entropy of logits that lie in memory.
#include "cpu/crossentropy_checks.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

class CrossEntropy final : public Kernel {
 public:
  explicit CrossEntropy(const Spec& spec) : options_(checkCrossEntropy(spec, CrossEntropyAttrs::decode(spec.attrs))) {}
  void run(const Call& call) const override {
    const View& logits = call.in[0];
    const std::int64_t n = logits.dim(-1);
    byFloat(logits.dtype, [&](auto type) {
      using T = decltype(type);
      using V = VecOf<T>;
      using S = typename V::Scalar;
      const std::int32_t* labels = call.in[1].as<std::int32_t>();
      eachRow(call.pool, call.in[1].size(), n, [&](std::int64_t row) {
        const T* x = logits.as<T>() + row * n;
        const RowSums<S> sums = rowSums(x, n, options_);
        const S lse = logSumExp<V>(sums);
        call.out[1].as<S>()[row] = lse;
        S& loss = call.out[0].as<S>()[row];
        switch (judge(labels[row], n, options_)) {
          case Label::ignored:
            loss = 0;
            break;
          case Label::wrong:
            faultIndex(call.fault);
            loss = std::numeric_limits<S>::quiet_NaN();
            break;
          case Label::column: {
            const S picked = firstLane(Cap<V>(options_.softCap)(V::load(x + labels[row], 1)));
            loss = rowLoss(lse, picked, sums.plain, n, options_);
          }
        }
      });
    });
  }

 private:
  CrossEntropyOptions options_;
};

// Inputs logits, labels, lse and the gradient of the losses.
class CrossEntropyBackward final : public Kernel {
 public:
  explicit CrossEntropyBackward(const Spec& spec)
      : options_(checkCrossEntropyBackward(spec, CrossEntropyBackwardAttrs::decode(spec.attrs))) {}
  void run(const Call& call) const override {
    const View& logits = call.in[0];
    const std::int64_t n = logits.dim(-1);
    byFloat(logits.dtype, [&](auto type) {
      using T = decltype(type);
      using S = typename VecOf<T>::Scalar;
      const std::int32_t* labels = call.in[1].as<std::int32_t>();
      eachRow(call.pool, call.in[1].size(), n, [&](std::int64_t row) {
        T* out = call.out[0].as<T>() + row * n;
        if (judge(labels[row], n, options_) != Label::column) return zeroRow(out, n);
        gradientRow(logits.as<T>() + row * n, out, n, labels[row], n, call.in[2].as<S>()[row], call.in[3].as<S>()[row], options_);
      });
    });
  }

 private:
  CrossEntropyOptions options_;
};

}  // namespace

std::unique_ptr<Kernel> makeCrossEntropy(const Spec& spec) { return std::make_unique<CrossEntropy>(spec); }
std::unique_ptr<Kernel> makeCrossEntropyBackward(const Spec& spec) { return std::make_unique<CrossEntropyBackward>(spec); }

}  // namespace steepest::STEEPEST_LEVEL

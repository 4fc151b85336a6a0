// Cross-entropy of logits that lie in memory.
#include "cpu/crossentropy.h"

#include "attrs/crossEntropy.gen.h"
#include "attrs/crossEntropyBackward.gen.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

// logits [..., V], labels [...], and values of the rows.
void checkLogits(const View& logits, const View& labels) {
  require(isFloat(logits.dtype) && logits.rank >= 1 && logits.contiguous(), "crossEntropy: wrong logits");
  require(leads(labels, logits, 1) && labels.dtype == DType::int32 && labels.contiguous(), "crossEntropy: wrong labels");
}
void checkValues(const View& values, const View& logits) {
  require(leads(values, logits, 1) && values.dtype == statistics(logits.dtype) && values.contiguous(),
          "crossEntropy: wrong values of rows");
}

class CrossEntropy final : public Kernel {
 public:
  explicit CrossEntropy(const Spec& spec) : options_(CrossEntropyOptions::of(CrossEntropyAttrs::decode(spec.attrs))) {
    require(spec.in.size() == 2 && spec.out.size() == 2, "crossEntropy: wrong number of operands");
    checkLogits(spec.in[0], spec.in[1]);
    checkValues(spec.out[0], spec.in[0]);
    checkValues(spec.out[1], spec.in[0]);
  }
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
  explicit CrossEntropyBackward(const Spec& spec) : options_(CrossEntropyOptions::of(CrossEntropyBackwardAttrs::decode(spec.attrs))) {
    require(spec.in.size() == 4 && spec.out.size() == 1, "crossEntropy: wrong number of operands");
    checkLogits(spec.in[0], spec.in[1]);
    checkValues(spec.in[2], spec.in[0]);
    checkValues(spec.in[3], spec.in[0]);
    require(sameShape(spec.out[0], spec.in[0]) && spec.out[0].dtype == spec.in[0].dtype, "crossEntropy: wrong output");
  }
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

// Batch norm of [N, C, ...]: a channel is one tile, and small enough to stay in a cache while it is read for its mean, its variance and its
// result.
#include "cpu/batchnorm.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

struct Channels {
  std::int64_t images = 0, channels = 0, area = 1;
  explicit Channels(const View& x) : images(x.shape[0]), channels(x.shape[1]) {
    for (int i = 2; i < x.rank; ++i) area *= x.shape[i];
  }
};

template <class W>
auto numberAt(const std::byte* p, std::int64_t i) {
  return firstLane(VecOf<W>::load(reinterpret_cast<const W*>(p) + i, 1));
}

// f(offset of a plane) for every image of a channel.
template <class F>
void eachImage(const Channels& s, std::int64_t channel, F&& f) {
  for (std::int64_t n = 0; n < s.images; ++n) f((n * s.channels + channel) * s.area);
}

template <class T, class W>
void forwardChannel(const NormIo& io, const Channels& s, std::int64_t c, double eps) {
  using V = typename Math<T>::V;
  using S = typename Math<T>::S;
  const T* const x = reinterpret_cast<const T*>(io.x);
  T* const y = reinterpret_cast<T*>(io.y);
  // Sums of planes in lanes, their sum in double.
  const double per = 1.0 / static_cast<double>(s.images * s.area);
  double total = 0, squares = 0;
  eachImage(s, c, [&](std::int64_t at) {
    total += static_cast<double>(sum(sumVectors<V>(s.area, [&](auto w, std::int64_t i) { return w.load(x + at + i); })));
  });
  const V mean(static_cast<S>(total * per));
  eachImage(s, c, [&](std::int64_t at) {
    squares += static_cast<double>(sum(sumVectors<V>(s.area, [&](auto w, std::int64_t i) {
      const V d = w.pad(w.load(x + at + i) - mean, V(0));
      return d * d;
    })));
  });
  const V variance(static_cast<S>(squares * per));
  store(reinterpret_cast<S*>(io.mean) + c, mean, 1);
  store(reinterpret_cast<S*>(io.rstd) + c, variance, 1);
  const V scale = V(1) / sqrt(variance + V(static_cast<S>(eps))) * V(numberAt<W>(io.weight, c));
  const V shift(numberAt<W>(io.bias, c));
  eachImage(s, c, [&](std::int64_t at) {
    eachVector<V>(s.area, [&](auto w, std::int64_t i) { w.store(y + at + i, fma(w.load(x + at + i) - mean, scale, shift)); });
  });
}

template <class T, class W>
void backwardChannel(const NormIo& io, const Channels& s, std::int64_t c, double eps) {
  using V = typename Math<T>::V;
  using S = typename Math<T>::S;
  const T* const x = reinterpret_cast<const T*>(io.x);
  const T* const dy = reinterpret_cast<const T*>(io.dy);
  T* const dx = reinterpret_cast<T*>(io.dx);
  const V mean(reinterpret_cast<const S*>(io.mean)[c]);
  const V rstd = V(1) / sqrt(V(reinterpret_cast<const S*>(io.rstd)[c]) + V(static_cast<S>(eps)));
  double along = 0, slope = 0;
  eachImage(s, c, [&](std::int64_t at) {
    V normal[2] = {V(0), V(0)}, plain[2] = {V(0), V(0)};
    int turn = 0;
    eachVector<V>(s.area, [&](auto w, std::int64_t i) {
      const V g = w.load(dy + at + i);
      plain[turn] = plain[turn] + g;
      normal[turn] = fma(g, w.pad(w.load(x + at + i) - mean, V(0)), normal[turn]);
      turn ^= 1;
    });
    along += static_cast<double>(sum((normal[0] + normal[1]) * rstd));
    slope += static_cast<double>(sum(plain[0] + plain[1]));
  });
  store(reinterpret_cast<W*>(io.dweight) + c, VecOf<W>(static_cast<typename VecOf<W>::Scalar>(along)), 1);
  store(reinterpret_cast<W*>(io.dbias) + c, VecOf<W>(static_cast<typename VecOf<W>::Scalar>(slope)), 1);
  const double per = 1.0 / static_cast<double>(s.images * s.area);
  const V scale = rstd * V(numberAt<W>(io.weight, c)), ga = rstd * V(static_cast<S>(along * per)), gb(static_cast<S>(slope * per));
  eachImage(s, c, [&](std::int64_t at) {
    eachVector<V>(s.area, [&](auto w, std::int64_t i) {
      w.store(dx + at + i, scale * fnma(w.load(x + at + i) - mean, ga, w.load(dy + at + i) - gb));
    });
  });
}

class BatchNorm final : public Kernel {
 public:
  explicit BatchNorm(const Spec& spec) : attrs_(BatchNormAttrs::decode(spec.attrs)) { checkBatchNorm(spec); }
  void run(const Call& call) const override {
    const Channels s(call.in[0]);
    NormIo io;
    io.type = call.in[0].dtype;
    io.weightType = call.in[1].dtype;
    io.x = call.in[0].data;
    io.weight = call.in[1].data;
    io.bias = call.in[2].data;
    io.y = call.out[0].data;
    io.mean = call.out[1].data;
    io.rstd = call.out[2].data;
    byNormTypes(io, [&](auto t, auto w) {
      eachRow(call.pool, s.channels, s.images * s.area,
              [&](std::int64_t c) { forwardChannel<decltype(t), decltype(w)>(io, s, c, attrs_.eps); });
    });
  }

 private:
  BatchNormAttrs attrs_;
};

class BatchNormBackward final : public Kernel {
 public:
  explicit BatchNormBackward(const Spec& spec) : attrs_(BatchNormBackwardAttrs::decode(spec.attrs)) { checkBatchNormBackward(spec); }
  void run(const Call& call) const override {
    const Channels s(call.in[0]);
    NormIo io;
    io.type = call.in[0].dtype;
    io.weightType = call.in[4].dtype;
    io.x = call.in[0].data;
    io.dy = call.in[1].data;
    io.mean = call.in[2].data;
    io.rstd = call.in[3].data;
    io.weight = call.in[4].data;
    io.dx = call.out[0].data;
    io.dweight = call.out[1].data;
    io.dbias = call.out[2].data;
    byNormTypes(io, [&](auto t, auto w) {
      eachRow(call.pool, s.channels, 2 * s.images * s.area,
              [&](std::int64_t c) { backwardChannel<decltype(t), decltype(w)>(io, s, c, attrs_.eps); });
    });
  }

 private:
  BatchNormBackwardAttrs attrs_;
};

}  // namespace

std::unique_ptr<Kernel> makeBatchNorm(const Spec& spec) { return std::make_unique<BatchNorm>(spec); }
std::unique_ptr<Kernel> makeBatchNormBackward(const Spec& spec) { return std::make_unique<BatchNormBackward>(spec); }

}  // namespace steepest::STEEPEST_LEVEL

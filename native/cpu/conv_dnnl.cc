#include "cpu/conv_dnnl.h"

#include <cstring>

#include "cpu/channels_last.h"
#include "cpu/copy.h"
#include "cpu/gemm_own.h"

namespace steepest::STEEPEST_LEVEL {

namespace {

constexpr std::int64_t kTiles = 16, kTileWork = 2 << 20;
// Weights, or sums of their gradient, of the output channels of one tile, so that they stay in the second-level cache.
constexpr std::int64_t kPartWeights = 512 << 10, kPartSums = 256 << 10;

std::size_t align(std::size_t bytes) { return (bytes + 63) / 64 * 64; }
std::int64_t ceilDiv(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

MemoryDesc channelsLastDesc(DType dtype, std::int64_t n, std::int64_t c, const std::int64_t (&size)[2]) {
  return stridedDesc(dtype, {n, c, size[0], size[1]}, {size[0] * size[1] * c, 1, size[1] * c, c});
}

// Whether oneDNN is faster than steepest's own loops.
bool libraryPays(const ConvShape& s, DType dtype, ConvPass pass) {
  if (dtype == DType::float64 || (dtype == DType::bfloat16 && !dnnlHasBf16())) return false;
  const Windows& v = s.windows;
  const std::int64_t i = s.inputs(), o = s.outputs();
  if (s.n * i * o * v.in[0] * v.in[1] * v.out[0] * v.out[1] == 0 || s.o > kLongest || s.c > kLongest || s.n > kLongest) return false;
  for (int a = 0; a < 2; ++a) {
    const std::int64_t reach = v.dilation[a] * (v.size[a] - 1) + 1;
    if (v.before[a] >= reach || v.after[a] >= reach) return false;
  }
  // Products for each element that changes its layout. Measured on an AMD EPYC (Zen 5, AVX-512): see bench/results.
  return v.places() * i * o / (i + o) >= (pass == ConvPass::weight ? 24 : 48);
}

}  // namespace

Primitive libraryConv(ConvPass pass, const ConvShape& shape, DType dtype, std::int64_t images, std::int64_t inputs, std::int64_t outputs,
                      bool bias) {
  const Windows& v = shape.windows;
  const dnnl_dims_t strides = {v.stride[0], v.stride[1]}, dilates = {v.dilation[0] - 1, v.dilation[1] - 1};
  const dnnl_dims_t before = {v.before[0], v.before[1]}, after = {v.after[0], v.after[1]};
  const MemoryDesc x = channelsLastDesc(dtype, images, inputs, v.in), y = channelsLastDesc(dtype, images, outputs, v.out);
  const MemoryDesc w = anyDesc(dtype, {outputs, inputs, v.size[0], v.size[1]});
  MemoryDesc b;
  if (bias) b = stridedDesc(pass == ConvPass::weight ? DType::float32 : dtype, {outputs}, {1});
  const PrimitiveAttr attr = dnnlAttr(false);
  dnnlStream();  // one OpenMP thread before the primitive is made: its blocking depends on it
  dnnl_primitive_desc_t made = nullptr;
  dnnlCheck(dnnl_convolution_forward_primitive_desc_create(&made, dnnlEngine(), dnnl_forward_training, dnnl_convolution_direct, x.get(),
                                                           w.get(), pass == ConvPass::forward ? b.get() : nullptr, y.get(), strides,
                                                           dilates, before, after, attr.get()),
            "a convolution");
  PrimitiveDesc forward(made);
  if (pass == ConvPass::forward) {
    if (bias) return Primitive(std::move(forward), {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS});
    return Primitive(std::move(forward), {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST});
  }
  if (pass == ConvPass::input) {
    dnnlCheck(dnnl_convolution_backward_data_primitive_desc_create(&made, dnnlEngine(), dnnl_convolution_direct, x.get(), w.get(), y.get(),
                                                                   strides, dilates, before, after, forward.get(), attr.get()),
              "a convolution's gradient by its input");
    return Primitive(PrimitiveDesc(made), {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC});
  }
  const MemoryDesc dw = anyDesc(DType::float32, {outputs, inputs, v.size[0], v.size[1]});
  dnnlCheck(
      dnnl_convolution_backward_weights_primitive_desc_create(&made, dnnlEngine(), dnnl_convolution_direct, x.get(), dw.get(), b.get(),
                                                              y.get(), strides, dilates, before, after, forward.get(), attr.get()),
      "a convolution's gradient by its weight");
  if (bias) return Primitive(PrimitiveDesc(made), {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS});
  return Primitive(PrimitiveDesc(made), {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS});
}

namespace {

template <class U>
void imageLast(const View& x, std::int64_t image, std::int64_t channel, std::int64_t channels, std::byte* to, std::byte* lines) {
  const Source<U> source{x.as<U>() + image * x.strides[0] + channel * x.strides[1], x.strides[1], x.strides[2], x.strides[3]};
  channelsLast(source, channels, x.shape[2], x.shape[3], reinterpret_cast<U*>(to), reinterpret_cast<U*>(lines));
}
void imageLast(const View& x, std::int64_t image, std::int64_t channel, std::int64_t channels, std::byte* to, std::byte* lines) {
  if (x.dtype == DType::bfloat16)
    imageLast<std::uint16_t>(x, image, channel, channels, to, lines);
  else
    imageLast<std::uint32_t>(x, image, channel, channels, to, lines);
}

// Images that one call of a primitive takes.
std::int64_t imagesOf(const ConvShape& s, std::int64_t channels, std::int64_t least) {
  const Windows& v = s.windows;
  const std::int64_t area = v.out[0] * v.out[1], work = v.places() * channels * area;
  return std::min(s.n, std::max(ceilDiv(kTileWork, work), ceilDiv(least, area)));
}

// Even parts of at most so many channels, but not fewer than 64.
std::int64_t partOf(std::int64_t channels, std::int64_t most) {
  const std::int64_t parts = ceilDiv(channels, std::max<std::int64_t>(64, most));
  return std::min(channels, ceilDiv(ceilDiv(channels, parts), 16) * 16);
}

class LibraryCorrelation final : public Kernel {
 public:
  LibraryCorrelation(const Spec& spec, const ConvShape& shape, ConvPass pass) : shape_(shape), forward_(pass == ConvPass::forward) {
    const View& w = spec.in[1];
    dtype_ = w.dtype;
    unit_ = static_cast<std::int64_t>(sizeOf(dtype_));
    from_ = forward_ ? shape.inputs() : shape.outputs();
    to_ = forward_ ? shape.outputs() : shape.inputs();
    bias_ = spec.in.size() > 2;
    const std::int64_t kernel = shape.windows.places() * from_;
    part_ = partOf(to_, kPartWeights / kernel);
    each_ = imagesOf(shape, from_ * part_, 1);
    while (shape.groups * ceilDiv(shape.n, each_) * ceilDiv(to_, part_) < kTiles / 2 && part_ >= 64) part_ = ceilDiv(part_ / 2, 16) * 16;
    parts_ = ceilDiv(to_, part_);
    chunks_ = ceilDiv(shape.n, each_);
    std::size_t library = 0, packed = 0;
    for (int kind = 0; kind < 4; ++kind) {
      const std::int64_t images = kind & 1 ? shape.n - (chunks_ - 1) * each_ : each_;
      const std::int64_t count = kind & 2 ? to_ - (parts_ - 1) * part_ : part_;
      if (((kind & 1) && images == each_) || ((kind & 2) && count == part_)) continue;
      Primitive& p = primitives_[kind];
      p = libraryConv(pass, shape, dtype_, images, forward_ ? from_ : count, forward_ ? count : from_, bias_);
      library = std::max(library, p.scratch());
      // Weights lie as the whole chunk wants them; another one gets them from there.
      if (kind & 1) continue;
      const std::int64_t row = shape.inputs() * shape.windows.places(), tap = shape.windows.places();
      const MemoryDesc plain =
          stridedDesc(dtype_, {forward_ ? count : from_, forward_ ? from_ : count, shape.windows.size[0], shape.windows.size[1]},
                      {row, tap, shape.windows.size[1], 1});
      reorders_[kind >> 1] = reorder(plain.get(), p.layout(DNNL_ARG_WEIGHTS));
      packed = std::max(packed, p.bytes(DNNL_ARG_WEIGHTS));
      reorderScratch_ = std::max(reorderScratch_, reorders_[kind >> 1].scratch());
    }
    for (int kind : {1, 3}) {
      if (!primitives_[kind]) continue;
      Primitive& whole = primitives_[kind & 2 && primitives_[2] ? 2 : 0];
      again_[kind >> 1] = reorder(whole.layout(DNNL_ARG_WEIGHTS), primitives_[kind].layout(DNNL_ARG_WEIGHTS));
      packed = std::max(packed, primitives_[kind].bytes(DNNL_ARG_WEIGHTS));
      reorderScratch_ = std::max(reorderScratch_, again_[kind >> 1].scratch());
    }
    partBytes_ = align(packed);
    contiguous_ = w.contiguous();
    std::size_t at = 0;
    const auto take = [&](std::size_t bytes) {
      const std::size_t here = at;
      at += align(bytes);
      return here;
    };
    packedAt_ = take(partBytes_ * static_cast<std::size_t>(shape.groups * parts_));
    againAt_ = take(primitives_[1] || primitives_[3] ? partBytes_ * static_cast<std::size_t>(shape.groups * parts_) : 0);
    plainAt_ = take(contiguous_ ? 0 : w.bytes());
    biasAt_ = take(bias_ ? static_cast<std::size_t>(shape.o * unit_) : 0);
    threadsAt_ = at;
    at = 0;
    const Windows& v = shape.windows;
    const std::int64_t in = v.in[0] * v.in[1], out = v.out[0] * v.out[1];
    const std::int64_t fromArea = forward_ ? in : out, toArea = forward_ ? out : in;
    fromAt_ = take(static_cast<std::size_t>(each_ * fromArea * from_ * unit_));
    toAt_ = take(static_cast<std::size_t>(each_ * toArea * part_ * unit_));
    linesAt_ = take(static_cast<std::size_t>(kSquare * fromArea * unit_));
    libraryAt_ = take(std::max(library, reorderScratch_));
    threadBytes_ = at;
    workspace = threadsAt_ + threadBytes_ * static_cast<std::size_t>(spec.threads);
  }

  void run(const Call& call) const override {
    const View &x = call.in[0], &w = call.in[1], &y = call.out[0];
    const std::byte* weights = w.data;
    if (!contiguous_) {
      layout::bySize(dtype_, [&]<class U>(U) {
        layout::copyRun(w.as<U>(), layout::loopsOf(w), 0, w.size(), reinterpret_cast<U*>(call.workspace + plainAt_));
      });
      weights = call.workspace + plainAt_;
    }
    if (bias_) {
      const View& b = call.in[2];
      for (std::int64_t i = 0; i < shape_.o; ++i)
        std::memcpy(call.workspace + biasAt_ + i * unit_, b.data + i * b.strides[0] * unit_, static_cast<std::size_t>(unit_));
    }
    const auto scratchOf = [&](int thread) { return call.workspace + threadsAt_ + threadBytes_ * static_cast<std::size_t>(thread); };
    const std::int64_t kernel = shape_.inputs() * shape_.windows.places();
    call.pool.run(shape_.groups * parts_, [&](std::int64_t t, int thread) {
      const std::int64_t group = t / parts_, part = t % parts_;
      const std::int64_t first = group * shape_.outputs() * kernel + part * part_ * (forward_ ? kernel : shape_.windows.places());
      std::byte* const packed = call.workspace + packedAt_ + partBytes_ * static_cast<std::size_t>(t);
      const int last = part == parts_ - 1 && primitives_[2] ? 1 : 0;
      std::byte* const library = scratchOf(thread) + libraryAt_;
      if (reorders_[last])
        reorders_[last].run({weights + first * unit_, packed}, library);
      else
        copyPlain(weights + first * unit_, packed, last);
      if (!againAt_) return;
      const int kind = last ? 3 : 1;
      if (primitives_[kind] && again_[kind >> 1])
        again_[kind >> 1].run({packed, call.workspace + againAt_ + partBytes_ * static_cast<std::size_t>(t)}, library);
    });
    call.pool.run(shape_.groups * parts_ * chunks_, [&](std::int64_t t, int thread) {
      tile(call, t / chunks_ / parts_, t / chunks_ % parts_, t % chunks_, x, y, scratchOf(thread));
    });
  }

 private:
  // The layout that the primitive wants is the plain one; the rows of a part may still lie apart.
  void copyPlain(const std::byte* from, std::byte* to, int last) const {
    const std::int64_t places = shape_.windows.places(), count = last ? to_ - (parts_ - 1) * part_ : part_;
    if (forward_) {
      std::memcpy(to, from, static_cast<std::size_t>(count * from_ * places * unit_));
      return;
    }
    const std::int64_t row = shape_.inputs() * places * unit_, bytes = count * places * unit_;
    for (std::int64_t o = 0; o < from_; ++o) std::memcpy(to + o * bytes, from + o * row, static_cast<std::size_t>(bytes));
  }

  void tile(const Call& call, std::int64_t group, std::int64_t part, std::int64_t chunk, const View& x, const View& y,
            std::byte* scratch) const {
    const std::int64_t images = std::min(each_, shape_.n - chunk * each_), count = std::min(part_, to_ - part * part_);
    const std::int64_t fromBytes = x.shape[2] * x.shape[3] * from_ * unit_, area = y.shape[2] * y.shape[3];
    for (std::int64_t i = 0; i < images; ++i)
      imageLast(x, chunk * each_ + i, group * from_, from_, scratch + fromAt_ + i * fromBytes, scratch + linesAt_);
    const int kind = (images < each_ ? 1 : 0) | (count < part_ ? 2 : 0);
    const bool again = (kind & 1) && again_[kind >> 1];
    const std::size_t packed = (again ? againAt_ : packedAt_) + partBytes_ * static_cast<std::size_t>(group * parts_ + part);
    const std::int64_t first = group * to_ + part * part_;
    if (bias_)
      primitives_[kind].run({scratch + fromAt_, call.workspace + packed, scratch + toAt_, call.workspace + biasAt_ + first * unit_},
                            scratch + libraryAt_);
    else
      primitives_[kind].run({scratch + fromAt_, call.workspace + packed, scratch + toAt_}, scratch + libraryAt_);
    for (std::int64_t i = 0; i < images; ++i) {
      const std::int64_t at = ((chunk * each_ + i) * y.shape[1] + first) * area;
      layout::bySize(dtype_, [&]<class U>(U) {
        if constexpr (sizeof(U) == 2 || sizeof(U) == 4)
          channelsFirst(reinterpret_cast<const U*>(scratch + toAt_) + i * area * count, count, area, y.as<U>() + at, area);
      });
    }
  }

  ConvShape shape_;
  DType dtype_ = DType::float32;
  bool forward_, bias_ = false, contiguous_ = true;
  std::int64_t unit_ = 4, from_ = 0, to_ = 0;  // channels of a group that are read and written
  std::int64_t part_ = 1, parts_ = 1, each_ = 1, chunks_ = 1;
  Primitive primitives_[4];           // by whether the chunk of images (1) and the part of the channels (2) is a shorter, last one
  Primitive reorders_[2], again_[2];  // of the weights, by whether the part is the last
  std::size_t reorderScratch_ = 0, partBytes_ = 0, packedAt_ = 0, againAt_ = 0, plainAt_ = 0, biasAt_ = 0, threadsAt_ = 0;
  std::size_t fromAt_ = 0, toAt_ = 0, linesAt_ = 0, libraryAt_ = 0, threadBytes_ = 0;
};

class LibraryWeights final : public Kernel {
 public:
  LibraryWeights(const Spec& spec, const ConvShape& shape) : shape_(shape), dtype_(spec.in[0].dtype), bias_(spec.out.size() > 1) {
    const std::int64_t inputs = shape.inputs(), outputs = shape.outputs(), places = shape.windows.places();
    const Windows& v = shape.windows;
    unit_ = static_cast<std::int64_t>(sizeOf(dtype_));
    const std::int64_t kernel = inputs * places;
    part_ = partOf(outputs, kPartSums / kernel);
    const std::int64_t weightBytes = shape.o * kernel * 4;
    pieces_ = std::min({shape.n, std::max<std::int64_t>(1, ceilDiv(kTiles / 2, shape.groups * ceilDiv(outputs, part_))),
                        std::max<std::int64_t>(1, kPartialBytes / weightBytes)});
    while (pieces_ * shape.groups * ceilDiv(outputs, part_) < kTiles / 2 && part_ >= 64) part_ = ceilDiv(part_ / 2, 16) * 16;
    parts_ = ceilDiv(outputs, part_);
    each_ = std::min(imagesOf(shape, inputs * part_, kPositions), ceilDiv(shape.n, pieces_));
    // The last chunk of a piece may be shorter by any number; it is one of at most so many lengths as pieces differ by one image.
    const std::int64_t shortest = shape.n / pieces_ % each_, longer = (shape.n + pieces_ - 1) / pieces_ % each_;
    const std::int64_t images[3] = {each_, shortest, longer};
    std::size_t library = 0, partial = 0;
    for (int kind = 0; kind < 6; ++kind) {
      const std::int64_t n = images[kind >> 1], count = kind & 1 ? outputs - (parts_ - 1) * part_ : part_;
      if (n == 0 || (kind >> 1 && n == each_) || (kind >> 1 == 2 && longer == shortest) || ((kind & 1) && count == part_)) continue;
      Primitive& p = primitives_[kind];
      p = libraryConv(ConvPass::weight, shape, dtype_, n, inputs, count, bias_);
      library = std::max(library, p.scratch());
      partial = std::max(partial, p.bytes(DNNL_ARG_DIFF_WEIGHTS));
      const MemoryDesc plain = stridedDesc(dtype_, {count, inputs, v.size[0], v.size[1]}, {kernel, places, v.size[1], 1});
      // Sums are taken in the layout of whole chunks; the others go there first.
      if (kind < 2)
        finish_[kind] = reorder(p.layout(DNNL_ARG_DIFF_WEIGHTS), plain.get());
      else
        align_[kind] = reorder(p.layout(DNNL_ARG_DIFF_WEIGHTS), primitives_[kind & 1].layout(DNNL_ARG_DIFF_WEIGHTS));
      library = std::max({library, finish_[kind & 1].scratch(), align_[kind].scratch()});
    }
    sumBytes_ = align(partial);
    partBytes_ = sumBytes_ + align(static_cast<std::size_t>(part_) * 4);
    std::size_t at = 0;
    const auto take = [&](std::size_t bytes) {
      const std::size_t here = at;
      at += align(bytes);
      return here;
    };
    take(partBytes_ * static_cast<std::size_t>(pieces_ * shape.groups * parts_));
    threadsAt_ = at;
    at = 0;
    fromAt_ = take(static_cast<std::size_t>(each_ * v.in[0] * v.in[1] * inputs * unit_));
    slopesAt_ = take(static_cast<std::size_t>(each_ * v.out[0] * v.out[1] * part_ * unit_));
    linesAt_ = take(static_cast<std::size_t>(kSquare * std::max(v.in[0] * v.in[1], v.out[0] * v.out[1]) * unit_));
    sumsAt_ = take(partBytes_);
    againAt_ = take(partBytes_);
    libraryAt_ = take(library);
    threadBytes_ = at;
    workspace = threadsAt_ + threadBytes_ * static_cast<std::size_t>(spec.threads);
  }

  void run(const Call& call) const override {
    const std::int64_t tiles = shape_.groups * parts_;
    const auto scratchOf = [&](int thread) { return call.workspace + threadsAt_ + threadBytes_ * static_cast<std::size_t>(thread); };
    const auto sumsOf = [&](std::int64_t piece, std::int64_t tile) {
      return call.workspace + partBytes_ * static_cast<std::size_t>(piece * tiles + tile);
    };
    call.pool.run(pieces_ * tiles, [&](std::int64_t t, int thread) {
      sumPiece(call, t / tiles, t % tiles / parts_, t % parts_, sumsOf(t / tiles, t % tiles), scratchOf(thread));
    });
    const std::int64_t kernel = shape_.inputs() * shape_.windows.places();
    call.pool.run(tiles, [&](std::int64_t t, int thread) {
      for (std::int64_t p = 1; p < pieces_; ++p) addTo(sumsOf(0, t), sumsOf(p, t));
      const std::int64_t part = t % parts_, first = t / parts_ * shape_.outputs() + part * part_;
      const std::int64_t count = std::min(part_, shape_.outputs() - part * part_);
      std::byte* const to = call.out[0].data + first * kernel * unit_;
      const Primitive& finish = finish_[count < part_ ? 1 : 0];
      if (finish)
        finish.run({sumsOf(0, t), to}, scratchOf(thread) + libraryAt_);
      else
        std::memcpy(to, sumsOf(0, t), static_cast<std::size_t>(count * kernel * unit_));
      if (!bias_) return;
      const float* const sums = reinterpret_cast<const float*>(sumsOf(0, t) + sumBytes_);
      for (std::int64_t i = 0; i < count; ++i) {
        if (dtype_ == DType::float32)
          call.out[1].as<float>()[first + i] = sums[i];
        else
          store(call.out[1].as<bf16>() + first + i, vf(sums[i]), 1);
      }
    });
  }

 private:
  static constexpr std::int64_t kPositions = 1024;  // fewer, and adding the sums of a chunk would show
  static constexpr std::int64_t kPartialBytes = 16 << 20;

  void addTo(std::byte* sums, const std::byte* more) const {
    float* const to = reinterpret_cast<float*>(sums);
    const float* const from = reinterpret_cast<const float*>(more);
    const std::int64_t count = static_cast<std::int64_t>(partBytes_ / sizeof(float));
    for (std::int64_t i = 0; i < count; i += vf::kLanes) store(to + i, vf::load(to + i) + vf::load(from + i));
  }

  void sumPiece(const Call& call, std::int64_t piece, std::int64_t group, std::int64_t part, std::byte* sums, std::byte* scratch) const {
    const View &x = call.in[0], &dy = call.in[1];
    const std::int64_t begin = piece * shape_.n / pieces_, end = (piece + 1) * shape_.n / pieces_;
    const std::int64_t inputs = shape_.inputs(), count = std::min(part_, shape_.outputs() - part * part_);
    const std::int64_t xBytes = x.shape[2] * x.shape[3] * inputs * unit_, dyBytes = dy.shape[2] * dy.shape[3] * count * unit_;
    std::memset(sums, 0, partBytes_);
    for (std::int64_t first = begin; first < end; first += each_) {
      const std::int64_t images = std::min(each_, end - first);
      for (std::int64_t i = 0; i < images; ++i) {
        imageLast(x, first + i, group * inputs, inputs, scratch + fromAt_ + i * xBytes, scratch + linesAt_);
        imageLast(dy, first + i, group * shape_.outputs() + part * part_, count, scratch + slopesAt_ + i * dyBytes, scratch + linesAt_);
      }
      const int last = count < part_ ? 1 : 0;
      int kind = last;
      if (images != each_) kind = primitives_[2 + last] && images == shape_.n / pieces_ % each_ ? 2 + last : 4 + last;
      std::byte* const target = first == begin ? sums : scratch + sumsAt_;
      const Primitive& align = align_[kind];
      std::byte* const given = align ? scratch + againAt_ : target;
      if (bias_)
        primitives_[kind].run({scratch + fromAt_, scratch + slopesAt_, given, target + sumBytes_}, scratch + libraryAt_);
      else
        primitives_[kind].run({scratch + fromAt_, scratch + slopesAt_, given}, scratch + libraryAt_);
      if (align) align.run({given, target}, scratch + libraryAt_);
      if (first != begin) addTo(sums, target);
    }
  }

  ConvShape shape_;
  DType dtype_;
  bool bias_;
  std::int64_t unit_ = 4, pieces_ = 1, part_ = 1, parts_ = 1, each_ = 1;
  Primitive primitives_[6];  // by the number of images (2 ·) and whether the part is a shorter, last one
  Primitive align_[6], finish_[2];
  std::size_t sumBytes_ = 0, partBytes_ = 0, threadsAt_ = 0, threadBytes_ = 0;
  std::size_t fromAt_ = 0, slopesAt_ = 0, linesAt_ = 0, sumsAt_ = 0, againAt_ = 0, libraryAt_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> libraryKernel(const Spec& spec, const ConvShape& shape, ConvPass pass) {
  if (!libraryPays(shape, spec.in[0].dtype, pass)) return nullptr;
  try {
    if (pass == ConvPass::weight) return std::make_unique<LibraryWeights>(spec, shape);
    return std::make_unique<LibraryCorrelation>(spec, shape, pass);
  } catch (const Error& error) {
    // What this version of oneDNN does not have is left to steepest's own loops.
    if (error.code != "NATIVE") throw;
    return nullptr;
  }
}

}  // namespace steepest::STEEPEST_LEVEL

// Sums over channels and taps of an input at many positions: the forward convolution, and its gradient by the input, which is one
// correlation for every phase of the stride.
#pragma once

#include <array>
#include <vector>

#include "cpu/conv_shape.h"
#include "runtime/kernel.h"

namespace steepest::STEEPEST_LEVEL {

// What one phase writes: positions i of its axes go to origin + i · step of the output.
struct CorrelationPhase {
  ConvAxis h, w;
  std::array<std::int64_t, 2> origin{};
  std::size_t weightsAt = 0;          // elements
  std::vector<std::int64_t> offsets;  // of the taps of one block of channels

  std::int64_t taps() const { return static_cast<std::int64_t>(h.taps.size() * w.taps.size()); }
};

struct CorrelationShape {
  DType dtype = DType::float32;
  std::int64_t n = 0, groups = 1, inputs = 0, outputs = 0;  // channels of a group
  std::int64_t in[2] = {}, out[2] = {}, step[2] = {1, 1};
  std::int64_t taps[2] = {};
  // Steps of the weights in elements: to the next group, output, input, tap along h and along w.
  std::int64_t group = 0, output = 0, input = 0, tap[2] = {};
};

class Correlation {
 public:
  // By [index of the tap, where position 0 reads it] along each axis; see phasesOf… in conv.cc.
  using Taps = std::vector<std::pair<std::int64_t, std::int64_t>>;
  struct Plan {
    std::array<std::int64_t, 2> origin, count;
    std::int64_t inStep[2];
    Taps h, w;
  };

  Correlation() = default;
  Correlation(const CorrelationShape& shape, const std::vector<Plan>& plans, int threads);

  std::size_t workspace() const { return workspace_; }
  // `bias` (one number per output channel, or none) has the dtype of the operands.
  void run(const View& x, const View& weights, const View* bias, const View& y, std::byte* workspace, Pool& pool) const;

 private:
  struct Tile {
    std::int64_t phase, image, group, part, first[2];
  };
  Tile tileAt(std::int64_t t) const;
  template <class T, class E>
  void runAs(const View& x, const View& weights, const View* bias, const View& y, std::byte* workspace, Pool& pool) const;
  template <class T, class E>
  void packWeights(const CorrelationPhase& phase, std::int64_t group, const T* weights, E* to) const;
  template <class T, class E>
  void runTile(const Tile& tile, const View& x, const E* weights, const void* bias, const View& y, std::byte* scratch) const;

  CorrelationShape shape_;
  std::vector<CorrelationPhase> phases_;
  bool pairs_ = false;
  std::int64_t channels_ = 0, block_ = 1;              // what is multiplied at once (channels or pairs): in all, and in a block
  std::int64_t band_[2] = {1, 1}, bands_[2] = {1, 1};  // positions of a band, and bands of the longest phase
  std::int64_t part_ = 1, parts_ = 1;                  // output channels that one tile computes
  std::int64_t each_ = 1;                              // tiles of a task
  std::size_t biasAt_ = 0, threadsAt_ = 0, threadBytes_ = 0, sumsAt_ = 0, workspace_ = 0;
};

}  // namespace steepest::STEEPEST_LEVEL

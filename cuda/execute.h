// How a program runs on a GPU.
//
// Instructions that do not wait for numbers from the device form stretches. The first time that a stretch runs on given memory its kernels
// are launched one by one; the second time they are captured as a CUDA graph, which is replayed from then on (a training step comes with
// the few sets of buffers of its ring). Between stretches are loops and branches whose next step hangs on a number: they read it back and
// launch what it says, so that each set of gates has its own sequence of graphs.
//
// A kernel that meets a fault leaves its code in device memory; what changes state looks there first and writes nothing. After each
// instruction that may raise one a mark says where it was.
#pragma once

#include <memory>
#include <vector>

#include "cuda/device.h"
#include "cuda/resources.h"
#include "runtime/program.h"

namespace steepest::cuda {

class Queue final : public DeviceQueue {
 public:
  Queue();
  cudaStream_t stream() const { return stream_.get(); }

  // Device memory: code of the fault, and the instruction + 1 that raised it.
  int* fault() const { return fault_; }
  void clearFault();
  // Waits for all that was launched; gives code and instruction + 1.
  const int* readFault();

 private:
  Stream stream_;
  std::unique_ptr<DeviceMemory> memory_;
  Pinned host_;
  int* fault_ = nullptr;
};

class Loaded final : public DeviceProgram {
 public:
  explicit Loaded(const Program& program);
  DeviceOutcome run(DeviceQueue& queue, const DeviceRun& run) override;

 private:
  // One stretch on one set of buffers.
  struct Replay {
    std::vector<const void*> memory;
    GraphExec graph;
    std::uint64_t used = 0;
  };
  struct Stretch {
    std::size_t from, to;
    bool waits;
    std::vector<Replay> replays;
  };

  void launch(std::size_t i, Queue& queue, const DeviceRun& run, std::atomic<int>& fault);
  void launchAll(const Stretch& stretch, Queue& queue, const DeviceRun& run);
  void replay(Stretch& stretch, Queue& queue, const DeviceRun& run);
  GraphExec capture(const Stretch& stretch, Queue& queue, const DeviceRun& run);
  DeviceOutcome runStepwise(Queue& queue, const DeviceRun& run);
  bool nonFinite(std::size_t i);

  const Program& program_;
  std::unique_ptr<DeviceMemory> constants_;
  std::vector<Stretch> stretches_;
  std::vector<View> views_;
  std::uint64_t clock_ = 0;
};

}  // namespace steepest::cuda

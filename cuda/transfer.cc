#include "cuda/transfer.h"

#include <cuda_runtime.h>

#include <cstring>

#include "cuda/check.h"
#include "cuda/device.h"

namespace steepest::cuda {

void move(const Call& call, std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes == 0) return;
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(call.stream)), "cudaMemcpyAsync");
}

void fetch(const Call& call, void* to, const std::byte* from, std::size_t bytes) {
  // Pinned, and of this thread: its queue runs one program at a time.
  thread_local const Pinned here = makePinned(64);
  check(cudaMemcpyAsync(here.get(), from, bytes, cudaMemcpyDeviceToHost, static_cast<cudaStream_t>(call.stream)), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(static_cast<cudaStream_t>(call.stream)), "cudaStreamSynchronize");
  std::memcpy(to, here.get(), bytes);
}

const std::byte* BodyConstants::of(const Program& program) const {
  std::call_once(once_, [&] {
    const auto constants = program.constants();
    if (constants.empty()) return;
    Gpu& gpu = Gpu::open();
    memory_ = gpu.allocate(constants.size());
    gpu.upload(memory_->data, constants.data(), constants.size());
    gpu.settle();
  });
  return memory_ ? memory_->data : nullptr;
}

}  // namespace steepest::cuda

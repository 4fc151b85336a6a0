#include "cuda/transfer.h"

#include <cuda_runtime.h>

#include <cstring>

#include "cuda/check.h"
#include "cuda/device.h"

namespace steepest::cuda {

void fetch(const Call& call, void* to, const std::byte* from, std::size_t bytes) {
  // Pinned, and of this thread: its queue runs one program at a time.
  thread_local const Pinned here = makePinned(64);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  std::byte* const code = static_cast<std::byte*>(here.get()) + 32;
  check(cudaMemcpyAsync(here.get(), from, bytes, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
  check(cudaMemcpyAsync(code, call.deviceFault, sizeof(int), cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  std::memcpy(to, here.get(), bytes);
  int fault = 0, none = 0;
  std::memcpy(&fault, code, sizeof fault);
  if (fault) call.fault.compare_exchange_strong(none, fault);
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

// One GPU: its memory, the copies into it and out of it, and what programs need of it.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/resources.h"
#include "runtime/backend.h"

namespace steepest::cuda {

class Gpu final : public Device {
 public:
  // Throws DEVICE, with one sentence, where there is no driver, one that is too old, or no device.
  static Gpu& open();

  std::span<const Factory> kernels() const override;
  bool hasKernel(int op) const override;
  std::unique_ptr<DeviceMemory> allocate(std::size_t bytes) override;
  void upload(std::byte* to, const std::byte* from, std::size_t bytes) override;
  void download(std::byte* to, const std::byte* from, std::size_t bytes) override;
  std::unique_ptr<DeviceQueue> queue() override;
  std::unique_ptr<DeviceProgram> load(const Program& program) override;
  std::vector<std::pair<std::string, std::string>> facts() const override;
  std::size_t allocatedBytes() const override { return allocated_; }
  std::size_t totalBytes() const override { return properties_.totalGlobalMem; }

  // What is launched on the stream from now on sees all that was uploaded.
  void joinUploads(cudaStream_t stream);
  // Waits for all that was uploaded.
  void settle();
  // CUDA's idea of the device is by thread: each that calls it says so first.
  void use() const;
  void release(std::byte* data, std::size_t bytes) noexcept;

 private:
  explicit Gpu(int ordinal);

  // Pinned memory between the caller's and the device's: a piece is filled while the one before it is on its way.
  struct Piece {
    Pinned memory;
    Event done;
  };
  static constexpr std::size_t kPiece = 4 << 20;

  int ordinal_;
  cudaDeviceProp properties_{};
  std::atomic<std::size_t> allocated_{0}, blocks_{0};
  std::mutex uploadTurn_, downloadTurn_;
  Stream uploads_, downloads_;
  std::array<Piece, 2> up_, down_;
  std::size_t nextUp_ = 0;
  Event uploaded_;
};

}  // namespace steepest::cuda

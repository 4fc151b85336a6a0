#include "cuda/device.h"

#include <algorithm>
#include <cstring>

#include "cuda/table.h"
#include "ops.gen.h"

namespace steepest::cuda {

namespace {

std::string version(int v) { return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10); }
std::string megabytes(std::size_t bytes) { return std::to_string(bytes / 1000000) + " MB"; }

// Why nothing can run here; the driver's own words say less.
void requireDriver() {
  int driver = 0, runtime = 0, count = 0;
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  if (driver == 0) {
    throw Error("DEVICE", "no NVIDIA driver (libcuda.so.1) is installed on this machine; steepest's CUDA part needs one for CUDA " +
                              version(runtime) + " or newer");
  }
  if (driver / 1000 < runtime / 1000) {
    throw Error("DEVICE", "the NVIDIA driver of this machine is for CUDA " + version(driver) +
                              ", and steepest's CUDA part needs one for CUDA " + version(runtime) + ": update the driver");
  }
  if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
    static_cast<void>(cudaGetLastError());
    throw Error("DEVICE", "the NVIDIA driver of this machine is there, and finds no GPU that may be used");
  }
}

class GpuMemory final : public DeviceMemory {
 public:
  GpuMemory(Gpu& gpu, std::byte* at, std::size_t bytes) : gpu_(gpu) {
    data = at;
    size = bytes;
  }
  ~GpuMemory() override { gpu_.release(data, size); }

 private:
  Gpu& gpu_;
};

}  // namespace

Gpu& Gpu::open() {
  // Never ended: buffers may outlive everything else in the process.
  static Gpu* const gpu = [] {
    requireDriver();
    return new Gpu(0);
  }();
  return *gpu;
}

Gpu::Gpu(int ordinal) : ordinal_(ordinal) {
  use();
  check(cudaGetDeviceProperties(&properties_, ordinal), "cudaGetDeviceProperties");
  uploads_ = makeStream();
  downloads_ = makeStream();
  uploaded_ = makeEvent();
  for (auto* pieces : {&up_, &down_}) {
    for (Piece& piece : *pieces) piece = {makePinned(kPiece), makeEvent()};
  }
}

void Gpu::use() const { check(cudaSetDevice(ordinal_), "cudaSetDevice"); }

std::span<const Factory> Gpu::kernels() const { return cuda::kernels(); }
bool Gpu::hasKernel(int op) const { return cuda::hasKernel(op); }

std::unique_ptr<DeviceMemory> Gpu::allocate(std::size_t bytes) {
  use();
  void* p = nullptr;
  const cudaError_t status = cudaMalloc(&p, bytes);
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());
    std::size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) static_cast<void>(cudaGetLastError());
    throw Error("OUT_OF_MEMORY", "the GPU (" + std::string(properties_.name) + ") gave no memory for a buffer of " + std::to_string(bytes) +
                                     " bytes: " + megabytes(free) + " of " + megabytes(total) + " are free, and this process holds " +
                                     megabytes(allocated_) + " in " + std::to_string(blocks_) + " buffers");
  }
  check(status, "cudaMalloc");
  auto memory = std::make_unique<GpuMemory>(*this, static_cast<std::byte*>(p), bytes);
  allocated_ += bytes;
  ++blocks_;
  const std::lock_guard lock(uploadTurn_);
  check(cudaMemsetAsync(p, 0, bytes, uploads_.get()), "cudaMemsetAsync");
  check(cudaEventRecord(uploaded_.get(), uploads_.get()), "cudaEventRecord");
  return memory;
}

void Gpu::release(std::byte* data, std::size_t bytes) noexcept {
  allocated_ -= bytes;
  --blocks_;
  if (cudaSetDevice(ordinal_) != cudaSuccess || cudaFree(data) != cudaSuccess) static_cast<void>(cudaGetLastError());
}

void Gpu::upload(std::byte* to, const std::byte* from, std::size_t bytes) {
  const std::lock_guard lock(uploadTurn_);
  use();
  for (std::size_t at = 0; at < bytes; at += kPiece) {
    Piece& piece = up_[nextUp_];
    nextUp_ = (nextUp_ + 1) % up_.size();
    const std::size_t n = std::min(kPiece, bytes - at);
    check(cudaEventSynchronize(piece.done.get()), "cudaEventSynchronize");
    std::memcpy(piece.memory.get(), from + at, n);
    check(cudaMemcpyAsync(to + at, piece.memory.get(), n, cudaMemcpyHostToDevice, uploads_.get()), "cudaMemcpyAsync");
    check(cudaEventRecord(piece.done.get(), uploads_.get()), "cudaEventRecord");
  }
  check(cudaEventRecord(uploaded_.get(), uploads_.get()), "cudaEventRecord");
}

void Gpu::download(std::byte* to, const std::byte* from, std::size_t bytes) {
  const std::lock_guard lock(downloadTurn_);
  use();
  joinUploads(downloads_.get());
  // One piece is copied out of pinned memory while the next is on its way.
  std::size_t sent = 0, taken = 0, at[2] = {0, 0};
  const auto send = [&](std::size_t slot) {
    const std::size_t n = std::min(kPiece, bytes - sent);
    check(cudaMemcpyAsync(down_[slot].memory.get(), from + sent, n, cudaMemcpyDeviceToHost, downloads_.get()), "cudaMemcpyAsync");
    check(cudaEventRecord(down_[slot].done.get(), downloads_.get()), "cudaEventRecord");
    at[slot] = sent;
    sent += n;
  };
  send(0);
  for (std::size_t slot = 0; taken < bytes; slot ^= 1) {
    if (sent < bytes) send(slot ^ 1);
    const std::size_t n = std::min(kPiece, bytes - taken);
    check(cudaEventSynchronize(down_[slot].done.get()), "cudaEventSynchronize");
    std::memcpy(to + at[slot], down_[slot].memory.get(), n);
    taken += n;
  }
}

void Gpu::settle() { check(cudaStreamSynchronize(uploads_.get()), "cudaStreamSynchronize"); }

void Gpu::joinUploads(cudaStream_t stream) { check(cudaStreamWaitEvent(stream, uploaded_.get(), 0), "cudaStreamWaitEvent"); }

std::vector<std::pair<std::string, std::string>> Gpu::facts() const {
  int driver = 0, runtime = 0;
  std::size_t free = 0, total = 0;
  use();
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  return {{"GPU", properties_.name},
          {"capability", std::to_string(properties_.major) + "." + std::to_string(properties_.minor)},
          {"processors", std::to_string(properties_.multiProcessorCount)},
          {"driver", "for CUDA " + version(driver)},
          {"CUDA", version(runtime)},
          {"GPU memory", megabytes(free) + " free of " + megabytes(total)}};
}

}  // namespace steepest::cuda

extern "C" __attribute__((visibility("default"))) const steepest::DeviceLibrary* steepest_device_library() {
  static const steepest::DeviceLibrary library = {steepest::kDeviceInterface, steepest::kTableHash,
                                                  []() -> steepest::Device& { return steepest::cuda::Gpu::open(); }};
  return &library;
}

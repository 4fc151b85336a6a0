// What loops and branches (native/cpu/control.cc) do with the memory of a GPU.
#pragma once

#include <memory>
#include <mutex>

#include "runtime/backend.h"
#include "runtime/program.h"

namespace steepest::cuda {

// Between two places of the device, in the order of the stream; nothing is moved after a fault, since it may be state.
void move(const Call& call, std::byte* to, const std::byte* from, std::size_t bytes);
// Waits for all that was launched, and brings a few bytes to the host: a branch is taken by who launches. After a fault they mean nothing:
// then the host's fault is set too.
void fetch(const Call& call, void* to, const std::byte* from, std::size_t bytes);

// The constants of a body, brought to the device when it first runs (which is never within a capture).
class BodyConstants {
 public:
  const std::byte* of(const Program& program) const;

 private:
  mutable std::once_flag once_;
  mutable std::unique_ptr<DeviceMemory> memory_;
};

}  // namespace steepest::cuda

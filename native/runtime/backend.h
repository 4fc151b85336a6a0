// What a device other than the CPU is to the rest of steepest. The library that implements it lies beside the addon and is opened when it
// is first asked for; both are of one build, which `DeviceLibrary` says.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernel.h"

namespace steepest {

class Program;

// Memory of a device, zeroed when it is made. Given back when this ends; nothing may use it then.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  std::byte* data = nullptr;
  std::size_t size = 0;
};

// Runs of one queue follow each other; those of several may go on at the same time.
class DeviceQueue {
 public:
  virtual ~DeviceQueue() = default;
};

struct DeviceRun {
  std::byte* arena;
  std::span<std::byte* const> externals;
  const std::atomic<bool>* cancel = nullptr;
  // Instruction by instruction: to find the first output that is not finite; to add nanoseconds to `profile`.
  bool trace = false;
  std::vector<double>* profile = nullptr;
};

struct DeviceOutcome {
  int fault = 0;  // as in Outcome
  std::int64_t instruction = -1;
};

// A program that is loaded on a device: its constants are there.
class DeviceProgram {
 public:
  virtual ~DeviceProgram() = default;
  // Returns when all is done. One run at a time.
  virtual DeviceOutcome run(DeviceQueue& queue, const DeviceRun& run) = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  // One factory per op; where there is no kernel it throws an Error with the op's name.
  virtual std::span<const Factory> kernels() const = 0;
  virtual bool hasKernel(int op) const = 0;

  virtual std::unique_ptr<DeviceMemory> allocate(std::size_t bytes) = 0;
  // Returns when `from` may change; runs that are submitted later see what was written.
  virtual void upload(std::byte* to, const std::byte* from, std::size_t bytes) = 0;
  // Waits for the bytes, and for no run.
  virtual void download(std::byte* to, const std::byte* from, std::size_t bytes) = 0;
  virtual std::unique_ptr<DeviceQueue> queue() = 0;
  // The program must outlive what is made.
  virtual std::unique_ptr<DeviceProgram> load(const Program& program) = 0;

  // What there is to say of it, by name.
  virtual std::vector<std::pair<std::string, std::string>> facts() const = 0;
  virtual std::size_t allocatedBytes() const = 0;
  virtual std::size_t totalBytes() const = 0;
};

constexpr std::uint32_t kDeviceInterface = 1;

struct DeviceLibrary {
  std::uint32_t interface;
  std::uint64_t tableHash;
  // Throws DEVICE where there is no driver, one that is too old, or no device.
  Device& (*open)();
};

// The one function that a library gives: steepest_device_library.
using DeviceEntry = const DeviceLibrary* (*)();

// The device of buffers, arenas and programs that are made from now on: null is the CPU. Names: cpu, cuda.
Device* currentDevice();
void useDevice(const std::string& name);
const char* currentDeviceName();

}  // namespace steepest

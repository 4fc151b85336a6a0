// Native memory: buffers that tensors hold, and the arena that a program runs in.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>

#include "backend.h"

namespace steepest {

constexpr std::size_t kAlignment = 64;

// Zeroed pages straight from the system, so that memory which is given back really leaves the process; or zeroed memory of a device.
class Block {
 public:
  Block() = default;
  explicit Block(std::size_t bytes, Device* device = nullptr);
  // A part of an open file, of which a page is read when it is first looked at and copied when it is first written to; the file stays as it
  // is. Without data where this system cannot, or the part is too small to be worth it.
  static Block ofFile(int file, std::size_t offset, std::size_t bytes);
  ~Block();
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_ = 0;
  std::unique_ptr<DeviceMemory> onDevice_;
};

// What a concrete tensor holds.
struct Buffer {
  explicit Buffer(std::size_t bytes, Device* where = nullptr) : block(bytes, where), device(where) {}
  explicit Buffer(Block from) : block(std::move(from)), device(nullptr) {}
  // Bounds are the caller's to check. Waits for no run: what a run writes is there when its outcome is.
  void write(std::size_t offset, const std::byte* from, std::size_t bytes);
  void read(std::size_t offset, std::byte* to, std::size_t bytes) const;

  Block block;
  Device* const device;
};

// Scratch of programs that never run at the same time; grows to the largest.
class Arena {
 public:
  explicit Arena(Device* where = nullptr) : device(where) {}
  std::byte* reserve(std::size_t bytes);
  std::size_t size() const { return block_.size(); }
  void release();
  std::mutex turn;
  Device* const device;

 private:
  Block block_;
};

// Bytes of the machine's own memory that all blocks hold now.
std::size_t allocatedBytes();

}  // namespace steepest

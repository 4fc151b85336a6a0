// Native memory: buffers that tensors hold, and the arena that a program runs in.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>

namespace steepest {

constexpr std::size_t kAlignment = 64;

// Zeroed pages straight from the system, so that memory which is given back really leaves the process.
class Block {
 public:
  Block() = default;
  explicit Block(std::size_t bytes);
  ~Block();
  Block(Block&& other) noexcept;
  Block& operator=(Block&& other) noexcept;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t mapped_ = 0;
};

// What a concrete tensor holds.
struct Buffer {
  explicit Buffer(std::size_t bytes) : block(bytes) {}
  Block block;
};

// Scratch of programs that never run at the same time; grows to the largest.
class Arena {
 public:
  std::byte* reserve(std::size_t bytes);
  std::size_t size() const { return block_.size(); }
  void release();
  std::mutex turn;

 private:
  Block block_;
};

// Bytes that all blocks hold now.
std::size_t allocatedBytes();

}  // namespace steepest

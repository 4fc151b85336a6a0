#include "memory.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "types.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace steepest {

namespace {
std::atomic<std::size_t> allocated{0};
// Below this a page mapping of its own costs more than it gives.
constexpr std::size_t kMapFrom = 1 << 16;
constexpr std::size_t kHugePage = 2 << 20;

#ifdef __linux__
std::size_t pageSize() {
  static const auto size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return size;
}
#endif

[[noreturn]] void outOfMemory(std::size_t bytes) {
  throw Error("OUT_OF_MEMORY", "the system gave no memory for a buffer of " + std::to_string(bytes) + " bytes");
}
}  // namespace

Block::Block(std::size_t bytes, Device* device) : size_(bytes) {
  if (bytes == 0) return;
  if (device) {
    onDevice_ = device->allocate(bytes);
    data_ = onDevice_->data;
    return;
  }
#ifdef __linux__
  if (bytes >= kMapFrom) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) outOfMemory(bytes);
    if (bytes >= kHugePage) madvise(p, bytes, MADV_HUGEPAGE);
    data_ = static_cast<std::byte*>(p);
    mapped_ = bytes;
    allocated += size_;
    return;
  }
#endif
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  data_ = static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded));
  if (!data_) outOfMemory(bytes);
  std::memset(data_, 0, rounded);
  allocated += size_;
}

Block Block::ofFile([[maybe_unused]] int file, [[maybe_unused]] std::size_t offset, [[maybe_unused]] std::size_t bytes) {
  Block block;
#ifdef __linux__
  if (bytes < kMapFrom) return block;
  const std::size_t before = offset & (pageSize() - 1);
  void* p = mmap(nullptr, before + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file, static_cast<off_t>(offset - before));
  if (p == MAP_FAILED) return block;
  block.data_ = static_cast<std::byte*>(p) + before;
  block.size_ = bytes;
  block.mapped_ = before + bytes;
  allocated += bytes;
#endif
  return block;
}

Block::~Block() {
  if (!data_ || onDevice_) return;
  allocated -= size_;
#ifdef __linux__
  if (mapped_) {
    // A part of a file begins within a page.
    munmap(data_ - (reinterpret_cast<std::uintptr_t>(data_) & (pageSize() - 1)), mapped_);
    return;
  }
#endif
  std::free(data_);
}

Block::Block(Block&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, 0)),
      onDevice_(std::move(other.onDevice_)) {}

Block& Block::operator=(Block&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  std::swap(onDevice_, other.onDevice_);
  return *this;
}

void Buffer::write(std::size_t offset, const std::byte* from, std::size_t bytes) {
  if (bytes == 0) return;
  if (device)
    device->upload(block.data() + offset, from, bytes);
  else
    std::memcpy(block.data() + offset, from, bytes);
}

void Buffer::read(std::size_t offset, std::byte* to, std::size_t bytes) const {
  if (bytes == 0) return;
  if (device)
    device->download(to, block.data() + offset, bytes);
  else
    std::memcpy(to, block.data() + offset, bytes);
}

std::byte* Arena::reserve(std::size_t bytes) {
  if (bytes > block_.size()) {
    block_ = Block();
    block_ = Block(bytes, device);
  }
  return block_.data();
}

void Arena::release() { block_ = Block(); }

std::size_t allocatedBytes() { return allocated; }

}  // namespace steepest

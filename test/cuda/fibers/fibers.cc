#include "fibers.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "runtime/types.h"
#include "switch.h"

namespace steepest::fibers {

constinit Current current = {};

namespace {

constexpr unsigned kWarp = 32, kMaxThreads = 1024;
// What every card since sm_80 gives a block that asks for it.
constexpr std::size_t kMaxShared = 99 << 10;

struct Lane {
  Context context;
  uint3 thread{};
  Meeting meeting = Meeting::none;
  unsigned mask = 0;
  std::uint64_t value = 0;
  bool yes = false;
  bool done = false;
};

std::string at(uint3 v) { return std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z); }

// Of the very size, so that a sanitizer sees what reads beyond it.
struct Shared {
  explicit Shared(std::size_t bytes) : data(bytes ? new(std::align_val_t(128)) std::byte[bytes] : nullptr) {}
  ~Shared() { ::operator delete[](data, std::align_val_t(128)); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  std::byte* data;
};

class Engine {
 public:
  Engine() {
    const std::size_t bytes = kMaxThreads * kStackBytes;
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw Error("OUT_OF_MEMORY", "no memory for the stacks of fibers");
    stacks_ = static_cast<std::byte*>(p);
    // The lowest page of every stack: who runs out of it is stopped.
    for (unsigned i = 0; i < kMaxThreads; ++i) mprotect(stacks_ + i * kStackBytes, 4096, PROT_NONE);
  }
  ~Engine() { munmap(stacks_, kMaxThreads * kStackBytes); }

  void launch(const char* name, dim3 grid, dim3 block, std::size_t sharedBytes, void (*body)(const void*), const void* context) {
    name_ = name;
    body_ = body;
    context_ = context;
    const auto threads = static_cast<std::size_t>(block.x) * block.y * block.z;
    if (threads == 0 || threads > kMaxThreads || block.z > 64) stop("a block has 1 to 1024 threads");
    if (grid.x > 0x7FFFFFFFu || grid.y > 65535 || grid.z > 65535) stop("a grid is too large");
    if (sharedBytes > kMaxShared) stop("a block asks for more shared memory than every card has");
    count_ = static_cast<unsigned>(threads);
    const Shared shared(sharedBytes);
    current.threads = block;
    current.blocks = grid;
    current.shared = shared.data;
    const char* order = std::getenv("STEEPEST_FIBERS_ORDER");
    reverse_ = order && std::string(order) == "reverse";
    lanes_.resize(count_);
    published_.resize((count_ + kWarp - 1) / kWarp * kWarp);
    const std::uint64_t blocks = static_cast<std::uint64_t>(grid.x) * grid.y * grid.z;
    for (std::uint64_t n = 0; n < blocks; ++n) {
      const std::uint64_t b = reverse_ ? blocks - 1 - n : n;
      current.block = {static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                       static_cast<unsigned>(b / grid.x / grid.y)};
      // No number and no index: who reads what nobody wrote gets neither zero nor what the block before left.
      if (sharedBytes) std::memset(shared.data, 0xFF, sharedBytes);
      runBlock(block);
    }
  }

  Lane& running() { return lanes_[running_]; }
  unsigned runningIndex() const { return running_; }
  const std::uint64_t* publishedOfWarp() const { return published_.data() + running_ / kWarp * kWarp; }
  void wait() { leave(lanes_[running_].context, main_); }
  [[noreturn]] void failHere(const char* what) {
    failure_ = what;
    leave(lanes_[running_].context, main_);
    std::abort();
  }
  static void entry();

 private:
  [[noreturn]] void stop(const std::string& what) const { throw Error("DEVICE", "kernel " + std::string(name_) + ": " + what); }
  [[noreturn]] void stopBlock(const std::string& what) const { stop(what + " (block " + at(current.block) + ")"); }

  void runBlock(dim3 block) {
    for (unsigned i = 0; i < count_; ++i) {
      Lane& lane = lanes_[i];
      lane.thread = {i % block.x, i / block.x % block.y, i / block.x / block.y};
      lane.meeting = Meeting::none;
      lane.done = false;
      prepare(lane.context, stacks_ + i * kStackBytes, &Engine::entry);
    }
    const unsigned warps = (count_ + kWarp - 1) / kWarp;
    for (;;) {
      for (unsigned w = 0; w < warps; ++w) runWarp(reverse_ ? warps - 1 - w : w);
      if (std::all_of(lanes_.begin(), lanes_.end(), [](const Lane& l) { return l.done; })) return;
      releaseBlock();
    }
  }

  // Until every lane has returned or waits for the block.
  void runWarp(unsigned warp) {
    const unsigned from = warp * kWarp, to = std::min(count_, from + kWarp);
    do {
      for (unsigned n = from; n < to; ++n) {
        const unsigned i = reverse_ ? to - 1 - (n - from) : n;
        if (lanes_[i].done || lanes_[i].meeting != Meeting::none) continue;
        running_ = i;
        current.thread = lanes_[i].thread;
        enter(main_, lanes_[i].context);
        if (failure_) {
          const std::string what = std::exchange(failure_, nullptr);
          stop(what + " (block " + at(current.block) + ", thread " + at(lanes_[i].thread) + ")");
        }
      }
    } while (releaseWarp(from, to));
  }

  // Lets go on the groups of lanes that are complete.
  bool releaseWarp(unsigned from, unsigned to) {
    bool any = false;
    for (unsigned i = from; i < to; ++i) {
      const Lane& lane = lanes_[i];
      if (lane.done || lane.meeting == Meeting::none || lane.meeting == Meeting::block) continue;
      bool complete = true;
      for (unsigned k = 0; k < kWarp && complete; ++k) {
        if (!(lane.mask >> k & 1u)) continue;
        if (from + k >= to) stopBlock("a warp function names lanes that the block does not have");
        const Lane& other = lanes_[from + k];
        if (other.done) stopBlock("a warp function names lanes that have returned");
        complete = other.meeting == lane.meeting && other.mask == lane.mask;
      }
      if (!complete) continue;
      const unsigned mask = lane.mask;
      for (unsigned k = 0; k < kWarp; ++k) {
        if (!(mask >> k & 1u)) continue;
        published_[from + k] = lanes_[from + k].value;
        lanes_[from + k].meeting = Meeting::none;
      }
      any = true;
    }
    return any;
  }

  void releaseBlock() {
    int yes = 0;
    for (const Lane& lane : lanes_) {
      if (lane.done) stopBlock("some threads have returned and others wait at __syncthreads");
      if (lane.meeting != Meeting::block)
        stopBlock("lanes of a warp wait for each other in different places, or for others than those who come");
      yes += lane.yes;
    }
    yes_ = yes;
    for (Lane& lane : lanes_) lane.meeting = Meeting::none;
  }

  const char* name_ = "";
  void (*body_)(const void*) = nullptr;
  const void* context_ = nullptr;
  const char* failure_ = nullptr;
  std::byte* stacks_ = nullptr;
  std::vector<Lane> lanes_;
  std::vector<std::uint64_t> published_;
  Context main_;
  unsigned count_ = 0, running_ = 0;
  bool reverse_ = false;

 public:
  int yes_ = 0;
};

Engine& engine() {
  static const auto made = std::make_unique<Engine>();
  return *made;
}
Engine* active = nullptr;

void Engine::entry() {
  Engine& self = *active;
  Lane& lane = self.lanes_[self.running_];
  arrived(lane.context);
  self.body_(self.context_);
  lane.done = true;
  finish(lane.context, self.main_);
}

}  // namespace

void run(const char* name, dim3 grid, dim3 block, std::size_t sharedBytes, void (*body)(const void*), const void* context) {
  active = &engine();
  active->launch(name, grid, block, sharedBytes, body, context);
}

unsigned laneOfCurrent() { return active->runningIndex() % kWarp; }

int meetBlock(bool yes) {
  Lane& lane = active->running();
  lane.meeting = Meeting::block;
  lane.yes = yes;
  active->wait();
  return active->yes_;
}

const std::uint64_t* meetWarp(Meeting kind, unsigned mask, std::uint64_t value) {
  if (!(mask >> laneOfCurrent() & 1u)) fail("a lane takes part in a warp function whose mask does not name it");
  Lane& lane = active->running();
  lane.meeting = kind;
  lane.mask = mask;
  lane.value = value;
  active->wait();
  return active->publishedOfWarp();
}

void fail(const char* what) { active->failHere(what); }

}  // namespace steepest::fibers

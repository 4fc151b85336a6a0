#include "pool.h"

#include <exception>
#include <utility>

#ifdef __linux__
#include <pthread.h>
#endif

// oneDNN is called with one thread per call; its OpenMP runtime keeps that setting per thread.
extern "C" void omp_set_num_threads(int) __attribute__((weak));

namespace steepest {

namespace {
// A worker that finds nothing spins this long before it sleeps: the gap between two instructions is a few microseconds.
constexpr int kSpins = 4000;

constexpr std::uint64_t kWorkers = 0xffff, kOpen = 1 << 16;
constexpr int kRoundShift = 17;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}
}  // namespace

Pool::Pool(int threads) : threads_(threads < 1 ? 1 : threads) {
  for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { work(i); });
}

Pool::~Pool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Pool::take(int thread) {
  for (;;) {
    const std::int64_t tile = next_.fetch_add(1, std::memory_order_relaxed);
    if (tile >= tiles_) return;
    try {
      body_(context_, tile, thread);
    } catch (...) {
      const std::lock_guard lock(errorMutex_);
      if (!error_) error_ = std::current_exception();
    }
  }
}

void Pool::dispatch(std::int64_t tiles, Body body, void* context) {
  body_ = body;
  context_ = context;
  tiles_ = tiles;
  next_.store(0, std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    const std::uint64_t round = state_.load(std::memory_order_relaxed) >> kRoundShift;
    state_.store((round + 1) << kRoundShift | kOpen, std::memory_order_release);
  }
  wake_.notify_all();
  take(0);
  // All tiles are taken. A worker that the system has not woken yet finds the round closed: nobody waits for it.
  state_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int spins = 0; (state_.load(std::memory_order_acquire) & kWorkers) != 0; ++spins) {
    if (spins < kSpins)
      relax();
    else
      std::this_thread::yield();
  }
  if (error_) {
    const std::exception_ptr error = std::exchange(error_, nullptr);
    std::rethrow_exception(error);
  }
}

void Pool::work(int thread) {
#ifdef __linux__
  pthread_setname_np(pthread_self(), "steepest");
#endif
  if (omp_set_num_threads) omp_set_num_threads(1);
  std::uint64_t seen = 0;
  const auto fresh = [&](std::uint64_t state) { return (state & kOpen) != 0 && state >> kRoundShift != seen; };
  for (;;) {
    std::uint64_t state = state_.load(std::memory_order_acquire);
    for (int spins = 0; !fresh(state) && spins < kSpins; ++spins) {
      relax();
      state = state_.load(std::memory_order_acquire);
    }
    if (!fresh(state)) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || fresh(state = state_.load(std::memory_order_acquire)); });
    }
    if (stop_) return;
    if (!state_.compare_exchange_strong(state, state + 1, std::memory_order_acq_rel)) continue;
    seen = state >> kRoundShift;
    take(thread);
    state_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace steepest

// The executor's threads. Work is cut by shape only, so the number of threads never changes a bit.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace steepest {

class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  int threads() const { return threads_; }

  // Calls body(tile, thread) for every tile in [0, tiles), thread in [0, threads()); returns when all are done.
  // Tiles are taken in order by whichever thread is free. The first exception is rethrown here.
  // One call at a time (the executor holds `turn` around an instruction); not reentrant.
  template <class F>
  void run(std::int64_t tiles, F&& body) {
    if (tiles <= 0) return;
    if (tiles == 1 || threads_ == 1) {
      for (std::int64_t i = 0; i < tiles; ++i) body(i, 0);
      return;
    }
    dispatch(
        tiles, [](void* f, std::int64_t tile, int thread) { (*static_cast<std::remove_reference_t<F>*>(f))(tile, thread); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

  std::mutex turn;

 private:
  using Body = void (*)(void*, std::int64_t, int);
  void dispatch(std::int64_t tiles, Body body, void* context);
  void work(int thread);
  void take(int thread);

  int threads_;
  std::vector<std::thread> workers_;
  Body body_ = nullptr;
  void* context_ = nullptr;
  std::int64_t tiles_ = 0;
  std::atomic<std::int64_t> next_{0};
  // Number of the round, whether it takes workers, and how many are in it.
  std::atomic<std::uint64_t> state_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::exception_ptr error_;
  std::mutex errorMutex_;
};

}  // namespace steepest

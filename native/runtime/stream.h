// A stream runs jobs in order on a thread of its own, so that the event loop stays free. Streams share the pool, instruction by
// instruction.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "memory.h"
#include "program.h"

namespace steepest {

struct Job {
  std::shared_ptr<const Program> program;
  // Set where the program is that of a device; the device's queue is made by the stream.
  std::shared_ptr<DeviceProgram> loaded;
  Device* device = nullptr;
  std::vector<std::shared_ptr<Buffer>> bindings;
  std::shared_ptr<Arena> arena;
  // Looks for the first instruction whose output is not finite, and ends there.
  bool trace = false;
  // Runs only if the job before it did all it had to: what follows a step that failed must not train on.
  bool chained = false;
  // Nanoseconds by instruction are added here.
  std::shared_ptr<std::vector<double>> profile;
};

struct Outcome {
  std::int64_t ticket = 0;
  int fault = 0;  // 0 done, 1 non-finite, 2 index out of range, 3 factorization failed, -1 cancelled, -2 error
  std::int64_t instruction = -1;
  std::string code, message;  // of an error
};

class Stream {
 public:
  // `notify` is called from the stream's thread whenever outcomes wait to be taken, once until they are.
  Stream(std::shared_ptr<Pool> pool, std::function<void()> notify);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  std::int64_t submit(Job job);
  std::vector<Outcome> take();
  // Ends the running job after its instruction (a loop after a step of its body) and drops what waits; nothing where nothing runs.
  void cancel();
  // Ends what runs after its instruction, drops what waits, and waits for the thread. Nothing can be submitted afterwards.
  void halt();

 private:
  void work();
  Outcome run(const Job& job);
  Outcome runOnDevice(const Job& job, std::span<std::byte* const> externals, std::byte* arena);

  std::shared_ptr<Pool> pool_;
  std::function<void()> notify_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::pair<std::int64_t, Job>> jobs_;
  std::vector<Outcome> outcomes_;
  std::int64_t tickets_ = 0;
  std::atomic<bool> cancel_{false};
  bool stop_ = false;
  bool running_ = false;
  bool failed_ = false;  // the job before
  std::unique_ptr<DeviceQueue> queue_;
  Device* queueOf_ = nullptr;
  std::thread thread_;
};

}  // namespace steepest

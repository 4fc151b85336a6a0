#include "stream.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

extern "C" void omp_set_num_threads(int) __attribute__((weak));

namespace steepest {

namespace {

// At `exit` libraries give their memory back (OpenBLAS, for one) although a stream may be within them: Node calls no hook of an addon at
// process.exit. What is destroyed here comes before that.
class Living {
 public:
  static Living& all() {
    static Living one;
    return one;
  }
  void add(Stream* stream) {
    const std::lock_guard lock(mutex_);
    streams_.push_back(stream);
  }
  void remove(Stream* stream) {
    const std::lock_guard lock(mutex_);
    std::erase(streams_, stream);
  }
  ~Living() {
    for (Stream* stream : streams_) stream->halt();
  }

 private:
  std::mutex mutex_;
  std::vector<Stream*> streams_;
};

}  // namespace

Stream::Stream(std::shared_ptr<Pool> pool, std::function<void()> notify) : pool_(std::move(pool)), notify_(std::move(notify)) {
  Living::all().add(this);
  thread_ = std::thread([this] { work(); });
}

Stream::~Stream() {
  Living::all().remove(this);
  halt();
}

void Stream::halt() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    cancel_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::int64_t Stream::submit(Job job) {
  std::int64_t ticket;
  {
    const std::lock_guard lock(mutex_);
    ticket = ++tickets_;
    jobs_.emplace_back(ticket, std::move(job));
  }
  wake_.notify_one();
  return ticket;
}

std::vector<Outcome> Stream::take() {
  const std::lock_guard lock(mutex_);
  return std::exchange(outcomes_, {});
}

void Stream::cancel() {
  const std::lock_guard lock(mutex_);
  if (running_ || !jobs_.empty()) cancel_ = true;
}

void Stream::work() {
  if (omp_set_num_threads) omp_set_num_threads(1);
  for (;;) {
    std::pair<std::int64_t, Job> next;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || !jobs_.empty(); });
      if (stop_) {
        queue_.reset();
        return;
      }
      next = std::move(jobs_.front());
      jobs_.pop_front();
      running_ = true;
    }
    Outcome outcome;
    try {
      if (next.second.chained && failed_)
        outcome.fault = -1;
      else
        outcome = run(next.second);
    } catch (const Error& error) {
      outcome.fault = -2;
      outcome.code = error.code;
      outcome.message = error.what();
    } catch (const std::bad_alloc&) {
      outcome.fault = -2;
      outcome.code = "OUT_OF_MEMORY";
      outcome.message = "the system gave no more memory";
    } catch (const std::exception& error) {
      outcome.fault = -2;
      outcome.code = "NATIVE";
      outcome.message = error.what();
    }
    outcome.ticket = next.first;
    failed_ = outcome.fault != 0;
    next.second = Job();
    bool first, stopped;
    {
      const std::lock_guard lock(mutex_);
      running_ = false;
      if (jobs_.empty() && !stop_) cancel_ = false;
      outcomes_.push_back(std::move(outcome));
      first = outcomes_.size() == 1;
      stopped = stop_;
    }
    if (first && !stopped) notify_();
  }
}

Outcome Stream::runOnDevice(const Job& job, std::span<std::byte* const> externals, std::byte* arena) {
  if (queueOf_ != job.device) {
    queue_ = job.device->queue();
    queueOf_ = job.device;
  }
  const DeviceOutcome done = job.loaded->run(*queue_, {arena, externals, &cancel_, job.trace, job.profile.get()});
  Outcome outcome;
  outcome.fault = done.fault;
  outcome.instruction = done.instruction;
  return outcome;
}

Outcome Stream::run(const Job& job) {
  Outcome outcome;
  const Program& program = *job.program;
  std::vector<std::byte*> externals;
  externals.reserve(job.bindings.size());
  for (const auto& buffer : job.bindings) externals.push_back(buffer->block.data());
  const std::lock_guard arenaTurn(job.arena->turn);
  std::byte* arena = job.arena->reserve(program.arenaBytes());
  if (job.loaded) return runOnDevice(job, externals, arena);
  std::atomic<int> fault{0};
  std::vector<View> scratch;
  const Call like{{}, {}, nullptr, *pool_, fault, &cancel_};
  for (std::size_t i = 0; i < program.size(); ++i) {
    if (cancel_) {
      outcome.fault = -1;
      return outcome;
    }
    const auto before = job.profile ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
    {
      const std::lock_guard turn(pool_->turn);
      program.step(i, arena, externals, program.constants().data(), like, scratch);
    }
    if (job.profile) {
      (*job.profile)[i] +=
          static_cast<double>(std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - before).count());
    }
    if (job.trace && program.nonFinite(i, scratch)) fault = 1;
    if (fault) {
      outcome.fault = fault;
      outcome.instruction = static_cast<std::int64_t>(i);
      return outcome;
    }
  }
  return outcome;
}

}  // namespace steepest

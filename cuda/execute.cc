#include "cuda/execute.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cuda/mark.h"
#include "ops.gen.h"

namespace steepest::cuda {

namespace {

// Sets of buffers that a stretch keeps a graph for: those of a ring of steps, and again with the memory that an update alternates.
constexpr std::size_t kReplays = 8;

// Kernels take a pool and a fault of the host; on a GPU nothing runs in the one, and only loops use the other.
Pool& noPool() {
  static Pool pool(1);
  return pool;
}

float fromHighHalf(std::uint16_t high) {
  const std::uint32_t bits = static_cast<std::uint32_t>(high) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class T, class F>
bool anyNonFinite(const std::vector<std::byte>& bytes, F value) {
  for (std::size_t i = 0; i + sizeof(T) <= bytes.size(); i += sizeof(T)) {
    T x;
    std::memcpy(&x, bytes.data() + i, sizeof(T));
    if (!std::isfinite(value(x))) return true;
  }
  return false;
}

}  // namespace

Queue::Queue() : stream_(makeStream()), memory_(Gpu::open().allocate(2 * sizeof(int))), host_(makePinned(2 * sizeof(int))) {
  fault_ = reinterpret_cast<int*>(memory_->data);
}

void Queue::clearFault() { check(cudaMemsetAsync(fault_, 0, 2 * sizeof(int), stream()), "cudaMemsetAsync"); }

const int* Queue::readFault() {
  check(cudaMemcpyAsync(host_.get(), fault_, 2 * sizeof(int), cudaMemcpyDeviceToHost, stream()), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream()), "cudaStreamSynchronize");
  return static_cast<const int*>(host_.get());
}

Loaded::Loaded(const Program& program) : program_(program) {
  Gpu& gpu = Gpu::open();
  if (const auto constants = program.constants(); !constants.empty()) {
    constants_ = gpu.allocate(constants.size());
    gpu.upload(constants_->data, constants.data(), constants.size());
  }
  for (std::size_t i = 0; i < program.size(); ++i) {
    const bool waits = steepest::waits(*program.at(i).kernel);
    if (stretches_.empty() || waits || stretches_.back().waits) stretches_.push_back({i, i, waits, {}});
    stretches_.back().to = i + 1;
  }
}

void Loaded::launch(std::size_t i, Queue& queue, const DeviceRun& run, std::atomic<int>& fault) {
  const Instruction& instruction = program_.at(i);
  const Call like{{}, {}, nullptr, noPool(), fault, run.cancel, queue.stream(), queue.fault()};
  program_.step(i, run.arena, run.externals, constants_ ? constants_->data : nullptr, like, views_);
  // A fault of an op that the table does not know to have any would be laid to the next that has.
  if (mayFault(static_cast<Op>(instruction.op)) || i + 1 == program_.size()) mark(queue.fault(), static_cast<int>(i), queue.stream());
}

void Loaded::launchAll(const Stretch& stretch, Queue& queue, const DeviceRun& run) {
  std::atomic<int> fault{0};
  for (std::size_t i = stretch.from; i < stretch.to; ++i) launch(i, queue, run, fault);
}

GraphExec Loaded::capture(const Stretch& stretch, Queue& queue, const DeviceRun& run) {
  // Other threads may allocate meanwhile.
  check(cudaStreamBeginCapture(queue.stream(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  cudaGraph_t made = nullptr;
  try {
    launchAll(stretch, queue, run);
  } catch (...) {
    // A stream that stays in capture could never be used again.
    static_cast<void>(cudaStreamEndCapture(queue.stream(), &made));
    const Graph dropped(made);
    static_cast<void>(cudaGetLastError());
    throw;
  }
  check(cudaStreamEndCapture(queue.stream(), &made), "cudaStreamEndCapture");
  const Graph graph(made);
  cudaGraphExec_t exec = nullptr;
  check(cudaGraphInstantiate(&exec, graph.get(), 0), "cudaGraphInstantiate");
  return GraphExec(exec);
}

void Loaded::replay(Stretch& stretch, Queue& queue, const DeviceRun& run) {
  std::vector<const void*> memory{run.arena, queue.fault()};
  memory.insert(memory.end(), run.externals.begin(), run.externals.end());
  auto& known = stretch.replays;
  auto it = std::find_if(known.begin(), known.end(), [&](const Replay& r) { return r.memory == memory; });
  if (it == known.end()) {
    launchAll(stretch, queue, run);
    if (known.size() >= kReplays) {
      known.erase(std::min_element(known.begin(), known.end(), [](const Replay& a, const Replay& b) { return a.used < b.used; }));
    }
    known.push_back({std::move(memory), {}, ++clock_});
    return;
  }
  it->used = ++clock_;
  if (!it->graph.get()) it->graph = capture(stretch, queue, run);
  check(cudaGraphLaunch(it->graph.get(), queue.stream()), "cudaGraphLaunch");
}

DeviceOutcome Loaded::run(DeviceQueue& given, const DeviceRun& run) {
  Gpu& gpu = Gpu::open();
  gpu.use();
  auto& queue = static_cast<Queue&>(given);
  gpu.joinUploads(queue.stream());
  queue.clearFault();
  if (run.trace || run.profile) return runStepwise(queue, run);
  for (Stretch& stretch : stretches_) {
    if (run.cancel && *run.cancel) {
      check(cudaStreamSynchronize(queue.stream()), "cudaStreamSynchronize");
      return {-1, -1};
    }
    if (!stretch.waits) {
      replay(stretch, queue, run);
      continue;
    }
    std::atomic<int> fault{0};
    launch(stretch.from, queue, run, fault);
    if (fault) {
      // Perhaps of an instruction before, which the device knows.
      const int* first = queue.readFault();
      if (fault > 0 && first[0]) return {first[0], first[1] - 1};
      return {fault, static_cast<std::int64_t>(stretch.from)};
    }
  }
  const int* fault = queue.readFault();
  return {fault[0], fault[0] ? fault[1] - 1 : -1};
}

DeviceOutcome Loaded::runStepwise(Queue& queue, const DeviceRun& run) {
  const Event before = makeEvent(cudaEventDefault), after = makeEvent(cudaEventDefault);
  for (std::size_t i = 0; i < program_.size(); ++i) {
    if (run.cancel && *run.cancel) return {-1, -1};
    std::atomic<int> onHost{0};
    check(cudaEventRecord(before.get(), queue.stream()), "cudaEventRecord");
    launch(i, queue, run, onHost);
    check(cudaEventRecord(after.get(), queue.stream()), "cudaEventRecord");
    const int* fault = queue.readFault();
    if (run.profile) {
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, before.get(), after.get()), "cudaEventElapsedTime");
      (*run.profile)[i] += static_cast<double>(milliseconds) * 1e6;
    }
    if (onHost || fault[0]) return {onHost ? onHost.load() : fault[0], static_cast<std::int64_t>(i)};
    if (run.trace && nonFinite(i)) return {1, static_cast<std::int64_t>(i)};
  }
  return {};
}

bool Loaded::nonFinite(std::size_t i) {
  for (std::size_t k = static_cast<std::size_t>(program_.at(i).inputs); k < views_.size(); ++k) {
    const View& view = views_[k];
    if (!isFloat(view.dtype) || view.size() == 0) continue;
    std::vector<std::byte> bytes(view.bytes());
    Gpu::open().download(bytes.data(), view.data, bytes.size());
    const bool bad = view.dtype == DType::float32   ? anyNonFinite<float>(bytes, [](float x) { return x; })
                     : view.dtype == DType::float64 ? anyNonFinite<double>(bytes, [](double x) { return x; })
                                                    : anyNonFinite<std::uint16_t>(bytes, fromHighHalf);
    if (bad) return true;
  }
  return false;
}

std::unique_ptr<DeviceQueue> Gpu::queue() {
  use();
  return std::make_unique<Queue>();
}

std::unique_ptr<DeviceProgram> Gpu::load(const Program& program) { return std::make_unique<Loaded>(program); }

}  // namespace steepest::cuda

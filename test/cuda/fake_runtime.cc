// CUDA's runtime without a GPU: device memory is the heap, and a stream is a list of work that is done as late as the rules allow, so that
// whoever reads before he has waited reads what is not there yet. Graphs are really recorded and replayed.
//
// What a test sets (in the environment; it may change while the process runs):
//   STEEPEST_FAKE_DRIVER   none, or old: what cudaDriverGetVersion says        STEEPEST_FAKE_DEVICES  how many there are (1)
//   STEEPEST_FAKE_MEMORY   bytes of device memory                              STEEPEST_FAKE_LOG      file that gets a line per call
//   STEEPEST_FAKE_FAIL     name:n:code, the n-th call (from 1) of that name from now on fails with the code; * is any name
#include <cuda_runtime.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "fibers.h"

using Work = std::function<void()>;

struct FakeGraph {
  std::vector<Work> work;
};
struct FakeGraphExec {
  std::vector<Work> work;
};
struct FakeStream {
  std::deque<Work> waiting;
  FakeGraph* capture = nullptr;
  bool spoiled = false;  // the capture
};
struct FakeEvent {
  FakeStream* stream = nullptr;
  std::uint64_t recorded = 0, reached = 0;
  std::chrono::steady_clock::time_point when;
};

namespace {

std::recursive_mutex mutex;
std::map<std::uintptr_t, std::size_t> device, pinned;
std::size_t deviceBytes = 0;
std::set<FakeStream*> streams;
cudaError_t last = cudaSuccess;     // of a launch or call, until cudaGetLastError
cudaError_t failure = cudaSuccess;  // of work, until who waits for it is told (on a GPU it would stay)
std::string failureText;
std::string failSpec;
long failCount = 0;

const char* env(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? value : nullptr;
}

struct Named {
  cudaError_t code;
  const char* name;
  const char* text;
};
constexpr Named kErrors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
};

void log(const char* line) {
  if (const char* path = env("STEEPEST_FAKE_LOG")) {
    if (std::FILE* f = std::fopen(path, "a")) {
      std::fprintf(f, "%s\n", line);
      std::fclose(f);
    }
  }
}

// Counts a call and says whether it is to fail.
cudaError_t called(const char* name) {
  log(name);
  const char* given = std::getenv("STEEPEST_FAKE_FAIL");
  const std::string spec = given ? given : "";
  if (spec != failSpec) {
    failSpec = spec;
    failCount = 0;
  }
  const auto first = spec.find(':'), second = spec.find(':', first + 1);
  if (first == std::string::npos || second == std::string::npos) return cudaSuccess;
  const std::string wanted = spec.substr(0, first);
  if ((wanted != "*" && wanted != name) || ++failCount != std::stol(spec.substr(first + 1))) return cudaSuccess;
  return last = static_cast<cudaError_t>(std::stoi(spec.substr(second + 1)));
}

#define CALL(name)                   \
  const std::lock_guard lock(mutex); \
  if (const cudaError_t bad = called(name)) return bad

bool within(const std::map<std::uintptr_t, std::size_t>& blocks, const void* p, std::size_t n) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  auto it = blocks.upper_bound(at);
  if (it == blocks.begin()) return false;
  --it;
  return at + n <= it->first + it->second;
}

void step(FakeStream* stream) {
  const Work work = std::move(stream->waiting.front());
  stream->waiting.pop_front();
  // What comes after a failure is not done.
  if (failure) return;
  try {
    work();
  } catch (const std::exception& error) {
    failure = cudaErrorLaunchFailure;
    failureText = error.what();
  }
}

void drain(FakeStream* stream) {
  while (!stream->waiting.empty()) step(stream);
}

void drainUntil(FakeEvent* event, std::uint64_t recorded) {
  while (event->reached < recorded && event->stream && streams.count(event->stream) && !event->stream->waiting.empty()) step(event->stream);
}

cudaError_t told() {
  const cudaError_t now = failure;
  failure = cudaSuccess;
  return now ? last = now : cudaSuccess;
}

cudaError_t push(FakeStream* stream, Work work) {
  if (!stream) return last = cudaErrorInvalidValue;
  if (stream->capture)
    stream->capture->work.push_back(std::move(work));
  else
    stream->waiting.push_back(std::move(work));
  return cudaSuccess;
}

cudaError_t spoil(FakeStream* stream) {
  stream->spoiled = true;
  return last = cudaErrorStreamCaptureUnsupported;
}

[[maybe_unused]] bool capturing() {
  for (const FakeStream* s : streams) {
    if (s->capture) return true;
  }
  return false;
}

}  // namespace

namespace steepest::fibers {

void submit(void* stream, const char* name, std::function<void()> work) {
  const std::lock_guard lock(mutex);
  if (called("launch") != cudaSuccess) return;
  log((std::string("kernel ") + name).c_str());
  push(static_cast<FakeStream*>(stream), std::move(work));
}

}  // namespace steepest::fibers

extern "C" {

const char* cudaGetErrorString(cudaError_t code) {
  if (code == cudaErrorLaunchFailure && !failureText.empty()) return failureText.c_str();
  for (const Named& e : kErrors) {
    if (e.code == code) return e.text;
  }
  return "unknown error";
}
const char* cudaGetErrorName(cudaError_t code) {
  for (const Named& e : kErrors) {
    if (e.code == code) return e.name;
  }
  return "cudaErrorUnknown";
}
cudaError_t cudaGetLastError() {
  const std::lock_guard lock(mutex);
  const cudaError_t now = last;
  last = cudaSuccess;
  return now;
}
cudaError_t cudaPeekAtLastError() { return last; }

cudaError_t cudaDriverGetVersion(int* version) {
  CALL("cudaDriverGetVersion");
  const char* driver = env("STEEPEST_FAKE_DRIVER");
  *version = !driver ? 13000 : std::string(driver) == "none" ? 0 : 12020;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  CALL("cudaRuntimeGetVersion");
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  CALL("cudaGetDeviceCount");
  const char* devices = env("STEEPEST_FAKE_DEVICES");
  *count = devices ? std::atoi(devices) : 1;
  return *count > 0 ? cudaSuccess : last = cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int ordinal) {
  CALL("cudaSetDevice");
  return ordinal == 0 ? cudaSuccess : last = cudaErrorInvalidDevice;
}
cudaError_t cudaGetDevice(int* ordinal) {
  CALL("cudaGetDevice");
  *ordinal = 0;
  return cudaSuccess;
}

static std::size_t memoryLimit() {
  const char* bytes = env("STEEPEST_FAKE_MEMORY");
  return bytes ? static_cast<std::size_t>(std::atoll(bytes)) : std::size_t{16} << 30;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  CALL("cudaGetDeviceProperties");
  *properties = {};
  std::strcpy(properties->name, "fibers (no GPU)");
  properties->totalGlobalMem = memoryLimit();
  properties->sharedMemPerBlockOptin = 99 << 10;
  properties->multiProcessorCount = 4;
  properties->major = 8;
  properties->minor = 0;
  properties->l2CacheSize = 1 << 20;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int) {
  CALL("cudaDeviceGetAttribute");
  *value = which == cudaDevAttrMaxSharedMemoryPerBlockOptin ? 99 << 10
           : which == cudaDevAttrMultiProcessorCount        ? 4
           : which == cudaDevAttrComputeCapabilityMajor     ? 8
                                                            : 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  CALL("cudaDeviceSynchronize");
  for (FakeStream* s : streams) drain(s);
  return told();
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  CALL("cudaMemGetInfo");
  *total = memoryLimit();
  *free = *total > deviceBytes ? *total - deviceBytes : 0;
  return cudaSuccess;
}

static cudaError_t allocate(std::map<std::uintptr_t, std::size_t>& blocks, void** p, std::size_t bytes) {
  const std::size_t rounded = (bytes + 255) / 256 * 256;
  // Of the very size under a sanitizer, so that it sees what reads beyond it.
  *p = ::operator new(bytes ? bytes : 1, std::align_val_t(256), std::nothrow);
  if (!*p) return last = cudaErrorMemoryAllocation;
  std::memset(*p, 0xFF, bytes);
  blocks[reinterpret_cast<std::uintptr_t>(*p)] = bytes;
  if (&blocks == &device) deviceBytes += rounded;
  return cudaSuccess;
}
static cudaError_t release(std::map<std::uintptr_t, std::size_t>& blocks, void* p) {
  if (!p) return cudaSuccess;
  const auto it = blocks.find(reinterpret_cast<std::uintptr_t>(p));
  if (it == blocks.end()) return last = cudaErrorInvalidValue;
  if (&blocks == &device) deviceBytes -= (it->second + 255) / 256 * 256;
  blocks.erase(it);
  ::operator delete(p, std::align_val_t(256));
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  CALL("cudaMalloc");
  if (deviceBytes + bytes > memoryLimit()) return last = cudaErrorMemoryAllocation;
  return allocate(device, p, bytes);
}
cudaError_t cudaFree(void* p) {
  CALL("cudaFree");
  for (FakeStream* s : streams) drain(s);
  return release(device, p);
}
cudaError_t cudaMallocHost(void** p, std::size_t bytes) {
  CALL("cudaMallocHost");
  return allocate(pinned, p, bytes);
}
cudaError_t cudaFreeHost(void* p) {
  CALL("cudaFreeHost");
  for (FakeStream* s : streams) drain(s);
  return release(pinned, p);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n, cudaMemcpyKind kind, cudaStream_t stream) {
  CALL("cudaMemcpyAsync");
  const bool toDevice = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool fromDevice = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (n > 0 && (within(device, to, n) != toDevice || within(device, from, n) != fromDevice)) return last = cudaErrorInvalidValue;
  if (kind == cudaMemcpyHostToDevice && !within(pinned, from, n)) {
    if (stream->capture) return spoil(stream);
    // Of memory that is not pinned the runtime takes a copy before it returns.
    const auto* bytes = static_cast<const std::byte*>(from);
    const auto held = std::make_shared<std::vector<std::byte>>(bytes, bytes + n);
    return push(stream, [=] { std::memcpy(to, held->data(), n); });
  }
  const cudaError_t status = push(stream, [=] { std::memmove(to, from, n); });
  if (status || kind != cudaMemcpyDeviceToHost || within(pinned, to, n)) return status;
  if (stream->capture) return spoil(stream);
  drain(stream);
  return told();
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t n, cudaStream_t stream) {
  CALL("cudaMemsetAsync");
  if (n > 0 && !within(device, to, n)) return last = cudaErrorInvalidValue;
  return push(stream, [=] { std::memset(to, value, n); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  CALL("cudaStreamCreateWithFlags");
  *stream = new FakeStream;
  streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  CALL("cudaStreamDestroy");
  drain(stream);
  streams.erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  CALL("cudaStreamSynchronize");
  if (stream->capture) return spoil(stream);
  drain(stream);
  return told();
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  CALL("cudaStreamWaitEvent");
  const std::uint64_t recorded = event->recorded;
  return push(stream, [=] { drainUntil(event, recorded); });
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  CALL("cudaStreamBeginCapture");
  if (stream->capture) return last = cudaErrorInvalidValue;
  stream->capture = new FakeGraph;
  stream->spoiled = false;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::lock_guard lock(mutex);
  const cudaError_t bad = called("cudaStreamEndCapture");
  const std::unique_ptr<FakeGraph> made(std::exchange(stream->capture, nullptr));
  *graph = nullptr;
  if (bad) return bad;
  if (!made || stream->spoiled) return last = cudaErrorStreamCaptureInvalidated;
  *graph = new FakeGraph(*made);
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  CALL("cudaGraphInstantiate");
  *exec = new FakeGraphExec{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  CALL("cudaGraphLaunch");
  if (stream->capture) return spoil(stream);
  stream->waiting.insert(stream->waiting.end(), exec->work.begin(), exec->work.end());
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  CALL("cudaGraphDestroy");
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  CALL("cudaGraphExecDestroy");
  delete exec;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  CALL("cudaEventCreateWithFlags");
  *event = new FakeEvent;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  CALL("cudaEventDestroy");
  for (FakeStream* s : streams) drain(s);
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  CALL("cudaEventRecord");
  event->stream = stream;
  const std::uint64_t number = ++event->recorded;
  return push(stream, [=] {
    event->reached = number;
    event->when = std::chrono::steady_clock::now();
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  CALL("cudaEventQuery");
  if (event->reached >= event->recorded) return told();
  if (event->stream && !event->stream->waiting.empty()) step(event->stream);
  if (failure) return told();
  return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  CALL("cudaEventSynchronize");
  if (capturing() && event->stream && event->stream->capture) return spoil(event->stream);
  drainUntil(event, event->recorded);
  return told();
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  CALL("cudaEventElapsedTime");
  *milliseconds = std::chrono::duration<float, std::milli>(to->when - from->when).count();
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) {
  CALL("cudaFuncSetAttribute");
  return cudaSuccess;
}
}

// The only place that knows N-API: converts and checks arguments, nothing else.
#include <napi.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "ops.gen.h"
#include "runtime/backend.h"
#include "runtime/collective.h"
#include "runtime/levels.h"
#include "runtime/memory.h"
#include "runtime/program.h"
#include "runtime/stream.h"

namespace steepest {
namespace {

// One pool for the whole process, however many workers load the addon; a new size makes a new pool for new streams.
std::mutex poolMutex;
std::weak_ptr<Pool> livePool;
int poolThreads = 0;

int defaultThreads() {
  const char* text = std::getenv("STEEPEST_THREADS");
  const int wanted = text ? std::atoi(text) : 0;
  if (wanted > 0) return std::min(wanted, 1024);
  return std::max(1u, std::thread::hardware_concurrency());
}

std::shared_ptr<Pool> sharedPool() {
  const std::lock_guard lock(poolMutex);
  if (poolThreads == 0) poolThreads = defaultThreads();
  std::shared_ptr<Pool> pool = livePool.lock();
  if (!pool || pool->threads() != poolThreads) {
    pool = std::make_shared<Pool>(poolThreads);
    livePool = pool;
  }
  return pool;
}

// Runs `body`, turning native errors into JavaScript errors with a `code`.
template <class F>
auto guarded(Napi::Env env, F&& body) {
  try {
    return body();
  } catch (const Error& error) {
    Napi::Error out = Napi::Error::New(env, error.what());
    out.Set("code", Napi::String::New(env, error.code));
    throw out;
  } catch (const std::bad_alloc&) {
    Napi::Error out = Napi::Error::New(env, "the system gave no more memory");
    out.Set("code", Napi::String::New(env, "OUT_OF_MEMORY"));
    throw out;
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    // A library that refuses what a program asks of it.
    Napi::Error out = Napi::Error::New(env, error.what());
    out.Set("code", Napi::String::New(env, "NATIVE"));
    throw out;
  }
}

std::size_t sizeArgument(const Napi::CallbackInfo& info, std::size_t i, const char* what) {
  if (info.Length() <= i || !info[i].IsNumber()) throw Napi::TypeError::New(info.Env(), std::string(what) + " must be a number");
  const double x = info[i].As<Napi::Number>().DoubleValue();
  if (!(x >= 0 && x <= 9007199254740992.0)) throw Napi::RangeError::New(info.Env(), std::string(what) + " must be a size");
  return static_cast<std::size_t>(x);
}

std::span<std::byte> bytesArgument(const Napi::CallbackInfo& info, std::size_t i, const char* what) {
  if (info.Length() <= i || !info[i].IsTypedArray()) throw Napi::TypeError::New(info.Env(), std::string(what) + " must be a typed array");
  const auto array = info[i].As<Napi::TypedArray>();
  auto* data = static_cast<std::byte*>(array.ArrayBuffer().Data()) + array.ByteOffset();
  return {data, array.ByteLength()};
}

std::span<const double> wordsArgument(const Napi::CallbackInfo& info, std::size_t i) {
  if (info.Length() <= i || !info[i].IsTypedArray() || info[i].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    throw Napi::TypeError::New(info.Env(), "words must be a Float64Array");
  }
  const auto array = info[i].As<Napi::Float64Array>();
  return {array.Data(), array.ElementLength()};
}

struct Constructors {
  Napi::FunctionReference buffer, arena, program, stream;
};

class BufferWrap : public Napi::ObjectWrap<BufferWrap> {
 public:
  static Napi::Function Class(Napi::Env env) {
    return DefineClass(env, "Buffer",
                       {InstanceAccessor<&BufferWrap::Bytes>("bytes"), InstanceAccessor<&BufferWrap::Mapped>("mapped"),
                        InstanceMethod<&BufferWrap::Write>("write"), InstanceMethod<&BufferWrap::Read>("read"),
                        InstanceMethod<&BufferWrap::Free>("free")});
  }
  // (bytes: number, file?: descriptor, offset?: number): zeros, or, where `mapped` says so then, a part of an open file
  explicit BufferWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<BufferWrap>(info) {
    const std::size_t bytes = sizeArgument(info, 0, "bytes");
    if (info.Length() > 2 && !currentDevice()) {
      Block part = Block::ofFile(static_cast<int>(sizeArgument(info, 1, "file")), sizeArgument(info, 2, "offset"), bytes);
      mapped_ = part.data() != nullptr;
      if (mapped_) buffer = std::make_shared<Buffer>(std::move(part));
    }
    if (!buffer) buffer = guarded(info.Env(), [&] { return std::make_shared<Buffer>(bytes, currentDevice()); });
    // The garbage collector is told of the machine's own memory only; a file's is none until it is written to, and telling makes it run for
    // each part.
    reported_ = buffer->device || mapped_ ? 0 : static_cast<std::int64_t>(bytes);
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), reported_);
  }
  void Finalize(Napi::BasicEnv env) override { Napi::MemoryManagement::AdjustExternalMemory(env, -reported_); }

  std::shared_ptr<Buffer> buffer;

 private:
  Napi::Value Bytes(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(buffer ? buffer->block.size() : 0));
  }
  Napi::Value Mapped(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), mapped_); }
  std::size_t range(const Napi::CallbackInfo& info, std::span<std::byte> bytes) {
    const std::size_t offset = info.Length() > 1 && !info[1].IsUndefined() ? sizeArgument(info, 1, "offset") : 0;
    if (!buffer || offset > buffer->block.size() || bytes.size() > buffer->block.size() - offset) {
      throw Napi::RangeError::New(info.Env(), "the range lies outside of the buffer");
    }
    return offset;
  }
  void Write(const Napi::CallbackInfo& info) {
    const auto bytes = bytesArgument(info, 0, "source");
    const std::size_t at = range(info, bytes);
    guarded(info.Env(), [&] { buffer->write(at, bytes.data(), bytes.size()); });
  }
  void Read(const Napi::CallbackInfo& info) {
    const auto bytes = bytesArgument(info, 0, "target");
    const std::size_t at = range(info, bytes);
    guarded(info.Env(), [&] { buffer->read(at, bytes.data(), bytes.size()); });
  }
  // Gives the memory back now; a job that still uses the buffer keeps it alive until it ends.
  void Free(const Napi::CallbackInfo& info) {
    buffer.reset();
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), -reported_);
    reported_ = 0;
  }
  std::int64_t reported_ = 0;
  bool mapped_ = false;
};

class ArenaWrap : public Napi::ObjectWrap<ArenaWrap> {
 public:
  static Napi::Function Class(Napi::Env env) {
    return DefineClass(env, "Arena", {InstanceAccessor<&ArenaWrap::Bytes>("bytes"), InstanceMethod<&ArenaWrap::Release>("release")});
  }
  explicit ArenaWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ArenaWrap>(info) {}
  std::shared_ptr<Arena> arena = std::make_shared<Arena>(currentDevice());

 private:
  Napi::Value Bytes(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), static_cast<double>(arena->size())); }
  // Only where no job of the arena runs; a busy arena keeps its memory.
  void Release(const Napi::CallbackInfo&) {
    const std::unique_lock lock(arena->turn, std::try_to_lock);
    if (lock.owns_lock()) arena->release();
  }
};

class ProgramWrap : public Napi::ObjectWrap<ProgramWrap> {
 public:
  static Napi::Function Class(Napi::Env env) {
    return DefineClass(env, "Program",
                       {InstanceAccessor<&ProgramWrap::ArenaBytes>("arenaBytes"), InstanceAccessor<&ProgramWrap::Profile>("profile")});
  }
  // (words: Float64Array, constants: Uint8Array, threads: number, device?: 'null'): for the current device, or for none
  explicit ProgramWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ProgramWrap>(info) {
    const auto words = wordsArgument(info, 0);
    const auto constants = bytesArgument(info, 1, "constants");
    const int threads = static_cast<int>(std::clamp<std::size_t>(sizeArgument(info, 2, "threads"), 1, 1024));
    const bool null = info.Length() > 3 && info[3].IsString() && info[3].As<Napi::String>().Utf8Value() == "null";
    program = guarded(info.Env(),
                      [&] { return std::make_shared<const Program>(words, constants, null ? nullKernels() : currentKernels(), threads); });
    device = currentDevice();
    if (device && !null) loaded = guarded(info.Env(), [&] { return std::shared_ptr<DeviceProgram>(device->load(*program)); });
    times = std::make_shared<std::vector<double>>(program->size(), 0.0);
  }
  std::shared_ptr<const Program> program;
  // After `program`, which it refers to.
  std::shared_ptr<DeviceProgram> loaded;
  Device* device = nullptr;
  std::shared_ptr<std::vector<double>> times;

 private:
  Napi::Value ArenaBytes(const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), static_cast<double>(program->arenaBytes()));
  }
  Napi::Value Profile(const Napi::CallbackInfo& info) {
    auto out = Napi::Float64Array::New(info.Env(), times->size());
    std::copy(times->begin(), times->end(), out.Data());
    return out;
  }
};

class StreamWrap : public Napi::ObjectWrap<StreamWrap> {
 public:
  static Napi::Function Class(Napi::Env env) {
    return DefineClass(env, "Stream",
                       {InstanceMethod<&StreamWrap::Submit>("submit"), InstanceMethod<&StreamWrap::Take>("take"),
                        InstanceMethod<&StreamWrap::Cancel>("cancel"), InstanceMethod<&StreamWrap::Close>("close"),
                        InstanceMethod<&StreamWrap::Ref>("ref"), InstanceMethod<&StreamWrap::Unref>("unref"),
                        InstanceAccessor<&StreamWrap::Threads>("threads")});
  }
  // (wake: () => void): called on the event loop when outcomes wait.
  explicit StreamWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<StreamWrap>(info) {
    if (info.Length() < 1 || !info[0].IsFunction()) throw Napi::TypeError::New(info.Env(), "wake must be a function");
    wake_ = Napi::ThreadSafeFunction::New(info.Env(), info[0].As<Napi::Function>(), "steepest", 0, 1);
    wake_.Unref(info.Env());
    pool_ = sharedPool();
    stream_ = std::make_unique<Stream>(pool_, [tsfn = wake_] { tsfn.NonBlockingCall(); });
    // A worker that is terminated, or process.exit, must find no thread that still runs.
    hook_ = info.Env().AddCleanupHook(&StreamWrap::atExit, this);
  }
  ~StreamWrap() override { stop(); }
  void Finalize(Napi::BasicEnv env) override {
    if (stream_) hook_.Remove(env);
    stop();
  }

 private:
  static void atExit(StreamWrap* self) { self->stop(); }
  void stop() {
    if (!stream_) return;
    stream_.reset();
    wake_.Release();
    pool_.reset();
  }
  Napi::Value Submit(const Napi::CallbackInfo& info);
  Napi::Value Take(const Napi::CallbackInfo& info) {
    Napi::Env env = info.Env();
    std::vector<Outcome> outcomes;
    if (stream_) outcomes = stream_->take();
    Napi::Array out = Napi::Array::New(env, outcomes.size());
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      Napi::Object o = Napi::Object::New(env);
      o.Set("ticket", static_cast<double>(outcomes[i].ticket));
      o.Set("fault", outcomes[i].fault);
      o.Set("instruction", static_cast<double>(outcomes[i].instruction));
      if (!outcomes[i].code.empty()) {
        o.Set("code", outcomes[i].code);
        o.Set("message", outcomes[i].message);
      }
      out.Set(static_cast<std::uint32_t>(i), o);
    }
    return out;
  }
  void Cancel(const Napi::CallbackInfo&) {
    if (stream_) stream_->cancel();
  }
  void Close(const Napi::CallbackInfo& info) {
    if (stream_) hook_.Remove(info.Env());
    stop();
  }
  void Ref(const Napi::CallbackInfo& info) {
    if (stream_) wake_.Ref(info.Env());
  }
  void Unref(const Napi::CallbackInfo& info) {
    if (stream_) wake_.Unref(info.Env());
  }
  Napi::Value Threads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), pool_ ? pool_->threads() : 0); }

  Napi::ThreadSafeFunction wake_;
  std::shared_ptr<Pool> pool_;
  std::unique_ptr<Stream> stream_;
  Napi::Env::CleanupHook<void (*)(StreamWrap*), StreamWrap> hook_;
};

template <class W>
W* unwrapAs(const Napi::Value& value, const Napi::FunctionReference& constructor, const char* what) {
  if (!value.IsObject() || !value.As<Napi::Object>().InstanceOf(constructor.Value())) {
    throw Napi::TypeError::New(value.Env(), std::string(what) + " is not of the right kind");
  }
  return W::Unwrap(value.As<Napi::Object>());
}

// submit(program, bindings: Buffer[], arena, { trace?, chained?, profile? }) → ticket
Napi::Value StreamWrap::Submit(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  if (!stream_) throw Napi::Error::New(env, "the stream is closed");
  const Constructors& made = *env.GetInstanceData<Constructors>();
  if (info.Length() < 3 || !info[1].IsArray()) throw Napi::TypeError::New(env, "submit takes a program, bindings and an arena");
  const ProgramWrap* program = unwrapAs<ProgramWrap>(info[0], made.program, "program");
  Job job;
  job.program = program->program;
  job.loaded = program->loaded;
  job.device = program->device;
  job.arena = unwrapAs<ArenaWrap>(info[2], made.arena, "arena")->arena;
  const auto requireHere = [&](const Device* device) {
    if (device == job.device) return;
    Napi::Error error = Napi::Error::New(env, "memory of one device is given to a program of another; tensors stay where they were made");
    error.Set("code", Napi::String::New(env, "DEVICE"));
    throw error;
  };
  requireHere(job.arena->device);
  const auto bindings = info[1].As<Napi::Array>();
  const auto externals = job.program->externals();
  if (bindings.Length() != externals.size()) throw Napi::RangeError::New(env, "one binding for each external is needed");
  if (job.program->threads() != pool_->threads()) throw Napi::Error::New(env, "the program was planned for another number of threads");
  for (std::uint32_t i = 0; i < bindings.Length(); ++i) {
    const BufferWrap* buffer = unwrapAs<BufferWrap>(bindings.Get(i), made.buffer, "binding");
    if (!buffer->buffer || buffer->buffer->block.size() < externals[i].bytes)
      throw Napi::RangeError::New(env, "a binding is smaller than its external");
    requireHere(buffer->buffer->device);
    job.bindings.push_back(buffer->buffer);
  }
  if (info.Length() > 3 && info[3].IsObject()) {
    const auto options = info[3].As<Napi::Object>();
    job.trace = options.Get("trace").ToBoolean();
    job.chained = options.Get("chained").ToBoolean();
    if (options.Get("profile").ToBoolean()) job.profile = program->times;
  }
  return Napi::Number::New(env, static_cast<double>(stream_->submit(std::move(job))));
}

// workspace(instruction: Float64Array, threads) → bytes
Napi::Value Workspace(const Napi::CallbackInfo& info) {
  const auto words = wordsArgument(info, 0);
  const int threads = static_cast<int>(std::clamp<std::size_t>(sizeArgument(info, 1, "threads"), 1, 1024));
  return Napi::Number::New(info.Env(),
                           static_cast<double>(guarded(info.Env(), [&] { return workspaceOf(words, currentKernels(), threads); })));
}

// threads(n?) → the number of threads of streams made from now on
Napi::Value Threads(const Napi::CallbackInfo& info) {
  const std::lock_guard lock(poolMutex);
  if (info.Length() > 0 && info[0].IsNumber())
    poolThreads = static_cast<int>(std::clamp<std::size_t>(sizeArgument(info, 0, "threads"), 1, 1024));
  if (poolThreads == 0) poolThreads = defaultThreads();
  return Napi::Number::New(info.Env(), poolThreads);
}

// joinProcesses(libraries: string[]) → {rank, size}: trains with the processes that `mpirun` started from now on
Napi::Value JoinProcesses(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto given = info[0].As<Napi::Array>();
    std::vector<std::string> libraries;
    for (std::uint32_t i = 0; i < given.Length(); ++i) libraries.push_back(given.Get(i).As<Napi::String>().Utf8Value());
    joinByOpenMpi(libraries);
    auto out = Napi::Object::New(info.Env());
    out.Set("rank", collective()->rank());
    out.Set("size", collective()->size());
    return out.As<Napi::Value>();
  });
}

// sumOfProcesses(numbers: Float64Array): replaced by their sums
void SumOfProcesses(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] {
    if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array)
      throw Error("PROGRAM", "sumOfProcesses takes a Float64Array");
    auto numbers = info[0].As<Napi::Float64Array>();
    if (collective()) collective()->sum(numbers.Data(), numbers.ElementLength(), DType::float64);
  });
}

// leaveProcesses(): this process has done its part
void LeaveProcesses(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [] { leaveCollective(); });
}

// level(name?) → the dispatch level of programs made from now on
Napi::Value ChooseLevel(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    if (info.Length() > 0 && info[0].IsString()) useLevel(info[0].As<Napi::String>().Utf8Value());
    return Napi::String::New(info.Env(), level().name);
  });
}

// device(name?) → the device of buffers, arenas and programs made from now on
Napi::Value ChooseDevice(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    if (info.Length() > 0 && info[0].IsString()) useDevice(info[0].As<Napi::String>().Utf8Value());
    return Napi::String::New(info.Env(), currentDeviceName());
  });
}

// deviceInfo() → of the current device: { facts: [name, value][], missing: ops without a kernel, allocatedBytes }; null for the CPU
Napi::Value DeviceInfo(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Device* device = currentDevice();
  if (!device) return env.Null();
  static constexpr const char* names[] = {
#define NAME(name, Name) #name,
      STEEPEST_KERNELS(NAME)
#undef NAME
  };
  Napi::Object out = Napi::Object::New(env);
  Napi::Array facts = Napi::Array::New(env), missing = Napi::Array::New(env);
  for (const auto& [name, value] : guarded(env, [&] { return device->facts(); })) {
    Napi::Array pair = Napi::Array::New(env, 2);
    pair.Set(0u, name);
    pair.Set(1u, value);
    facts.Set(facts.Length(), pair);
  }
  for (int op = 0; op < kOps; ++op) {
    if (!device->hasKernel(op)) missing.Set(missing.Length(), names[op]);
  }
  out.Set("facts", facts);
  out.Set("missing", missing);
  out.Set("allocatedBytes", static_cast<double>(device->allocatedBytes()));
  out.Set("totalBytes", static_cast<double>(device->totalBytes()));
  return out;
}

Napi::Value Info(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object out = Napi::Object::New(env);
  out.Set("level", guarded(env, [] { return std::string(level().name); }));
  Napi::Array all = Napi::Array::New(env);
  for (const Level& l : levels()) all.Set(all.Length(), l.name);
  out.Set("levels", all);
  out.Set("tableHash", static_cast<double>(kTableHash));
  out.Set("allocatedBytes", static_cast<double>(allocatedBytes()));
  return out;
}

Napi::Object Init(Napi::Env env, Napi::Object exports) {
  auto* made = new Constructors;  // owned by the environment, which deletes it
  const auto add = [&](const char* name, Napi::Function constructor, Napi::FunctionReference& reference) {
    reference = Napi::Persistent(constructor);
    exports.Set(name, constructor);
  };
  add("Buffer", BufferWrap::Class(env), made->buffer);
  add("Arena", ArenaWrap::Class(env), made->arena);
  add("Program", ProgramWrap::Class(env), made->program);
  add("Stream", StreamWrap::Class(env), made->stream);
  env.SetInstanceData(made);
  exports.Set("workspace", Napi::Function::New<Workspace>(env));
  exports.Set("threads", Napi::Function::New<Threads>(env));
  exports.Set("joinProcesses", Napi::Function::New<JoinProcesses>(env));
  exports.Set("sumOfProcesses", Napi::Function::New<SumOfProcesses>(env));
  exports.Set("leaveProcesses", Napi::Function::New<LeaveProcesses>(env));
  exports.Set("device", Napi::Function::New<ChooseDevice>(env));
  exports.Set("deviceInfo", Napi::Function::New<DeviceInfo>(env));
  exports.Set("level", Napi::Function::New<ChooseLevel>(env));
  exports.Set("info", Napi::Function::New<Info>(env));
  return exports;
}

}  // namespace
}  // namespace steepest

static Napi::Object InitModule(Napi::Env env, Napi::Object exports) { return steepest::Init(env, exports); }
NODE_API_MODULE(steepest, InitModule)

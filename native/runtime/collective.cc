#include "collective.h"

#include <dlfcn.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <mutex>

namespace steepest {

namespace {

std::shared_ptr<Collective>& held() {
  static std::shared_ptr<Collective> one;
  return one;
}

// MPI as Open MPI has it: handles are addresses of objects in the library.
class OpenMpi final : public Collective {
 public:
  OpenMpi(void* library, std::string path) : library_(library), path_(std::move(path)) {
    world_ = find("ompi_mpi_comm_world");
    float32_ = find("ompi_mpi_float");
    float64_ = find("ompi_mpi_double");
    add_ = find("ompi_mpi_op_sum");
    allReduce_ = reinterpret_cast<AllReduce>(find("MPI_Allreduce"));
    errorText_ = reinterpret_cast<ErrorText>(find("MPI_Error_string"));
    const auto start = reinterpret_cast<int (*)(int*, char***, int, int*)>(find("MPI_Init_thread"));
    // One thread at a time calls, but not always the same one.
    constexpr int kSerialized = 2;
    int provided = 0;
    check(start(nullptr, nullptr, kSerialized, &provided), "it does not start");
    if (provided < kSerialized) throw Error("NATIVE", path_ + " was built without threads");
    // An error is told, and does not end the process.
    check(reinterpret_cast<int (*)(void*, void*)>(find("MPI_Comm_set_errhandler"))(world_, find("ompi_mpi_errors_return")),
          "it does not start");
    check(reinterpret_cast<int (*)(void*, int*)>(find("MPI_Comm_rank"))(world_, &rank_), "it does not start");
    check(reinterpret_cast<int (*)(void*, int*)>(find("MPI_Comm_size"))(world_, &size_), "it does not start");
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void sum(void* data, std::size_t count, DType dtype) override {
    if (dtype != DType::float32 && dtype != DType::float64) throw Error("PROGRAM", "sums over processes are of float32 or float64");
    // MPI_IN_PLACE of Open MPI is the address 1.
    void* const inPlace = std::bit_cast<void*>(std::intptr_t{1});
    auto* at = static_cast<std::byte*>(data);
    for (std::size_t done = 0; done < count;) {
      const std::size_t n = std::min(count - done, kMost);
      check(
          allReduce_(inPlace, at + done * sizeOf(dtype), static_cast<int>(n), dtype == DType::float64 ? float64_ : float32_, add_, world_),
          "a sum over the processes failed");
      done += n;
    }
  }

  void leave() override { check(reinterpret_cast<int (*)()>(find("MPI_Finalize"))(), "it does not end"); }

 private:
  using AllReduce = int (*)(const void*, void*, int, void*, void*, void*);
  using ErrorText = int (*)(int, char*, int*);
  static constexpr std::size_t kMost = std::size_t{1} << 28;  // counts are 32-bit

  void* find(const char* name) const {
    if (void* symbol = dlsym(library_, name)) return symbol;
    throw Error("NATIVE", path_ + " is not Open MPI: it has no " + name);
  }
  void check(int code, const char* what) const {
    if (code == 0) return;
    char text[1024] = {};
    int length = 0;
    errorText_(code, text, &length);
    throw Error("NATIVE", "Open MPI: " + std::string(what) + ": " + text);
  }

  void* library_;
  std::string path_;
  void *world_ = nullptr, *float32_ = nullptr, *float64_ = nullptr, *add_ = nullptr;
  AllReduce allReduce_ = nullptr;
  ErrorText errorText_ = nullptr;
  int rank_ = 0, size_ = 1;
};

}  // namespace

const std::shared_ptr<Collective>& collective() { return held(); }

void joinByOpenMpi(std::span<const std::string> libraries) {
  static std::mutex one;
  const std::lock_guard lock(one);
  if (held()) return;
  std::string reason = "no file was named";
  for (const std::string& path : libraries) {
    // Its plug-ins look for its symbols among those of the process.
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
      held() = std::make_shared<OpenMpi>(library, path);
      return;
    }
    reason = dlerror();
  }
  throw Error("NATIVE", "Open MPI is not found (" + reason + ")");
}

void leaveCollective() {
  if (!held()) return;
  held()->leave();
  held().reset();
}

}  // namespace steepest

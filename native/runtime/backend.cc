#include "backend.h"

#include <atomic>
#include <cstdlib>
#include <mutex>

#include "ops.gen.h"

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace steepest {

namespace {

std::atomic<Device*> current{nullptr};

// The library that the environment names, else the one beside this code.
std::string libraryPath() {
  if (const char* named = std::getenv("STEEPEST_CUDA_LIBRARY"); named && *named) return named;
  Dl_info self;
  std::string folder = ".";
  if (dladdr(reinterpret_cast<void*>(&currentDevice), &self) && self.dli_fname) {
    const std::string path = self.dli_fname;
    const auto slash = path.rfind('/');
    if (slash != std::string::npos) folder = path.substr(0, slash);
  }
  return folder + "/libsteepest_cuda.so";
}

Device& openCuda() {
  static std::mutex mutex;
  static Device* opened = nullptr;
  const std::lock_guard lock(mutex);
  if (opened) return *opened;
  const std::string path = libraryPath();
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!handle) {
    const char* why = dlerror();
    throw Error("DEVICE", std::string("this copy of steepest has no CUDA part (") + (why ? why : path) + "); build it with: npm run cuda");
  }
  const auto entry = reinterpret_cast<DeviceEntry>(dlsym(handle, "steepest_device_library"));
  const DeviceLibrary* library = entry ? entry() : nullptr;
  if (!library || library->interface != kDeviceInterface || library->tableHash != kTableHash) {
    throw Error("DEVICE", path + " is of another build of steepest than the native part beside it; build it with: npm run cuda");
  }
  return *(opened = &library->open());
}

}  // namespace

Device* currentDevice() { return current; }
const char* currentDeviceName() { return current ? "cuda" : "cpu"; }

void useDevice(const std::string& name) {
  if (name == "cpu") {
    current = nullptr;
    return;
  }
  if (name != "cuda") throw Error("OPTION", "a device is 'cpu' or 'cuda'; got '" + name + "'");
  current = &openCuda();
}

}  // namespace steepest

#include "openblas.h"

#include <dlfcn.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "types.h"

namespace steepest {

namespace {
constexpr const char* kFile = "libscipy_openblas.so";
constexpr const char* kPrefix = "scipy_";

std::vector<std::string> places() {
  std::vector<std::string> list;
  if (const char* path = std::getenv("STEEPEST_OPENBLAS")) list.emplace_back(path);
  Dl_info self;
  if (dladdr(reinterpret_cast<void*>(&openblasSymbol), &self) && self.dli_fname) {
    const std::string file = self.dli_fname;
    const std::size_t slash = file.rfind('/');
    const std::string folder = slash == std::string::npos ? "." : file.substr(0, slash);
    // A build folder lies one (tests) or two (cmake-js) levels below the project.
    for (const char* step : {"/", "/../.deps/native/lib/", "/../../.deps/native/lib/"}) list.push_back(folder + step + kFile);
  }
  list.emplace_back(kFile);
  return list;
}

void* open() {
  std::string reason;
  for (const std::string& path : places()) {
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      const auto setThreads = reinterpret_cast<void (*)(int)>(dlsym(library, "scipy_openblas_set_num_threads"));
      if (!setThreads) throw Error("NATIVE", path + " is not the OpenBLAS of the package scipy-openblas32");
      setThreads(1);
      return library;
    }
    reason = dlerror();
  }
  throw Error("NATIVE", std::string("linear algebra needs ") + kFile + " (PyPI: scipy-openblas32) beside the addon: " + reason);
}
}  // namespace

void* openblasSymbol(const char* name) {
  static void* const library = open();
  const std::string full = std::string(kPrefix) + name;
  if (void* symbol = dlsym(library, full.c_str())) return symbol;
  throw Error("NATIVE", std::string(kFile) + " has no " + full);
}

}  // namespace steepest

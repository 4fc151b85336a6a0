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
  throw Error("NATIVE", std::string("float64 products and linear algebra need ") + kFile + " (PyPI: scipy-openblas32) beside the addon: " + reason);
}
}  // namespace

void* openblasSymbol(const char* name) {
  static void* const library = open();
  const std::string full = std::string(kPrefix) + name;
  if (void* symbol = dlsym(library, full.c_str())) return symbol;
  throw Error("NATIVE", std::string(kFile) + " has no " + full);
}

void dgemm(bool transA, bool transB, std::int64_t m, std::int64_t n, std::int64_t k, const double* a, std::int64_t lda, const double* b,
           std::int64_t ldb, bool accumulate, double* c, std::int64_t ldc) {
  // CBLAS: row-major is 101, no transpose 111, transpose 112; its integers are 32 bits wide in this build.
  using Gemm = void (*)(int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*, int);
  static const auto gemm = reinterpret_cast<Gemm>(openblasSymbol("cblas_dgemm"));
  gemm(101, transA ? 112 : 111, transB ? 112 : 111, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k), 1.0, a,
       static_cast<int>(lda), b, static_cast<int>(ldb), accumulate ? 1.0 : 0.0, c, static_cast<int>(ldc));
}

}  // namespace steepest

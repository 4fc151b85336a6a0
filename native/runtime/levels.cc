#include "levels.h"

#include <atomic>
#include <cstdlib>

#include "backend.h"
#include "ops.gen.h"

namespace steepest {

#define LEVEL(name)                   \
  namespace name {                    \
  std::span<const Factory> kernels(); \
  }
LEVEL(portable)
#if defined(STEEPEST_HAS_v3)
LEVEL(v3)
#endif
#if defined(STEEPEST_HAS_v4)
LEVEL(v4)
#endif
#undef LEVEL

std::vector<Level> levels() {
  std::vector<Level> all{{"portable", portable::kernels}};
#if defined(__x86_64__)
  __builtin_cpu_init();
  [[maybe_unused]] const bool has3 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("bmi");
  [[maybe_unused]] const bool has4 = has3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                     __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                                     __builtin_cpu_supports("avx512cd");
#if defined(STEEPEST_HAS_v3)
  if (has3) all.push_back({"v3", v3::kernels});
#endif
#if defined(STEEPEST_HAS_v4)
  if (has4) all.push_back({"v4", v4::kernels});
#endif
#endif
  return all;
}

namespace {

const std::vector<Level>& machineLevels() {
  static const std::vector<Level> all = levels();
  return all;
}

const Level& named(const std::string& name) {
  for (const Level& l : machineLevels()) {
    if (name == l.name) return l;
  }
  throw Error("OPTION", "the machine runs no dispatch level of this name: " + name);
}

std::atomic<const Level*> chosen{nullptr};

}  // namespace

const Level& level() {
  if (const Level* l = chosen.load()) return *l;
  static const Level& first = []() -> const Level& {
    const char* name = std::getenv("STEEPEST_LEVEL");
    return name ? named(name) : machineLevels().back();
  }();
  return first;
}

void useLevel(const std::string& name) { chosen.store(&named(name)); }

std::span<const Factory> currentKernels() {
  const Device* device = currentDevice();
  return device ? device->kernels() : level().kernels();
}

namespace {

// Keeps the checks and the workspace of the real kernel, so that plans are the same.
class NullKernel final : public Kernel {
 public:
  explicit NullKernel(std::size_t scratch) { workspace = scratch; }
  void run(const Call&) const override {}
};

template <int op>
std::unique_ptr<Kernel> makeNull(const Spec& spec) {
  return std::make_unique<NullKernel>(currentKernels()[op](spec)->workspace);
}

}  // namespace

std::span<const Factory> nullKernels() {
  static constexpr Factory table[] = {
#define ROW(name, Name) makeNull<static_cast<int>(Op::name##_)>,
      STEEPEST_KERNELS(ROW)
#undef ROW
  };
  return table;
}

}  // namespace steepest

// What memory gives to a loop that does nothing else: passes over float32 arrays that read some of them and read and write others in place.
// plain THREADS LENGTH PASS... where PASS is `read:written`; answers like the other contestants (bench/harness.mjs).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <thread>
#include <vector>

#include <sys/mman.h>

namespace {

constexpr std::size_t kTile = 131072;

struct Pass {
  int read, written;
};

float* array(std::size_t n) {
  void* p = mmap(nullptr, n * sizeof(float), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) std::exit(1);
  madvise(p, n * sizeof(float), MADV_HUGEPAGE);
  auto* f = static_cast<float*>(p);
  for (std::size_t i = 0; i < n; ++i) f[i] = static_cast<float>(i % 7);
  return f;
}

// One loop for each shape of a pass, so that the compiler sees all arrays at once.
template <int R, int W>
void loop(float* const* read, float* const* written, std::size_t begin, std::size_t end) {
  const float* r[R + 1];
  float* w[W + 1];
  for (int k = 0; k < R; ++k) r[k] = read[k];
  for (int k = 0; k < W; ++k) w[k] = written[k];
  if constexpr (W == 0) {
    float sum[64] = {};
    for (std::size_t i = begin; i + 64 <= end; i += 64) {
      for (int k = 0; k < R; ++k) {
        for (int lane = 0; lane < 64; ++lane) sum[lane] += r[k][i + static_cast<std::size_t>(lane)];
      }
    }
    // Somebody has to see them.
    if (sum[0] == 1.5f) std::puts("");
  }
#pragma GCC ivdep
  for (std::size_t i = begin; i < end && W > 0; ++i) {
    float sum = 1;
    for (int k = 0; k < R; ++k) sum += r[k][i];
    for (int k = 0; k < W; ++k) w[k][i] = w[k][i] * 0.999f + sum;
  }
}

using Loop = void (*)(float* const*, float* const*, std::size_t, std::size_t);
constexpr Loop kLoops[4][5] = {
    {loop<0, 0>, loop<0, 1>, loop<0, 2>, loop<0, 3>, loop<0, 4>},
    {loop<1, 0>, loop<1, 1>, loop<1, 2>, loop<1, 3>, loop<1, 4>},
    {loop<2, 0>, loop<2, 1>, loop<2, 2>, loop<2, 3>, loop<2, 4>},
    {loop<3, 0>, loop<3, 1>, loop<3, 2>, loop<3, 3>, loop<3, 4>},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 1;
  const int threads = std::atoi(argv[1]);
  const std::size_t n = std::strtoull(argv[2], nullptr, 10);
  std::vector<Pass> passes;
  int most = 0;
  for (int i = 3; i < argc; ++i) {
    Pass p{};
    if (std::sscanf(argv[i], "%d:%d", &p.read, &p.written) != 2 || p.read > 3 || p.read < 0 || p.written < 0 || p.written > 4) return 1;
    passes.push_back(p);
    most = std::max(most, p.read + p.written);
  }
  std::vector<float*> arrays;
  for (int i = 0; i < most; ++i) arrays.push_back(array(n));
  std::puts("ready plain loops");
  std::fflush(stdout);
  int count;
  while (std::cin >> count) {
    const auto began = std::chrono::steady_clock::now();
    for (int c = 0; c < count; ++c) {
      for (const Pass& p : passes) {
        std::atomic<std::size_t> next{0};
        const auto work = [&] {
          for (std::size_t i; (i = next.fetch_add(kTile)) < n;)
            kLoops[p.read][p.written](arrays.data() + p.written, arrays.data(), i, std::min(n, i + kTile));
        };
        std::vector<std::thread> others;
        for (int t = 1; t < threads; ++t) others.emplace_back(work);
        work();
        for (std::thread& t : others) t.join();
      }
    }
    std::printf("%.9f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    std::fflush(stdout);
  }
}

// What the fibers find, and what they let pass.
#include "cuda/launch.h"

#include <cstdio>
#include <string>
#include <vector>

using steepest::bf16;
using steepest::Error;
namespace fibers = steepest::fibers;
using namespace steepest::cuda;

namespace {

int failures = 0;
#define EXPECT(condition)                                       \
  if (!(condition)) {                                           \
    std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition); \
    ++failures;                                                 \
  }

// Runs body(thread) as a kernel of one block or more; gives what was found.
template <class F>
std::string found(dim3 grid, dim3 block, std::size_t shared, const F& body) {
  try {
    fibers::run("test", grid, block, shared, [](const void* f) { (*static_cast<const F*>(f))(); }, &body);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

void reductions() {
  for (const unsigned threads : {32u, 96u, 1024u}) {
    std::vector<float> sums(threads);
    const float wanted = static_cast<float>(threads) * static_cast<float>(threads - 1) / 2;
    EXPECT(found(2, threads, 0, [&] { sums[threadIdx.x] = blockSum(static_cast<float>(threadIdx.x)); }).empty());
    for (const float s : sums) EXPECT(s == wanted);
    EXPECT(found(1, threads, 0, [&] { sums[threadIdx.x] = blockMax(static_cast<float>(threadIdx.x), -1.0f); }).empty());
    for (const float s : sums) EXPECT(s == static_cast<float>(threads - 1));
  }
}

void shuffles() {
  std::vector<int> out(32);
  EXPECT(found(1, 32, 0, [&] { out[threadIdx.x] = __shfl_down_sync(kAllLanes, static_cast<int>(threadIdx.x), 3, 8); }).empty());
  for (int i = 0; i < 32; ++i) EXPECT(out[static_cast<std::size_t>(i)] == (i % 8 + 3 < 8 ? i + 3 : i));
  EXPECT(found(1, 32, 0, [&] { out[threadIdx.x] = static_cast<int>(__ballot_sync(kAllLanes, threadIdx.x % 3 == 0)); }).empty());
  EXPECT(out[5] == 0x49249249);
  // Half a warp by itself, the other half after it.
  EXPECT(found(1, 32, 0, [&] {
           const unsigned half = threadIdx.x < 16 ? 0xFFFFu : 0xFFFF0000u;
           out[threadIdx.x] = __reduce_add_sync(half, 1);
         }).empty());
  for (const int x : out) EXPECT(x == 16);
}

void mistakes() {
  EXPECT(has(found(1, 64, 0,
                   [] {
                     if (threadIdx.x != 7) __syncthreads();
                   }),
             "others wait at __syncthreads"));
  EXPECT(has(found(1, 32, 0,
                   [] {
                     if (threadIdx.x < 9) __syncwarp();
                   }),
             "lanes that have returned"));
  EXPECT(has(found(1, 40, 0, [] { __syncwarp(); }), "lanes that the block does not have"));
  EXPECT(has(found(1, 32, 0, [] { __shfl_sync(0xFFu, 1, 0); }), "mask does not name it"));
  EXPECT(has(found(1, 32, 0,
                   [] {
                     if (threadIdx.x < 8) __shfl_sync(0xFFu, 1, 20);
                   }),
             "a lane that is not in its mask"));
  EXPECT(has(found(1, 32, 0,
                   [] {
                     if (threadIdx.x == 0)
                       __syncthreads();
                     else
                       __syncwarp();
                   }),
             "wait for each other in different places"));
  EXPECT(has(found(1, 2048, 0, [] {}), "1 to 1024 threads"));
  EXPECT(has(found(dim3(1, 70000), 32, 0, [] {}), "grid is too large"));
  EXPECT(has(found(1, 32, 200 << 10, [] {}), "more shared memory"));
  // After a launch that was given up the next is whole.
  int ran = 0;
  EXPECT(found(1, 64, 0, [&] { ++ran; }).empty() && ran == 64);
}

// Without the barrier the neighbour's number is not there yet, or is, by the order of the lanes.
void order() {
  const auto neighbours = [](bool barrier) {
    std::vector<int> out(64);
    EXPECT(found(1, 64, 64 * sizeof(int), [&] {
             STEEPEST_SHARED(int, shared);
             shared[threadIdx.x] = static_cast<int>(threadIdx.x);
             if (barrier) __syncthreads();
             out[threadIdx.x] = shared[(threadIdx.x + 1) % 64];
           }).empty());
    return out;
  };
  for (const bool barrier : {true, false}) {
    unsetenv("STEEPEST_FIBERS_ORDER");
    const auto forward = neighbours(barrier);
    setenv("STEEPEST_FIBERS_ORDER", "reverse", 1);
    EXPECT((neighbours(barrier) == forward) == barrier);
    unsetenv("STEEPEST_FIBERS_ORDER");
  }
}

void conversions() {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const bf16 x{static_cast<std::uint16_t>(bits)};
    const float f = toFloat(x);
    if (f == f) EXPECT(toBf16(f).bits == bits && fibers::bf16Bits(f) == bits);
    const float h = fibers::halfValue(static_cast<std::uint16_t>(bits));
    if (h == h) EXPECT(fibers::halfBits(h) == bits);
  }
  // Ties go to even, and halfway below the least number of half is zero.
  EXPECT(toBf16(1.00390625f).bits == 0x3F80 && toBf16(1.01171875f).bits == 0x3F82);
  EXPECT(fibers::halfBits(0x1p-25f) == 0 && fibers::halfBits(0x1.8p-24f) == 2 && fibers::halfBits(65519.0f) == 0x7BFF &&
         fibers::halfBits(65520.0f) == 0x7C00);
  EXPECT(__float2int_rn(2.5f) == 2 && __float2int_rn(3e9f) == 2147483647 && __float2int_rn(-3e9f) == -2147483647 - 1);
}

}  // namespace

int main() {
  reductions();
  shuffles();
  mistakes();
  order();
  conversions();
  std::printf(failures ? "%d failed\n" : "fibers: all well\n", failures);
  return failures != 0;
}

// What threads of a block do together: barriers, shuffles and votes.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda_types.h"

namespace steepest::fibers {

struct Current {
  uint3 thread, block;
  dim3 threads, blocks;
  std::byte* shared;
};
// Of the thread that runs; one launch runs at a time.
extern constinit Current current;

inline std::byte* dynamicShared() { return current.shared; }

enum class Meeting : std::uint8_t { none, block, shuffle, vote, sync, match, reduce };

// Waits until all threads of the block are here; gives how many said yes.
int meetBlock(bool yes);
// Waits until all lanes of `mask` are here with the same kind; gives what each of the 32 lanes brought.
const std::uint64_t* meetWarp(Meeting kind, unsigned mask, std::uint64_t value);
// Ends the launch with an Error.
[[noreturn]] void fail(const char* what);
unsigned laneOfCurrent();

template <class T>
inline std::uint64_t pack(T x) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  std::uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof(T));
  return bits;
}
template <class T>
inline T unpack(std::uint64_t bits) {
  T x;
  std::memcpy(&x, &bits, sizeof(T));
  return x;
}

// `source` is a lane of the segment of `width` lanes; outside of it a lane gets its own value.
template <class T>
inline T shuffle(unsigned mask, T x, int source, bool inside) {
  const unsigned lane = laneOfCurrent();
  const std::uint64_t* all = meetWarp(Meeting::shuffle, mask, pack(x));
  const unsigned from = inside ? static_cast<unsigned>(source) : lane;
  if (!(mask >> from & 1u)) fail("a shuffle reads a lane that is not in its mask");
  return unpack<T>(all[from]);
}

template <class T, class F>
inline T reduceLanes(unsigned mask, T x, F combine) {
  const std::uint64_t* all = meetWarp(Meeting::reduce, mask, pack(x));
  bool first = true;
  T r{};
  for (unsigned i = 0; i < 32; ++i) {
    if (!(mask >> i & 1u)) continue;
    r = first ? unpack<T>(all[i]) : combine(r, unpack<T>(all[i]));
    first = false;
  }
  return r;
}

}  // namespace steepest::fibers

inline void __syncthreads() { steepest::fibers::meetBlock(false); }
inline int __syncthreads_count(int yes) { return steepest::fibers::meetBlock(yes != 0); }
inline int __syncthreads_or(int yes) { return steepest::fibers::meetBlock(yes != 0) > 0; }
inline int __syncthreads_and(int yes) { return steepest::fibers::meetBlock(yes == 0) == 0; }
inline void __syncwarp(unsigned mask = 0xFFFFFFFFu) { steepest::fibers::meetWarp(steepest::fibers::Meeting::sync, mask, 0); }

template <class T>
inline T __shfl_sync(unsigned mask, T x, int source, int width = 32) {
  const int first = static_cast<int>(steepest::fibers::laneOfCurrent()) & ~(width - 1);
  return steepest::fibers::shuffle(mask, x, first + (source & (width - 1)), true);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T x, int bits, int width = 32) {
  const int lane = static_cast<int>(steepest::fibers::laneOfCurrent()), source = lane ^ bits;
  return steepest::fibers::shuffle(mask, x, source, source < (lane & ~(width - 1)) + width);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T x, unsigned by, int width = 32) {
  const int lane = static_cast<int>(steepest::fibers::laneOfCurrent()), source = lane + static_cast<int>(by);
  return steepest::fibers::shuffle(mask, x, source, source < (lane & ~(width - 1)) + width);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T x, unsigned by, int width = 32) {
  const int lane = static_cast<int>(steepest::fibers::laneOfCurrent()), source = lane - static_cast<int>(by);
  return steepest::fibers::shuffle(mask, x, source, source >= (lane & ~(width - 1)));
}

inline unsigned __ballot_sync(unsigned mask, int yes) {
  const std::uint64_t* all = steepest::fibers::meetWarp(steepest::fibers::Meeting::vote, mask, yes != 0);
  unsigned r = 0;
  for (unsigned i = 0; i < 32; ++i) r |= (mask >> i & 1u) && all[i] ? 1u << i : 0u;
  return r;
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) == mask; }
template <class T>
inline unsigned __match_any_sync(unsigned mask, T x) {
  const std::uint64_t mine = steepest::fibers::pack(x);
  const std::uint64_t* all = steepest::fibers::meetWarp(steepest::fibers::Meeting::match, mask, mine);
  unsigned r = 0;
  for (unsigned i = 0; i < 32; ++i) r |= (mask >> i & 1u) && all[i] == mine ? 1u << i : 0u;
  return r;
}

#define STEEPEST_REDUCE(name, expression)                                                               \
  template <class T>                                                                                    \
    requires(std::is_integral_v<T> && sizeof(T) == 4)                                                   \
  inline T name(unsigned mask, T x) {                                                                   \
    return steepest::fibers::reduceLanes(mask, x, [](T a, T b) { return static_cast<T>(expression); }); \
  }
STEEPEST_REDUCE(__reduce_add_sync, a + b)
STEEPEST_REDUCE(__reduce_min_sync, a < b ? a : b)
STEEPEST_REDUCE(__reduce_max_sync, a > b ? a : b)
STEEPEST_REDUCE(__reduce_and_sync, a& b)
STEEPEST_REDUCE(__reduce_or_sync, a | b)
STEEPEST_REDUCE(__reduce_xor_sync, a ^ b)
#undef STEEPEST_REDUCE

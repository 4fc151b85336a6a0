// The pool runs every tile once, hands exceptions on, and never waits for a thread that did not join.
#include "runtime/pool.h"

#include <stdexcept>
#include <string>

#include "check.h"

using namespace steepest;

TEST(pool_runs_every_tile_once) {
  for (const int threads : {1, 2, 5, 16}) {
    Pool pool(threads);
    std::vector<std::atomic<int>> runs(100);
    std::atomic<bool> fine{true};
    for (int round = 0; round < 2000; ++round) {
      const std::int64_t tiles = round % 101;
      // Written by the caller alone: the pool must be quiet again when run() returns.
      std::int64_t expect = tiles;
      pool.run(tiles, [&](std::int64_t tile, int thread) {
        if (thread < 0 || thread >= threads || expect != tiles) fine = false;
        ++runs[static_cast<std::size_t>(tile)];
      });
      expect = -1;
      for (std::int64_t i = 0; i < 100; ++i) {
        if (runs[static_cast<std::size_t>(i)].exchange(0) != (i < tiles)) fine = false;
      }
    }
    CHECK(fine);
  }
}

TEST(pool_hands_on_the_first_exception) {
  Pool pool(3);
  for (int round = 0; round < 100; ++round) {
    bool thrown = false;
    try {
      pool.run(20, [&](std::int64_t tile, int) {
        if (tile == 7) throw std::runtime_error("seven");
      });
    } catch (const std::runtime_error& error) {
      thrown = std::string(error.what()) == "seven";
    }
    CHECK(thrown);
  }
  std::atomic<int> ran{0};
  pool.run(20, [&](std::int64_t, int) { ++ran; });
  CHECK(ran == 20);
}

// A test is a function that says what it expects; main.cc runs all of them.
#pragma once

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

struct Test {
  const char* name;
  void (*run)();
};
inline std::vector<Test>& allTests() {
  static std::vector<Test> tests;
  return tests;
}
inline int& failures() {
  static int count = 0;
  return count;
}
struct Register {
  Register(const char* name, void (*run)()) { allTests().push_back({name, run}); }
};

#define TEST(name)                                     \
  static void test_##name();                           \
  static Register register_##name{#name, test_##name}; \
  static void test_##name()

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      ++failures();                                                              \
      std::printf("%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
    }                                                                            \
  } while (0)

#define CHECK_NEAR(a, b, bound)                                                                                                 \
  do {                                                                                                                          \
    const double a_ = (a), b_ = (b);                                                                                            \
    if (!(a_ - b_ <= (bound) && b_ - a_ <= (bound))) {                                                                          \
      ++failures();                                                                                                             \
      std::printf("%s:%d: %s = %.9g, %s = %.9g, apart by more than %g\n", __FILE__, __LINE__, #a, a_, #b, b_, (double)(bound)); \
    }                                                                                                                           \
  } while (0)

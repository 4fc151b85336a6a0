#include <cstring>

#include "check.h"

int main(int argc, char** argv) {
  int ran = 0, failed = 0;
  for (const Test& test : allTests()) {
    if (argc > 1 && !std::strstr(test.name, argv[1])) continue;
    const int before = failures();
    test.run();
    ++ran;
    if (failures() > before) {
      ++failed;
      std::printf("failed: %s\n", test.name);
    }
  }
  std::printf("%d passed, %d failed\n", ran - failed, failed);
  return failed || !ran;
}

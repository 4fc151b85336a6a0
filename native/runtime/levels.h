// Dispatch levels: which build of the CPU kernels this machine runs.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernel.h"

namespace steepest {

struct Level {
  const char* name;
  std::span<const Factory> (*kernels)();
};

// Levels that this machine can run, lowest first.
std::vector<Level> levels();
// The highest of them, or the one that the environment variable STEEPEST_LEVEL names, until useLevel chooses another.
const Level& level();
// Programs that are made from now on run at the named level.
void useLevel(const std::string& name);

// The kernels of the current device, on the CPU those of the level.
std::span<const Factory> currentKernels();
// The same shape of table with kernels that check and plan but compute nothing.
std::span<const Factory> nullKernels();

}  // namespace steepest

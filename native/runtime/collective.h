// The processes that train one model together. What they hold in common is summed by a library that is opened when it is asked for.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "types.h"

namespace steepest {

class Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Replaces the numbers (float32 or float64) by their sums over all processes. Returns when they are there; all processes sum the same
  // arrays in the same order.
  virtual void sum(void* data, std::size_t count, DType dtype) = 0;
  // Says that this process has done its part; all processes do.
  virtual void leave() = 0;
};

// Of this process; null while it trains alone.
const std::shared_ptr<Collective>& collective();
// Joins the processes that `mpirun` has started, by Open MPI. The files are tried in order.
void joinByOpenMpi(std::span<const std::string> libraries);
void leaveCollective();

}  // namespace steepest

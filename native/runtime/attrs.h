// Decodes the attribute words of an instruction; every read is checked, since a program may be wrong.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "types.h"

namespace steepest {

// A program that an instruction runs: a body of a loop or a branch.
struct ProgramWords {
  std::vector<std::int64_t> outputs;  // externals that hold the outputs, in order
  std::vector<std::byte> constants;
  std::vector<double> words;
};

class AttrReader {
 public:
  explicit AttrReader(std::span<const double> words) : words_(words) {}

  double number() {
    if (at_ >= words_.size()) throw Error("PROGRAM", "an instruction has too few attributes");
    return words_[at_++];
  }
  std::int64_t integer() {
    const double x = number();
    if (!(std::fabs(x) <= 9007199254740992.0) || x != std::trunc(x)) throw Error("PROGRAM", "an attribute must be an integer");
    return static_cast<std::int64_t>(x);
  }
  bool boolean() { return choice(2) != 0; }
  int choice(int count) {
    const std::int64_t x = integer();
    if (x < 0 || x >= count) throw Error("PROGRAM", "an attribute is out of its range");
    return static_cast<int>(x);
  }
  DType dtype() { return static_cast<DType>(choice(kDTypes)); }
  ProgramWords program() {
    ProgramWords p;
    p.outputs = integers();
    for (const double word : numbers()) {
      if (!(word >= 0 && word <= 4294967295.0)) throw Error("PROGRAM", "a constant is out of its range");
      const auto bits = static_cast<std::uint32_t>(word);
      for (int i = 0; i < 4; ++i) p.constants.push_back(static_cast<std::byte>(bits >> (8 * i)));
    }
    p.words = numbers();
    return p;
  }
  std::vector<std::int64_t> integers() {
    std::vector<std::int64_t> list(length());
    for (std::int64_t& x : list) x = integer();
    return list;
  }
  std::vector<double> numbers() {
    std::vector<double> list(length());
    for (double& x : list) x = number();
    return list;
  }
  void end() const {
    if (at_ != words_.size()) throw Error("PROGRAM", "an instruction has too many attributes");
  }

 private:
  std::size_t length() {
    const std::int64_t n = integer();
    if (n < 0 || static_cast<std::size_t>(n) > words_.size() - at_) throw Error("PROGRAM", "an attribute list is too long");
    return static_cast<std::size_t>(n);
  }
  std::span<const double> words_;
  std::size_t at_ = 0;
};

}  // namespace steepest

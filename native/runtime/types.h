// The vocabulary of the native side: dtypes, operands and errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace steepest {

// The order is that of DTYPES in lib/tensor/dtype.ts.
enum class DType : std::uint8_t { float32, bfloat16, float64, int32, uint8 };
constexpr int kDTypes = 5;

constexpr std::size_t sizeOf(DType t) {
  constexpr std::size_t bytes[kDTypes] = {4, 2, 8, 4, 1};
  return bytes[static_cast<int>(t)];
}
constexpr bool isFloat(DType t) { return t <= DType::float64; }
const char* nameOf(DType t);

constexpr int kMaxRank = 8;

// bfloat16 as it lies in memory: the high half of a float32.
struct bf16 {
  std::uint16_t bits;
};

// One operand. While a program is loaded `data` is null; a kernel that runs sees it set.
// Strides are in elements and may be 0 (broadcast) or negative (flip).
struct View {
  std::byte* data = nullptr;
  DType dtype = DType::float32;
  int rank = 0;
  std::int64_t shape[kMaxRank] = {};
  std::int64_t strides[kMaxRank] = {};

  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
  std::int64_t size() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * sizeOf(dtype); }
  // Counted from the end when negative, as in the table.
  std::int64_t dim(int i) const { return shape[i < 0 ? rank + i : i]; }
  std::int64_t stride(int i) const { return strides[i < 0 ? rank + i : i]; }
  bool contiguous() const {
    std::int64_t expect = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (shape[i] != 1 && strides[i] != expect) return false;
      expect *= shape[i];
    }
    return true;
  }
};

// What a user did wrong, or a program that breaks a rule. The addon turns it into a SteepestError.
class Error : public std::runtime_error {
 public:
  Error(std::string code, const std::string& what) : std::runtime_error(what), code(std::move(code)) {}
  std::string code;
};

}  // namespace steepest

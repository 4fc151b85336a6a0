// Trees of two levels in float32: root(left(a, b), right(c, d)) in one loop.
#include "cpu/elementwise.h"
#include "cpu/elementwise_fold.h"

#include <array>
#include <iterator>

namespace steepest::STEEPEST_LEVEL::ew {

namespace {

struct Straight {
  static constexpr int kArity = 1;
  static vf apply(vf x) { return x; }
};

// A number times what one step makes of another.
template <class F>
struct Times {
  static constexpr int kArity = 2;
  static vf apply(vf x, vf y) { return mul_::apply(F::apply(x), y); }
};

template <class... F>
struct List {
  static constexpr int kCount = sizeof...(F);
};
// In the order of kBranches (and kTimes) and kRoots.
using Branches = List<Straight, add_, sub_, mul_, div_, square_, sqrt_, sign_, Times<square_>, Times<sqrt_>, Times<sign_>>;
using Roots = List<add_, sub_, mul_, div_>;

template <class F>
vf branch(Source a, Source b, std::int64_t i) {
  const vf x = vf::load(lanes<float>(a, i));
  if constexpr (F::kArity == 1)
    return F::apply(x);
  else
    return F::apply(x, vf::load(lanes<float>(b, i)));
}

// Where first operands are walked in order and second ones are numbers, which stay in registers; `Number`: so does the third operand.
template <class Root, class Left, class Right, bool Number>
void steady(const Source* sources, std::byte* to, std::int64_t n) {
  const auto at = [&](int k) { return reinterpret_cast<const float*>(sources[k].at); };
  const float *a = at(0), *c = at(2);
  const vf b = vf::load(at(1)), number = vf::load(c), d = vf::load(at(3));
  float* out = lanes<float>(to, 0);
  const auto value = [&](std::int64_t i) {
    vf left = vf::load(a + i), right = number;
    if constexpr (!Number) right = vf::load(c + i);
    if constexpr (Left::kArity == 1)
      left = Left::apply(left);
    else
      left = Left::apply(left, b);
    if constexpr (Right::kArity == 1)
      right = Right::apply(right);
    else
      right = Right::apply(right, d);
    return Root::apply(left, right);
  };
  std::int64_t i = 0;
  for (; i + 2 * vf::kLanes <= n; i += 2 * vf::kLanes) {
    const vf first = value(i), second = value(i + vf::kLanes);
    store(out + i, first);
    store(out + i + vf::kLanes, second);
  }
  if (i < n) store(out + i, value(i));
}

template <class Root, class Left, class Right>
void tree(const Source* sources, std::byte* to, std::int64_t n) {
  const Source a = sources[0], b = sources[1], c = sources[2], d = sources[3];
  if (a.step == 1 && (Left::kArity == 1 || b.step == 0) && (Right::kArity == 1 || d.step == 0)) {
    if (c.step == 1) return steady<Root, Left, Right, false>(sources, to, n);
    if constexpr (std::is_same_v<Right, Straight>) return steady<Root, Left, Right, true>(sources, to, n);
  }
  for (std::int64_t i = 0; i < n; i += vf::kLanes) store(lanes<float>(to, i), Root::apply(branch<Left>(a, b, i), branch<Right>(c, d, i)));
}

using Row = std::array<Loop, Branches::kCount>;
using Square = std::array<Row, Branches::kCount>;

template <class Root, class Left, class... Right>
constexpr Row rowOf(List<Right...>) {
  return {tree<Root, Left, Right>...};
}
template <class Root, class... Left>
constexpr Square squareOf(List<Left...> all) {
  return {rowOf<Root, Left>(all)...};
}
template <class... Root>
constexpr std::array<Square, sizeof...(Root)> cubeOf(List<Root...>) {
  return {squareOf<Root>(Branches())...};
}
constexpr auto kTrees = cubeOf(Roots());
static_assert(Branches::kCount == 1 + std::size(kBranches) + std::size(kTimes) && Roots::kCount == std::size(kRoots));

}  // namespace

Loop treeLoop(int root, int left, int right) {
  return kTrees[static_cast<std::size_t>(root)][static_cast<std::size_t>(left)][static_cast<std::size_t>(right)];
}

}  // namespace steepest::STEEPEST_LEVEL::ew

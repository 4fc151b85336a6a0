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

template <class... F>
struct List {
  static constexpr int kCount = sizeof...(F);
};
// In the order of kBranches and kRoots.
using Branches = List<Straight, add_, sub_, mul_, div_, square_, sqrt_, sign_>;
using Roots = List<add_, sub_, mul_, div_>;

template <class F>
vf branch(Source a, Source b, std::int64_t i) {
  const vf x = vf::load(lanes<float>(a, i));
  if constexpr (F::kArity == 1)
    return F::apply(x);
  else
    return F::apply(x, vf::load(lanes<float>(b, i)));
}

template <class Root, class Left, class Right>
void tree(const Source* sources, std::byte* to, std::int64_t n) {
  const Source a = sources[0], b = sources[1], c = sources[2], d = sources[3];
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
static_assert(Branches::kCount == 1 + std::size(kBranches) && Roots::kCount == std::size(kRoots));

}  // namespace

Loop treeLoop(int root, int left, int right) {
  return kTrees[static_cast<std::size_t>(root)][static_cast<std::size_t>(left)][static_cast<std::size_t>(right)];
}

}  // namespace steepest::STEEPEST_LEVEL::ew

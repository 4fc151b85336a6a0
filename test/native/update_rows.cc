// Update rules that look at a whole tensor or at its rows: the same bits at every level, pool size and place, and their formulas on a
// small matrix, where every branch of the projection is taken.
#include "attrs/update.gen.h"
#include "update_run.h"

namespace {

using namespace update_test;
using Rule = UpdateAttrs::Rule;

struct Case {
  Rule rule;
  Numbers h;
  int slots;
};
const Case kCases[] = {
    {Rule::kLamb, {0.9, 0.999, 1e-6, 0.1, 0, 1, 1, 0, 0}, 2}, {Rule::kLars, {0.9, 0.1, 0.1, 0.01, 1e-8, 1, 0, 0}, 1},
    {Rule::kAdamp, {0.9, 0.999, 1e-8, 0.1, 0.1, 0.1, 0}, 2},  {Rule::kAdamp, {0.9, 0.999, 1e-8, 0.1, 10, 0.1, 1}, 2},
    {Rule::kSgdp, {0.9, 0, 0.1, 1e-8, 0.1, 0.1, 0}, 1},       {Rule::kSgdp, {0.9, 0, 0.1, 1e-8, 10, 0.1, 1}, 1},
};

TEST(updateOfRowsHasTheSameBitsEverywhere) {
  const std::vector<std::int64_t> shapes[] = {{}, {0}, {0, 3}, {3, 0}, {1}, {37}, {5, 7}, {3, 40001}, {70000}, {130, 2, 3}};
  for (const Case& c : kCases) {
    for (const DType dtype : {DType::float32, DType::float64}) {
      for (const auto& shape : shapes) {
        const State start(normal(dtype, shape, 1), c.slots);
        const Options o{c.rule, c.h};
        const auto drive = [&](State state, const Level& level, int threads, bool inPlace) {
          for (int t = 1; t <= 2; ++t) {
            Array g = normal(dtype, shape, static_cast<unsigned>(20 + t), 0.1);
            CHECK(state.step(level, o, g, 0.01, t, threads, inPlace) == 0);
          }
          return state;
        };
        const State first = drive(start, levels()[0], 1, true);
        CHECK(first.p.size() == 0 || !(first == start));
        for (const Level& level : levels()) {
          for (const int threads : {1, 2, 5}) CHECK(drive(start, level, threads, threads != 2) == first);
        }
      }
    }
  }
}

double dot(const Numbers& a, const Numbers& b, std::size_t from, std::size_t n) {
  double s = 0;
  for (std::size_t i = from; i < from + n; ++i) s += a[i] * b[i];
  return s;
}

// Takes out of `step` its part along `p`; gives whether it did.
bool project(const Numbers& p, const Numbers& g, Numbers& step, std::size_t rows, double delta) {
  for (const std::size_t parts : {rows, std::size_t{1}}) {
    const std::size_t n = p.size() / parts;
    double most = 0;
    for (std::size_t r = 0; r < parts; ++r) {
      most = std::fmax(most, std::fabs(dot(p, g, r * n, n)) / std::sqrt(dot(p, p, r * n, n) * dot(g, g, r * n, n)));
    }
    if (!(most < delta / std::sqrt(static_cast<double>(n)))) continue;
    for (std::size_t r = 0; r < parts; ++r) {
      const double norm = std::sqrt(dot(p, p, r * n, n)) + 1e-8, along = dot(p, step, r * n, n) / (norm * norm);
      for (std::size_t i = r * n; i < (r + 1) * n; ++i) step[i] -= along * p[i];
    }
    return true;
  }
  return false;
}

TEST(updateProjectsRowsTensorsOrNothing) {
  const std::int64_t rows = 4, cols = 9;
  bool seen[3] = {};
  for (int way = 0; way < 3; ++way) {
    for (const bool nesterov : {false, true}) {
      State adam(normal(DType::float64, {rows, cols}, 1), 2), sgd = State(adam.p, 1);
      Array g = normal(DType::float64, {rows, cols}, 2);
      Numbers p = numbersOf(adam.p), grad = numbersOf(g);
      // Rows at right angles, or only the whole (two rows that cancel), or neither.
      for (std::int64_t r = 0; r < rows && way < 2; ++r) {
        const std::size_t at = static_cast<std::size_t>(r * cols), n = static_cast<std::size_t>(cols);
        const double along = dot(p, grad, at, n) / dot(p, p, at, n);
        for (std::size_t i = at; i < at + n; ++i) grad[i] += (way == 1 ? (r % 2 ? 1 : -1) / dot(p, p, at, n) * 5 : 0) * p[i] - along * p[i];
      }
      for (std::int64_t i = 0; i < rows * cols; ++i) g.set(i, grad[static_cast<std::size_t>(i)]);
      const double lr = 0.05, wd = 0.3, ratio = 0.1, delta = 0.2;
      Numbers u(p.size()), v(p.size());
      for (std::size_t i = 0; i < p.size(); ++i) {
        // First step: bias corrections undo the means' shares of the gradient.
        const double m = 0.1 * grad[i], ahead = nesterov ? 0.9 * m + 0.1 * grad[i] : m;
        u[i] = ahead / 0.1 / (std::fabs(grad[i]) + 1e-8);
        v[i] = nesterov ? grad[i] + 0.9 * grad[i] : grad[i];
      }
      const Numbers before = p;
      const bool fired = project(before, grad, u, static_cast<std::size_t>(rows), delta);
      project(before, grad, v, static_cast<std::size_t>(rows), delta);
      seen[way] |= fired;
      Numbers q = p;
      for (std::size_t i = 0; i < p.size(); ++i) {
        p[i] = p[i] * (1 - lr * wd * (fired ? ratio : 1)) - lr * u[i];
        q[i] = q[i] * (1 - lr * wd * (fired ? ratio : 1) / (1 - 0.9)) - lr * v[i];
      }
      CHECK(adam.step(levels().back(), {Rule::kAdamp, {0.9, 0.999, 1e-8, wd, delta, ratio, nesterov ? 1. : 0.}}, g, lr, 1) == 0);
      CHECK(sgd.step(levels().back(), {Rule::kSgdp, {0.9, 0, wd, 1e-8, delta, ratio, nesterov ? 1. : 0.}}, g, lr, 1) == 0);
      CHECK(worst(adam.p, p) < 1e-12);
      CHECK(worst(sgd.p, q) < 1e-12);
      // Without Nesterov the buffer itself is projected.
      if (!nesterov) CHECK(worst(sgd.slots[0], v) < 1e-12);
    }
  }
  CHECK(seen[0] && seen[1] && !seen[2]);
}

TEST(updateScalesToTheNormOfTheWeights) {
  const std::int64_t n = 50;
  State lamb(normal(DType::float64, {n}, 1), 2), lars = State(lamb.p, 1);
  Array g = normal(DType::float64, {n}, 2);
  Numbers p = numbersOf(lamb.p), q = p, grad = numbersOf(g), u(p.size());
  const double lr = 0.1, wd = 0.2, size = std::sqrt(dot(p, p, 0, p.size()));
  for (std::size_t i = 0; i < p.size(); ++i) u[i] = grad[i] / (std::fabs(grad[i]) + 1e-6) + wd * p[i];
  const double trust = size / std::sqrt(dot(u, u, 0, u.size()));
  const double ratio = 0.01 * size / (std::sqrt(dot(grad, grad, 0, grad.size())) + wd * size + 1e-8);
  for (std::size_t i = 0; i < p.size(); ++i) {
    p[i] -= lr * trust * u[i];
    q[i] -= lr * ratio * (grad[i] + wd * q[i]);
  }
  CHECK(lamb.step(levels().back(), {Rule::kLamb, {0.9, 0.999, 1e-6, wd, 0, 1, 1, 0, 0}}, g, lr, 1) == 0);
  CHECK(lars.step(levels().back(), {Rule::kLars, {0.9, 0, wd, 0.01, 1e-8, 0, 0, 0}}, g, lr, 1) == 0);
  CHECK(worst(lamb.p, p) < 1e-12);
  CHECK(worst(lars.p, q) < 1e-12);
}

}  // namespace

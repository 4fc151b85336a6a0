// Kernels of `qr`, `eigh` and `svd`. The last two turn pairs of columns until all are orthogonal (one-sided Jacobi: Hestenes 1958), in
// rounds of pairs that have no column in common; a symmetric matrix is first moved so far that all of its eigenvalues are positive. All are
// computed in float64, whatever the operands are.
#include "cpu/linalg_checks.h"
#include "cuda/linalg_qr.cuh"

namespace steepest::cuda {

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr int kSweeps = 20;
// Up to so many columns one block turns all pairs of a matrix; else a launch is a round.
constexpr std::int64_t kWhole = 64;

// to[matrix][column][row] = from[matrix][row][column], or the other way round; marks what is not finite.
__global__ void __launch_bounds__(kThreads)
    bringColumns(Reals from, double* to, int* flags, std::int64_t count, std::int64_t rows, std::int64_t columns, bool turned) {
  for (std::int64_t i = threadOf(); i < count * rows * columns; i += threads()) {
    const std::int64_t matrix = i / (rows * columns), row = i / columns % rows, column = i % columns;
    const double x = from[i];
    to[turned ? i : (matrix * columns + column) * rows + row] = x;
    if (flags && !isFinite(x)) flags[matrix] = 1;
  }
}

// out[matrix][row][column] = columns[matrix][column][row], or the other way round; NaN where the matrix is marked.
__global__ void __launch_bounds__(kThreads)
    putColumns(const double* columns, const int* flags, Reals out, std::int64_t count, std::int64_t rows, std::int64_t width, bool turned) {
  for (std::int64_t i = threadOf(); i < count * rows * width; i += threads()) {
    const std::int64_t matrix = i / (rows * width), row = i / width % rows, column = i % width;
    const double x = columns[turned ? i : (matrix * width + column) * rows + row];
    out.put(i, flags && flags[matrix] ? kNaN : x);
  }
}

__global__ void __launch_bounds__(kThreads) putR(const __grid_constant__ Reflections q, Reals r, std::int64_t height) {
  for (std::int64_t i = threadOf(); i < q.count * height * q.n; i += threads()) {
    const std::int64_t matrix = i / (height * q.n), row = i / q.n % height, column = i % q.n;
    double x = 0;
    if (row == column && row < q.k)
      x = q.diagonal[matrix * q.k + row];
    else if (row < column && row < q.k)
      x = q.w[(matrix * q.n + column) * q.m + row];
    r.put(i, x);
  }
}

class Qr final : public Kernel {
 public:
  Qr(const Matrices& m, std::int64_t width) : m_(m), width_(width) {
    Carve carve;
    Reflections(carve, m.count, m.rows, m.columns);
    carve.take<double>(m.count * m.rows * width);
    workspace = carve.used();
  }
  void run(const Call& call) const override {
    Carve carve(call.workspace);
    const Reflections q(carve, m_.count, m_.rows, m_.columns);
    double* columns = carve.take<double>(m_.count * m_.rows * width_);
    const std::int64_t size = m_.count * m_.size(), square = m_.count * m_.rows * width_;
    STEEPEST_LAUNCH(bringColumns, gridFor(size), kThreads, 0, call, Reals(call.in[0]), q.w, static_cast<int*>(nullptr), m_.count, m_.rows,
                    m_.columns, false);
    orthogonalize(call, q, columns, width_);
    STEEPEST_LAUNCH(putColumns, gridFor(square), kThreads, 0, call, columns, static_cast<const int*>(nullptr), Reals(call.out[0]), m_.count,
                    m_.rows, width_, false);
    STEEPEST_LAUNCH(putR, gridFor(m_.count * width_ * m_.columns), kThreads, 0, call, q, Reals(call.out[1]), width_);
  }

 private:
  Matrices m_;
  std::int64_t width_;
};

// --- Jacobi

// Columns w [count][n][m] that are turned, and v [count][n][n] (or null) that take part in all turns. `turned[matrix][sweep]` counts pairs.
struct Turning {
  double *w, *v;
  int* turned;
  std::int64_t count, m, n;
  double close;  // cosine of two columns that are orthogonal enough
};

// Pair i of round r of a tournament of an even number of players, each of whom meets every other once: the last stays, the others go round.
__device__ inline void pairOf(std::int64_t players, std::int64_t round, std::int64_t i, std::int64_t& p, std::int64_t& q) {
  const std::int64_t others = players - 1;
  p = i == 0 ? others : (round + i) % others;
  q = (round + others - i) % others;
}

template <int Size>
__device__ bool turnPair(const Turning& t, std::int64_t matrix, std::int64_t p, std::int64_t q, int lane) {
  if (p >= t.n || q >= t.n) return false;
  double* x = t.w + (matrix * t.n + p) * t.m;
  double* y = t.w + (matrix * t.n + q) * t.m;
  double a = 0, b = 0, g = 0;
  for (std::int64_t i = lane; i < t.m; i += Size) {
    a = std::fma(x[i], x[i], a);
    b = std::fma(y[i], y[i], b);
    g = std::fma(x[i], y[i], g);
  }
  a = sumTeam<Size>(a), b = sumTeam<Size>(b), g = sumTeam<Size>(g);
  const double la = std::sqrt(a), lb = std::sqrt(b);
  // Nothing is gained where one is a rounding error of the other.
  const bool apart = (la < lb ? la : lb) <= 0x1p-60 * (la < lb ? lb : la);
  if (apart || !(std::fabs(g) > t.close * la * lb)) return false;
  const double zeta = (b - a) / (2 * g), tangent = std::copysign(1 / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta)), zeta);
  const double c = 1 / std::sqrt(1 + tangent * tangent), s = c * tangent;
  const auto turn = [&](double* u, double* w, std::int64_t n) {
    for (std::int64_t i = lane; i < n; i += Size) {
      const double left = u[i], right = w[i];
      u[i] = c * left - s * right;
      w[i] = s * left + c * right;
    }
  };
  turn(x, y, t.m);
  if (t.v) turn(t.v + (matrix * t.n + p) * t.n, t.v + (matrix * t.n + q) * t.n, t.n);
  return true;
}

// A block turns a matrix until a whole sweep finds nothing to turn.
__global__ void __launch_bounds__(kThreads) turnWhole(const __grid_constant__ Turning t) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t players = (t.n + 1) / 2 * 2;
  for (std::int64_t matrix = blockIdx.x; matrix < t.count; matrix += gridDim.x) {
    bool any = t.n > 1;
    for (int sweep = 0; sweep < kSweeps && any; ++sweep) {
      any = false;
      for (std::int64_t round = 0; round < players - 1; ++round) {
        for (std::int64_t i = warp; i < players / 2; i += kThreads / kWarp) {
          std::int64_t p, q;
          pairOf(players, round, i, p, q);
          any = turnPair<kWarp>(t, matrix, p, q, lane) || any;
        }
        __syncthreads();
      }
      any = __syncthreads_or(any);
    }
    if (threadIdx.x == 0) t.turned[matrix * kSweeps + kSweeps - 1] = any;
  }
}

// A team turns a pair, unless the sweep before this one found nothing.
template <int Size>
__global__ void __launch_bounds__(kThreads) turnRound(const __grid_constant__ Turning t, int sweep, std::int64_t round) {
  const std::int64_t pairs = (t.n + 1) / 2, team = threadOf() / Size, matrix = team / pairs;
  if (matrix >= t.count) return;
  int* turned = t.turned + matrix * kSweeps;
  if (sweep > 0 && turned[sweep - 1] == 0) return;
  std::int64_t p, q;
  pairOf(2 * pairs, round, team % pairs, p, q);
  const int lane = static_cast<int>(threadIdx.x) % Size;
  if (turnPair<Size>(t, matrix, p, q, lane) && lane == 0) atomicAdd(turned + sweep, 1);
}

void turnAll(const Call& call, const Turning& t) {
  STEEPEST_LAUNCH(setInts, gridFor(t.count * kSweeps), kThreads, 0, call, t.turned, t.count * kSweeps, 0);
  if (t.n <= kWhole) {
    STEEPEST_LAUNCH(turnWhole, gridFor(t.count, 1), kThreads, 0, call, t);
    return;
  }
  const std::int64_t pairs = (t.n + 1) / 2;
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    for (std::int64_t round = 0; round < 2 * pairs - 1; ++round) {
      if (t.m <= 1024)
        STEEPEST_LAUNCH(turnRound<kWarp>, blocksFor(t.count * pairs, kThreads / kWarp), kThreads, 0, call, t, sweep, round);
      else
        STEEPEST_LAUNCH(turnRound<kThreads>, blocksFor(t.count * pairs, 1), kThreads, 0, call, t, sweep, round);
    }
  }
}

__global__ void __launch_bounds__(kThreads) lengthsOf(const double* w, double* lengths, std::int64_t columns, std::int64_t m) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (std::int64_t c = threadOf() / kWarp; c < columns; c += threads() / kWarp) {
    double sum = 0;
    for (std::int64_t i = lane; i < m; i += kWarp) sum = std::fma(w[c * m + i], w[c * m + i], sum);
    sum = warpSum(sum);
    if (lane == 0) lengths[c] = std::sqrt(sum);
  }
}

// places[matrix][rank] = column, by falling or rising length.
__global__ void __launch_bounds__(kThreads)
    rankLengths(const double* lengths, int* places, std::int64_t count, std::int64_t n, bool falling) {
  for (std::int64_t i = threadOf(); i < count * n; i += threads()) {
    const double* own = lengths + i / n * n;
    const std::int64_t c = i % n;
    // What is no number still has a place of its own.
    const auto length = [&](std::int64_t k) { return own[k] == own[k] ? own[k] : -1; };
    const double mine = length(c);
    std::int64_t rank = 0;
    for (std::int64_t k = 0; k < n; ++k) {
      const double other = length(k);
      rank += other == mine ? k < c : (other > mine) == falling;
    }
    places[i / n * n + rank] = static_cast<int>(c);
  }
}

// to[matrix][rank] = from[matrix][place], divided by its length where lengths are given.
__global__ void __launch_bounds__(kThreads) orderColumns(const double* from, const int* places, const double* lengths, double* to,
                                                         std::int64_t count, std::int64_t n, std::int64_t m) {
  for (std::int64_t i = threadOf(); i < count * n * m; i += threads()) {
    const std::int64_t matrix = i / (n * m), source = matrix * n + places[i / m];
    const double x = from[source * m + i % m];
    to[i] = lengths ? x / lengths[source] : x;
  }
}

__global__ void __launch_bounds__(kThreads) closeFlags(int* flags, const int* turned, std::int64_t count, int* fault) {
  for (std::int64_t i = threadOf(); i < count; i += threads()) {
    if (!flags[i] && turned[i * kSweeps + kSweeps - 1]) flags[i] = 3;
    if (flags[i]) raise(fault, flags[i]);
  }
}

double closeOf(DType dtype, std::int64_t m) {
  return dtype == DType::float64 ? 0x1p-51 * std::sqrt(static_cast<double>(std::max<std::int64_t>(m, 1))) : 0x1p-40;
}

// --- eigh

// The matrix of the lower triangle, plus a multiple of 1 that is half as large again as its norm: a block takes a matrix.
__global__ void __launch_bounds__(kThreads)
    bringSymmetric(Reals a, double* w, double* shifts, int* flags, std::int64_t count, std::int64_t n) {
  for (std::int64_t matrix = blockIdx.x; matrix < count; matrix += gridDim.x) {
    const auto at = [&](std::int64_t r, std::int64_t c) { return a[matrix * n * n + (r < c ? c * n + r : r * n + c)]; };
    double most = 0;
    int wrong = 0;
    for (std::int64_t r = threadIdx.x; r < n; r += kThreads) {
      double sum = 0;
      for (std::int64_t c = 0; c < n; ++c) {
        const double x = at(r, c);
        wrong |= !isFinite(x);
        w[(matrix * n + c) * n + r] = x;
        sum += std::fabs(x);
      }
      most = sum > most ? sum : most;
    }
    most = blockMax(most, 0.0);
    if (__syncthreads_or(wrong) && threadIdx.x == 0) flags[matrix] = 1;
    const double shift = most > 0 ? 1.5 * most : 1;
    for (std::int64_t r = threadIdx.x; r < n; r += kThreads) w[(matrix * n + r) * n + r] += shift;
    if (threadIdx.x == 0) shifts[matrix] = shift;
    __syncthreads();
  }
}

__global__ void __launch_bounds__(kThreads) putValues(const double* lengths, const int* places, const double* shifts, const int* flags,
                                                      Reals out, std::int64_t count, std::int64_t n) {
  for (std::int64_t i = threadOf(); i < count * n; i += threads()) {
    const std::int64_t matrix = i / n;
    const double x = lengths[matrix * n + places[i]];
    out.put(i, flags[matrix] ? kNaN : shifts ? x - shifts[matrix] : x);
  }
}

class Eigh final : public Kernel {
 public:
  Eigh(const Matrices& m, DType dtype) : m_(m), close_(closeOf(dtype, m.rows)) {
    Carve carve;
    parts(carve);
    workspace = carve.used();
  }
  void run(const Call& call) const override {
    const std::int64_t n = m_.rows, count = m_.count, size = count * n * n;
    if (size == 0) return;
    Carve carve(call.workspace);
    const Parts p = parts(carve);
    STEEPEST_LAUNCH(setInts, gridFor(count), kThreads, 0, call, p.flags, count, 0);
    STEEPEST_LAUNCH(bringSymmetric, gridFor(count, 1), kThreads, 0, call, Reals(call.in[0]), p.w, p.shifts, p.flags, count, n);
    turnAll(call, {p.w, nullptr, p.turned, count, n, n, close_});
    STEEPEST_LAUNCH(closeFlags, gridFor(count), kThreads, 0, call, p.flags, p.turned, count, call.deviceFault);
    STEEPEST_LAUNCH(lengthsOf, gridFor(count * n, kThreads / kWarp), kThreads, 0, call, p.w, p.lengths, count * n, n);
    STEEPEST_LAUNCH(rankLengths, gridFor(count * n), kThreads, 0, call, p.lengths, p.places, count, n, false);
    STEEPEST_LAUNCH(orderColumns, gridFor(size), kThreads, 0, call, p.w, p.places, p.lengths, p.vectors, count, n, n);
    STEEPEST_LAUNCH(putValues, gridFor(count * n), kThreads, 0, call, p.lengths, p.places, p.shifts, p.flags, Reals(call.out[0]), count, n);
    STEEPEST_LAUNCH(putColumns, gridFor(size), kThreads, 0, call, p.vectors, p.flags, Reals(call.out[1]), count, n, n, false);
  }

 private:
  struct Parts {
    double *w, *vectors, *lengths, *shifts;
    int *flags, *places, *turned;
  };
  Parts parts(Carve& carve) const {
    Parts p;
    p.w = carve.take<double>(m_.count * m_.size()), p.vectors = carve.take<double>(m_.count * m_.size());
    p.lengths = carve.take<double>(m_.count * m_.rows), p.shifts = carve.take<double>(m_.count);
    p.flags = carve.take<int>(m_.count), p.places = carve.take<int>(m_.count * m_.rows);
    p.turned = carve.take<int>(m_.count * kSweeps);
    return p;
  }
  Matrices m_;
  double close_;
};

// --- svd

__global__ void __launch_bounds__(kThreads) identities(double* v, std::int64_t count, std::int64_t n) {
  for (std::int64_t i = threadOf(); i < count * n * n; i += threads()) v[i] = i % n == i / n % n;
}

// Of orthogonal columns in falling order R is diagonal: its signs are those that the columns of Q lack.
__global__ void __launch_bounds__(kThreads) signColumns(double* columns, const __grid_constant__ Reflections q) {
  for (std::int64_t i = threadOf(); i < q.count * q.n * q.m; i += threads()) {
    if (q.diagonal[i / q.m] < 0) columns[i] = -columns[i];
  }
}

// Columns of the matrix, or of its transpose where that has fewer, are turned until they are U·diag(s); what turned them is V. U comes from
// reflections, so that it is orthogonal where singular values are zero too.
class Svd final : public Kernel {
 public:
  Svd(const Matrices& m, DType dtype)
      : m_(m), long_(std::max(m.rows, m.columns)), k_(std::min(m.rows, m.columns)), close_(closeOf(dtype, long_)) {
    Carve carve;
    Parts(carve, *this);
    workspace = carve.used();
  }
  void run(const Call& call) const override {
    const std::int64_t count = m_.count, size = count * m_.size(), square = count * k_ * k_;
    if (size == 0) return;
    const bool turned = m_.rows < m_.columns;
    Carve carve(call.workspace);
    const Parts p(carve, *this);
    STEEPEST_LAUNCH(setInts, gridFor(count), kThreads, 0, call, p.flags, count, 0);
    STEEPEST_LAUNCH(bringColumns, gridFor(size), kThreads, 0, call, Reals(call.in[0]), p.w, p.flags, count, m_.rows, m_.columns, turned);
    STEEPEST_LAUNCH(identities, gridFor(square), kThreads, 0, call, p.v, count, k_);
    turnAll(call, {p.w, p.v, p.turned, count, long_, k_, close_});
    STEEPEST_LAUNCH(closeFlags, gridFor(count), kThreads, 0, call, p.flags, p.turned, count, call.deviceFault);
    STEEPEST_LAUNCH(lengthsOf, gridFor(count * k_, kThreads / kWarp), kThreads, 0, call, p.w, p.lengths, count * k_, long_);
    STEEPEST_LAUNCH(rankLengths, gridFor(count * k_), kThreads, 0, call, p.lengths, p.places, count, k_, true);
    STEEPEST_LAUNCH(orderColumns, gridFor(size), kThreads, 0, call, p.w, p.places, static_cast<const double*>(nullptr), p.q.w, count, k_,
                    long_);
    orthogonalize(call, p.q, p.w, k_);
    STEEPEST_LAUNCH(signColumns, gridFor(size), kThreads, 0, call, p.w, p.q);
    STEEPEST_LAUNCH(orderColumns, gridFor(square), kThreads, 0, call, p.v, p.places, static_cast<const double*>(nullptr), p.vectors, count,
                    k_, k_);
    STEEPEST_LAUNCH(putValues, gridFor(count * k_), kThreads, 0, call, p.lengths, p.places, static_cast<const double*>(nullptr), p.flags,
                    Reals(call.out[1]), count, k_);
    // Columns of U and rows of Vh; of the transpose they have changed places.
    const double *u = turned ? p.vectors : p.w, *v = turned ? p.w : p.vectors;
    STEEPEST_LAUNCH(putColumns, gridFor(count * m_.rows * k_), kThreads, 0, call, u, p.flags, Reals(call.out[0]), count, m_.rows, k_,
                    false);
    STEEPEST_LAUNCH(putColumns, gridFor(count * k_ * m_.columns), kThreads, 0, call, v, p.flags, Reals(call.out[2]), count, k_, m_.columns,
                    true);
  }

 private:
  struct Parts {
    Reflections q;
    double *w, *v, *vectors, *lengths;
    int *flags, *places, *turned;
    Parts(Carve& carve, const Svd& s)
        : q(carve, s.m_.count, s.long_, s.k_),
          w(carve.take<double>(s.m_.count * s.m_.size())),
          v(carve.take<double>(s.m_.count * s.k_ * s.k_)),
          vectors(carve.take<double>(s.m_.count * s.k_ * s.k_)),
          lengths(carve.take<double>(s.m_.count * s.k_)),
          flags(carve.take<int>(s.m_.count)),
          places(carve.take<int>(s.m_.count * s.k_)),
          turned(carve.take<int>(s.m_.count * kSweeps)) {}
  };
  Matrices m_;
  std::int64_t long_, k_;
  double close_;
};

}  // namespace

std::unique_ptr<Kernel> makeQr(const Spec& spec) {
  const Matrices m = checkQr(spec);
  return std::make_unique<Qr>(m, spec.out[0].dim(-1));
}

std::unique_ptr<Kernel> makeEigh(const Spec& spec) {
  const Matrices m = checkEigh(spec);
  return std::make_unique<Eigh>(m, spec.in[0].dtype);
}

std::unique_ptr<Kernel> makeSvd(const Spec& spec) {
  const Matrices m = checkSvd(spec);
  return std::make_unique<Svd>(m, spec.in[0].dtype);
}

}  // namespace steepest::cuda

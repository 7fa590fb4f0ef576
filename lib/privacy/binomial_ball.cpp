// Which pair of rows is the worst depends on the order: where losses are small a coordinate's
// divergence grows faster than the square of its size near the cube's corner, so few large
// differences win; at high orders it grows only linearly and many small differences win. So no pair
// is assumed. The bound, in three steps that each only add:
//
// 1. A coordinate pair (a, b) with a, b in [-tilt, tilt] gives F(a, b) per draw. Moving a up or b
//    down from a >= b adds divergence (data processing), so with equal signs setting the smaller to
//    0 adds divergence and takes norm away. Only a >= 0 >= b matters, up to the mirror image. With
//    A = a^2, B = b^2, F(A, B) grows in both.
// 2. Let h(M) = max F(A, B) over A + B = M. Over all coordinates the A + B add up to at most twice
//    the squared norm S, so for every price x >= 0 (weak duality)
//        divergence <= 2 S x + width * max_M (trials * h(M) - x M),
//    whatever the rows are. The least over x is taken.
// 3. h is bounded from above on a geometric grid: in a cell F is at most its value at the upper
//    ends of A and of B, and M costs at least the cell's lower end.
#include "binomial_ball.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

namespace isthmus::privacy {
namespace {

double log_cosh(double x) {
  x = std::abs(x);
  if (x < 1) return 0.5 * std::log1p(std::pow(std::sinh(x), 2));
  return x + std::log1p(std::exp(-2 * x)) - std::numbers::ln2;
}

/// Divergence of one draw: Bernoulli((1 + a) / 2) from Bernoulli((1 - b) / 2). With a = tanh u and
/// b = tanh v it is what follows, which neither overflows nor cancels.
double draw_divergence(double a, double b, double order) {
  const double u = std::atanh(a);
  const double v = std::atanh(b);
  return (log_cosh(order * u + (order - 1) * v) + (order - 1) * log_cosh(v) - order * log_cosh(u)) /
         (order - 1);
}

/// Upper bound of h(M): the split of M between A and B is cut into cells.
double best_split(double squares, double most, double order) {
  constexpr int kCells = 64;
  const double low = std::max(0.0, squares - most);
  const double high = std::min(squares, most);
  double best = 0;
  for (int i = 0; i < kCells; ++i) {
    const double a = low + (high - low) * (i + 1) / kCells;
    const double b = squares - (low + (high - low) * i / kCells);
    best = std::max(
        best, draw_divergence(std::sqrt(std::min(a, most)), std::sqrt(std::min(b, most)), order));
  }
  return best;
}

struct Cell {
  double least_squares = 0;
  double divergence = 0;
};

}  // namespace

double corner_renyi(double tilt, double order) {
  return draw_divergence(tilt, tilt, order) * (1 + 1e-9);
}

double ball_renyi(const Ball& ball, double order) {
  const double width = static_cast<double>(ball.width);
  const double most = ball.tilt * ball.tilt;
  const double budget = 2 * ball.square_norm;
  // Cells shrink by this factor down to a size whose whole contribution is a thousandth.
  constexpr double kShrink = 0.985;
  const double smallest = std::min(most, budget * 1e-3 / width);
  std::vector<Cell> cells;
  double steepest = 0;
  for (double top = 2 * most;; top *= kShrink) {
    const bool last = top < smallest;
    const double divergence = ball.trials * best_split(top, most, order);
    cells.push_back({last ? 0 : top * kShrink, divergence});
    if (last) break;
    steepest = std::max(steepest, divergence / (top * kShrink));
  }

  const auto bound = [&](double price) {
    double best = 0;
    for (const Cell& cell : cells)
      best = std::max(best, cell.divergence - price * cell.least_squares);
    return budget * price + width * best;
  };
  // Convex in the price; price 0 is the whole cube. Any price gives a bound.
  double low = 0;
  double high = steepest;
  double least = std::min(bound(low), bound(high));
  for (int i = 0; i < 40; ++i) {
    const double left = low + (high - low) / 3;
    const double right = high - (high - low) / 3;
    const double at_left = bound(left);
    const double at_right = bound(right);
    least = std::min({least, at_left, at_right});
    (at_left < at_right ? high : low) = at_left < at_right ? right : left;
  }
  return least * (1 + 1e-9);
}

}  // namespace isthmus::privacy

#include <isthmus/privacy/accountant.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

#include "binomial_ball.h"
#include "loss_distribution.h"
#include "support/catch.h"

namespace isthmus::privacy {
namespace {

std::unique_ptr<Mechanism> mechanism(const std::string& text, size_t width, Clip clip) {
  return test::value_of(make_mechanism(test::value_of(MechanismSpec::parse(text)), width, clip));
}

TEST_CASE("the exact figures of the DEL settings come out to three digits",
          "[privacy][accountant]") {
  // Width 128, delta 1e-5: bits, mu, Gaussian epsilon, exact epsilon, scale over clip.
  struct Row {
    int bits;
    double mu;
    double gaussian;
    double exact;
  };
  for (const Row& row : {Row{1, 1, 4.38, 4.32}, Row{1, 5, 33.1, 31.3}, Row{1, 52, 1573, 402},
                         Row{2, 2, 10.00, 9.93}, Row{4, 1, 4.38, 4.37}, Row{4, 5, 33.1, 33.0},
                         Row{4, 20, 284, 274}, Row{4, 52, 1573, 1280}}) {
    CAPTURE(row.bits, row.mu);
    const MechanismSpec spec{.bits = static_cast<unsigned>(row.bits), .mu = row.mu};
    const auto m = test::value_of(make_mechanism(spec, 128, {.coordinate = 0.05}));
    CHECK(gaussian_epsilon(row.mu, 1e-5) == Approx(row.gaussian).epsilon(2e-3));
    CHECK(m->epsilon(1, 1e-5) == Approx(row.exact).epsilon(2e-3));
  }
}

TEST_CASE("figures lie within what dp-accounting brackets", "[privacy][accountant]") {
  std::ifstream file(ISTHMUS_TEST_DATA "/privacy/accounting.txt");
  REQUIRE(file);
  std::map<std::string, int> seen;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    CAPTURE(line);
    std::istringstream fields(line);
    std::string kind;
    fields >> kind;
    std::vector<double> f{std::istream_iterator<double>(fields), {}};
    REQUIRE(f.size() >= 5);
    const double delta = f[f.size() - 3];
    const double low = f[f.size() - 2] * (1 - 1e-6);
    const double high = f[f.size() - 1] * (1 + 1e-6);
    ++seen[kind];
    if (kind == "gaussian") {
      const double epsilon = gaussian_epsilon(f[0] * std::sqrt(f[1]), delta);
      CHECK(epsilon >= low);
      CHECK(epsilon <= high);
    } else if (kind == "binomial") {
      const double epsilon = binomial_epsilon(f[0], f[1], delta);
      CHECK(epsilon >= low);
      CHECK(epsilon <= high);
      // The looser way is sound, and not much looser.
      const double renyi =
          renyi_epsilon([&](double order) { return f[0] * corner_renyi(f[1], order); }, delta);
      CHECK(renyi >= epsilon);
      CHECK(renyi <= 1.3 * epsilon);
    } else {
      REQUIRE(kind == "rqm");
      const MechanismSpec spec{.kind = MechanismKind::kRandomizedQuantization,
                               .bits = static_cast<unsigned>(f[0]),
                               .range = f[2],
                               .keep = f[1]};
      const auto m =
          test::value_of(make_mechanism(spec, static_cast<size_t>(f[3]), {.coordinate = 1}));
      CHECK(m->epsilon(1, delta) >= low);
      CHECK(m->epsilon(1, delta) <= high * (1 + 1e-3));
      const double renyi = renyi_epsilon([&](double order) { return m->renyi(order); }, delta);
      CHECK(renyi >= m->epsilon(1, delta));
    }
  }
  CHECK(seen["gaussian"] == 10);
  CHECK(seen["binomial"] == 12);
  CHECK(seen["rqm"] == 6);
}

TEST_CASE("the binomial sum is the sum, term by term", "[privacy][accountant]") {
  for (const int trials : {1, 2, 3, 7, 30}) {
    for (const double tilt : {1e-6, 0.1, 0.5, 0.999}) {
      for (const double epsilon : {0.0, 0.1, 1.0, 5.0, 40.0}) {
        long double sum = 0;
        for (int k = 0; k <= trials; ++k) {
          const long double choose = std::exp(std::lgamma(trials + 1.0L) - std::lgamma(k + 1.0L) -
                                              std::lgamma(trials - k + 1.0L));
          const long double up = (1 + static_cast<long double>(tilt)) / 2;
          const long double p = choose * std::pow(up, k) * std::pow(1 - up, trials - k);
          const long double q = choose * std::pow(1 - up, k) * std::pow(up, trials - k);
          sum += std::max(0.0L, p - std::exp(static_cast<long double>(epsilon)) * q);
        }
        CAPTURE(trials, tilt, epsilon);
        const double delta = binomial_delta(trials, tilt, epsilon);
        CHECK(delta == Approx(static_cast<double>(sum)).epsilon(1e-8).margin(1e-16));
      }
    }
  }
}

TEST_CASE("epsilon and delta invert each other from the safe side", "[privacy][accountant]") {
  for (const double delta : {0.1, 1e-5, 1e-12, 1e-30}) {
    for (const double mu : {0.001, 0.1, 1.0, 10.0, 100.0}) {
      CAPTURE(delta, mu);
      const double epsilon = gaussian_epsilon(mu, delta);
      CHECK(gaussian_delta(mu, epsilon) <= delta);
      if (epsilon > 0) CHECK(gaussian_delta(mu, epsilon * (1 - 1e-6)) > delta);
      if (epsilon > 0) CHECK(gaussian_mu(epsilon, delta) == Approx(mu).epsilon(1e-6));
    }
    for (const double tilt : {1e-4, 0.1, 0.9}) {
      for (const double trials : {1.0, 100.0, 1e5, 1e9}) {
        CAPTURE(delta, tilt, trials);
        const double epsilon = binomial_epsilon(trials, tilt, delta);
        CHECK(binomial_delta(trials, tilt, epsilon) <= delta);
        if (epsilon > 0) CHECK(binomial_delta(trials, tilt, epsilon * (1 - 1e-6)) > delta);
      }
    }
  }
  CHECK(std::isinf(gaussian_epsilon(INFINITY, 1e-5)));
  CHECK(std::isinf(binomial_epsilon(10, 1, 1e-5)));
  CHECK(binomial_epsilon(0, 0.5, 1e-5) == 0);
}

// Two ways to the same number: the sum over successes, and the transform over losses.
TEST_CASE("repeated draws by privacy loss distribution agree with the exact sum",
          "[privacy][accountant]") {
  for (const double tilt : {0.01, 0.1, 0.5, 0.9}) {
    const std::vector<double> up{(1 + tilt) / 2, (1 - tilt) / 2};
    const std::vector<double> down{(1 - tilt) / 2, (1 + tilt) / 2};
    for (const double count : {1.0, 2.0, 10.0, 1000.0, 1e5}) {
      for (const double delta : {1e-3, 1e-5, 1e-8}) {
        if (count * 1e-13 >= 0.1 * delta) continue;
        CAPTURE(tilt, count, delta);
        const double exact = binomial_epsilon(count, tilt, delta);
        const double found = repeated_epsilon({up, down}, count, delta);
        CHECK(found >= exact * (1 - 1e-9));
        CHECK(found <= exact * 1.003 + 1e-4);
      }
    }
  }
}

TEST_CASE("rounding that reaches delta gives no figure", "[privacy][accountant]") {
  const std::vector<double> up{0.6, 0.4};
  const std::vector<double> down{0.4, 0.6};
  CHECK(std::isinf(repeated_epsilon({up, down}, 1000, 1e-13)));
}

TEST_CASE("a pair dominates what is a part or a blur of it and nothing more",
          "[privacy][accountant]") {
  const std::vector<double> p{0.6, 0.3, 0.1};
  const std::vector<double> q{0.2, 0.3, 0.5};
  const std::vector<double> blurred_p{0.5 * 0.6 + 0.1, 0.5 * 0.3 + 0.2, 0.5 * 0.1 + 0.2};
  const std::vector<double> blurred_q{0.5 * 0.2 + 0.1, 0.5 * 0.3 + 0.2, 0.5 * 0.5 + 0.2};
  const std::vector<double> sharper{0.7, 0.29, 0.01};
  CHECK(dominates({p, q}, {p, q}));
  CHECK(dominates({p, q}, {blurred_p, blurred_q}));
  CHECK_FALSE(dominates({blurred_p, blurred_q}, {p, q}));
  CHECK_FALSE(dominates({p, q}, {sharper, q}));
  CHECK_FALSE(dominates({p, q}, {q, p}));  // neither way round
  CHECK_FALSE(dominates({q, p}, {p, q}));
}

// Two coordinates, four outputs each: every pair of rows on a grid over the ball, every output.
TEST_CASE("no pair of rows in the ball tells more than is stated", "[privacy][accountant]") {
  const auto [mu, norm] =
      GENERATE(table<double, double>({{1, 1.1}, {4, 1.1}, {20, 1.1}, {4, 0.5}}));
  CAPTURE(mu, norm);
  const double scale = std::sqrt(1 + 3 * std::pow(2 * norm / mu, 2));
  const auto m = mechanism("binomial:2:mu=" + std::to_string(mu), 2, {1, norm});
  const auto probabilities = [&](double v) {
    const double p = 0.5 + v / (2 * scale);
    const double q = 1 - p;
    return std::array<double, 4>{q * q * q, 3 * p * q * q, 3 * p * p * q, p * p * p};
  };
  std::vector<std::array<double, 16>> rows;
  for (int i = -10; i <= 10; ++i) {
    for (int j = -10; j <= 10; ++j) {
      double x = 0.1 * i;
      double y = 0.1 * j;
      const double length = std::hypot(x, y);
      if (length > norm) x *= norm / length, y *= norm / length;
      const auto p = probabilities(x);
      const auto q = probabilities(y);
      auto& row = rows.emplace_back();
      for (size_t k = 0; k < 16; ++k) row[k] = p[k / 4] * q[k % 4];
    }
  }
  for (const double delta : {0.1, 1e-3, 1e-6}) {
    const double epsilon = m->epsilon(1, delta);
    double worst = 0;
    for (const auto& a : rows) {
      for (const auto& b : rows) {
        double sum = 0;
        for (size_t k = 0; k < 16; ++k) sum += std::max(0.0, a[k] - std::exp(epsilon) * b[k]);
        worst = std::max(worst, sum);
      }
    }
    CAPTURE(delta, epsilon, worst);
    CHECK(worst <= delta);
  }
  for (const double order : {1.01, 2.0, 8.0, 40.0}) {
    double worst = 0;
    for (const auto& a : rows) {
      for (const auto& b : rows) {
        double sum = 0;
        for (size_t k = 0; k < 16; ++k) sum += a[k] * std::pow(a[k] / b[k], order - 1);
        worst = std::max(worst, std::log(sum) / (order - 1));
      }
    }
    CAPTURE(order, worst);
    CHECK(m->renyi(order) >= worst);
  }
}

// Rows that differ in `count` coordinates only, by the most the norm allows.
double spread_over(const Ball& ball, double count, double order) {
  const double square = ball.square_norm / count;
  if (square > ball.tilt * ball.tilt) return 0;
  return count * ball.trials * corner_renyi(std::sqrt(square), order);
}

TEST_CASE("the bound over the ball holds for spread and for concentrated rows and is close",
          "[privacy][accountant]") {
  // Little noise (large tilt) leaves room above: there rows of unequal shape count too, which the
  // bound allows for and these rows do not reach.
  const auto [tilt, slack] =
      GENERATE(table<double, double>({{0.05, 1.05}, {0.3, 1.06}, {0.75, 1.15}}));
  const Ball ball{576, 15, tilt, 36 * tilt * tilt};
  bool spread_won = false;
  bool concentrated_won = false;
  for (const double order : {1.01, 1.5, 3.0, 10.0, 50.0, 1000.0}) {
    double worst = 0;
    for (double count = 36; count <= 576; ++count)
      worst = std::max(worst, spread_over(ball, count, order));
    const double spread = spread_over(ball, 576, order);
    const double concentrated = spread_over(ball, 36, order);
    spread_won |= spread > 1.01 * concentrated;
    concentrated_won |= concentrated > 1.01 * spread;
    const double bound = ball_renyi(ball, order);
    CAPTURE(tilt, order, worst, bound, spread, concentrated);
    CHECK(bound >= worst);
    CHECK(bound <= slack * worst);
  }
  // Which of them is worse depends on the order.
  CHECK(spread_won);
  CHECK((concentrated_won || tilt < 0.1));
}

TEST_CASE("a ball around the cube is the cube", "[privacy][accountant]") {
  const Ball ball{16, 3, 0.2, 16 * 0.2 * 0.2};
  for (const double order : {1.01, 2.0, 30.0})
    CHECK(ball_renyi(ball, order) == Approx(48 * corner_renyi(0.2, order)).epsilon(1e-6));
}

TEST_CASE("a bounded norm lowers the figure at equal noise", "[privacy][accountant]") {
  // The noise is set by mu and the clip, so the same scale needs a mu in proportion.
  const auto cube = mechanism("binomial:4:mu=5", 576, {.coordinate = 1});
  const auto ball = mechanism("binomial:4:mu=1.25", 576, {1, 6});  // 24 / 6 = 4
  CHECK(ball->epsilon(1, 1e-5) < 0.25 * cube->epsilon(1, 1e-5));
  CHECK(ball->epsilon(1, 1e-5) > gaussian_epsilon(1.25, 1e-5));
}

// Lattice points of the plane, with the parameters the mechanism derived: every shift it allows.
TEST_CASE("the discrete Gaussian gives no more than the Gaussian it is stated as",
          "[privacy][accountant]") {
  const auto m = mechanism("dgauss:mu=4", 2, {.norm_l2 = 1});
  const auto zero = m->zero_distribution();
  const int reach = m->code_range().last;
  const double sigma = std::sqrt(
      -0.5 / std::log(zero[static_cast<size_t>(reach) + 1] / zero[static_cast<size_t>(reach)]));
  const int most = static_cast<int>(std::lround(4 * sigma));
  std::vector<double> p(static_cast<size_t>(8 * most + 1));
  double total = 0;
  for (int k = -4 * most; k <= 4 * most; ++k) total += std::exp(-0.5 * k * k / (sigma * sigma));
  for (int k = -4 * most; k <= 4 * most; ++k)
    p[static_cast<size_t>(k + 4 * most)] = std::exp(-0.5 * k * k / (sigma * sigma)) / total;
  const double allowed = 4 * std::sqrt(sigma * sigma - 2);  // distance of two rounded rows
  for (const double delta : {1e-2, 1e-5}) {
    const double epsilon = m->epsilon(1, delta);
    for (const auto& [along, across] :
         std::vector<std::pair<double, double>>{{1, 0}, {0.8, 0.6}, {0.7071, 0.7071}}) {
      const int x = static_cast<int>(allowed * along);
      const int y = static_cast<int>(allowed * across);
      double sum = 0;
      for (int i = -2 * most; i <= 2 * most; ++i) {
        for (int j = -2 * most; j <= 2 * most; ++j) {
          const auto at = [&](int a, int b) {
            return p[static_cast<size_t>(a + 4 * most)] * p[static_cast<size_t>(b + 4 * most)];
          };
          sum += std::max(0.0, at(i, j) - std::exp(epsilon) * at(i - x, j - y));
        }
      }
      CAPTURE(delta, x, y, sum);
      CHECK(sum <= delta);
      CHECK(sum > 0.5 * delta);  // and not much less
    }
  }
  for (const double order : {1.5, 4.0, 20.0})
    CHECK(m->renyi(order) >= order * allowed * allowed / (2.0001 * sigma * sigma));
}

TEST_CASE("randomised quantisation: no pair of numbers tells more than is stated",
          "[privacy][accountant]") {
  // One coordinate, two bits: probabilities by hand. Levels -3, -1, 1, 3 times X / 3.
  const auto m = mechanism("rqm:2:range=1.5", 1, {.coordinate = 1});
  const auto probabilities = [](double v) {
    std::array<double, 4> out{};
    for (int kept = 0; kept < 4; ++kept) {
      std::vector<double> levels{-1.5};
      std::vector<size_t> index{0};
      if (kept % 2 == 1) levels.push_back(-0.5), index.push_back(1);
      if (kept / 2 == 1) levels.push_back(0.5), index.push_back(2);
      levels.push_back(1.5);
      index.push_back(3);
      size_t left = 0;
      while (levels[left + 1] <= v) ++left;
      const double up = (v - levels[left]) / (levels[left + 1] - levels[left]);
      out[index[left]] += 0.25 * (1 - up);
      out[index[left + 1]] += 0.25 * up;
    }
    return out;
  };
  for (const double delta : {0.1, 1e-3, 1e-6}) {
    const double epsilon = m->epsilon(1, delta);
    double worst = 0;
    for (double x = -1; x <= 1; x += 0.01) {
      for (double y = -1; y <= 1; y += 0.01) {
        const auto p = probabilities(x);
        const auto q = probabilities(y);
        double sum = 0;
        for (size_t k = 0; k < 4; ++k) sum += std::max(0.0, p[k] - std::exp(epsilon) * q[k]);
        worst = std::max(worst, sum);
      }
    }
    CAPTURE(delta, worst, epsilon);
    CHECK(worst <= delta);
  }
  // Its pure bound: the largest ratio, at the ends of the clip.
  const double ratio = std::log(probabilities(-1)[0] / probabilities(1)[0]);
  CHECK(m->epsilon(1, 1e-30) == Approx(ratio).epsilon(1e-6));
}

}  // namespace
}  // namespace isthmus::privacy

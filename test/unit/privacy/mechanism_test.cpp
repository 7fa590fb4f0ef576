#include <isthmus/privacy/accountant.h>
#include <isthmus/privacy/mechanism.h>

#include <cmath>
#include <numeric>

#include "support/catch.h"
#include "support/seeded_random.h"

namespace isthmus::privacy {
namespace {

std::unique_ptr<Mechanism> mechanism(const std::string& text, size_t width, Clip clip) {
  return test::value_of(make_mechanism(test::value_of(MechanismSpec::parse(text)), width, clip));
}

const char* any_spec() {
  return GENERATE("binomial:1:mu=2", "binomial:4:mu=2", "binomial:8:mu=20", "dgauss:mu=2",
                  "rqm:2:range=2", "rqm:5:range=6");
}

std::vector<int32_t> codes_of(const Mechanism& m, const std::vector<float>& row, uint64_t seed) {
  test::SeededRandom random(seed);
  std::vector<int32_t> codes(row.size());
  REQUIRE(m.randomize(row, random, codes));
  return codes;
}

TEST_CASE("every row is clipped before anything is drawn", "[privacy][mechanism]") {
  const auto m = mechanism(any_spec(), 8, {0.5, 1});
  CAPTURE(m->spec().to_string());
  // With the same random bits a row and what the clip makes of it give the same codes: first the
  // norm is scaled to 1, then each coordinate is held within 0.5.
  const std::vector<float> far{3e38F, -3e38F, 0, 0, 0, 0, 0, 0};
  const std::vector<float> near{0.5F, -0.5F, 0, 0, 0, 0, 0, 0};
  for (uint64_t seed = 0; seed < 50; ++seed)
    CHECK(codes_of(*m, far, seed) == codes_of(*m, near, seed));
}

TEST_CASE("codes stay in the range and any code in it can be estimated", "[privacy][mechanism]") {
  const auto m = mechanism(any_spec(), 4, {1, 2});
  CAPTURE(m->spec().to_string());
  const CodeRange range = m->code_range();
  for (uint64_t seed = 0; seed < 200; ++seed) {
    for (const int32_t code : codes_of(*m, {1, -1, 0, 1e6F}, seed)) {
      CHECK(code >= range.first);
      CHECK(code <= range.last);
    }
  }
  std::vector<float> row(4);
  REQUIRE(m->estimate(std::vector<int32_t>{range.first, range.last, range.first, range.last}, row));
  CHECK(row[0] == -row[1]);
  for (const int32_t code : {range.first - 1, range.last + 1, INT32_MIN, INT32_MAX})
    CHECK_FAILS_WITH(m->estimate(std::vector<int32_t>{0, 0, 0, code}, row), ErrorCode::kCorrupt);
}

TEST_CASE("wrong widths and numbers that are none are refused", "[privacy][mechanism]") {
  const auto m = mechanism(any_spec(), 4, {1, 2});
  test::SeededRandom random(1);
  std::vector<int32_t> codes(4, -99);
  for (const float bad : {std::nanf(""), INFINITY, -INFINITY})
    CHECK_FAILS_WITH(m->randomize(std::vector<float>{0, 0, bad, 0}, random, codes),
                     ErrorCode::kNotFinite);
  CHECK_FAILS_WITH(m->randomize(std::vector<float>(3), random, codes), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(m->randomize(std::vector<float>(5), random, codes), ErrorCode::kInvalidArgument);
  CHECK(codes == std::vector<int32_t>(4, -99));
  std::vector<int32_t> few(3);
  CHECK_FAILS_WITH(m->randomize(std::vector<float>(4), random, few), ErrorCode::kInvalidArgument);
  std::vector<float> row(4);
  CHECK_FAILS_WITH(m->estimate(few, row), ErrorCode::kInvalidArgument);
  std::vector<float> short_row(3);
  CHECK_FAILS_WITH(m->estimate(std::vector<int32_t>(4), short_row), ErrorCode::kInvalidArgument);
}

TEST_CASE("the distribution at zero is one, even and covers the range", "[privacy][mechanism]") {
  const auto m = mechanism(any_spec(), 4, {1, 2});
  CAPTURE(m->spec().to_string());
  const auto p = m->zero_distribution();
  const CodeRange range = m->code_range();
  REQUIRE(p.size() == static_cast<size_t>(range.last - range.first + 1));
  CHECK(std::abs(std::accumulate(p.begin(), p.end(), 0.0) - 1) < 1e-12);
  for (size_t i = 0; i < p.size(); ++i) {
    CHECK(p[i] >= 0);
    CHECK(p[i] == Approx(p[p.size() - 1 - i]).epsilon(1e-12));
  }
}

TEST_CASE("fresh randomness gives fresh codes", "[privacy][mechanism]") {
  const auto m = mechanism(any_spec(), 64, {1, 8});
  SystemRandom random;
  const std::vector<float> row(64, 0.1F);
  std::vector<int32_t> first(64);
  std::vector<int32_t> second(64);
  REQUIRE(m->randomize(row, random, first));
  REQUIRE(m->randomize(row, random, second));
  CHECK(first != second);
}

TEST_CASE("more rows, a smaller delta and more mu cost more", "[privacy][mechanism]") {
  const auto m = mechanism(any_spec(), 32, {1, 3});
  CAPTURE(m->spec().to_string());
  CHECK(m->epsilon(0, 1e-5) == 0);
  double last = 0;
  for (const uint64_t rows : {1, 2, 3, 10, 100, 1000, 1000000}) {
    const double epsilon = m->epsilon(rows, 1e-5);
    CHECK(std::isfinite(epsilon));
    CHECK(epsilon > last);
    CHECK(m->epsilon(rows, 1e-9) > epsilon);
    last = epsilon;
  }
}

TEST_CASE("a statement says what it must", "[privacy][mechanism]") {
  const auto m = mechanism("binomial:4:mu=5", 576, {1, 6});
  const PrivacyStatement statement = m->statement(200);
  CHECK(statement.sensitivity_l2 == Approx(12));
  CHECK(statement.epsilon_per_row == m->epsilon(1, 1e-5));
  CHECK(statement.epsilon_per_prompt == m->epsilon(200, 1e-5));
  const std::string text = statement.to_string();
  for (const char* part : {"binomial", "adjacency", "within +-1", "norm up to 6", "sensitivity",
                           "delta 1e-05", "per row", "200 rows", "composition", "not covered"})
    CHECK(text.find(part) != std::string::npos);

  // The cube's figures do not lean on the norm, and say so.
  const PrivacyStatement cube = mechanism("rqm:4:range=8", 16, {1, 2})->statement(1);
  CHECK(cube.sensitivity_l2 == Approx(8));
  CHECK(cube.adjacency.find("norm") == std::string::npos);
}

TEST_CASE("different mechanisms add up by their Renyi divergences", "[privacy][mechanism]") {
  const auto a = mechanism("binomial:4:mu=1", 32, {1, 3});
  const auto b = mechanism("dgauss:mu=1", 32, {1, 3});
  const std::vector<Release> both{{a.get(), 10}, {b.get(), 5}};
  const std::vector<Release> swapped{{b.get(), 5}, {a.get(), 10}, {a.get(), 0}};
  const double together = composed_epsilon(both, 1e-5);
  CHECK(composed_epsilon(swapped, 1e-5) == together);
  CHECK(together > a->epsilon(10, 1e-5));
  CHECK(together < a->epsilon(10, 5e-6) + b->epsilon(5, 5e-6));
  CHECK(composed_epsilon({}, 1e-5) == 0);
  CHECK(composed_epsilon(std::vector<Release>{{a.get(), 10}}, 1e-5) == a->epsilon(10, 1e-5));
  // Two Gaussians of mu 1, five and ten times: together sqrt(15).
  const std::vector<Release> gaussians{{b.get(), 5}, {b.get(), 10}};
  CHECK(composed_epsilon(gaussians, 1e-5) >= gaussian_epsilon(std::sqrt(15), 1e-5));
  CHECK(composed_epsilon(gaussians, 1e-5) < 1.2 * gaussian_epsilon(std::sqrt(15), 1e-5));
}

}  // namespace
}  // namespace isthmus::privacy

#include <isthmus/core/random.h>
#include <isthmus/kernels/portable_math.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/catch.h"

namespace isthmus::kernels {
namespace {

TEST_CASE("portable exp is within 2 units in the last place", "[kernels][math]") {
  const double range = GENERATE(1e-9, 0.5, 10.0, 700.0);
  for (uint64_t i = 0; i < 5000; ++i) {
    const double x = (2 * counter_uniform(1, i) - 1) * range;
    const double exact = std::exp(x);
    const double unit = std::nextafter(exact, HUGE_VAL) - exact;
    CAPTURE(x);
    REQUIRE(std::abs(portable_exp(x) - exact) <= 2 * unit);
  }
}

TEST_CASE("portable exp is defined at its ends", "[kernels][math]") {
  CHECK(portable_exp(0) == 1);
  CHECK(portable_exp(-709) == 0);
  CHECK(portable_exp(-std::numeric_limits<double>::infinity()) == 0);
  CHECK(std::isfinite(portable_exp(1e9)));
  CHECK(std::isnan(portable_exp(std::numeric_limits<double>::quiet_NaN())));
}

TEST_CASE("portable log is within 2 units in the last place", "[kernels][math]") {
  const double range = GENERATE(1e-9, 0.1, 1.0, 36.0, 700.0);
  for (uint64_t i = 0; i < 5000; ++i) {
    const double x = std::exp((2 * counter_uniform(3, i) - 1) * range);
    const double exact = std::log(x);
    const double unit = std::nextafter(std::abs(exact), HUGE_VAL) - std::abs(exact);
    CAPTURE(x);
    REQUIRE(std::abs(portable_log(x) - exact) <= std::max(2 * unit, 0x1p-53));
  }
  CHECK(portable_log(1) == 0);
  CHECK(std::isfinite(portable_log(std::numeric_limits<double>::min())));
  CHECK(std::isfinite(portable_log(std::numeric_limits<double>::max())));
}

TEST_CASE("portable sine and cosine are within 1e-15 up to 2^20", "[kernels][math]") {
  const double range = GENERATE(1e-9, 1.0, 100.0, 1e4, 0x1p20);
  for (uint64_t i = 0; i < 5000; ++i) {
    const double angle = (2 * counter_uniform(2, i) - 1) * range;
    const auto [sin, cos] = portable_sin_cos(angle);
    CAPTURE(angle);
    REQUIRE(std::abs(sin - std::sin(angle)) <= 1e-15);
    REQUIRE(std::abs(cos - std::cos(angle)) <= 1e-15);
  }
  CHECK(portable_sin_cos(0).sin == 0);
  CHECK(portable_sin_cos(0).cos == 1);
}

}  // namespace
}  // namespace isthmus::kernels

#include "history.h"

#include <numeric>
#include <random>

#include "support/catch.h"

namespace isthmus::edge {
namespace {

/// A server that keeps nothing but the first byte of each row's payload.
class Rows {
 public:
  void carry_out(const Parcel& parcel) {
    if (const auto* step = std::get_if<wire::Step>(&parcel.body)) {
      REQUIRE(step->position == rows_.size());
      rows_.insert(rows_.end(), parcel.payload.begin(), parcel.payload.end());
    } else {
      rows_.resize(std::get<wire::Truncate>(parcel.body).length);
    }
  }
  [[nodiscard]] const std::vector<std::byte>& rows() const { return rows_; }

 private:
  std::vector<std::byte> rows_;
};

Request step_at(size_t position, size_t count, std::mt19937& random) {
  Request request{.parcel = {wire::Step{.position = static_cast<uint32_t>(position),
                                        .token_count = static_cast<uint32_t>(count)},
                             {}}};
  for (size_t i = 0; i < count; ++i)
    request.parcel.payload.push_back(static_cast<std::byte>(random()));
  return request;
}

TEST_CASE("what is kept of any history brings a new server to the same rows", "[edge][history]") {
  std::mt19937 random(11);
  for (int round = 0; round < 2000; ++round) {
    History history(1U << 20U);
    Rows server;
    for (int i = 0; i < 30; ++i) {
      const size_t length = server.rows().size();
      Request request = step_at(length, 1 + random() % 5, random);
      if (random() % 3 == 0)
        request.parcel = {wire::Truncate{.length = static_cast<uint32_t>(random() % (length + 1))},
                          {}};
      server.carry_out(request.parcel);
      history.push(std::move(request));
      history.settle(-1);
    }
    Rows other;
    history.rewind();
    size_t replayed_rows = 0;
    for (size_t i = 0; i < history.settled(); ++i) {
      other.carry_out(history.at(i).parcel);
      replayed_rows += history.at(i).parcel.payload.size();
    }
    REQUIRE(other.rows() == server.rows());
    // No step is kept for nothing: each still holds one row at least.
    REQUIRE(replayed_rows <= server.rows().size() + 4 * history.settled());
  }
}

TEST_CASE("open requests stay in order behind settled ones", "[edge][history]") {
  std::mt19937 random(3);
  History history(1U << 20U);
  for (size_t i = 0; i < 3; ++i) history.push(step_at(i, 1, random));
  CHECK(history.open() == 3);
  history.settle(42);
  CHECK(history.settled() == 1);
  CHECK(history.at(0).token == 42);
  history.drop_open();
  CHECK(history.size() == 1);
  CHECK(history.is_complete());
}

TEST_CASE("a history past its limit is given up, and the open requests live on",
          "[edge][history]") {
  std::mt19937 random(3);
  History history(4000);
  size_t position = 0;
  while (history.is_complete()) {
    history.push(step_at(position++, 1, random));
    history.push(step_at(position++, 1, random));
    history.settle(-1);
    REQUIRE(history.open() >= 1);
    history.settle(-1);
    REQUIRE(position < 1000);
  }
  history.push(step_at(position, 1, random));
  CHECK(history.settled() == 0);
  CHECK(history.open() == 1);
  history.settle(-1);
  CHECK(history.size() == 0);
}

}  // namespace
}  // namespace isthmus::edge

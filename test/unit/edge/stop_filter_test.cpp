#include "stop_filter.h"

#include <algorithm>
#include <random>
#include <vector>

#include "support/catch.h"

namespace isthmus::edge {
namespace {

/// What must come out, by trying every end of a stop text from the left.
std::string text_before_stop(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 0; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop))
        longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST_CASE("a stop text is found however the stream is cut", "[edge][stop]") {
  std::mt19937 random(7);
  const auto letters = [&](size_t longest, size_t shortest) {
    std::string text(shortest + random() % (longest - shortest + 1), ' ');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 5000; ++round) {
    const std::string text = letters(24, 0);
    std::vector<std::string> stops(random() % 3);
    for (std::string& stop : stops) stop = letters(5, 1);
    CAPTURE(text, stops);

    StopFilter filter(stops);
    std::string out;
    for (size_t begin = 0; begin < text.size();) {
      const size_t length = 1 + random() % 4;
      out += filter.push(std::string_view(text).substr(begin, length));
      begin += length;
    }
    const std::string expected = text_before_stop(text, stops);
    REQUIRE(filter.stopped() == (expected.size() != text.size()));
    if (!filter.stopped()) out += filter.finish();
    REQUIRE(out == expected);
  }
}

TEST_CASE("text that cannot become a stop text is not held back", "[edge][stop]") {
  const std::vector<std::string> stops = {"</s>"};
  StopFilter filter(stops);
  CHECK(filter.push("a<b").size() == 3);
  CHECK(filter.push("x</").size() == 1);
  CHECK(filter.push("s").empty());
  CHECK(filter.push("t") == "</st");
  CHECK(filter.finish().empty());
}

}  // namespace
}  // namespace isthmus::edge

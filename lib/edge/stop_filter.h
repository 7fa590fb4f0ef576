// Finds stop texts in a stream and holds back whatever may still become one.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace isthmus::edge {

/// The stop text that is complete first counts; of two that are complete together, the longer one.
/// Not thread-safe. The stop texts are borrowed; none may be empty.
class StopFilter {
 public:
  explicit StopFilter(std::span<const std::string> stops) : stops_(stops) {}

  /// Adds text and returns what is certain to lie before any stop text.
  [[nodiscard]] std::string push(std::string_view text);
  /// What was held back and turned out to be no stop text.
  [[nodiscard]] std::string finish();
  /// Whether a stop text has appeared. Nothing comes out after that.
  [[nodiscard]] bool stopped() const { return stopped_; }

 private:
  std::span<const std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace isthmus::edge

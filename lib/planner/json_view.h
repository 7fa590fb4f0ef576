// Reading JSON that may come from anyone: every access checks type and range, and an error names
// the field by its path.
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::planner {

/// Larger documents are refused unparsed.
inline constexpr size_t kMaxJsonBytes = size_t{16} << 20U;

/// \returns kTooLarge, or kCorrupt when it is not JSON or an object has a key twice.
[[nodiscard]] Result<nlohmann::json> parse_json(std::string_view text, std::string_view name);

/// A borrowed node and its path, "device.json: weights[1]".
class JsonView {
 public:
  JsonView(const nlohmann::json& node, std::string path) : node_(&node), path_(std::move(path)) {}

  [[nodiscard]] const nlohmann::json& node() const { return *node_; }
  /// Whether there is a member that is not null.
  [[nodiscard]] bool has(const char* key) const;

  /// A finite number in [low, high]. \returns kCorrupt, as all of these do.
  [[nodiscard]] Result<double> number(const char* key, double low, double high) const;
  [[nodiscard]] Result<int32_t> integer(const char* key, int32_t low, int32_t high) const;
  [[nodiscard]] Result<bool> boolean(const char* key) const;
  /// At most 1024 bytes.
  [[nodiscard]] Result<std::string> text(const char* key) const;
  [[nodiscard]] Result<JsonView> object(const char* key) const;
  /// Items of an array.
  [[nodiscard]] Result<std::vector<JsonView>> items(const char* key) const;
  [[nodiscard]] Result<std::vector<double>> numbers(const char* key, double low, double high) const;

  /// "planner: PATH WHAT".
  [[nodiscard]] tl::unexpected<Error> error(std::string_view what) const;

 private:
  [[nodiscard]] Result<JsonView> member(const char* key) const;
  [[nodiscard]] Result<double> value(double low, double high) const;

  const nlohmann::json* node_;
  std::string path_;
};

}  // namespace isthmus::planner

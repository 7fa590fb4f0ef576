// Type-checked reading of JSON that may come from anyone. No exception leaves, no value is trusted.
#pragma once

#include <isthmus/core/error.h>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace isthmus::model {

/// Larger documents are refused unparsed: a parsed one takes about ten times its size. The largest
/// known, Gemma's tokenizer.json, has 33 MiB.
inline constexpr size_t kMaxJsonBytes = size_t{128} << 20U;

/// Parses a document whose outermost value is an object. `file` names it in errors.
/// \returns kTooLarge, or kCorrupt (not JSON, not an object, a key twice in the outermost object).
[[nodiscard]] Result<nlohmann::json> parse_json(std::span<const std::byte> bytes,
                                                std::string_view file);

/// The value as bool, int32_t, float or std::string; nothing for another type or out of range.
/// Integers have no fraction.
template <typename T>
[[nodiscard]] std::optional<T> value_as(const nlohmann::json& node);

/// Borrowed view of an object. A null member counts as absent. `T` is as for `value_as`.
class JsonObject {
 public:
  /// `node` must be an object and, like the bytes of `file`, outlive the view.
  JsonObject(const nlohmann::json& node, std::string_view file) : node_(&node), file_(file) {}

  /// The member, or nullptr.
  [[nodiscard]] const nlohmann::json* find(std::string_view key) const;
  [[nodiscard]] bool has(std::string_view key) const { return find(key) != nullptr; }

  /// \returns kNotFound, or kCorrupt for another type or a number out of range.
  template <typename T>
  [[nodiscard]] Result<T> get(std::string_view key) const;
  template <typename T>
  [[nodiscard]] Result<T> get_or(std::string_view key, T fallback) const {
    return has(key) ? get<T>(key) : Result<T>(std::move(fallback));
  }
  /// \returns kCorrupt for a member that is not an object.
  [[nodiscard]] Result<std::optional<JsonObject>> object(std::string_view key) const;
  /// The items of an array; none for an absent one. \returns kCorrupt for a member of another type.
  [[nodiscard]] Result<std::span<const nlohmann::json>> list(std::string_view key) const;
  /// An item of a list as an object. \returns kCorrupt.
  [[nodiscard]] Result<JsonObject> item(const nlohmann::json& value, std::string_view key) const;

  [[nodiscard]] const nlohmann::json& node() const { return *node_; }
  /// "model: FILE: 'KEY' WHAT" as an error.
  [[nodiscard]] tl::unexpected<Error> error(ErrorCode code, std::string_view key,
                                            std::string_view what) const;

 private:
  const nlohmann::json* node_;
  std::string_view file_;
};

}  // namespace isthmus::model

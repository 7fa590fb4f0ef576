#include "json_object.h"

#include <cmath>
#include <limits>
#include <unordered_set>

#include "quote.h"

namespace isthmus::model {
namespace {

using nlohmann::json;

template <typename T>
constexpr std::string_view kWanted = "is not a 32-bit integer";
template <>
constexpr std::string_view kWanted<bool> = "is not true or false";
template <>
constexpr std::string_view kWanted<float> = "is not a number that fits a float";
template <>
constexpr std::string_view kWanted<std::string> = "is not a string";

tl::unexpected<Error> file_error(ErrorCode code, std::string_view file, std::string_view what) {
  std::string message = "model: ";
  message += file;
  message += ' ';
  message += what;
  return fail(code, std::move(message));
}

}  // namespace

template <>
std::optional<bool> value_as(const json& node) {
  if (!node.is_boolean()) return std::nullopt;
  return node.get<bool>();
}

template <>
std::optional<int32_t> value_as(const json& node) {
  if (!node.is_number_integer()) return std::nullopt;
  if (node.is_number_unsigned() && node.get<uint64_t>() > std::numeric_limits<int32_t>::max()) {
    return std::nullopt;
  }
  const auto value = node.get<int64_t>();
  if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max()) {
    return std::nullopt;
  }
  return static_cast<int32_t>(value);
}

template <>
std::optional<float> value_as(const json& node) {
  if (!node.is_number()) return std::nullopt;
  const auto value = node.get<double>();
  if (!(std::abs(value) <= std::numeric_limits<float>::max())) return std::nullopt;
  return static_cast<float>(value);
}

template <>
std::optional<std::string> value_as(const json& node) {
  if (!node.is_string()) return std::nullopt;
  return node.get<std::string>();
}

Result<json> parse_json(std::span<const std::byte> bytes, std::string_view file) {
  if (bytes.size() > kMaxJsonBytes) {
    return file_error(ErrorCode::kTooLarge, file,
                      "has " + std::to_string(bytes.size()) + " bytes, more than " +
                          std::to_string(kMaxJsonBytes));
  }
  std::unordered_set<std::string> keys;
  bool unique = true;
  const auto note_key = [&](int depth, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::key && depth == 1) {
      unique = keys.insert(value.get<std::string>()).second && unique;
    }
    return true;
  };
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  json document = json::parse(text, text + bytes.size(), note_key, /*allow_exceptions=*/false);
  if (document.is_discarded()) return file_error(ErrorCode::kCorrupt, file, "is not valid JSON");
  if (!document.is_object()) return file_error(ErrorCode::kCorrupt, file, "is not a JSON object");
  if (!unique) return file_error(ErrorCode::kCorrupt, file, "has a key twice");
  return document;
}

const json* JsonObject::find(std::string_view key) const {
  const auto found = node_->find(key);
  return found == node_->end() || found->is_null() ? nullptr : &*found;
}

template <typename T>
Result<T> JsonObject::get(std::string_view key) const {
  const json* member = find(key);
  if (member == nullptr) return error(ErrorCode::kNotFound, key, "is missing");
  const std::optional<T> value = value_as<T>(*member);
  if (!value) return error(ErrorCode::kCorrupt, key, kWanted<T>);
  return *value;
}

template Result<bool> JsonObject::get(std::string_view) const;
template Result<int32_t> JsonObject::get(std::string_view) const;
template Result<float> JsonObject::get(std::string_view) const;
template Result<std::string> JsonObject::get(std::string_view) const;

Result<std::optional<JsonObject>> JsonObject::object(std::string_view key) const {
  const json* member = find(key);
  if (member == nullptr) return std::optional<JsonObject>();
  ISTHMUS_ASSIGN(const JsonObject view, item(*member, key));
  return std::optional(view);
}

Result<std::span<const json>> JsonObject::list(std::string_view key) const {
  const json* member = find(key);
  if (member == nullptr) return std::span<const json>();
  if (!member->is_array()) return error(ErrorCode::kCorrupt, key, "is not an array");
  return std::span<const json>(member->get_ref<const json::array_t&>());
}

Result<JsonObject> JsonObject::item(const json& value, std::string_view key) const {
  if (!value.is_object()) return error(ErrorCode::kCorrupt, key, "is not an object");
  return JsonObject(value, file_);
}

tl::unexpected<Error> JsonObject::error(ErrorCode code, std::string_view key,
                                        std::string_view what) const {
  return file_error(code, file_, quote(key).append(" ").append(what));
}

}  // namespace isthmus::model

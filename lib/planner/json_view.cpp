#include "json_view.h"

#include <cmath>
#include <cstdio>
#include <unordered_set>

namespace isthmus::planner {

using nlohmann::json;

Result<json> parse_json(std::string_view text, std::string_view name) {
  const std::string file(name);
  if (text.size() > kMaxJsonBytes) {
    return fail(ErrorCode::kTooLarge, "planner: " + file + " has " + std::to_string(text.size()) +
                                          " bytes, more than " + std::to_string(kMaxJsonBytes));
  }
  std::vector<std::unordered_set<std::string>> keys;
  std::string twice;
  const auto watch_keys = [&](int /*depth*/, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key &&
        !keys.back().insert(value.get_ref<const std::string&>()).second) {
      twice = value.get<std::string>();
    }
    return true;
  };
  json document = json::parse(text, watch_keys, /*allow_exceptions=*/false);
  if (document.is_discarded())
    return fail(ErrorCode::kCorrupt, "planner: " + file + " is not valid JSON");
  if (!twice.empty())
    return fail(ErrorCode::kCorrupt, "planner: " + file + " has a key twice in one object");
  return document;
}

bool JsonView::has(const char* key) const {
  return node_->is_object() && node_->contains(key) && !(*node_)[key].is_null();
}

tl::unexpected<Error> JsonView::error(std::string_view what) const {
  return fail(ErrorCode::kCorrupt, "planner: " + path_ + " " + std::string(what));
}

Result<JsonView> JsonView::member(const char* key) const {
  if (!node_->is_object()) return error("is not an object");
  if (!has(key)) return error("lacks '" + std::string(key) + "'");
  return JsonView((*node_)[key], path_ + (path_.ends_with(":") ? " " : ".") + key);
}

Result<double> JsonView::value(double low, double high) const {
  if (!node_->is_number()) return error("is not a number");
  const auto number = node_->get<double>();
  if (!(number >= low && number <= high)) {
    char text[100];
    std::snprintf(text, sizeof text, "is %g, must be in [%g, %g]", number, low, high);
    return error(text);
  }
  return number;
}

Result<double> JsonView::number(const char* key, double low, double high) const {
  ISTHMUS_ASSIGN(const JsonView found, member(key));
  return found.value(low, high);
}

Result<int32_t> JsonView::integer(const char* key, int32_t low, int32_t high) const {
  ISTHMUS_ASSIGN(const JsonView found, member(key));
  ISTHMUS_ASSIGN(const double number, found.value(low, high));
  if (number != std::floor(number)) return found.error("is not an integer");
  return static_cast<int32_t>(number);
}

Result<bool> JsonView::boolean(const char* key) const {
  ISTHMUS_ASSIGN(const JsonView found, member(key));
  if (!found.node_->is_boolean()) return found.error("is not true or false");
  return found.node_->get<bool>();
}

Result<std::string> JsonView::text(const char* key) const {
  ISTHMUS_ASSIGN(const JsonView found, member(key));
  if (!found.node_->is_string()) return found.error("is not a text");
  const auto& text = found.node_->get_ref<const std::string&>();
  if (text.size() > 1024) return found.error("has more than 1024 bytes");
  return text;
}

Result<JsonView> JsonView::object(const char* key) const {
  ISTHMUS_ASSIGN(JsonView found, member(key));
  if (!found.node_->is_object()) return found.error("is not an object");
  return found;
}

Result<std::vector<JsonView>> JsonView::items(const char* key) const {
  ISTHMUS_ASSIGN(const JsonView found, member(key));
  if (!found.node_->is_array()) return found.error("is not a list");
  std::vector<JsonView> views;
  views.reserve(found.node_->size());
  for (size_t i = 0; i < found.node_->size(); ++i)
    views.emplace_back((*found.node_)[i], found.path_ + "[" + std::to_string(i) + "]");
  return views;
}

Result<std::vector<double>> JsonView::numbers(const char* key, double low, double high) const {
  ISTHMUS_ASSIGN(const std::vector<JsonView> views, items(key));
  std::vector<double> values;
  values.reserve(views.size());
  for (const JsonView& view : views) {
    ISTHMUS_ASSIGN(const double number, view.value(low, high));
    values.push_back(number);
  }
  return values;
}

}  // namespace isthmus::planner

#include "utf8.h"

#include <isthmus/text/tokenizer.h>
#include <utf8proc.h>
#include <algorithm>
#include <array>
#include <vector>

namespace isthmus::text {
namespace {

struct ByteRange {
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
};

// The second byte's range keeps out overlong forms, surrogates and what lies above U+10FFFF.
ByteRange second_byte_range(uint8_t lead) {
  switch (lead) {
    case 0xE0:
      return {0xA0, 0xBF};
    case 0xED:
      return {0x80, 0x9F};
    case 0xF0:
      return {0x90, 0xBF};
    case 0xF4:
      return {0x80, 0x8F};
    default:
      return {};
  }
}

size_t length_from_lead(uint8_t lead) {
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return 2;
  if (lead >= 0xE0 && lead <= 0xEF) return 3;
  if (lead >= 0xF0 && lead <= 0xF4) return 4;
  return 0;
}

// Puts each run of combining marks into canonical order. utf8proc would do it while decomposing, in
// time quadratic in the length of the run.
void order_marks(std::vector<utf8proc_int32_t>& code_points) {
  const auto combining_class = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  for (auto begin = code_points.begin(); begin != code_points.end();) {
    if (combining_class(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end =
        std::find_if(begin, code_points.end(), [&](auto c) { return combining_class(c) == 0; });
    std::stable_sort(begin, end,
                     [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    begin = end;
  }
}

}  // namespace

Utf8Unit next_utf8(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text.front());
  const size_t length = length_from_lead(lead);
  if (length == 0) return {1, Utf8State::kInvalid};
  ByteRange range = second_byte_range(lead);
  for (size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {i, Utf8State::kUnfinished};
    const auto byte = static_cast<uint8_t>(text[i]);
    if (byte < range.low || byte > range.high) return {i, Utf8State::kInvalid};
    range = {};
  }
  return {length, Utf8State::kValid};
}

int32_t code_point_of(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text.front());
  const size_t length = length_from_lead(lead);
  if (length == 1) return lead;
  int32_t code_point = lead & (0x7F >> length);
  for (size_t i = 1; i < length; ++i) {
    code_point = code_point << 6 | (static_cast<uint8_t>(text[i]) & 0x3F);
  }
  return code_point;
}

void append_utf8(std::string& out, int32_t code_point) {
  std::array<utf8proc_uint8_t, 4> bytes{};
  const auto length = utf8proc_encode_char(code_point, bytes.data());
  out.append(bytes.begin(), bytes.begin() + length);
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string out;
  size_t begin = 0;
  for (size_t at = 0; (at = text.find(from, begin)) != std::string_view::npos;
       begin = at + from.size()) {
    out += text.substr(begin, at - begin);
    out += to;
  }
  return out += text.substr(begin);
}

bool is_white(int32_t code_point) {
  const auto& property = *utf8proc_get_property(code_point);
  return property.category == UTF8PROC_CATEGORY_ZS ||
         property.bidi_class == UTF8PROC_BIDI_CLASS_WS ||
         property.bidi_class == UTF8PROC_BIDI_CLASS_B ||
         property.bidi_class == UTF8PROC_BIDI_CLASS_S;
}

std::string nfc(std::string_view text) {
  const bool ascii =
      std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
  if (ascii) return std::string(text);
  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(text.size());
  for (size_t at = 0; at < text.size(); at += next_utf8(text.substr(at)).length) {
    std::array<utf8proc_int32_t, 4> parts{};  // no canonical decomposition is longer
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(code_point_of(text.substr(at)), parts.data(), parts.size(),
                                static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE), &boundary);
    code_points.insert(code_points.end(), parts.begin(), parts.begin() + count);
  }
  order_marks(code_points);
  const auto composed = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
      static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < composed; ++i)
    append_utf8(out, code_points[static_cast<size_t>(i)]);
  return out;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Utf8Unit unit = next_utf8(text);
    out += unit.state == Utf8State::kValid ? text.substr(0, unit.length) : kReplacement;
    text.remove_prefix(unit.length);
  }
  return out;
}

}  // namespace isthmus::text

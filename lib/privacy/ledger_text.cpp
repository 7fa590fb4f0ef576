#include <sodium.h>

#include <array>
#include <charconv>
#include <limits>

#include "ledger_file.h"
#include "row_mechanism.h"

namespace isthmus::privacy {
namespace {

constexpr std::string_view kTitle = "isthmus-privacy-ledger 1\n";
constexpr std::string_view kChecksum = "checksum ";
constexpr size_t kHexBytes = 64;
constexpr size_t kFields = 9;

std::string checksum_line(std::string_view text) {
  std::array<unsigned char, kHexBytes / 2> hash;
  crypto_generichash(hash.data(), hash.size(), reinterpret_cast<const unsigned char*>(text.data()),
                     text.size(), nullptr, 0);
  std::array<char, kHexBytes + 1> hex;
  sodium_bin2hex(hex.data(), hex.size(), hash.data(), hash.size());
  return std::string(kChecksum) + hex.data() + "\n";
}

tl::unexpected<Error> broken(size_t line, const char* what) {
  return fail(ErrorCode::kCorrupt, "ledger: line " + std::to_string(line) + ": " + what);
}

/// Digits without sign or leading zeros.
bool read_count(std::string_view text, uint64_t& out) {
  if (text.empty() || (text.size() > 1 && text[0] == '0')) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

bool read_double(std::string_view text, double& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc() && end == text.data() + text.size();
}

std::vector<std::string_view> fields_of(std::string_view line) {
  std::vector<std::string_view> fields;
  for (size_t begin = 0; begin <= line.size() && fields.size() <= kFields;) {
    const size_t end = std::min(line.find(' ', begin), line.size());
    fields.push_back(line.substr(begin, end - begin));
    begin = end + 1;
  }
  return fields;
}

std::string scope_text(const LedgerEntry& entry) {
  if (entry.scope == Scope::kTotal) return "total";
  return (entry.scope == Scope::kPeriod ? "period:" : "conversation:") +
         std::to_string(entry.number);
}

bool read_scope(std::string_view text, LedgerEntry& entry) {
  if (text == "total") return true;
  const size_t colon = std::min(text.find(':'), text.size());
  const std::string_view name = text.substr(0, colon);
  if (name != "period" && name != "conversation") return false;
  entry.scope = name == "period" ? Scope::kPeriod : Scope::kConversation;
  return read_count(text.substr(std::min(colon + 1, text.size())), entry.number);
}

Result<LedgerEntry> parse_entry(std::string_view line, size_t number) {
  const auto fields = fields_of(line);
  if (fields.size() != kFields || fields[0] != "rows") return broken(number, "not nine fields");
  LedgerEntry entry;
  if (!read_count(fields[1], entry.rows)) return broken(number, "bad count");
  if (!read_scope(fields[2], entry)) return broken(number, "bad scope");
  entry.key = {std::string(fields[3]), std::string(fields[4])};
  if (!validate(entry.key)) return broken(number, "bad model or server");
  auto spec = MechanismSpec::parse(fields[5]);
  if (!spec || !spec->is_resolved()) return broken(number, "bad mechanism");
  entry.mechanism.spec = *spec;
  uint64_t width = 0;
  if (!read_count(fields[6], width) || width == 0 || width > kMaxWidth)
    return broken(number, "bad width");
  entry.mechanism.width = width;
  Clip& clip = entry.mechanism.clip;
  if (!read_double(fields[7], clip.coordinate) || !read_double(fields[8], clip.norm_l2) ||
      !clip.validate())
    return broken(number, "bad clip");
  return entry;
}

Status parse_conversations(std::string_view line, LedgerState& state) {
  const auto fields = fields_of(line);
  const bool whole = fields.size() == 3 && fields[0] == "conversations" &&
                     read_count(fields[1], state.first_conversation) &&
                     read_count(fields[2], state.next_conversation);
  // Leaves ids to go on with.
  if (!whole || state.first_conversation == 0 ||
      state.first_conversation > state.next_conversation ||
      state.next_conversation > std::numeric_limits<int64_t>::max())
    return broken(2, "bad conversation numbers");
  return {};
}

}  // namespace

Status validate(const LedgerKey& key) {
  const auto valid = [](const std::string& name) {
    if (name.empty() || name.size() > 256) return false;
    for (const char c : name)
      if (c <= ' ' || c > '~') return false;
    return true;
  };
  if (valid(key.model) && valid(key.server)) return {};
  return fail(ErrorCode::kInvalidArgument,
              "ledger: model and server must be 1 to 256 printable characters without spaces");
}

std::string format_ledger(const LedgerState& state) {
  std::string out(kTitle);
  out += "conversations " + std::to_string(state.first_conversation) + " " +
         std::to_string(state.next_conversation) + "\n";
  for (const LedgerEntry& entry : state.entries) {
    const MechanismId& id = entry.mechanism;
    out += "rows " + std::to_string(entry.rows) + " " + scope_text(entry) + " " + entry.key.model +
           " " + entry.key.server + " " + id.spec.to_string() + " " + std::to_string(id.width) +
           " " + number_text(id.clip.coordinate) + " " + number_text(id.clip.norm_l2) + "\n";
  }
  return seal_ledger(std::move(out));
}

std::string seal_ledger(std::string text) {
  text += checksum_line(text);
  return text;
}

Result<LedgerState> parse_ledger(std::string_view text) {
  const size_t seal = kChecksum.size() + kHexBytes + 1;
  if (text.size() < kTitle.size() + seal ||
      text.substr(text.size() - seal, kChecksum.size()) != kChecksum)
    return fail(ErrorCode::kTruncated, "ledger: file does not end with its checksum");
  const std::string_view body = text.substr(0, text.size() - seal);
  if (text.substr(body.size()) != checksum_line(body))
    return fail(ErrorCode::kCorrupt, "ledger: checksum does not match");
  if (!body.starts_with(kTitle)) return broken(1, "not a ledger of version 1");

  LedgerState state;
  size_t number = 2;
  bool numbers_seen = false;
  for (size_t begin = kTitle.size(); begin < body.size(); ++number) {
    const size_t end = body.find('\n', begin);
    if (end == std::string_view::npos) return broken(number, "does not end");
    const std::string_view line = body.substr(begin, end - begin);
    begin = end + 1;
    if (!numbers_seen) {
      ISTHMUS_TRY(parse_conversations(line, state));
      numbers_seen = true;
      continue;
    }
    ISTHMUS_ASSIGN(LedgerEntry entry, parse_entry(line, number));
    state.entries.push_back(std::move(entry));
  }
  if (!numbers_seen) return broken(2, "is missing");
  return state;
}

}  // namespace isthmus::privacy

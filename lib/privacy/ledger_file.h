// The ledger as text, and text as a file that is replaced as a whole. Private.
//
// Lines end with a newline, fields are separated by single spaces:
//   isthmus-privacy-ledger 1
//   conversations <first kept> <next>
//   rows <count> <scope> <model> <server> <mechanism> <width> <coordinate clip> <norm clip>
//   checksum <BLAKE2b-256 of everything above, hex>
// A scope is "total", "period:<start, seconds since 1970>" or "conversation:<id>". The checksum
// finds accidents; it cannot find an owner who restores an old copy.
#pragma once

#include <isthmus/privacy/ledger.h>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::privacy {

enum class Scope : uint8_t { kTotal, kPeriod, kConversation };

/// What identifies a mechanism: all its guarantee depends on.
struct MechanismId {
  MechanismSpec spec;  ///< resolved
  size_t width = 0;
  Clip clip;
  friend bool operator==(const MechanismId&, const MechanismId&) = default;
};

struct LedgerEntry {
  LedgerKey key;
  Scope scope = Scope::kTotal;
  uint64_t number = 0;  ///< start of the period, or id of the conversation; 0 for the total
  MechanismId mechanism;
  uint64_t rows = 0;
  friend bool operator==(const LedgerEntry&, const LedgerEntry&) = default;
};

struct LedgerState {
  uint64_t first_conversation = 1;  ///< lower ids are retired
  uint64_t next_conversation = 1;
  std::vector<LedgerEntry> entries;
  friend bool operator==(const LedgerState&, const LedgerState&) = default;
};

/// A file is refused beyond this, and never written beyond it.
inline constexpr size_t kMaxLedgerBytes = size_t{4} << 20;

/// \returns kInvalidArgument.
[[nodiscard]] Status validate(const LedgerKey& key);
[[nodiscard]] std::string format_ledger(const LedgerState& state);
/// `text` with its checksum line.
[[nodiscard]] std::string seal_ledger(std::string text);
/// Reads a file that may hold anything. \returns kTruncated when its checksum line is missing,
/// kCorrupt naming the line.
[[nodiscard]] Result<LedgerState> parse_ledger(std::string_view text);

/// Exclusive access to a ledger's file, for as long as it lives. Waits up to 10 s for others.
class LedgerFile {
 public:
  [[nodiscard]] static Result<LedgerFile> lock(const std::filesystem::path& file);
  LedgerFile(LedgerFile&& other) noexcept;
  LedgerFile& operator=(LedgerFile&&) = delete;
  ~LedgerFile();

  /// None yet: an empty state. \returns as Ledger::open.
  [[nodiscard]] Result<LedgerState> read() const;
  /// Replaces the file; when this returns well the new one is on disk. \returns kTooLarge, kIo.
  [[nodiscard]] Status write(const LedgerState& state);

 private:
  LedgerFile(int lock, std::filesystem::path file) : lock_(lock), file_(std::move(file)) {}

  int lock_;  // descriptor of the lock file; it is not empty once the ledger has been written
  std::filesystem::path file_;
};

}  // namespace isthmus::privacy

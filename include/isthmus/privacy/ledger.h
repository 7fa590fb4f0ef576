// What an installation has told its servers, and the budgets that end the telling.
//
// The ledger is one file. It counts released rows per mechanism, for each (model, server): facts,
// from which epsilon follows at any delta. Epsilons and budgets are a server's, over all its
// models: one text told to two of them is told twice. Rows are counted, and the count is on disk,
// before they are sent; they are reserved ahead in blocks so that decoding does not wait for the
// disk. A crash leaves at most a block counted that was never sent, never the other way round.
//
// What to charge: every row that is drawn and sent. Resending the bytes of an earlier draw is free.
// For generated tokens see charges_generated_rows.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/privacy/mechanism.h>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>

namespace isthmus::privacy {

/// Whether the rows of generated tokens are new releases. At cut 0 the row is a function of a token
/// that the server knows already, unless the choice read the clean text (a repetition penalty, an
/// edit by the user). From layer 1 on the row also depends on the clean prompt in the front's
/// cache, so it always is one.
[[nodiscard]] constexpr bool charges_generated_rows(size_t cut, bool choice_reads_clean_text) {
  return cut > 0 || choice_reads_clean_text;
}

/// Both names are 1 to 256 printable ASCII characters without spaces, for example a fingerprint and
/// a public key.
struct LedgerKey {
  std::string model;   ///< whose inputs the rows are; for the record alone
  std::string server;  ///< whom releases add up for
  friend auto operator<=>(const LedgerKey&, const LedgerKey&) = default;
};

/// The most that may be told together; no limit when infinite.
struct Budget {
  double epsilon = std::numeric_limits<double>::infinity();  ///< above 0
  double delta = 1e-5;                                       ///< in (0, 1)
};

struct LedgerOptions {
  std::filesystem::path file;  ///< in a folder that exists; a lock file is kept beside it
  Budget conversation;         ///< of one conversation with one server
  Budget period;               ///< of all conversations with one server within a period
  std::chrono::seconds period_length = std::chrono::hours(24 * 30);  ///< at least a minute
  uint64_t block_rows = 64;  ///< reserved ahead: 1 to 2^20; lost to the budget in a crash

  /// \returns kInvalidArgument naming the field and its value.
  [[nodiscard]] Status validate() const;
};

/// Seconds since 1970. A clock that is put back does not open a period again.
using UnixClock = std::function<int64_t()>;
[[nodiscard]] int64_t system_unix_seconds();

/// What was told so far, this conversation's unused reservation taken off.
struct PrivacySpent {
  double conversation_epsilon = 0;  ///< at the conversation budget's delta
  double period_epsilon = 0;        ///< at the period budget's delta
  double total_epsilon = 0;         ///< to this server ever, at the period budget's delta
  uint64_t conversation_rows = 0;
};

class Ledger;

/// The account of one conversation. Holds the block reserved ahead and gives the rest of it back
/// when destroyed. Not thread-safe; the ledger must outlive it.
class Conversation {
 public:
  Conversation(Conversation&& other) noexcept;
  Conversation& operator=(Conversation&&) = delete;
  ~Conversation();

  /// Names it for `Ledger::resume`, also in later processes.
  [[nodiscard]] uint64_t id() const { return id_; }

  /// Counts `rows` rows about to be drawn. When this returns well they are on disk as spent.
  /// \returns kBudgetSpent when they would pass a budget, kNotFound when the conversation has been
  /// retired, kTimeout when another process holds the file for 10 s, kCorrupt and others as
  /// `Ledger::open`, kIo; nothing is charged then, and nothing may be sent.
  [[nodiscard]] Status charge(const Mechanism& mechanism, uint64_t rows);

  /// Takes back the charge of `rows` rows that were not drawn after all, and never will be. Does
  /// nothing for what was charged for another mechanism since, or in an earlier period.
  void refund(uint64_t rows);

  /// Reads the file. \returns errors as `charge`, but for kBudgetSpent.
  [[nodiscard]] Result<PrivacySpent> spent() const;

 private:
  friend class Ledger;
  Conversation(Ledger& ledger, LedgerKey key, uint64_t id);

  struct Block;
  Ledger* ledger_;
  LedgerKey key_;
  uint64_t id_;
  std::unique_ptr<Block> block_;
};

/// Thread-safe; any number of processes may use the same file.
class Ledger {
 public:
  /// Opens the ledger, or begins one where none was.
  /// \returns kInvalidArgument; kCorrupt when the file is broken, or gone although it was used;
  /// kTruncated, kTooLarge, kIo, kTimeout. A broken file is never replaced: whoever owns it
  /// decides.
  [[nodiscard]] static Result<std::unique_ptr<Ledger>> open(const LedgerOptions& options,
                                                            UnixClock clock = system_unix_seconds);
  ~Ledger();

  /// \returns kInvalidArgument for a bad key; errors as `open`.
  [[nodiscard]] Result<Conversation> begin(const LedgerKey& key);
  /// \returns kNotFound for a conversation that never was or has been retired: the ledger keeps the
  /// latest 1024.
  [[nodiscard]] Result<Conversation> resume(const LedgerKey& key, uint64_t id);

 private:
  friend class Conversation;
  class Impl;
  explicit Ledger(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus::privacy

#include <isthmus/privacy/accountant.h>
#include <isthmus/privacy/ledger.h>

#include <algorithm>
#include <cmath>
#include <mutex>

#include "ledger_file.h"
#include "row_mechanism.h"

namespace isthmus::privacy {
namespace {

constexpr uint64_t kKeptConversations = 1024;
constexpr uint64_t kMostRows = uint64_t{1} << 40;  // charged at once
constexpr uint64_t kMostCounted = std::numeric_limits<uint64_t>::max();

/// Finds or makes the entry.
LedgerEntry& entry_of(LedgerState& state, const LedgerEntry& wanted) {
  for (LedgerEntry& entry : state.entries)
    if (entry.scope == wanted.scope && entry.number == wanted.number && entry.key == wanted.key &&
        entry.mechanism == wanted.mechanism)
      return entry;
  state.entries.push_back(wanted);
  return state.entries.back();
}

Status check_conversation(const LedgerState& state, uint64_t id) {
  if (id >= state.first_conversation && id < state.next_conversation) return {};
  return fail(ErrorCode::kNotFound, "ledger: conversation " + std::to_string(id) +
                                        " is not among those kept, " +
                                        std::to_string(state.first_conversation) + " to " +
                                        std::to_string(state.next_conversation - 1));
}

Status validate_budget(const char* name, const Budget& budget) {
  if (!(budget.epsilon > 0))
    return refused(std::string(name) + " epsilon", budget.epsilon, "above 0");
  if (!(budget.delta > 0 && budget.delta < 1))
    return refused(std::string(name) + " delta", budget.delta, "between 0 and 1");
  return {};
}

}  // namespace

/// Rows reserved and not yet used. They count for one period and one mechanism.
struct Conversation::Block {
  MechanismId mechanism;
  uint64_t period = 0;
  uint64_t left = 0;
  uint64_t charged = 0;  // of this mechanism in this period: what may be refunded
};

class Ledger::Impl {
 public:
  Impl(const LedgerOptions& options, UnixClock clock)
      : options_(options), clock_(std::move(clock)) {}

  [[nodiscard]] Result<uint64_t> begin() const {
    ISTHMUS_ASSIGN(LedgerFile file, LedgerFile::lock(options_.file));
    ISTHMUS_ASSIGN(LedgerState state, file.read());
    const uint64_t id = state.next_conversation++;
    if (state.next_conversation - state.first_conversation > kKeptConversations) {
      state.first_conversation = state.next_conversation - kKeptConversations;
      std::erase_if(state.entries, [&](const LedgerEntry& entry) {
        return entry.scope == Scope::kConversation && entry.number < state.first_conversation;
      });
    }
    ISTHMUS_TRY(file.write(state));
    return id;
  }

  [[nodiscard]] Result<LedgerState> read() const {
    ISTHMUS_ASSIGN(const LedgerFile file, LedgerFile::lock(options_.file));
    return file.read();
  }

  /// Fills the block up to at least `rows`, further if the budgets allow.
  [[nodiscard]] Status reserve(const LedgerKey& key, uint64_t id, Conversation::Block& block,
                               uint64_t rows) {
    ISTHMUS_ASSIGN(LedgerFile file, LedgerFile::lock(options_.file));
    ISTHMUS_ASSIGN(LedgerState state, file.read());
    ISTHMUS_TRY(check_conversation(state, id));
    settle_period(state, key.server, block);
    const uint64_t missing = rows - std::min(rows, block.left);
    for (uint64_t ahead = options_.block_rows;; ahead /= 2) {
      LedgerState next = state;
      const Status fits = add(next, key, id, block, missing + ahead);
      if (!fits && fits.error().code == ErrorCode::kBudgetSpent && ahead > 0) continue;
      ISTHMUS_TRY(fits);
      ISTHMUS_TRY(file.write(next));
      block.left += missing + ahead;
      return {};
    }
  }

  /// Takes unused rows off again. They are not used afterwards whatever becomes of the file.
  [[nodiscard]] Status give_back(const LedgerKey& key, uint64_t id, Conversation::Block& block) {
    const uint64_t left = std::exchange(block.left, 0);
    if (left == 0) return {};
    ISTHMUS_ASSIGN(LedgerFile file, LedgerFile::lock(options_.file));
    ISTHMUS_ASSIGN(LedgerState state, file.read());
    for (LedgerEntry& entry : state.entries) {
      const bool ours = entry.scope == Scope::kTotal ||
                        (entry.scope == Scope::kPeriod && entry.number == block.period) ||
                        (entry.scope == Scope::kConversation && entry.number == id);
      if (!ours || entry.key != key || entry.mechanism != block.mechanism) continue;
      if (entry.rows < left)
        return fail(ErrorCode::kCorrupt, "ledger: fewer rows are counted than were reserved");
      entry.rows -= left;
    }
    return file.write(state);
  }

  /// Told to the server, about the inputs of all its models: they may be one text.
  [[nodiscard]] Result<double> epsilon(const LedgerState& state, const std::string& server,
                                       Scope scope, uint64_t number, double delta) {
    const std::lock_guard lock(mutex_);
    std::vector<Release> releases;
    for (const LedgerEntry& entry : state.entries) {
      if (entry.key.server != server || entry.scope != scope || entry.number != number) continue;
      ISTHMUS_ASSIGN(const Mechanism* mechanism, mechanism_of(entry.mechanism));
      const auto same = std::ranges::find(releases, mechanism, &Release::mechanism);
      if (same == releases.end())
        releases.push_back({mechanism, entry.rows});
      else  // another model's; together they are accounted for more tightly
        same->rows += std::min(entry.rows, kMostCounted - same->rows);
    }
    return composed_epsilon(releases, delta);
  }

  /// Start of the server's current period: never before one on record.
  [[nodiscard]] uint64_t period(const LedgerState& state, const std::string& server) const {
    uint64_t start = current_period();
    for (const LedgerEntry& entry : state.entries)
      if (entry.scope == Scope::kPeriod && entry.key.server == server)
        start = std::max(start, entry.number);
    return start;
  }
  [[nodiscard]] uint64_t current_period() const {
    const auto length = static_cast<uint64_t>(options_.period_length.count());
    const auto now = static_cast<uint64_t>(std::max<int64_t>(clock_(), 0));
    return now - now % length;
  }

  [[nodiscard]] const LedgerOptions& options() const { return options_; }

 private:
  /// Drops the server's entries of earlier periods, and from the block what was reserved in one.
  void settle_period(LedgerState& state, const std::string& server,
                     Conversation::Block& block) const {
    const uint64_t start = period(state, server);
    std::erase_if(state.entries, [&](const LedgerEntry& entry) {
      return entry.scope == Scope::kPeriod && entry.key.server == server && entry.number < start;
    });
    if (block.period != start) block.left = block.charged = 0;
    block.period = start;
  }

  [[nodiscard]] Status add(LedgerState& state, const LedgerKey& key, uint64_t id,
                           const Conversation::Block& block, uint64_t rows) {
    LedgerEntry wanted{.key = key, .mechanism = block.mechanism};
    const auto count = [&](Scope scope, uint64_t number) -> Status {
      wanted.scope = scope;
      wanted.number = number;
      LedgerEntry& entry = entry_of(state, wanted);
      if (entry.rows > kMostCounted - rows)
        return fail(ErrorCode::kBudgetSpent, "ledger: the count of rows is full");
      entry.rows += rows;
      return {};
    };
    ISTHMUS_TRY(count(Scope::kTotal, 0));
    ISTHMUS_TRY(count(Scope::kPeriod, block.period));
    ISTHMUS_TRY(count(Scope::kConversation, id));
    ISTHMUS_TRY(
        check(state, key.server, Scope::kConversation, id, "conversation", options_.conversation));
    return check(state, key.server, Scope::kPeriod, block.period, "period", options_.period);
  }

  [[nodiscard]] Status check(const LedgerState& state, const std::string& server, Scope scope,
                             uint64_t number, const char* name, const Budget& budget) {
    if (std::isinf(budget.epsilon)) return {};
    ISTHMUS_ASSIGN(const double spent, epsilon(state, server, scope, number, budget.delta));
    if (spent <= budget.epsilon) return {};
    return fail(ErrorCode::kBudgetSpent, std::string("ledger: ") + name + " would reach epsilon " +
                                             number_text(spent) + " with server " + server +
                                             ", its budget is " + number_text(budget.epsilon) +
                                             " at delta " + number_text(budget.delta));
  }

  /// Made once for each mechanism that the file names.
  [[nodiscard]] Result<const Mechanism*> mechanism_of(const MechanismId& id) {
    for (const auto& made : mechanisms_)
      if (made->spec() == id.spec && made->width() == id.width && made->clip() == id.clip)
        return made.get();
    ISTHMUS_ASSIGN(auto made, make_mechanism(id.spec, id.width, id.clip));
    mechanisms_.push_back(std::move(made));
    return mechanisms_.back().get();
  }

  LedgerOptions options_;
  UnixClock clock_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Mechanism>> mechanisms_;  // guarded by mutex_
};

Status LedgerOptions::validate() const {
  if (file.empty()) return fail(ErrorCode::kInvalidArgument, "ledger: no file is named");
  ISTHMUS_TRY(validate_budget("conversation", conversation));
  ISTHMUS_TRY(validate_budget("period", period));
  if (period_length < std::chrono::minutes(1))
    return refused("period length", static_cast<double>(period_length.count()), "at least 60 s");
  if (block_rows == 0 || block_rows > uint64_t{1} << 20)
    return refused("block rows", static_cast<double>(block_rows), "from 1 to 1048576");
  return {};
}

int64_t system_unix_seconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

Conversation::Conversation(Ledger& ledger, LedgerKey key, uint64_t id)
    : ledger_(&ledger), key_(std::move(key)), id_(id), block_(std::make_unique<Block>()) {}

Conversation::Conversation(Conversation&& other) noexcept = default;

Conversation::~Conversation() {
  // Should this fail the rows stay counted, which errs to the safe side.
  if (block_) (void)ledger_->impl_->give_back(key_, id_, *block_);
}

Status Conversation::charge(const Mechanism& mechanism, uint64_t rows) {
  if (rows == 0) return {};
  Ledger::Impl& ledger = *ledger_->impl_;
  const MechanismId id{mechanism.spec(), mechanism.width(), mechanism.clip()};
  // What was reserved counts for the mechanism and the period it was reserved in.
  if (block_->mechanism != id || block_->period < ledger.current_period()) {
    ISTHMUS_TRY(ledger.give_back(key_, id_, *block_));
    block_->mechanism = id;
    block_->charged = 0;
  }
  if (rows > kMostRows)
    return fail(
        ErrorCode::kInvalidArgument,
        "ledger: " + std::to_string(rows) + " rows at once, at most " + std::to_string(kMostRows));
  if (block_->left < rows) ISTHMUS_TRY(ledger.reserve(key_, id_, *block_, rows));
  block_->left -= rows;
  block_->charged += rows;
  return {};
}

void Conversation::refund(uint64_t rows) {
  const uint64_t known = std::min(rows, block_->charged);
  block_->charged -= known;
  block_->left += known;
}

Result<PrivacySpent> Conversation::spent() const {
  Ledger::Impl& ledger = *ledger_->impl_;
  ISTHMUS_ASSIGN(LedgerState state, ledger.read());
  ISTHMUS_TRY(check_conversation(state, id_));
  PrivacySpent out;
  for (LedgerEntry& entry : state.entries) {
    const bool other = entry.scope == Scope::kConversation && entry.number != id_;
    const bool past = entry.scope == Scope::kPeriod && entry.number != block_->period;
    if (!other && !past && entry.key == key_ && entry.mechanism == block_->mechanism)
      entry.rows -= std::min(entry.rows, block_->left);
    if (!other && entry.key.server == key_.server && entry.scope == Scope::kConversation)
      out.conversation_rows += entry.rows;
  }
  const LedgerOptions& options = ledger.options();
  const std::string& server = key_.server;
  const uint64_t period = ledger.period(state, server);
  ISTHMUS_ASSIGN(out.conversation_epsilon, ledger.epsilon(state, server, Scope::kConversation, id_,
                                                          options.conversation.delta));
  ISTHMUS_ASSIGN(out.period_epsilon,
                 ledger.epsilon(state, server, Scope::kPeriod, period, options.period.delta));
  ISTHMUS_ASSIGN(out.total_epsilon,
                 ledger.epsilon(state, server, Scope::kTotal, 0, options.period.delta));
  return out;
}

Ledger::Ledger(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Ledger::~Ledger() = default;

Result<std::unique_ptr<Ledger>> Ledger::open(const LedgerOptions& options, UnixClock clock) {
  ISTHMUS_TRY(options.validate());
  auto impl = std::make_unique<Impl>(options, std::move(clock));
  ISTHMUS_TRY(impl->read());
  return std::unique_ptr<Ledger>(new Ledger(std::move(impl)));
}

Result<Conversation> Ledger::begin(const LedgerKey& key) {
  ISTHMUS_TRY(validate(key));
  ISTHMUS_ASSIGN(const uint64_t id, impl_->begin());
  return Conversation(*this, key, id);
}

Result<Conversation> Ledger::resume(const LedgerKey& key, uint64_t id) {
  ISTHMUS_TRY(validate(key));
  ISTHMUS_ASSIGN(const LedgerState state, impl_->read());
  ISTHMUS_TRY(check_conversation(state, id));
  return Conversation(*this, key, id);
}

}  // namespace isthmus::privacy

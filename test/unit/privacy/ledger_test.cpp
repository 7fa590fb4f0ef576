#include <isthmus/privacy/accountant.h>
#include <isthmus/privacy/ledger.h>
#include <sys/stat.h>

#include <atomic>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>

#include "ledger_file.h"
#include "support/catch.h"
#include "support/temp_folder.h"

namespace isthmus::privacy {
namespace {

constexpr int64_t kDay = 86400;
const LedgerKey kKey{"model-a", "server-1"};

std::unique_ptr<Mechanism> mechanism(const std::string& text = "dgauss:mu=1") {
  return test::value_of(
      make_mechanism(test::value_of(MechanismSpec::parse(text)), 16, {.coordinate = 1}));
}

/// A ledger in a folder of its own, at a time of its own.
struct Fixture {
  test::TempFolder folder;
  int64_t now = 1'700'000'000;
  LedgerOptions options{.file = folder.path() / "ledger"};

  std::unique_ptr<Ledger> open() {
    return test::value_of(Ledger::open(options, [this] { return now; }));
  }
  std::string text() const {
    std::ifstream file(options.file);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void write(const std::string& text) const { std::ofstream(options.file) << text; }
  LedgerState state() const { return test::value_of(parse_ledger(text())); }
  uint64_t rows(Scope scope, uint64_t number) const {
    uint64_t sum = 0;
    for (const LedgerEntry& entry : state().entries)
      if (entry.scope == scope && entry.number == number) sum += entry.rows;
    return sum;
  }
  uint64_t total() const { return rows(Scope::kTotal, 0); }
};

TEST_CASE("rows are on disk before charge returns, ahead by a block at most", "[privacy][ledger]") {
  Fixture f;
  f.options.block_rows = 8;
  const auto ledger = f.open();
  const auto m = mechanism();
  auto conversation = test::value_of(ledger->begin(kKey));
  for (uint64_t charged = 1; charged <= 50; ++charged) {
    REQUIRE(conversation.charge(*m, 1));
    CHECK(f.total() >= charged);
    CHECK(f.total() <= charged + 8);
    CHECK(f.rows(Scope::kConversation, conversation.id()) == f.total());
  }
  REQUIRE(conversation.charge(*m, 1000));
  CHECK(f.total() >= 1050);
}

TEST_CASE("a conversation that ends well gives back what it did not use", "[privacy][ledger]") {
  Fixture f;
  const auto ledger = f.open();
  const auto m = mechanism();
  uint64_t id = 0;
  {
    auto conversation = test::value_of(ledger->begin(kKey));
    id = conversation.id();
    REQUIRE(conversation.charge(*m, 5));
    CHECK(f.total() == 5 + f.options.block_rows);
    const auto moved = std::move(conversation);
  }
  CHECK(f.total() == 5);
  auto resumed = test::value_of(ledger->resume(kKey, id));
  REQUIRE(resumed.charge(*m, 2));
  CHECK(test::value_of(resumed.spent()).conversation_rows == 7);
}

TEST_CASE("spending is what the accountant says of the rows charged", "[privacy][ledger]") {
  Fixture f;
  const auto ledger = f.open();
  const auto a = mechanism();
  const auto b = mechanism("binomial:2:mu=1");
  auto first = test::value_of(ledger->begin(kKey));
  auto second = test::value_of(ledger->begin(kKey));
  auto elsewhere = test::value_of(ledger->begin({"model-a", "server-2"}));
  REQUIRE(first.charge(*a, 3));
  REQUIRE(first.charge(*b, 4));
  REQUIRE(first.charge(*a, 2));
  REQUIRE(second.charge(*a, 10));
  REQUIRE(elsewhere.charge(*a, 100));

  const auto spent = test::value_of(first.spent());
  const std::vector<Release> mine{{a.get(), 5}, {b.get(), 4}};
  CHECK(spent.conversation_rows == 9);
  CHECK(spent.conversation_epsilon == Approx(composed_epsilon(mine, 1e-5)));
  CHECK(test::value_of(second.spent()).conversation_epsilon == Approx(a->epsilon(10, 1e-5)));
  CHECK(test::value_of(elsewhere.spent()).period_epsilon == Approx(a->epsilon(100, 1e-5)));
}

TEST_CASE("a spent conversation budget is an error and nothing is charged", "[privacy][ledger]") {
  Fixture f;
  const auto m = mechanism();
  f.options.conversation = {m->epsilon(20, 1e-6), 1e-6};
  const auto ledger = f.open();
  auto conversation = test::value_of(ledger->begin(kKey));
  for (int i = 0; i < 20; ++i) REQUIRE(conversation.charge(*m, 1));
  CHECK_FAILS_WITH(conversation.charge(*m, 1), ErrorCode::kBudgetSpent);
  CHECK_FAILS_WITH(conversation.charge(*m, 1000), ErrorCode::kBudgetSpent);
  CHECK(f.total() == 20);
  CHECK(test::value_of(conversation.spent()).conversation_epsilon <=
        f.options.conversation.epsilon);
  // Other conversations have their own, also after a refusal too large to fit.
  auto other = test::value_of(ledger->begin(kKey));
  CHECK_FAILS_WITH(other.charge(*m, 21), ErrorCode::kBudgetSpent);
  CHECK(other.charge(*m, 20).has_value());
  CHECK(f.total() == 40);
}

TEST_CASE("rows that were not drawn are given back, within their mechanism and period",
          "[privacy][ledger]") {
  Fixture f;
  const auto m = mechanism();
  const auto other = mechanism("dgauss:mu=2");
  f.options.conversation = {m->epsilon(20, 1e-6), 1e-6};
  f.options.period_length = std::chrono::hours(24);
  f.options.block_rows = 4;
  const auto ledger = f.open();
  {
    auto conversation = test::value_of(ledger->begin(kKey));
    REQUIRE(conversation.charge(*m, 20));
    conversation.refund(15);
    CHECK(test::value_of(conversation.spent()).conversation_rows == 5);
    REQUIRE(conversation.charge(*m, 15));  // fits the budget again
    CHECK_FAILS_WITH(conversation.charge(*m, 1), ErrorCode::kBudgetSpent);
    conversation.refund(100);  // more than was ever charged
    CHECK(test::value_of(conversation.spent()).conversation_rows == 0);
  }
  CHECK(f.total() == 0);
  {
    auto conversation = test::value_of(ledger->begin(kKey));
    REQUIRE(conversation.charge(*m, 6));
    REQUIRE(conversation.charge(*other, 1));
    conversation.refund(6);  // of which only the one row is of this mechanism
  }
  CHECK(f.total() == 6);
  {
    auto conversation = test::value_of(ledger->begin(kKey));
    REQUIRE(conversation.charge(*m, 6));
    f.now += kDay;
    REQUIRE(conversation.charge(*m, 2));
    conversation.refund(8);
  }
  CHECK(f.total() == 12);
}

TEST_CASE("a period's budget covers all conversations and comes back with the next",
          "[privacy][ledger]") {
  Fixture f;
  const auto m = mechanism();
  f.options.period = {m->epsilon(20, 1e-5), 1e-5};
  f.options.period_length = std::chrono::hours(24);
  const auto ledger = f.open();
  auto first = test::value_of(ledger->begin(kKey));
  auto second = test::value_of(ledger->begin(kKey));
  REQUIRE(first.charge(*m, 15));  // reserves to the brim
  CHECK_FAILS_WITH(second.charge(*m, 6), ErrorCode::kBudgetSpent);
  auto elsewhere = test::value_of(ledger->begin({"model-a", "server-2"}));
  CHECK(elsewhere.charge(*m, 20).has_value());

  f.now += kDay;
  CHECK(second.charge(*m, 6).has_value());
  // What the first reserved yesterday does not count for today.
  CHECK_FAILS_WITH(first.charge(*m, 20), ErrorCode::kBudgetSpent);
}

TEST_CASE("the models of one server share its budget", "[privacy][ledger]") {
  Fixture f;
  const auto m = mechanism();
  const auto wider = test::value_of(
      make_mechanism(test::value_of(MechanismSpec::parse("dgauss:mu=1")), 32, {.coordinate = 1}));
  f.options.period = {m->epsilon(20, 1e-5), 1e-5};
  f.options.period_length = std::chrono::hours(24);
  const auto ledger = f.open();
  auto first = test::value_of(ledger->begin(kKey));
  auto second = test::value_of(ledger->begin({"model-b", kKey.server}));
  REQUIRE(first.charge(*m, 15));
  CHECK_FAILS_WITH(second.charge(*m, 6), ErrorCode::kBudgetSpent);
  CHECK_FAILS_WITH(second.charge(*wider, 20), ErrorCode::kBudgetSpent);
  REQUIRE(second.charge(*m, 1));
  const auto spent = test::value_of(second.spent());
  CHECK(spent.conversation_rows == 1);
  CHECK(spent.conversation_epsilon == Approx(m->epsilon(1, 1e-5)));
  // What the first has reserved counts as spent for others.
  CHECK(spent.period_epsilon >= m->epsilon(16, 1e-5));
  CHECK(spent.period_epsilon <= f.options.period.epsilon);

  f.now -= 100 * kDay;
  auto third = test::value_of(ledger->begin({"model-c", kKey.server}));
  CHECK_FAILS_WITH(third.charge(*m, 20), ErrorCode::kBudgetSpent);
  f.now += 101 * kDay;
  CHECK(third.charge(*m, 20).has_value());
}

TEST_CASE("rows reserved in one period are not spent in the next", "[privacy][ledger]") {
  Fixture f;
  f.options.period_length = std::chrono::hours(24);
  const auto ledger = f.open();
  const auto m = mechanism();
  auto conversation = test::value_of(ledger->begin(kKey));
  REQUIRE(conversation.charge(*m, 1));
  f.now += kDay;
  REQUIRE(conversation.charge(*m, 1));
  const uint64_t today = static_cast<uint64_t>(f.now - f.now % kDay);
  CHECK(f.rows(Scope::kPeriod, today) >= 1);
  CHECK(f.rows(Scope::kPeriod, today - kDay) == 0);
  CHECK(f.total() >= 2);
}

TEST_CASE("a clock put back does not open a period again", "[privacy][ledger]") {
  Fixture f;
  const auto m = mechanism();
  f.options.period = {m->epsilon(20, 1e-5), 1e-5};
  f.options.period_length = std::chrono::hours(24);
  const auto ledger = f.open();
  auto conversation = test::value_of(ledger->begin(kKey));
  REQUIRE(conversation.charge(*m, 20));
  f.now -= 100 * kDay;
  CHECK_FAILS_WITH(conversation.charge(*m, 1), ErrorCode::kBudgetSpent);
  f.now = -5;
  CHECK_FAILS_WITH(conversation.charge(*m, 1), ErrorCode::kBudgetSpent);
}

TEST_CASE("a ledger opened again goes on where it was", "[privacy][ledger]") {
  Fixture f;
  const auto m = mechanism();
  f.options.conversation = {m->epsilon(20, 1e-5), 1e-5};
  uint64_t id = 0;
  {
    const auto ledger = f.open();
    auto conversation = test::value_of(ledger->begin(kKey));
    id = conversation.id();
    REQUIRE(conversation.charge(*m, 15));
  }
  const auto ledger = f.open();
  auto conversation = test::value_of(ledger->resume(kKey, id));
  CHECK_FAILS_WITH(conversation.charge(*m, 6), ErrorCode::kBudgetSpent);
  CHECK(conversation.charge(*m, 5).has_value());
  CHECK(test::value_of(ledger->begin(kKey)).id() > id);
}

TEST_CASE("two ledgers on one file share the budget", "[privacy][ledger]") {
  Fixture f;
  const auto m = mechanism();
  f.options.period = {m->epsilon(100, 1e-5), 1e-5};
  f.options.block_rows = 4;
  std::atomic<uint64_t> charged = 0;
  {
    const auto first = f.open();
    const auto second = f.open();
    auto a = test::value_of(first->begin(kKey));
    auto b = test::value_of(second->begin(kKey));
    const auto charge_all = [&](Conversation& conversation) {
      for (;;) {
        const Status status = conversation.charge(*m, 1);
        // A busy disk may keep the other one waiting; it tries again.
        if (!status && status.error().code != ErrorCode::kTimeout) return;
        if (status) ++charged;
      }
    };
    std::thread other([&] { charge_all(b); });
    charge_all(a);
    other.join();
  }
  // At the end one may have a block reserved when the other is refused.
  CHECK(charged <= 100);
  CHECK(charged >= 96);
  CHECK(f.total() == charged);
}

TEST_CASE("conversations that never were, or were retired, are not resumed", "[privacy][ledger]") {
  Fixture f;
  const auto ledger = f.open();
  const auto m = mechanism();
  CHECK_FAILS_WITH(ledger->resume(kKey, 0), ErrorCode::kNotFound);
  CHECK_FAILS_WITH(ledger->resume(kKey, 1), ErrorCode::kNotFound);
  auto first = test::value_of(ledger->begin(kKey));
  REQUIRE(first.charge(*m, f.options.block_rows));
  LedgerState state = f.state();
  state.next_conversation += 1023;
  f.write(format_ledger(state));
  CHECK(ledger->resume(kKey, first.id()).has_value());
  (void)test::value_of(ledger->begin(kKey));
  CHECK_FAILS_WITH(ledger->resume(kKey, first.id()), ErrorCode::kNotFound);
  CHECK_FAILS_WITH(first.charge(*m, 1000), ErrorCode::kNotFound);
  CHECK(f.rows(Scope::kConversation, first.id()) == 0);
  CHECK(f.total() >= f.options.block_rows);  // the total stays
}

TEST_CASE("impossible options and keys are refused", "[privacy][ledger]") {
  Fixture f;
  const auto refused = [&](auto change) {
    LedgerOptions options = f.options;
    change(options);
    CHECK_FAILS_WITH(Ledger::open(options), ErrorCode::kInvalidArgument);
  };
  refused([](LedgerOptions& o) { o.file.clear(); });
  for (const double bad : {0.0, -1.0, std::nan("")}) {
    refused([&](LedgerOptions& o) { o.conversation.epsilon = bad; });
    refused([&](LedgerOptions& o) { o.period.epsilon = bad; });
  }
  for (const double bad : {0.0, -1.0, 1.0, std::nan(""), HUGE_VAL}) {
    refused([&](LedgerOptions& o) { o.conversation.delta = bad; });
    refused([&](LedgerOptions& o) { o.period.delta = bad; });
  }
  refused([](LedgerOptions& o) { o.period_length = std::chrono::seconds(0); });
  refused([](LedgerOptions& o) { o.period_length = std::chrono::seconds(-60); });
  refused([](LedgerOptions& o) { o.block_rows = 0; });
  refused([](LedgerOptions& o) { o.block_rows = UINT64_MAX; });

  const auto ledger = f.open();
  for (const std::string& bad : {std::string(), std::string("a b"), std::string("a\nb"),
                                 std::string(257, 'a'), std::string("\xc3\xa4")}) {
    CHECK_FAILS_WITH(ledger->begin({bad, "server"}), ErrorCode::kInvalidArgument);
    CHECK_FAILS_WITH(ledger->begin({"model", bad}), ErrorCode::kInvalidArgument);
    CHECK_FAILS_WITH(ledger->resume({"model", bad}, 1), ErrorCode::kInvalidArgument);
  }
  auto conversation = test::value_of(ledger->begin(kKey));
  CHECK_FAILS_WITH(conversation.charge(*mechanism(), UINT64_MAX), ErrorCode::kInvalidArgument);
  CHECK(conversation.charge(*mechanism(), 0).has_value());
  CHECK(f.total() == 0);
}

TEST_CASE("a broken file is refused and left as it is", "[privacy][ledger]") {
  Fixture f;
  {
    const auto ledger = f.open();
    auto conversation = test::value_of(ledger->begin(kKey));
    REQUIRE(conversation.charge(*mechanism(), 5));
  }
  const std::string good = f.text();
  const auto refused = [&](const std::string& text) {
    f.write(text);
    const auto ledger = Ledger::open(f.options);
    REQUIRE_FALSE(ledger.has_value());
    const ErrorCode code = ledger.error().code;
    CHECK((code == ErrorCode::kCorrupt || code == ErrorCode::kTruncated));
    CHECK(f.text() == text);
  };
  for (size_t length = 0; length < good.size(); ++length) refused(good.substr(0, length));
  for (size_t i = 0; i < good.size(); ++i) {
    std::string changed = good;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    refused(changed);
  }
  f.write(good);
  CHECK(Ledger::open(f.options).has_value());
}

TEST_CASE("a ledger that is gone is not begun anew", "[privacy][ledger]") {
  Fixture f;
  const auto ledger = f.open();
  auto conversation = test::value_of(ledger->begin(kKey));
  std::filesystem::remove(f.options.file);
  CHECK_FAILS_WITH(conversation.charge(*mechanism(), 1), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(Ledger::open(f.options), ErrorCode::kCorrupt);
  CHECK_FALSE(std::filesystem::exists(f.options.file));
}

TEST_CASE("a file that cannot be reached is an error", "[privacy][ledger]") {
  Fixture f;
  f.options.file = f.folder.path() / "no" / "ledger";
  CHECK_FAILS_WITH(Ledger::open(f.options), ErrorCode::kIo);
  f.options.file = f.folder.path() / "folder";
  std::filesystem::create_directory(f.options.file);
  CHECK_FAILS_WITH(Ledger::open(f.options), ErrorCode::kIo);
  f.options.file = f.folder.path() / "large";
  f.write(std::string(kMaxLedgerBytes + 1, 'x'));
  CHECK_FAILS_WITH(Ledger::open(f.options), ErrorCode::kTooLarge);
}

TEST_CASE("a lock that is never let go is an error after a while", "[privacy][ledger]") {
  Fixture f;
  const auto ledger = f.open();
  auto conversation = test::value_of(ledger->begin(kKey));
  const auto held = test::value_of(LedgerFile::lock(f.options.file));
  CHECK_FAILS_WITH(conversation.charge(*mechanism(), 1), ErrorCode::kTimeout);
}

TEST_CASE("only the owner reads the ledger", "[privacy][ledger]") {
  Fixture f;
  (void)test::value_of(f.open()->begin(kKey));
  for (const char* end : {"", ".lock"}) {
    struct stat about {};
    REQUIRE(stat((f.options.file.string() + end).c_str(), &about) == 0);
    CHECK((about.st_mode & 0777) == 0600);
  }
}

TEST_CASE("a ledger and its text are the same thing", "[privacy][ledger]") {
  LedgerState state{3, 17, {}};
  const MechanismId ball{test::value_of(MechanismSpec::parse("binomial:4:mu=0.1:delta=1e-07")),
                         576,
                         {0.1, 3.0000000000000004}};
  const MechanismId cube{
      test::value_of(MechanismSpec::parse("rqm:3:range=2")), 1, {.coordinate = 7}};
  state.entries = {{kKey, Scope::kTotal, 0, ball, 5},
                   {{"m", "~!@#$%^&*"}, Scope::kPeriod, 1'699'920'000, cube, UINT64_MAX},
                   {kKey, Scope::kConversation, 16, cube, 0}};
  CHECK(test::value_of(parse_ledger(format_ledger(state))) == state);
  CHECK(test::value_of(parse_ledger(format_ledger({}))) == LedgerState());
}

TEST_CASE("a line with a right checksum and a wrong field is refused", "[privacy][ledger]") {
  const std::string head = "isthmus-privacy-ledger 1\nconversations 1 5\n";
  const std::string line = "rows 5 total m s dgauss:mu=1 16 1 inf\n";
  REQUIRE(parse_ledger(seal_ledger(head + line)).has_value());
  const std::string broken = GENERATE(
      "rows 5 total m s dgauss:mu=1 16 1 inf", "rows -5 total m s dgauss:mu=1 16 1 inf\n",
      "rows 05 total m s dgauss:mu=1 16 1 inf\n", "rows 5x total m s dgauss:mu=1 16 1 inf\n",
      "rows 18446744073709551616 total m s dgauss:mu=1 16 1 inf\n",
      "rows 5 all m s dgauss:mu=1 16 1 inf\n", "rows 5 period m s dgauss:mu=1 16 1 inf\n",
      "rows 5 period:x m s dgauss:mu=1 16 1 inf\n", "rows 5 total  s dgauss:mu=1 16 1 inf\n",
      "rows 5 total m \x01 dgauss:mu=1 16 1 inf\n", "rows 5 total m s dgauss:mu=0 16 1 inf\n",
      "rows 5 total m s dgauss:eps=1 16 1 inf\n", "rows 5 total m s laplace:mu=1 16 1 inf\n",
      "rows 5 total m s dgauss:mu=1 0 1 inf\n", "rows 5 total m s dgauss:mu=1 65537 1 inf\n",
      "rows 5 total m s dgauss:mu=1 16 nan inf\n", "rows 5 total m s dgauss:mu=1 16 -1 inf\n",
      "rows 5 total m s dgauss:mu=1 16 1\n", "rows 5 total m s dgauss:mu=1 16 1 inf 1\n",
      "row 5 total m s dgauss:mu=1 16 1 inf\n", "\n", "rows\n");
  CAPTURE(broken);
  CHECK_FAILS_WITH(parse_ledger(seal_ledger(head + broken)), ErrorCode::kCorrupt);
  for (const char* numbers : {"", "conversations 0 5\n", "conversations 6 5\n", "conversations 1\n",
                              "conversations 1 18446744073709551615\n", "conversations 1 5 6\n"})
    CHECK_FAILS_WITH(parse_ledger(seal_ledger("isthmus-privacy-ledger 1\n" + std::string(numbers))),
                     ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(parse_ledger(seal_ledger("isthmus-privacy-ledger 2\nconversations 1 5\n")),
                   ErrorCode::kCorrupt);
}

TEST_CASE("generated rows are charged wherever they carry something new", "[privacy][ledger]") {
  CHECK_FALSE(charges_generated_rows(0, false));
  CHECK(charges_generated_rows(0, true));
  CHECK(charges_generated_rows(1, false));
  CHECK(charges_generated_rows(28, true));
}

}  // namespace
}  // namespace isthmus::privacy

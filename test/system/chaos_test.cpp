// Servers die at random moments while four devices generate: every reply is finished, with the
// tokens of an undisturbed one.
//
// ISTHMUS_CHAOS_KILLS=100 makes the long run that lib/edge/README.md quotes; a few kills when it is
// not set.
#include <isthmus/edge/device.h>

#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>

#include "server_process.h"

namespace isthmus {
namespace {

using std::chrono::milliseconds;
using test::value_of;

/// A server that can be killed and started again at the same address.
class MortalServer {
 public:
  MortalServer() { start("127.0.0.1:0"); }

  void restart() {
    process_->signal(SIGKILL);
    process_->wait();
    const size_t colon = address_.rfind(':', address_.find('?'));
    start("127.0.0.1:" + address_.substr(colon + 1, address_.find('?') - colon - 1));
  }
  [[nodiscard]] const std::string& address() const { return address_; }

 private:
  void start(const std::string& bind) {
    process_ = std::make_unique<test::Process>(
        std::vector<std::string>{test::kBin + "/isthmus-server", "--model", test::kModel, "--bind",
                                 bind, "--allow-any-client", "--threads", "1", "--quiet"},
        std::map<std::string, std::string>{{"ISTHMUS_HOME", home_.path().string()}});
    address_ = process_->read_line();
  }

  test::TempFolder home_;
  std::unique_ptr<test::Process> process_;
  std::string address_;
};

/// What one of the four devices does.
struct Client {
  int32_t cut = 0;
  float temperature = 0;
  bool noised = false;

  std::atomic<bool> in_prompt = false;
  int replies = 0;
  int wrong = 0;
  uint64_t resumes = 0;
  uint64_t released_rows = 0;
  uint64_t ledger_rows = 0;
  std::string error;
};

const std::string kStory = [] {
  std::string text = "Continue this list of numbers as well as you can:";
  for (int i = 0; i < 120; ++i) text.append(" ").append(std::to_string(i * i));
  return text;
}();

edge::GenerateOptions generate_options(const Client& client) {
  edge::GenerateOptions options{.max_tokens = 40};
  options.sampling = {.temperature = client.temperature, .top_k = 40, .seed = 12};
  return options;
}

class Run {
 public:
  Run(std::vector<std::string> addresses, size_t first, Client& client)
      : client_(client),
        device_(value_of(edge::Device::load(
            {.model = test::kModel, .cut = client.cut, .tail = {}, .threads = 1}))) {
    options_.server = addresses[first];
    options_.fallback_servers = {addresses[1 - first]};
    options_.keys = transport::generate_keys();
    options_.max_tokens = 1024;
    options_.reconnect_timeout = milliseconds(500);
    options_.resume_timeout = std::chrono::minutes(5);
    if (!client.noised) return;
    options_.codec = value_of(codec::CodecSpec::parse("rotate|clip:max=2|binomial:8:mu=2000|rans"));
    options_.ledger = value_of(privacy::Ledger::open({.file = folder_.path() / "ledger"}));
  }

  // The undisturbed reply. Noise differs from run to run: then only resuming itself, which demands
  // the same tokens of the same bytes, can tell.
  void prepare() { expected_ = value_of(reply()).token_ids; }

  // Runs in a thread, where a failed check could not be reported: it counts.
  void repeat(const std::atomic<bool>& stop) {
    while (!stop && client_.error.empty()) {
      const Result<edge::Reply> made = reply();
      if (!made) {
        client_.error = made.error().message;
        return;
      }
      ++client_.replies;
      client_.resumes += made->resumes;
      if (!client_.noised && made->token_ids != expected_) ++client_.wrong;
    }
  }

 private:
  Result<edge::Reply> reply() {
    ISTHMUS_ASSIGN(edge::Session session, open());
    client_.in_prompt = true;
    Result<edge::Reply> made =
        session.say(kStory, generate_options(client_), [&](std::string_view text) {
          if (!text.empty()) client_.in_prompt = false;
          return true;
        });
    client_.in_prompt = false;
    if (made && client_.noised) {
      client_.released_rows += made->released_rows;
      ISTHMUS_ASSIGN(const auto report, session.privacy());
      client_.ledger_rows += report.value().spent.conversation_rows;
    }
    return made;
  }

  // Opening is not resuming: while both servers are down it is the caller's to try again.
  Result<edge::Session> open() {
    for (int attempt = 0;; ++attempt) {
      Result<edge::Session> session = device_.open_session(options_);
      if (session || attempt == 100) return session;
      std::this_thread::sleep_for(milliseconds(50));
    }
  }

  test::TempFolder folder_;
  Client& client_;
  edge::Device device_;
  edge::SessionOptions options_;
  std::vector<int32_t> expected_;
};

TEST_CASE("every reply survives the deaths of its servers", "[system][chaos]") {
  const char* wanted = std::getenv("ISTHMUS_CHAOS_KILLS");
  const int kills = wanted != nullptr ? std::atoi(wanted) : 6;
  std::array<MortalServer, 2> servers;
  const std::vector<std::string> addresses = {servers[0].address(), servers[1].address()};
  std::array<Client, 4> clients;
  clients[1].temperature = clients[3].temperature = 0.8F;
  clients[3].noised = true;
  std::vector<std::unique_ptr<Run>> runs;
  for (size_t i = 0; i < clients.size(); ++i) {
    clients[i].cut = static_cast<int32_t>(1 + 3 * i);
    runs.push_back(std::make_unique<Run>(addresses, i % 2, clients[i]));
    runs.back()->prepare();
  }

  std::atomic<bool> stop = false;
  std::vector<std::thread> threads;
  for (const auto& run : runs) threads.emplace_back([&] { run->repeat(stop); });
  std::mt19937 random(1);
  const auto someone_in_prompt = [&] {
    return std::any_of(clients.begin(), clients.end(),
                       [](const Client& c) { return c.in_prompt.load(); });
  };
  int in_prompt = 0;
  for (int kill = 0; kill < kills; ++kill) {
    std::this_thread::sleep_for(milliseconds(500 + random() % 2000));
    // At least a third of them while a prompt is on its way.
    for (int waited = 0; kill % 3 == 0 && !someone_in_prompt() && waited < 2000; ++waited)
      std::this_thread::sleep_for(milliseconds(2));
    in_prompt += someone_in_prompt() ? 1 : 0;
    servers[random() % 2].restart();
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();

  uint64_t resumes = 0;
  int replies = 0;
  for (const Client& client : clients) {
    CAPTURE(client.cut, client.error);
    CHECK(client.error.empty());
    CHECK(client.wrong == 0);
    CHECK(client.replies > 0);
    CHECK(client.ledger_rows == client.released_rows);
    resumes += client.resumes;
    replies += client.replies;
  }
  CHECK(resumes > 0);
  CHECK(3 * in_prompt >= kills);
  std::printf("%d kills, %d of them during a prompt; %d replies finished, %llu takeovers\n", kills,
              in_prompt, replies, static_cast<unsigned long long>(resumes));
}

}  // namespace
}  // namespace isthmus

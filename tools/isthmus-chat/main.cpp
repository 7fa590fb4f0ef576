// isthmus-chat: talks to a model whose first layers run here and whose others run on a server.
#include <isthmus/core/clock.h>
#include <isthmus/core/random.h>
#include <isthmus/edge/device.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "common/command_line.h"
#include "common/terminal.h"
#include "options.h"
#include "report.h"

namespace isthmus::tools {
namespace {

constexpr const char* kTool = "isthmus-chat";

volatile std::sig_atomic_t interrupted = 0;

// The first Ctrl-C ends the reply at the next token; a second one ends the program, whatever it
// waits for.
void interrupt(int) {
  interrupted = 1;
  std::signal(SIGINT, SIG_DFL);
}

/// One conversation on the terminal or in a pipe.
class Chat {
 public:
  Chat(edge::Session& session, const ChatFlags& flags, const RunFigures& figures,
       std::optional<PlanFollower> plan)
      : session_(session), flags_(flags), figures_(figures), plan_(std::move(plan)) {}

  Status say(const std::string& text) {
    std::vector<text::ChatMessage> messages;
    if (first_ && !flags_.system.empty()) messages.push_back({text::Role::kSystem, flags_.system});
    messages.push_back({text::Role::kUser, text});
    edge::GenerateOptions options = flags_.generate;
    options.sampling.seed = flags_.seed ? *flags_.seed : SystemRandom().next_u64();

    interrupted = 0;
    std::signal(SIGINT, interrupt);
    ISTHMUS_ASSIGN(const edge::Reply reply,
                   session_.generate(messages, options, [this](std::string_view piece) {
                     if (!flags_.json) show(piece);
                     show_budget();
                     return interrupted == 0;
                   }));
    first_ = first_ && reply.token_ids.empty();
    ISTHMUS_ASSIGN(const std::optional<edge::PrivacyReport> privacy, session_.privacy());
    figures_.seed = options.sampling.seed;
    figures_.peak_resident_mb = peak_resident_mb();
    if (flags_.verify.share > 0) figures_.verification = session_.verification();
    if (flags_.json) {
      std::printf("%s\n", to_json(reply, figures_, privacy).c_str());
    } else {
      std::printf("\n");
      std::fflush(stdout);
      const bool colour = is_terminal(stderr);
      std::string lines = summary(reply, figures_);
      if (privacy) lines += "told so far: " + spent_text(*privacy, budget()) + "\n";
      std::fprintf(stderr, "%s%s%s", colour ? "\033[2m" : "", lines.c_str(),
                   colour ? "\033[0m" : "");
    }
    return check_plan(reply);
  }

  Status converse() {
    const bool watching = is_terminal(stdin) && is_terminal(stdout);
    if (watching)
      std::printf("Type a message; Ctrl-C stops a reply, Ctrl-D ends the conversation.\n");
    std::string line;
    while (true) {
      if (watching) {
        std::printf("> ");
        std::fflush(stdout);
      }
      if (!std::getline(std::cin, line)) break;
      if (line.empty()) continue;
      if (Status said = say(line); !said) {
        // A full context or a lost server ends the conversation; anything else is worth another
        // try.
        const ErrorCode code = said.error().code;
        if (!watching || code == ErrorCode::kContextFull || code == ErrorCode::kUnknownSession ||
            code == ErrorCode::kBudgetSpent)
          return said;
        report(kTool, said.error());
      }
    }
    if (watching) std::printf("\n");
    return {};
  }

 private:
  static void show(std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  }

  // The window's title while a reply is made, at most twice a second: it does not get in the way of
  // the text.
  void show_budget() {
    constexpr double kPause = 0.5;
    if (flags_.json || !is_terminal(stderr) || seconds_between(shown_, clock_.now()) < kPause)
      return;
    shown_ = clock_.now();
    const auto privacy = session_.privacy();
    if (privacy && *privacy)
      std::fprintf(stderr, "\033]2;%s: %s\a", kTool, spent_text(**privacy, budget()).c_str());
  }

  Status check_plan(const edge::Reply& reply) {
    if (!plan_) return {};
    ISTHMUS_ASSIGN(const std::string found, plan_->observe(reply));
    if (!found.empty()) std::fprintf(stderr, "%s: %s\n", kTool, found.c_str());
    return {};
  }

  [[nodiscard]] double budget() const {
    return flags_.budget.value_or(std::numeric_limits<double>::infinity());
  }

  edge::Session& session_;
  const ChatFlags& flags_;
  RunFigures figures_;
  std::optional<PlanFollower> plan_;
  bool first_ = true;
  SteadyClock clock_;
  Clock::TimePoint shown_;
};

Status run(const ChatFlags& flags) {
  ISTHMUS_ASSIGN(const ChatFiles files, read_files(flags));
  ISTHMUS_ASSIGN(const edge::SessionOptions session_settings, session_options(flags, files));
  ISTHMUS_ASSIGN(edge::DeviceOptions device_settings, device_options(flags, files));
  const SteadyClock clock;
  const Clock::TimePoint start = clock.now();
  Result<edge::Device> device = [&] {
    ProgressBar bar("loading");
    device_settings.progress = [&bar](double fraction) { bar.update(fraction); };
    return edge::Device::load(device_settings);
  }();
  if (!device) return propagate(std::move(device));
  const double load_s = seconds_between(start, clock.now());
  ISTHMUS_ASSIGN(edge::Session session, device->open_session(session_settings));

  RunFigures figures;
  figures.load_s = load_s;
  figures.hidden_size = device->config().hidden_size;
  figures.weight_mb = static_cast<double>(device->engine_info().weight_bytes) / 1e6;
  std::optional<PlanFollower> follower;
  if (files.plan && files.plan->token_seconds > 0) follower.emplace(flags.plan, *files.plan);
  Chat chat(session, flags, figures, std::move(follower));
  const Status said = flags.prompt ? chat.say(*flags.prompt) : chat.converse();
  const auto privacy = session.privacy();
  if (privacy && *privacy && !flags.json)
    std::fprintf(stderr, "%s", (*privacy)->statement.to_string().c_str());
  ISTHMUS_TRY(said);
  if (!privacy) return tl::unexpected<Error>(privacy.error());
  return check_output();
}

int main(int argc, char** argv) {
  CLI::App app(
      "Talks to a language model whose first layers run here and whose others run on a server.",
      kTool);
  ChatFlags flags;
  declare(app, flags);
  return run_tool(
      app, argc, argv, [&] { check(flags); }, [&] { return run(flags); });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}

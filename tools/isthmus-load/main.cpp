// isthmus-load: many simulated devices at one server, and what they get.
#include <isthmus/core/clock.h>
#include <isthmus/transport/channel.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <mutex>
#include <thread>

#include "common/command_line.h"
#include "common/terminal.h"
#include "device.h"
#include "options.h"
#include "recording.h"
#include "report.h"
#include "workload.h"

namespace isthmus::tools {
namespace {

constexpr const char* kTool = "isthmus-load";
using std::chrono::nanoseconds;

std::atomic<bool> stop_requested = false;

void request_stop(int) {
  stop_requested = true;
}

nanoseconds in_seconds(double seconds) {
  return std::chrono::duration_cast<nanoseconds>(std::chrono::duration<double>(seconds));
}

Result<transport::ChannelOptions> channel_options(const LoadFlags& flags) {
  transport::ChannelOptions options;
  ISTHMUS_ASSIGN(options.server, transport::ServerAddress::parse(flags.server));
  options.allow_plaintext = flags.insecure;
  if (!flags.own_keys) {
    const transport::KeyPaths paths =
        flags.home.empty() ? transport::KeyPaths::standard() : transport::KeyPaths::in(flags.home);
    ISTHMUS_ASSIGN(options.keys, transport::load_or_create_keys(paths.client_key));
  }
  return options;
}

Result<std::vector<transport::Channel>> connect_all(const LoadFlags& flags, int count) {
  ISTHMUS_ASSIGN(transport::ChannelOptions options, channel_options(flags));
  std::vector<transport::Channel> channels;
  ProgressBar bar("connecting");
  for (int i = 0; i < count; ++i) {
    if (flags.own_keys) options.keys = transport::generate_keys();
    ISTHMUS_ASSIGN(transport::Channel channel,
                   transport::Channel::connect(options, std::chrono::seconds(20)));
    channels.push_back(std::move(channel));
    bar.update(static_cast<double>(i + 1) / count);
  }
  return channels;
}

Result<Workload*> make_workload(const LoadFlags& flags, std::optional<Workload>& place) {
  if (!flags.trace.empty()) {
    ISTHMUS_ASSIGN(std::vector<Request> requests, read_trace(flags));
    return &place.emplace(std::move(requests));
  }
  if (flags.rate > 0) return &place.emplace(poisson(flags));
  return &place.emplace(Request{{}, flags.prompt_tokens, flags.output_tokens});
}

/// Runs all devices, each on a thread of its own, until the time is over.
class Crowd {
 public:
  Crowd(const LoadFlags& flags, const std::vector<Recording>& recordings, Workload& workload)
      : flags_(flags), recordings_(recordings), workload_(workload), start_(clock_.now()) {}

  Run run(std::vector<transport::Channel> channels) {
    run_.devices = static_cast<size_t>(flags_.devices);
    run_.warm_up = in_seconds(flags_.warm_up_s);
    run_.end = in_seconds(flags_.duration_s);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < channels.size(); ++i) {
      const bool intrudes = i == run_.devices;
      threads.emplace_back([this, i, intrudes, channel = std::move(channels[i])]() mutable {
        SimulatedDevice device(std::move(channel), recordings_[i % recordings_.size()], clock_,
                               start_, in_seconds(flags_.timeout_s),
                               static_cast<uint32_t>(flags_.chunk), i);
        intrudes ? intrude(device) : work(device);
      });
    }
    wait_for_end();
    for (std::thread& thread : threads) thread.join();
    return std::move(run_);
  }

 private:
  [[nodiscard]] nanoseconds now() const { return clock_.now() - start_; }

  void work(SimulatedDevice& device) {
    while (!stop_) {
      const std::optional<Request> request = workload_.next(now());
      if (!request || !sleep_until(request->at)) return;
      Outcome outcome = device.serve(*request, stop_);
      const std::lock_guard lock(mutex_);
      run_.requests.emplace_back(*request, std::move(outcome));
    }
  }

  void intrude(SimulatedDevice& device) {
    const Request request{in_seconds((flags_.warm_up_s + flags_.duration_s) / 2),
                          flags_.intruder_tokens, 1};
    if (!sleep_until(request.at)) return;
    Outcome outcome = device.serve(request, stop_);
    const std::lock_guard lock(mutex_);
    run_.intruder.emplace_back(request, std::move(outcome));
  }

  /// False when the run ends first.
  bool sleep_until(nanoseconds time) {
    while (!stop_ && now() < time) {
      std::this_thread::sleep_for(std::min<nanoseconds>(time - now(), in_seconds(0.1)));
    }
    return !stop_;
  }

  void wait_for_end() {
    ProgressBar bar("loading the server");
    while (!stop_requested && now() < run_.end) {
      std::this_thread::sleep_for(std::min<nanoseconds>(run_.end - now(), in_seconds(0.05)));
      bar.update(static_cast<double>(now().count()) / static_cast<double>(run_.end.count()));
    }
    run_.end = std::max(std::min(run_.end, now()), run_.warm_up + nanoseconds(1));
    stop_ = true;
  }

  const LoadFlags& flags_;
  const std::vector<Recording>& recordings_;
  Workload& workload_;
  SteadyClock clock_;
  Clock::TimePoint start_;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  Run run_;
};

Status run(const LoadFlags& flags) {
  std::optional<Workload> place;
  ISTHMUS_ASSIGN(Workload * workload, make_workload(flags, place));
  ISTHMUS_ASSIGN(const std::vector<Recording> recordings, record(flags));
  ISTHMUS_ASSIGN(std::vector<transport::Channel> channels,
                 connect_all(flags, flags.devices + (flags.intruder_tokens > 0 ? 1 : 0)));
  const Report report = summarise(Crowd(flags, recordings, *workload).run(std::move(channels)));
  std::fputs((flags.json ? to_json(report) : to_text(report)).c_str(), stdout);
  return check_output();
}

int main(int argc, char** argv) {
  CLI::App app("Simulates many devices at one server and reports what they get.", kTool);
  LoadFlags flags;
  declare(app, flags);
  return run_tool(
      app, argc, argv, [&] { check(flags); },
      [&] {
        std::signal(SIGINT, request_stop);
        std::signal(SIGTERM, request_stop);
        return run(flags);
      });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}

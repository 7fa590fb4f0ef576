#include "probe.h"

#include <isthmus/core/clock.h>
#include <isthmus/core/random.h>
#include <isthmus/transport/address.h>
#include <isthmus/transport/channel.h>
#include <isthmus/wire/messages.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "common/terminal.h"
#include "stopwatch.h"

namespace isthmus::tools {
namespace {

using std::chrono::milliseconds;

constexpr size_t kFirstBytes = 16 << 10;
// Servers of narrow models refuse larger messages.
constexpr size_t kMostBytes = 64 << 10;
constexpr double kLongEnough = 0.25;  // seconds beyond the round trip that make a rate certain
constexpr int kRateProbes = 7;

/// Pings one server, one at a time.
class Pinger {
 public:
  static Result<Pinger> connect(const ServerFlags& flags) {
    transport::ChannelOptions options;
    ISTHMUS_ASSIGN(options.server, transport::ServerAddress::parse(flags.server));
    options.allow_plaintext = flags.insecure;
    if (!options.server.public_key.empty()) {
      const transport::KeyPaths paths = flags.home.empty() ? transport::KeyPaths::standard()
                                                           : transport::KeyPaths::in(flags.home);
      ISTHMUS_ASSIGN(options.keys, transport::load_or_create_keys(paths.client_key));
    }
    const milliseconds timeout(static_cast<int64_t>(1000 * flags.timeout_s));
    ISTHMUS_ASSIGN(transport::Channel channel, transport::Channel::connect(options, timeout));
    return Pinger(std::move(channel), timeout);
  }

  /// What came back, once it has.
  Result<std::vector<std::byte>> ping(wire::PingReply reply,
                                      const std::vector<std::byte>& payload) {
    const uint64_t id = ++last_id_;
    ISTHMUS_TRY(
        channel_.send({wire::encode({.request_id = id, .body = wire::Ping{reply}}), payload}));
    // A large message on a slow link takes longer than the timeout of an answer: wait for any
    // number of them as long as the connection lives.
    const Clock::TimePoint deadline = clock_.now() + 12 * timeout_;
    while (clock_.now() < deadline) {
      ISTHMUS_ASSIGN(std::optional<transport::Message> message, channel_.receive(timeout_));
      if (!message) continue;
      ISTHMUS_ASSIGN(const wire::Envelope envelope, wire::decode(message->envelope));
      if (envelope.request_id != id) continue;
      if (const auto* failure = std::get_if<wire::Failure>(&envelope.body))
        return fail(failure->code, failure->message);
      if (std::holds_alternative<wire::Pong>(envelope.body)) return std::move(message->payload);
      return fail(ErrorCode::kCorrupt, "the server answered a ping with something else");
    }
    return fail(ErrorCode::kTimeout, "the server did not answer a ping");
  }

  /// Seconds of `count` pings, sorted.
  Result<std::vector<double>> time(int count, wire::PingReply reply,
                                   const std::vector<std::byte>& payload) {
    std::vector<double> times;
    for (int i = 0; i < count; ++i) {
      const Clock::TimePoint start = clock_.now();
      ISTHMUS_TRY(ping(reply, payload));
      times.push_back(seconds_between(start, clock_.now()));
    }
    std::sort(times.begin(), times.end());
    return times;
  }

 private:
  Pinger(transport::Channel channel, milliseconds timeout)
      : channel_(std::move(channel)), timeout_(timeout) {}

  transport::Channel channel_;
  milliseconds timeout_;
  SteadyClock clock_;
  uint64_t last_id_ = 0;
};

/// Bits per second of what `extra_seconds(payload)` takes, with payloads that grow until the time
/// is certain.
template <typename ExtraSeconds>
Result<double> rate(const ExtraSeconds& extra_seconds) {
  for (size_t bytes = kFirstBytes;; bytes *= 4) {
    std::vector<std::byte> payload(bytes);
    SystemRandom().fill(payload);  // nothing on the way can compress it
    ISTHMUS_ASSIGN(const double seconds, extra_seconds(payload));
    if (seconds >= kLongEnough || bytes >= kMostBytes)
      return 8 * static_cast<double>(bytes) / std::max(seconds, 1e-6);
  }
}

}  // namespace

Result<planner::LinkProfile> probe_link(const ServerFlags& flags) {
  ISTHMUS_ASSIGN(Pinger pinger, Pinger::connect(flags));
  ProgressBar progress("probing the link");
  ISTHMUS_TRY(pinger.ping(wire::PingReply::kNothing, {}));  // wakes both sides
  ISTHMUS_ASSIGN(const std::vector<double> round_trips,
                 pinger.time(flags.probes, wire::PingReply::kNothing, {}));
  planner::LinkProfile link{.rtt_seconds = quantile(round_trips, 0.5),
                            .rtt_p95_seconds = quantile(round_trips, 0.95)};
  progress.update(0.4);
  const auto median = [&](wire::PingReply reply, const std::vector<std::byte>& payload) {
    return pinger.time(kRateProbes, reply, payload).map([](const std::vector<double>& times) {
      return quantile(times, 0.5);
    });
  };
  ISTHMUS_ASSIGN(link.up_bits_per_second, rate([&](const std::vector<std::byte>& payload) {
                   return median(wire::PingReply::kNothing, payload).map([&](double seconds) {
                     return seconds - link.rtt_seconds;
                   });
                 }));
  progress.update(0.7);
  // There and back, less the way there.
  ISTHMUS_ASSIGN(link.down_bits_per_second,
                 rate([&](const std::vector<std::byte>& payload) -> Result<double> {
                   ISTHMUS_ASSIGN(const double there, median(wire::PingReply::kNothing, payload));
                   ISTHMUS_ASSIGN(const double both, median(wire::PingReply::kEcho, payload));
                   return both - there;
                 }));
  ISTHMUS_TRY(link.validate());
  return link;
}

Result<std::string> fetch_profile(const ServerFlags& flags) {
  ISTHMUS_ASSIGN(Pinger pinger, Pinger::connect(flags));
  ISTHMUS_ASSIGN(const auto payload, pinger.ping(wire::PingReply::kProfile, {}));
  if (payload.empty()) {
    return fail(ErrorCode::kNotFound,
                "the server has no profile: start it with --profile FILE, made there by "
                "isthmus-plan profile");
  }
  std::string text(reinterpret_cast<const char*>(payload.data()), payload.size());
  ISTHMUS_TRY(planner::parse_machine(text, "the server's profile"));
  return text;
}

}  // namespace isthmus::tools

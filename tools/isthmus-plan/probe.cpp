#include "probe.h"

#include <isthmus/core/clock.h>
#include <isthmus/core/random.h>
#include <isthmus/transport/address.h>
#include <isthmus/transport/channel.h>
#include <isthmus/wire/messages.h>

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "common/terminal.h"
#include "stopwatch.h"

namespace isthmus::tools {
namespace {

using std::chrono::milliseconds;

constexpr size_t kMessageBytes = 64 << 10;  // servers of narrow models refuse larger ones
constexpr int kMostMessages = 8;            // at once: fewer than a server buffers
constexpr double kLongEnough = 0.2;         // seconds beyond the round trip
constexpr int kRateProbes = 5;

/// Pings one server.
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
    ISTHMUS_TRY(send(reply, payload));
    return receive_last();
  }

  /// Seconds until the last of `count` pings that are sent at once is answered.
  Result<double> burst(int count, const std::vector<std::byte>& payload) {
    const Clock::TimePoint start = clock_.now();
    for (int i = 0; i < count; ++i) ISTHMUS_TRY(send(wire::PingReply::kNothing, payload));
    ISTHMUS_TRY(receive_last());
    return seconds_between(start, clock_.now());
  }

  /// Seconds of `count` pings, sorted.
  Result<std::vector<double>> time(int count, wire::PingReply reply,
                                   const std::vector<std::byte>& payload) {
    std::vector<double> times;
    for (int i = 0; i < count; ++i) {
      // Both sides fall asleep in between, as while the other one computes.
      std::this_thread::sleep_for(milliseconds(2));
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

  Status send(wire::PingReply reply, const std::vector<std::byte>& payload) {
    return channel_.send(
        {wire::encode({.request_id = ++last_id_, .body = wire::Ping{reply}}), payload});
  }

  // The payload of the answer to the last ping; those to earlier ones are passed over.
  Result<std::vector<std::byte>> receive_last() {
    // A large message on a slow link takes longer than the timeout of an answer: wait for any
    // number of them as long as the connection lives.
    const Clock::TimePoint deadline = clock_.now() + 12 * timeout_;
    while (clock_.now() < deadline) {
      ISTHMUS_ASSIGN(std::optional<transport::Message> message, channel_.receive(timeout_));
      if (!message) continue;
      ISTHMUS_ASSIGN(const wire::Envelope envelope, wire::decode(message->envelope));
      if (envelope.request_id != last_id_) continue;
      if (const auto* failure = std::get_if<wire::Failure>(&envelope.body))
        return fail(failure->code, failure->message);
      if (std::holds_alternative<wire::Pong>(envelope.body)) return std::move(message->payload);
      return fail(ErrorCode::kCorrupt, "the server answered a ping with something else");
    }
    return fail(ErrorCode::kTimeout, "the server did not answer a ping");
  }

  transport::Channel channel_;
  milliseconds timeout_;
  SteadyClock clock_;
  uint64_t last_id_ = 0;
};

/// Bytes that nothing on the way can compress.
std::vector<std::byte> noise(size_t size) {
  std::vector<std::byte> bytes(size);
  SystemRandom().fill(bytes);
  return bytes;
}

/// Bits per second up, from bursts that grow until their time is certain.
Result<double> rate_up(Pinger& pinger, double rtt_s) {
  for (int count = 1;; count *= 2) {
    std::vector<double> times;
    for (int i = 0; i < kRateProbes; ++i) {
      ISTHMUS_ASSIGN(const double seconds, pinger.burst(count, noise(kMessageBytes)));
      times.push_back(seconds - rtt_s);
    }
    std::sort(times.begin(), times.end());
    const double seconds = quantile(times, 0.5);
    if (seconds >= kLongEnough || count == kMostMessages)
      return 8.0 * kMessageBytes * count / std::max(seconds, 1e-6);
  }
}

/// Bits per second down, from messages there and back, less the way there.
Result<double> rate_down(Pinger& pinger) {
  const std::vector<std::byte> payload = noise(kMessageBytes);
  ISTHMUS_ASSIGN(const auto there, pinger.time(kRateProbes, wire::PingReply::kNothing, payload));
  ISTHMUS_ASSIGN(const auto both, pinger.time(kRateProbes, wire::PingReply::kEcho, payload));
  return 8.0 * kMessageBytes / std::max(quantile(both, 0.5) - quantile(there, 0.5), 1e-6);
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
  ISTHMUS_ASSIGN(link.up_bits_per_second, rate_up(pinger, link.rtt_seconds));
  progress.update(0.7);
  ISTHMUS_ASSIGN(link.down_bits_per_second, rate_down(pinger));
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

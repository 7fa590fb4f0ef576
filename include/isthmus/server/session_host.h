// The server's side of the protocol without its sockets: one message in, one message out.
//
// Everything a client sends is treated as hostile. A session belongs to the key that opened it.
// Steps are idempotent: the answer to the last one is kept and given again when it is repeated.
#pragma once

#include <isthmus/codec/calibration.h>
#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <isthmus/transport/channel.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace isthmus::server {

/// Limits of a server; what a session is granted is never above them.
struct ServerOptions {
  int32_t max_sessions = 16;      ///< open at the same time, at least 1
  int32_t max_tokens = 4096;      ///< KV capacity of one session, at least 1
  int32_t max_step_tokens = 256;  ///< boundary rows in one step, in [1, 4096]
  int32_t max_queue = 64;  ///< messages waiting for their turn; more are answered Busy; at least 1
  std::chrono::seconds idle_timeout{600};  ///< a session unused for longer is closed
  /// Those that clients' codecs may name.
  std::vector<std::shared_ptr<const codec::Calibration>> calibrations;

  /// \returns kInvalidArgument naming the field and its value.
  [[nodiscard]] Status validate() const;
  /// The largest payload a client may send to a model of this hidden size.
  [[nodiscard]] size_t max_payload_bytes(size_t hidden_size) const;
};

/// Something an operator wants to know. Never holds prompts, outputs, activations or secret keys.
struct Event {
  enum class Kind : uint8_t { kOpened, kRefused, kClosed, kExpired, kFailed };
  Kind kind = Kind::kFailed;
  uint64_t session = 0;  ///< 0 when there is none
  std::string_view
      client;  ///< the client's public key, empty without encryption; valid during the call
  std::string_view detail;  ///< valid during the call
};
using EventSink = std::function<void(const Event&)>;

/// All sessions of a server, over one engine. Not thread-safe. Borrows engine and clock,
/// which must outlive it.
class SessionHost {
 public:
  /// \throws std::invalid_argument when `options` are not valid.
  SessionHost(engine::Engine& engine, ServerOptions options, const Clock& clock,
              EventSink on_event = {});
  ~SessionHost();
  SessionHost(const SessionHost&) = delete;
  SessionHost& operator=(const SessionHost&) = delete;

  /// Answers one request of the client that proved `client_key`. `arrived` is when it came in.
  [[nodiscard]] transport::Message handle(std::string_view client_key,
                                          const transport::Message& request,
                                          Clock::TimePoint arrived);

  /// The answer to a request for which there is no place in the queue.
  [[nodiscard]] static transport::Message busy(const transport::Message& request,
                                               std::chrono::milliseconds retry_after);

  /// Closes sessions that have been idle too long.
  void expire_idle();

  [[nodiscard]] size_t session_count() const { return sessions_.size(); }

 private:
  struct Session;
  struct Request;
  class Handler;

  engine::Engine& engine_;
  ServerOptions options_;
  const Clock& clock_;
  EventSink on_event_;
  /// A session is named by its client's key and the number the client drew.
  std::map<std::pair<std::string, uint64_t>, std::unique_ptr<Session>> sessions_;
};

}  // namespace isthmus::server

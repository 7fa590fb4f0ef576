// What a server tells its operator. Never holds prompts, outputs, activations or secret keys.
#pragma once

#include <isthmus/core/error.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace isthmus::server {

/// Something that happened to a client. The views are valid during the call.
struct Event {
  enum class Kind : uint8_t {
    kOpened,
    kRefused,  ///< an open, for `code`
    kClosed,
    kExpired,
    kBusy,    ///< told to come back later, for `detail`
    kFailed,  ///< any other request, for `code`
  };
  Kind kind = Kind::kFailed;
  ErrorCode code = ErrorCode::kInternal;  ///< of kRefused, kBusy and kFailed
  uint64_t session = 0;                   ///< 0 when there is none
  bool resumes = false;                   ///< kOpened: it goes on with a session that was lost
  std::string_view client;                ///< the client's public key, empty without encryption
  std::string_view detail;
};

/// One pass over the layers.
struct BatchReport {
  size_t steps = 0;  ///< of so many sessions
  size_t rows = 0;
  std::chrono::nanoseconds time{0};
};

/// One step that was answered.
struct StepReport {
  uint32_t rows = 0;
  bool token = false;  ///< a token was chosen
  std::chrono::nanoseconds queue{0};
  std::chrono::nanoseconds compute{0};
  std::chrono::nanoseconds codec{0};
  size_t bytes_up = 0;  ///< payload
  size_t bytes_down = 0;
};

/// What a server holds at one moment.
struct Load {
  int32_t sessions = 0;
  uint64_t kv_bytes = 0;  ///< keys and values that the sessions may grow to
  size_t waiting_steps = 0;
  int64_t waiting_rows = 0;
};

/// Called by the thread that runs the host, which waits meanwhile.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_event(const Event& /*event*/) {}
  virtual void on_batch(const BatchReport& /*report*/) {}
  virtual void on_step(const StepReport& /*report*/) {}
  /// Several times a second, also when nothing happens.
  virtual void on_load(const Load& /*load*/) {}
};

}  // namespace isthmus::server

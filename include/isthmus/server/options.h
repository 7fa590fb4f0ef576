// What a server allows, and what it tells its operator.
#pragma once

#include <isthmus/artefact/artefact.h>
#include <isthmus/codec/calibration.h>
#include <isthmus/core/error.h>
#include <isthmus/scheduler/admission.h>
#include <isthmus/scheduler/batch_scheduler.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::server {

/// Limits of a server; what a session is granted is never above them.
struct ServerOptions {
  scheduler::BatchOptions batch;  ///< rows of all sessions in one pass over the layers
  scheduler::Quotas quotas;       ///< of all clients together, and of one
  int32_t max_tokens = 4096;      ///< KV capacity of one session, at least 1
  int32_t max_step_tokens = 256;  ///< boundary rows in one step, in [1, 4096]
  int32_t max_in_flight = 8;      ///< steps of one session on their way at once, in [1, 64]
  /// Whether a client that finds the server full is told to come back (Busy) or refused.
  bool wait_when_full = false;
  std::chrono::seconds idle_timeout{600};  ///< a session unused for longer is closed
  std::chrono::seconds drain_timeout{30};  ///< for finishing what is queued when told to stop
  /// Those that clients' codecs may name.
  std::vector<std::shared_ptr<const codec::Calibration>> calibrations;
  /// The same for projections. A soft prompt that comes with one takes room beside a session's
  /// tokens. Of those with adapters there may be one; the engine must have been loaded from
  /// artefact::adapted_model, and only sessions whose codec names it are served.
  artefact::Artefacts artefacts;
  /// What was measured of this machine, as JSON, for clients that plan; may be empty.
  std::string profile;

  /// \returns kInvalidArgument naming the field and its value.
  [[nodiscard]] Status validate() const;
  /// The largest payload a client may send to a model of this hidden size.
  [[nodiscard]] size_t max_payload_bytes(size_t hidden_size) const;
};

}  // namespace isthmus::server

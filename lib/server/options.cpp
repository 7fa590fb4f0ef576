#include <isthmus/server/options.h>

#include <string>

namespace isthmus::server {
namespace {

// A step with its rows in float32 may not need more than this; it bounds what one client can make a
// server allocate.
constexpr int32_t kMaxStepTokens = 4096;
constexpr int32_t kMaxContext = 1 << 24;
constexpr int32_t kMaxInFlight = 64;

Status check_range(std::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return fail(ErrorCode::kInvalidArgument,
              "server: " + std::string(field) + " is " + std::to_string(value) + ", must be in [" +
                  std::to_string(low) + ", " + std::to_string(high) + "]");
}

}  // namespace

Status ServerOptions::validate() const {
  ISTHMUS_TRY(batch.validate());
  ISTHMUS_TRY(quotas.validate());
  ISTHMUS_TRY(check_range("max_tokens", max_tokens, 1, kMaxContext));
  ISTHMUS_TRY(check_range("max_step_tokens", max_step_tokens, 1, kMaxStepTokens));
  ISTHMUS_TRY(check_range("max_in_flight", max_in_flight, 1, kMaxInFlight));
  ISTHMUS_TRY(check_range("idle_timeout", idle_timeout.count(), 1, 1 << 30));
  ISTHMUS_TRY(artefact::find_adapted(artefacts));
  return check_range("drain_timeout", drain_timeout.count(), 0, 1 << 30);
}

size_t ServerOptions::max_payload_bytes(size_t hidden_size) const {
  // float32 is the widest format; a row scale fits into the slack of the narrower ones.
  return static_cast<size_t>(max_step_tokens) * hidden_size * sizeof(float);
}

}  // namespace isthmus::server

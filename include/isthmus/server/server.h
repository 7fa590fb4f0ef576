// The loop that ties a Listener to a SessionHost.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/server/session_host.h>
#include <isthmus/transport/channel.h>
#include <atomic>
#include <chrono>

namespace isthmus::server {

/// Takes in requests and computes for all of them together until `stop` is set (a signal handler
/// may set it), then drains the host: what is queued is finished and answered for at most
/// `drain_timeout`, everything new is refused. \returns the listener's error when it can no longer
/// receive.
[[nodiscard]] Status serve(transport::Listener& listener, SessionHost& host,
                           std::chrono::milliseconds drain_timeout, const Clock& clock,
                           const std::atomic<bool>& stop);

}  // namespace isthmus::server

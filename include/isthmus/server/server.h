// The loop that ties a Listener to a SessionHost.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/server/session_host.h>
#include <isthmus/transport/channel.h>
#include <atomic>

namespace isthmus::server {

/// Serves requests in the order of their arrival until `stop` is set (a signal handler may set it),
/// then answers what is queued and returns. At most `options.max_queue` requests wait; more are
/// answered Busy at once. \returns the listener's error when it can no longer receive.
[[nodiscard]] Status serve(transport::Listener& listener, SessionHost& host,
                           const ServerOptions& options, const Clock& clock,
                           const std::atomic<bool>& stop);

}  // namespace isthmus::server

// Questions about hosts as text.
#pragma once

#include <string>

namespace isthmus::transport {

[[nodiscard]] bool is_ipv4(const std::string& host);
[[nodiscard]] bool is_ipv6(const std::string& host);
[[nodiscard]] bool is_loopback(const std::string& host);

/// The host as it stands before a port: an IPv6 address in brackets.
[[nodiscard]] std::string bracketed(const std::string& host);

}  // namespace isthmus::transport

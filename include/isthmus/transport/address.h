// Connection strings: isthmus://host:port?key=<server's public key in Z85, percent-encoded where a
// URL needs it>
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>
#include <string>
#include <string_view>

namespace isthmus::transport {

/// Where a server is and which key proves that it is the right one.
struct ServerAddress {
  std::string host;  ///< name, IPv4, or IPv6 (brackets only in the text form)
  uint16_t port = 0;
  std::string
      public_key;  ///< Z85; empty: no encryption and no proof, refused unless the caller allows it

  /// \returns kInvalidArgument saying what is wrong with which part.
  [[nodiscard]] static Result<ServerAddress> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  [[nodiscard]] bool is_loopback() const;
  friend bool operator==(const ServerAddress&, const ServerAddress&) = default;
};

}  // namespace isthmus::transport

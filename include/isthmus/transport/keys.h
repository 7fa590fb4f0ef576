// CURVE keys, who may connect, and where both are kept.
//
// A key file holds two lines, the public and the secret key in Z85 (ZeroMQ RFC 32), and is readable
// by its owner only. An allow-list holds one public key a line, which a comment may follow; an
// empty line or one that starts with # is skipped.
#pragma once

#include <isthmus/core/error.h>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>

namespace isthmus::transport {

/// A Curve25519 key pair in Z85, 40 characters each.
struct KeyPair {
  std::string public_key;
  std::string secret_key;
};

/// A new key pair. \throws std::logic_error when libzmq was built without CURVE.
[[nodiscard]] KeyPair generate_keys();

/// Whether `text` is 40 characters of Z85.
[[nodiscard]] bool is_key(std::string_view text);

/// Reads the key file, or makes it (and its folders, for their owner alone) when it is not there.
/// Safe against two processes starting at once. \returns kIo, kCorrupt, kTooLarge, or
/// kInvalidArgument when others may use the file.
[[nodiscard]] Result<KeyPair> load_or_create_keys(const std::filesystem::path& file);

/// The public keys in an allow-list, each with its comment; an absent file is an empty list.
/// \returns kIo, kCorrupt naming the line, kTooLarge past 1 MiB.
[[nodiscard]] Result<std::map<std::string, std::string>> load_allow_list(
    const std::filesystem::path& file);

/// Adds a client's public key, with a comment, unless it is there. Safe against other processes
/// that enrol or read at the same time. \returns kInvalidArgument, kIo, kCorrupt, kTooLarge.
[[nodiscard]] Status enrol(const std::filesystem::path& file, std::string_view public_key,
                           std::string_view comment);

/// Where keys live unless told otherwise: $ISTHMUS_HOME, else $XDG_CONFIG_HOME/isthmus, else
/// ~/.config/isthmus.
struct KeyPaths {
  std::filesystem::path server_key;  ///< server.key
  std::filesystem::path client_key;  ///< client.key
  std::filesystem::path allow_list;  ///< allowed-clients

  [[nodiscard]] static KeyPaths in(const std::filesystem::path& folder);
  [[nodiscard]] static KeyPaths standard();
};

}  // namespace isthmus::transport

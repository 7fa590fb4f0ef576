// CURVE keys, who may connect, and where both are kept.
//
// A key file holds two lines, the public and the secret key in Z85 (ZeroMQ RFC 32), and is readable
// by its owner only. An allow-list holds one public key a line; an empty line or one that starts
// with # is skipped, and so is what follows a key.
#pragma once

#include <isthmus/core/error.h>
#include <filesystem>
#include <set>
#include <string>
#include <string_view>

namespace isthmus::transport {

/// A Curve25519 key pair in Z85, 40 characters each.
struct KeyPair {
  std::string public_key;
  std::string secret_key;
};

[[nodiscard]] KeyPair generate_keys();

/// Whether `text` is 40 characters of Z85.
[[nodiscard]] bool is_key(std::string_view text);

/// Reads the key file, or makes it (and its folders) when it is not there. Safe against two
/// processes starting at once. \returns kIo, kCorrupt, or kInvalidArgument when others may read the
/// file.
[[nodiscard]] Result<KeyPair> load_or_create_keys(const std::filesystem::path& file);

/// The public keys in an allow-list; an absent file is an empty list. \returns kIo, kCorrupt naming
/// the line.
[[nodiscard]] Result<std::set<std::string>> load_allow_list(const std::filesystem::path& file);

/// Adds a client's public key, with a comment, unless it is there. \returns kInvalidArgument, kIo,
/// kCorrupt.
[[nodiscard]] Status enrol(const std::filesystem::path& file, std::string_view public_key,
                           std::string_view comment);

/// Where keys live unless told otherwise: $ISTHMUS_HOME, else $XDG_CONFIG_HOME/isthmus, else
/// ~/.config/isthmus.
struct KeyPaths {
  std::filesystem::path server_key;
  std::filesystem::path client_key;
  std::filesystem::path allow_list;

  [[nodiscard]] static KeyPaths in(const std::filesystem::path& folder);
  [[nodiscard]] static KeyPaths standard();
};

}  // namespace isthmus::transport

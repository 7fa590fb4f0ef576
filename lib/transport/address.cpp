#include <arpa/inet.h>
#include <isthmus/transport/address.h>
#include <isthmus/transport/keys.h>

#include <algorithm>
#include <charconv>

#include "host.h"

namespace isthmus::transport {
namespace {

constexpr std::string_view kScheme = "isthmus://";
constexpr std::string_view kKeyParameter = "key=";
constexpr size_t kMaxHostLength = 253;  // RFC 1035, 2.3.4

tl::unexpected<Error> bad(std::string_view what) {
  return fail(ErrorCode::kInvalidArgument, "address: " + std::string(what));
}

// Not std::isalnum, which asks the locale.
bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// Splits "host:port" or "[ipv6]:port".
Result<std::pair<std::string, std::string_view>> split_host(std::string_view text) {
  if (!text.starts_with('[')) {
    const size_t colon = text.find(':');
    if (colon == std::string_view::npos) return bad("the port is missing");
    return std::pair(std::string(text.substr(0, colon)), text.substr(colon + 1));
  }
  const size_t bracket = text.find("]:");
  if (bracket == std::string_view::npos) return bad("']' and a port must follow '['");
  const std::string host(text.substr(1, bracket - 1));
  if (!is_ipv6(host)) return bad("'" + host + "' is not an ipv6 address");
  return std::pair(host, text.substr(bracket + 2));
}

Status check_host(const std::string& host) {
  if (host.empty()) return bad("the host is empty");
  if (is_ipv6(host)) return {};
  const bool plausible =
      host.size() <= kMaxHostLength && std::all_of(host.begin(), host.end(), [](char c) {
        return is_alphanumeric(c) || c == '.' || c == '-' || c == '_';
      });
  if (!plausible) return bad("'" + host + "' is not a host name");
  return {};
}

Result<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) {
    return bad("port '" + std::string(text) + "' is not in 1 to 65535");
  }
  return port;
}

Result<std::string> percent_decode(std::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      decoded += text[i];
      continue;
    }
    unsigned value = 0;
    const char* digits = text.data() + i + 1;
    if (text.size() - i < 3 || std::from_chars(digits, digits + 2, value, 16).ptr != digits + 2) {
      return bad("two hexadecimal digits must follow '%' in the key");
    }
    decoded += static_cast<char>(value);
    i += 2;
  }
  return decoded;
}

/// All but RFC 3986's unreserved characters, so that a string survives any URL parser.
std::string percent_encode(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : text) {
    if (is_alphanumeric(c) || c == '-' || c == '.' || c == '_' || c == '~') {
      encoded += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded += {'%', kHex[byte >> 4U], kHex[byte & 15U]};
    }
  }
  return encoded;
}

Result<std::string> parse_query(std::string_view query) {
  if (!query.starts_with(kKeyParameter)) return bad("'key=' must follow '?'");
  ISTHMUS_ASSIGN(std::string key, percent_decode(query.substr(kKeyParameter.size())));
  if (!is_key(key)) return bad("the key is not 40 characters of z85");
  return key;
}

}  // namespace

bool is_ipv4(const std::string& host) {
  in_addr address{};
  return inet_pton(AF_INET, host.c_str(), &address) == 1;
}

bool is_ipv6(const std::string& host) {
  in6_addr address{};
  return inet_pton(AF_INET6, host.c_str(), &address) == 1;
}

bool is_loopback(const std::string& host) {
  if (host == "localhost") return true;
  if (is_ipv4(host)) return host.starts_with("127.");
  in6_addr address{};
  return inet_pton(AF_INET6, host.c_str(), &address) == 1 && IN6_IS_ADDR_LOOPBACK(&address);
}

std::string bracketed(const std::string& host) {
  return is_ipv6(host) ? '[' + host + ']' : host;
}

Result<ServerAddress> ServerAddress::parse(std::string_view text) {
  if (!text.starts_with(kScheme)) return bad("it must start with isthmus://");
  text.remove_prefix(kScheme.size());
  const size_t question = text.find('?');
  ISTHMUS_ASSIGN(auto parts, split_host(text.substr(0, question)));
  ServerAddress address;
  address.host = std::move(parts.first);
  ISTHMUS_TRY(check_host(address.host));
  ISTHMUS_ASSIGN(address.port, parse_port(parts.second));
  if (question != std::string_view::npos) {
    ISTHMUS_ASSIGN(address.public_key, parse_query(text.substr(question + 1)));
  }
  return address;
}

std::string ServerAddress::to_string() const {
  std::string text = std::string(kScheme) + bracketed(host) + ':' + std::to_string(port);
  if (!public_key.empty()) text += "?key=" + percent_encode(public_key);
  return text;
}

bool ServerAddress::is_loopback() const {
  return transport::is_loopback(host);
}

}  // namespace isthmus::transport

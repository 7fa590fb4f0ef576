#include <isthmus/transport/address.h>
#include <isthmus/transport/keys.h>

#include "support/catch.h"

namespace isthmus::transport {
namespace {

using test::value_of;

// Every character of Z85 that a URL gives a meaning to.
const std::string kAwkwardKey = "0123.-:+=^!/*?&<>()[]{}@%a$#bcdefghijklm";

TEST_CASE("an address survives its text form, whatever the key holds", "[transport][address]") {
  const auto host = GENERATE("localhost", "10.0.0.7", "::1", "2001:db8::42", "node-3.lan");
  const auto key = GENERATE_COPY(std::string(), kAwkwardKey, generate_keys().public_key);
  const ServerAddress address{host, 5555, key};
  CAPTURE(address.to_string());
  CHECK(value_of(ServerAddress::parse(address.to_string())) == address);
}

TEST_CASE("a key is written with unreserved characters and escapes only", "[transport][address]") {
  const std::string text = ServerAddress{"h", 1, kAwkwardKey}.to_string();
  CHECK(text ==
        "isthmus://h:1?key=0123.-%3A%2B%3D%5E%21%2F%2A%3F%26%3C%3E%28%29%5B%5D%7B%7D%40%25a%24%23"
        "bcdefghijklm");
}

TEST_CASE("a key may be given with no more escapes than needed", "[transport][address]") {
  std::string raw = kAwkwardKey;
  raw.replace(raw.find('%'), 1, "%25");
  CHECK(value_of(ServerAddress::parse("isthmus://h:1?key=" + raw)).public_key == kAwkwardKey);
}

TEST_CASE("an address that is wrong anywhere is refused", "[transport][address]") {
  const auto text = GENERATE(
      "", "isthmus:", "tcp://h:1", "ISTHMUS://h:1", "isthmus://", "isthmus://h", "isthmus://:1",
      "isthmus://h:", "isthmus://h:0", "isthmus://h:65536", "isthmus://h:-1", "isthmus://h:1x",
      "isthmus://h:1/", "isthmus://h h:1", "isthmus://h/x:1", "isthmus://::1:1", "isthmus://[::1]",
      "isthmus://[::1:1", "isthmus://[h]:1", "isthmus://[127.0.0.1]:1", "isthmus://h:1?",
      "isthmus://h:1?key", "isthmus://h:1?key=", "isthmus://h:1?key=short",
      "isthmus://h:1?kex=0123456789012345678901234567890123456789",
      "isthmus://h:1?key=0123456789012345678901234567890123456789&x=1",
      "isthmus://h:1?key=01234567890123456789012345678901234567%",
      "isthmus://h:1?key=01234567890123456789012345678901234567%4",
      "isthmus://h:1?key=012345678901234567890123456789012345678%zz",
      "isthmus://h:1?key=012345678901234567890123456789012345678~");
  CAPTURE(text);
  CHECK_FAILS_WITH(ServerAddress::parse(text), ErrorCode::kInvalidArgument);
}

TEST_CASE("loopback is told from everything else", "[transport][address]") {
  const auto [host, loopback] = GENERATE(table<const char*, bool>({{"localhost", true},
                                                                   {"127.0.0.1", true},
                                                                   {"127.8.9.1", true},
                                                                   {"::1", true},
                                                                   {"0:0::1", true},
                                                                   {"*", false},
                                                                   {"0.0.0.0", false},
                                                                   {"::", false},
                                                                   {"10.127.0.1", false},
                                                                   {"127.evil.example", false},
                                                                   {"::ffff:127.0.0.1", false},
                                                                   {"", false}}));
  CAPTURE(host);
  CHECK(ServerAddress{host, 1, ""}.is_loopback() == loopback);
}

}  // namespace
}  // namespace isthmus::transport

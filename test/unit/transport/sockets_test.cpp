// Messages that there is no memory for.
#include "sockets.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "peers.h"

// A sanitizer's address space is not ours to limit.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace isthmus::transport {
namespace {

using test::value_of;

constexpr size_t kLarge = 256UL << 20U;

/// While one lives, this process may map half of kLarge more than it has.
class ScarceMemory {
 public:
  ScarceMemory() {
    size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    REQUIRE(::getrlimit(RLIMIT_AS, &before_) == 0);
    rlimit limit = before_;
    limit.rlim_cur = pages * static_cast<size_t>(::getpagesize()) + kLarge / 2;
    REQUIRE(::setrlimit(RLIMIT_AS, &limit) == 0);
  }
  ~ScarceMemory() { ::setrlimit(RLIMIT_AS, &before_); }
  ScarceMemory(const ScarceMemory&) = delete;
  ScarceMemory& operator=(const ScarceMemory&) = delete;

 private:
  rlimit before_{};
};

TEST_CASE("of a message that cannot be copied to be sent nothing goes out", "[transport][memory]") {
  Listener listener = value_of(Listener::bind(open_listener()));
  Channel ada = connected(client_of(listener.address()));
  Channel bob = connected(client_of(listener.address()));
  value_of(ada.send(message_of("ada")));
  const Peer to_ada = received(listener).from;
  value_of(bob.send(message_of("bob")));
  const Peer to_bob = received(listener).from;
  const Message large{bytes_of("large"), std::vector<std::byte>(kLarge)};
  {
    const ScarceMemory scarce;
    CHECK_FAILS_WITH(listener.send(to_ada, large), ErrorCode::kOutOfMemory);
    CHECK_FAILS_WITH(ada.send(large), ErrorCode::kOutOfMemory);
  }
  value_of(listener.send(to_bob, message_of("for bob")));
  CHECK(text_of(received(bob).envelope) == "for bob");
  value_of(listener.send(to_ada, message_of("for ada")));
  CHECK(text_of(received(ada).envelope) == "for ada");
  value_of(ada.send(message_of("small")));
  CHECK(text_of(received(listener).message.envelope) == "small");
}

TEST_CASE("a message that cannot be copied when it has come is taken whole",
          "[transport][memory]") {
  zmq::context_t context;
  zmq::socket_t here(context, zmq::socket_type::pair);
  zmq::socket_t there(context, zmq::socket_type::pair);
  here.bind("inproc://pair");
  there.connect("inproc://pair");
  there.send(zmq::str_buffer("large"), zmq::send_flags::sndmore);
  there.send(zmq::message_t(kLarge), zmq::send_flags::none);
  there.send(zmq::str_buffer("small"), zmq::send_flags::none);
  {
    const ScarceMemory scarce;
    const auto large = take_message(here, kLarge);
    REQUIRE(large.has_value());
    CHECK_FAILS_WITH(large->message, ErrorCode::kOutOfMemory);
    CHECK(large->count == 2);
    CHECK(large->bytes == kLarge + 5);
  }
  const auto small = take_message(here, kLarge);
  REQUIRE(small.has_value());
  CHECK(text_of(value_of(Result<Message>(small->message)).envelope) == "small");
}

}  // namespace
}  // namespace isthmus::transport

#endif

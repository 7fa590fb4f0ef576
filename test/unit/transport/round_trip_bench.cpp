// Round-trip times over loopback. Hidden: test_transport "[bench]" runs it. Not a test of speed,
// only of the answers.
#include <algorithm>
#include <cstdio>

#include "peers.h"

namespace isthmus::transport {
namespace {

TEST_CASE("round trips over loopback, client and server each on a thread", "[.bench]") {
  using Microseconds = std::chrono::duration<double, std::micro>;
  const bool encrypted = GENERATE(true, false);
  EchoServer server(open_listener(encrypted));
  Channel channel = connected(client_of(server.address()));
  for (const size_t size : {64UL, 2048UL, 65'536UL, 1UL << 20U}) {
    const Message message{noise(60), noise(size)};
    std::vector<double> times(size > 100'000 ? 100 : 2000);
    for (double& time : times) {
      const auto begin = std::chrono::steady_clock::now();
      test::value_of(channel.send(message));
      REQUIRE(received(channel).payload == message.payload);
      time = Microseconds(std::chrono::steady_clock::now() - begin).count();
    }
    std::sort(times.begin(), times.end());
    const auto at = [&](double quantile) {
      return times[static_cast<size_t>(quantile * static_cast<double>(times.size() - 1))];
    };
    std::printf("%-10s %8zu bytes each way: median %7.0f us, 10 %% to 90 %%: %7.0f to %7.0f us\n",
                encrypted ? "curve" : "plaintext", size, at(0.5), at(0.1), at(0.9));
  }
}

}  // namespace
}  // namespace isthmus::transport
